"""The search for secrets finds them in every form that it names, whole and in part, and nothing else."""

from __future__ import annotations

import base64
import os

import pytest

from strongroom_testing import traces

SECRET = os.urandom(32)
WRITTEN = {
    "raw": lambda data: data,
    "hex": lambda data: data.hex().encode(),
    "HEX": lambda data: data.hex().upper().encode(),
    "base64": base64.b64encode,
    "base64url": base64.urlsafe_b64encode,
}


@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN)
@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("after", range(4))
def test_it_finds_a_secret_in_every_form_and_place(write, before, after):
    stream = write(os.urandom(before) + SECRET + os.urandom(after))
    assert traces.shown({"key": SECRET}, {"file": b"so: " + stream + b"."}) == ["key in file"]


@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN)
@pytest.mark.parametrize("start", range(len(SECRET) - 14))
def test_it_finds_any_fifteen_bytes_in_a_row(write, start):
    stream = write(b"??" + SECRET[start : start + 15] + b"!")
    assert traces.shown({"key": SECRET}, {"file": stream}) == ["key in file"]


@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN)
@pytest.mark.parametrize("before", range(3))
def test_a_short_secret_is_found_as_a_whole_and_not_by_its_words(write, before):
    stream = write(bytes(before) + b"correct horse" + b"!")
    assert traces.shown({"word": b"correct horse"}, {"file": stream}) == ["word in file"]
    assert traces.shown({"word": b"correct horse"}, {"file": b"that is correct and no horse"}) == []


def test_it_finds_nothing_where_nothing_is():
    places = {"file": os.urandom(100_000), "text": base64.b64encode(os.urandom(100_000))}
    assert traces.shown({"key": SECRET, "word": b"correct horse"}, places) == []
    with pytest.raises(ValueError, match="too short"):
        traces.shown({"pin": b"1234"}, places)
