"""Any program file and any compose file: an answer, or Malformed or Refused, and never anything else."""

from __future__ import annotations

import json

import yaml
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from strongroom.errors import Malformed, Refused
from strongroom.images.compose import document, keys, strict_yaml
from strongroom.images.preflight import elf
from strongroom.images.preflight.findings import Finding
from tests.effort import examples
from tests.unit.images.elf_kit import program

SLOW = examples(200, suppress_health_check=[HealthCheck.too_slow])
NAMES = st.binary(min_size=1, max_size=20)
PROGRAMS = st.builds(
    program,
    machine=st.sampled_from([62, 62, 62, 3, 183]),
    interpreter=NAMES,
    needed=st.lists(NAMES, max_size=4).map(tuple),
    runpath=st.binary(max_size=20),
    level=st.integers(0, 4),
    property_size=st.sampled_from([4, 4, 0, 8, 1 << 31]),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(PROGRAMS))
    for _ in range(draw(st.integers(0, 6))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.sampled_from([0, 1, 0x7F, 0xFF]))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


@SLOW
@given(st.one_of(PROGRAMS, damaged(), st.binary(max_size=300)))
def test_any_program_file(data):
    asked = []

    def read_at(offset: int, count: int) -> bytes:
        asked.append(count)
        return data[offset : offset + count]

    try:
        found = elf.parse(read_at, len(data), what="it")
    except Malformed:
        found = None
    assert found is None or found.bits in (32, 64)
    assert max(asked, default=0) <= max(elf.MAX_DYNAMIC, elf.MAX_NOTES)


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-99, 10**9), st.text(max_size=12),
    st.sampled_from(["yes", "${A}", "$$", "a:b:c", "/x:/y", "0755", "1.5", "~", "<<", "&a", "*a", "! x"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(min_size=1, max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [
        *keys._KEYS,
        "image",
        "command",
        "entrypoint",
        "environment",
        "user",
        "working_dir",
        "x-a",
        "odd",
    ]
)
SERVICES = st.dictionaries(KEYS, VALUES, max_size=5)


@SLOW
@given(
    SERVICES,
    st.dictionaries(
        st.sampled_from(["networks", "volumes", "secrets", "name", "include", "odd"]), VALUES, max_size=2
    ),
)
def test_any_compose_file_of_sound_yaml(service, top):
    data = json.dumps({"services": {"a": service}, **top}).encode()
    try:
        found = document.parse(data, what="f")
    except (Malformed, Refused):
        return
    assert all(isinstance(one, Finding) for one in found.findings)
    for key, value in service.items():
        quiet = value is None or value is False or value in ({}, [], "") or key.startswith("x-")
        told = any(f"services.a.{key}" in one.where for one in found.findings)
        setting = key in ("image", "command", "entrypoint", "environment", "user", "working_dir")
        assert told or setting or quiet, (key, value)  # nothing is dropped in silence


TEXTS = st.one_of(
    st.text(max_size=80),
    st.lists(
        st.sampled_from(
            [*"[]{},:-?&*!|>'\"%@`#\n ", "a", "b: ", "- ", "<<: ", "---\n", "...\n", "\t", "yes", "0x1", "? "]
        ),
        max_size=30,
    ).map("".join),
)


@SLOW
@given(st.one_of(TEXTS.map(str.encode), st.binary(max_size=60)))
def test_any_text_is_read_as_another_parser_reads_it_or_not_at_all(data):
    try:
        ours = strict_yaml.read(data, what="f")
    except Malformed:
        return
    assert bool(ours.flaws) or strict_yaml.clear(ours.value)
    if not ours.flaws:
        assert ours.value == yaml.safe_load(data.decode())
