"""The verbs that take images take the options of registries from one place."""

from __future__ import annotations

import inspect
from pathlib import Path

from strongroom.cli.images import convert, dryrun, preflight, registry_options
from strongroom.cli.images.registry_options import Registries

NAMES = ["mirror", "credentials", "credentials_fd", "registry_ca", "plain_http"]


def test_every_verb_that_takes_an_image_has_the_same_options_of_registries():
    for verb in (convert.convert, preflight.preflight, dryrun.try_image):
        parameters = list(inspect.signature(verb).parameters)
        at = parameters.index("mirror")
        assert parameters[at : at + len(NAMES)] == NAMES
        assert "registries" not in parameters


def test_what_is_given_for_them_reaches_the_verb_as_one_value():
    seen = []

    @registry_options.taking
    def verb(image: str, registries: Registries = Registries()) -> None:  # noqa: B008 - frozen
        seen.append((image, registries))

    verb(
        image="x",
        mirror=["m:1"],
        credentials=Path("c"),
        credentials_fd=3,
        registry_ca=Path("ca"),
        plain_http=True,
    )
    assert seen == [
        (
            "x",
            Registries(
                mirrors=["m:1"], credentials=Path("c"), credentials_fd=3, ca=Path("ca"), plain_http=True
            ),
        )
    ]
