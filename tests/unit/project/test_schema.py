"""The schema for editors and the parser accept the same (both come of one table; a test holds them together)."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.images.compose import strict_yaml
from strongroom.images.compose.place import ComposePlace
from strongroom.project import extension, schema
from strongroom.project.shapes import Choice, Flag, KeyedObject, ListOf, MapOf, Number, Text
from tests.effort import examples

_JUNK = st.sampled_from([None, True, 0, -1, 70_000, "", "x" * 500, "A B", "\n", [], {}, [1], {"a": 1}, 1.5])


def place() -> ComposePlace:
    return ComposePlace(
        document=strict_yaml.YamlDocument(value=None, flaws=(), lines={}), path=(extension.EXTENSION,)
    )


def values(shape):
    """Values that fit, mostly."""
    match shape:
        case Text():
            return st.one_of(
                st.from_regex(f"^(?:{shape.pattern})\\Z").filter(lambda text: len(text) <= shape.most),
                st.sampled_from(["a", "/out", "db:5432", "snp=01", "room.example.org", "Ä", "a\n"]),
            )
        case Choice():
            return st.sampled_from([*shape.words, "other"])
        case Number():
            return st.integers(shape.low - 1, shape.high + 1)
        case Flag():
            return st.booleans()
        case ListOf():
            return st.lists(values(shape.item) | _JUNK, max_size=3)
        case MapOf():
            return st.dictionaries(values(shape.key), values(shape.item), max_size=3)
        case KeyedObject():
            optional = {name: values(key.shape) | _JUNK for name, key in shape.keys.items()}
            return st.fixed_dictionaries({}, optional={**optional, "strange": st.just(1)})
    raise AssertionError(shape)


@pytest.mark.parametrize("shape", [extension.PROJECT, extension.SERVICE], ids=["project", "service"])
def test_what_the_schema_accepts_the_parser_accepts_and_no_more(shape):
    validator = jsonschema.Draft202012Validator(shape.schema())

    @examples(400)
    @given(values(shape))
    def same(value):
        problems = []
        shape.read(value, place(), problems)
        assert validator.is_valid(value) == (not problems), (value, problems)

    same()


def test_it_is_a_schema_and_describes_every_key():
    document = schema.schema()
    jsonschema.Draft202012Validator.check_schema(document)
    for keys in (extension.PROJECT, extension.SERVICE):
        assert all(key.about.endswith((".", ")")) for key in keys.keys.values())
    jsonschema.validate({"services": {"web": {"image": "a", "x-strongroom": {"open": [443]}}}}, document)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"services": {"web": {"x-strongroom": {"opened": [443]}}}}, document)


def test_the_printed_schema_is_the_one_in_the_documents():
    kept = Path(__file__).parents[3] / "docs/compose.schema.json"
    assert json.loads(kept.read_text()) == schema.schema(), (
        "strongroom init --schema >docs/compose.schema.json"
    )
