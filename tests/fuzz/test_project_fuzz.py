"""Any Compose file of several services: a project with its findings, or Malformed, and never anything else."""

from __future__ import annotations

import json

import yaml
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from strongroom.errors import Malformed, Refused
from strongroom.images.compose import keys
from strongroom.project import extension, file
from strongroom.project.compose_keys import ServiceKeys
from tests.effort import examples

SLOW = examples(200, suppress_health_check=[HealthCheck.too_slow])
OWN = sorted(ServiceKeys()._rules)
WORDS = st.sampled_from(
    ["", "a", "no", "1", "80:80", "127.0.0.1:1:2", "512m", "1.5", "db", "web", "always", "/out", "<<", "\x00", "💥", "&a", "*a"]
)  # fmt: skip
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-5, 70_000), st.floats(), WORDS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                [*extension.SERVICE.keys, *extension.PROJECT.keys, "condition", "target", "published", "limits", "memory", "cpus", "resources", "restart_policy", "web", "db"]
            ),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=8,
)  # fmt: skip
SERVICES = st.dictionaries(
    st.sampled_from(["web", "db", "Web", "a b"]),
    st.one_of(
        VALUES,
        st.dictionaries(st.sampled_from([*OWN, *OWN, *keys._KEYS, *keys.SETTINGS, "x-strongroom"]), VALUES, max_size=6),
    ),
    max_size=3,
)  # fmt: skip
FILES = st.fixed_dictionaries({"services": SERVICES}, optional={"name": SCALARS, "x-strongroom": VALUES})


def read(data: bytes) -> None:
    try:
        project = file.parse(data, what="fuzz")
    except Malformed:
        return
    for finding in project.findings:
        assert finding.line >= 1
        json.dumps(finding.to_json())
    try:
        file.refuse_blocked(project)
    except Refused:
        return
    # What passes is whole: every name and number that it has means something.
    known = {service.name: service for service in project.services}
    for service in project.services:
        assert bool(service.wall_seconds) != bool(service.renewal_seconds)
        assert {peer.service for peer in service.peers} <= known.keys()
        assert set(service.depends_on) <= known.keys()
        assert set(service.datasets) <= project.datasets.keys()


@SLOW
@given(FILES)
def test_any_services(document):
    read(yaml.safe_dump(document, allow_unicode=True).encode())


@SLOW
@given(st.binary(max_size=300))
def test_any_bytes(data):
    read(data)


@SLOW
@given(FILES, st.data())
def test_damaged_files(document, data):
    text = bytearray(yaml.safe_dump(document).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(
            st.sampled_from(b"\x00 \n:-[]{}&*!%@`\"'#|>0aZ\xff")
        )
    read(bytes(text))
