"""The contract's parser: strict, and nothing that is missing or empty means yes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.errors import Malformed
from strongroom.model import contract, drafting
from tests import samples


def document():
    return json.loads(samples.a_contract().raw)


def parse(value):
    return contract.parse(json.dumps(value).encode())


def test_what_was_written_is_what_is_read():
    one = samples.a_contract()
    assert drafting.encode(one) == one.raw
    assert contract.parse(one.raw) == one


def test_digest_is_over_the_exact_bytes():
    one = samples.a_contract()
    spaced = contract.parse(one.raw + b"\n ")
    assert spaced.digest != one.digest
    assert spaced.limits == one.limits


def places(value, at=()):
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*at, key)
            yield from places(item, (*at, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*at, index))


def at(value, path):
    for step in path:
        value = value[step]
    return value


@pytest.mark.parametrize("path", list(places(document())), ids=str)
def test_rule_34_a_missing_key_is_refused(path):
    value = document()
    parent = at(value, path[:-1])
    del parent[path[-1]]
    if "references" in path and len(path) > path.index("references") + 2:
        # A register less is a laxer reference: it parses, and says so by another digest.
        assert parse(value).digest != samples.a_contract().digest
        return
    with pytest.raises(Malformed):
        parse(value)


def test_rule_34_an_unknown_key_is_refused_at_every_level():
    def objects(value, path=()):
        if isinstance(value, dict):
            yield path
            for key, item in value.items():
                yield from objects(item, (*path, key))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                yield from objects(item, (*path, index))

    for path in objects(document()):
        value = document()
        at(value, path)["memory_gard"] = True
        if "references" in path or "environment" in path:
            with pytest.raises(Malformed):
                parse(value)  # values of these maps are texts
            continue
        with pytest.raises(Malformed, match="unknown key"):
            parse(value)


def test_rule_16_a_duplicate_key_is_refused():
    text = samples.a_contract().raw.decode()
    doubled = text.replace('"version":1', '"version":1,"version":2', 1)
    with pytest.raises(Malformed, match="duplicate"):
        contract.parse(doubled.encode())


def change(path, to):
    value = document()
    at(value, path[:-1])[path[-1]] = to
    return value


@pytest.mark.parametrize(
    ("path", "to"),
    [
        (("platforms",), []),
        (("platforms", 0, "roots"), []),
        (("platforms", 0, "machines"), []),
        (("platforms", 0, "references"), []),
        (("platforms", 0, "references"), [{}]),
        (("outputs", 0, "recipients"), []),
        (("outputs", 0, "recipients"), ["mallory"]),
        (("outputs", 0, "path"), "/out/../etc"),
        (("outputs", 0, "path"), "/tmp"),
        (("outputs", 0, "path"), "/out/"),
        (("approvals", "parties"), []),
        (("approvals", "parties"), ["bob"]),
        (("approvals", "parties"), ["alice", "bob", "bob"]),
        (("approvals", "threshold"), 3),
        (("approvals", "threshold"), 0),
        (("limits", "runs"), 0),
        (("limits", "runs"), True),
        (("limits", "runs"), 1.0),
        (("limits", "not_after"), "2020-01-01T00:00:00Z"),
        (("limits", "not_after"), "2027-02-30T00:00:00Z"),
        (("limits", "not_after"), "2027-02-20T00:00:00+01:00"),
        (("network", "egress"), ["example.com:443"]),
        (("certificate", "names"), []),
        (("certificate", "names"), ["*.example"]),
        (("certificate", "names"), ["Room.Example"]),
        (("version",), 2),
        (("replaces",), samples.DIGEST),
        (("image", "owner"), "mallory"),
        (("image", "manifest"), "latest"),
        (("image", "manifest"), "SHA256:" + "AB" * 32),
        (("image", "environment"), {"A=B": "c"}),
        (("parties", 1, "role"), "operator"),
        (("parties", 0, "broker", "url"), "http://127.0.0.1:8443"),
        (("parties", 0, "broker", "url"), "https://127.0.0.1"),
        (("parties", 0, "broker", "url"), "https://127.0.0.1:99999"),
        (("parties", 0, "broker", "url"), "https://a@127.0.0.1:1"),
        (("parties", 0, "name"), "Alice"),
        (("parties", 0, "name"), "\u0430lice"),
        (("parties", 0, "signing_key"), "AAAA"),
        (("id",), "../x"),
        (("format",), "strongroom-contract/2"),
    ],
)
def test_rule_34_laxer_or_stranger_values_are_refused(path, to):
    with pytest.raises(Malformed):
        parse(change(path, to))


def test_one_person_cannot_be_two_parties():
    value = document()
    value["parties"][1]["signing_key"] = value["parties"][0]["signing_key"]
    with pytest.raises(Malformed, match="twice"):
        parse(value)


def test_nested_outputs_are_refused():
    value = document()
    value["outputs"].append({**value["outputs"][0], "path": "/out/more"})
    with pytest.raises(Malformed):
        parse(value)


def test_differences_name_the_place():
    old = samples.a_contract()
    new = samples.a_contract(
        image=contract.Image(owner="bob", manifest=samples.DIGEST, arguments=("-x",), environment={})
    )
    places = {place for place, _, _ in drafting.differences(old.raw, new.raw)}
    assert places == {"image.manifest", "image.arguments", "image.arguments[0]"}


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_parse_or_are_malformed(data):
    with pytest.raises(Malformed):
        contract.parse(data)


@settings(max_examples=400, deadline=None)
@given(st.integers(0, len(samples.a_contract().raw) - 1), st.integers(1, 255))
def test_any_flipped_byte_changes_the_digest_or_is_refused(position, flip):
    one = samples.a_contract()
    raw = bytearray(one.raw)
    raw[position] ^= flip
    try:
        assert contract.parse(bytes(raw)).digest != one.digest
    except Malformed:
        pass
