"""The contract's parser: strict, and nothing that is missing or empty means yes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import Malformed
from strongroom.model.contracts import contract, drafting, room_terms
from tests import samples
from tests.effort import examples


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
    with pytest.raises(Malformed, match=f"key '{path[-1]}' is missing"):
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
            with pytest.raises(Malformed, match="expected text of"):
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


NO_PARTY = "no party is called 'mallory'"
OUT = r"outputs\[0\].path: expected /out, or /out/ and a name"
NAMES = r"certificate.names\[0\]: expected a DNS name of two labels"
URL = "broker.url: expected https://HOST:PORT"
DIGEST = "image.manifest: expected sha256: and 64"


@pytest.mark.parametrize(
    ("path", "to", "why"),
    [
        (("platforms",), [], "platforms: empty, so no room may run it"),
        (("platforms", 0, "roots"), [], "roots: empty, which no room could meet"),
        (("platforms", 0, "machines"), [], "machines: empty, which no room could meet"),
        (("platforms", 0, "references"), [], "references: empty, which no room could meet"),
        (("platforms", 0, "references"), [{}], "an empty reference would accept anything"),
        (("rooms", 0, "outputs", 0, "recipients"), [], "an output needs at least one recipient"),
        (("rooms", 0, "outputs", 0, "recipients"), ["mallory"], NO_PARTY),
        (("rooms", 0, "outputs", 0, "path"), "/out/../etc", OUT),
        (("rooms", 0, "outputs", 0, "path"), "/tmp", OUT),
        (("rooms", 0, "outputs", 0, "path"), "/out/", OUT),
        (("rooms", 0, "outputs", 0, "max_bytes"), 0, "max_bytes: expected an integer from 1"),
        (("rooms", 0, "outputs", 0, "max_bytes"), (1 << 40) + 1, "max_bytes: expected an integer from 1"),
        (("rooms", 0, "logs"), {"recipients": [], "max_bytes": 1}, "logs need at least one recipient"),
        (("rooms", 0, "logs"), {"recipients": ["mallory"], "max_bytes": 1}, NO_PARTY),
        (
            ("rooms", 0, "logs"),
            {"recipients": ["bob"], "max_bytes": 0},
            "logs.max_bytes: expected an integer from 1",
        ),
        (
            ("approvals",),
            {"parties": [], "threshold": 1},
            "threshold: expected at most 0, as many as approve, got 1",
        ),
        (("approvals",), {"parties": ["alice"], "threshold": 1}, "the owner 'bob' is missing"),
        (("approvals",), {"parties": ["bob"], "threshold": 1}, "the owner 'alice' is missing"),
        (("approvals", "parties"), ["alice", "bob", "mallory"], NO_PARTY),
        (("approvals", "parties"), ["alice", "bob", "bob"], "approvals.parties: name 'bob' appears twice"),
        (("approvals", "threshold"), 3, "threshold: expected at most 2, as many as approve, got 3"),
        (("approvals", "threshold"), 0, "threshold: expected an integer from 1"),
        (("limits", "runs"), 0, "runs: expected an integer from 1"),
        (("limits", "runs"), True, "runs: expected an integer from 1"),
        (("limits", "runs"), 1.0, "not an integer"),
        (("rooms", 0, "wall_seconds"), 0, "wall_seconds: expected an integer from 1"),
        (("rooms", 0, "memory_mib"), 255, "memory_mib: expected an integer from 256"),
        (("limits", "not_after"), "2020-01-01T00:00:00Z", "not_after: expected a time after not_before"),
        (
            ("limits", "not_after"),
            document()["limits"]["not_before"],
            "not_after: expected a time after not_before",
        ),
        (("limits", "not_after"), "2027-02-30T00:00:00Z", "not_after: expected a date and time that exist"),
        (
            ("limits", "not_after"),
            "2027-02-20T00:00:00+01:00",
            "not_after: expected a UTC time like .*, got '",
        ),
        (("limits", "not_after"), "2027-02-20 00:00:00Z", "not_after: expected a UTC time like .*, got '"),
        (("disclosure",), None, "disclosure: expected an object"),
        (
            ("disclosure", "output_sizes"),
            "round",
            "output_sizes: expected one of exact, power-of-two, got 'round'",
        ),
        (("disclosure", "output_sizes"), None, "output_sizes: expected one of exact, power-of-two, got null"),
        (
            ("disclosure", "exit_status"),
            "zero",
            "exit_status: expected one of exact, zero-or-one, got 'zero'",
        ),
        (("receipts",), None, "receipts: expected an object"),
        (("receipts", "wait_seconds"), -1, "wait_seconds: expected an integer from 0"),
        (("receipts", "wait_seconds"), 86_401, "wait_seconds: expected an integer from 0"),
        (("receipts", "wait_seconds"), 1.5, "not an integer"),
        (("limits", "not_after"), "9000-01-01T00:00:00Z", "not_after: expected a time in the years"),
        (("rooms", 0, "egress"), ["example.com:443"], "expected an object, got text of 15"),
        (("rooms", 0, "peers"), ["flights"], "expected an object, got text of 7"),
        (("rooms", 0, "ports"), ["web"], "expected an object, got text of 3"),
        (("rooms",), [], "rooms: empty, so there is nothing to run"),
        (("rooms",), [{}] * 17, "rooms: expected a list of at most 16"),
        (("rooms", 0, "certificate", "names"), [], "a certificate needs at least one name"),
        (("rooms", 0, "certificate", "names"), ["*.example"], NAMES),
        (("rooms", 0, "certificate", "names"), ["Room.Example"], NAMES),
        *(
            (("rooms", 0, many), [{}] * 65, f"{many}: expected a list of at most 64")
            for many in ("datasets", "outputs")
        ),
        (("platforms",), [{}] * 17, "platforms: expected a list of at most 16"),
        (("parties",), [{}] * 33, "parties: expected a list of at most 32"),
        (
            ("rooms", 0, "certificate", "names"),
            [".".join(["a" * 63] * 3 + ["b" * 62])],
            "expected a DNS name of two labels or more",
        ),
        (
            ("rooms", 0, "certificate", "lifetime_seconds"),
            59,
            "lifetime_seconds: expected an integer from 60",
        ),
        (
            ("rooms", 0, "certificate", "lifetime_seconds"),
            86_401,
            "lifetime_seconds: expected an integer from 60",
        ),
        (("version",), 2, "replaces: expected the digest of the version before, got null"),
        (("version",), 0, "version: expected an integer from 1"),
        (("replaces",), samples.DIGEST, "replaces: expected null in version 1, got sha256:"),
        (("rooms", 0, "image", "owner"), "mallory", NO_PARTY),
        (("rooms", 0, "datasets", 0, "owner"), "mallory", NO_PARTY),
        (("rooms", 0, "image", "manifest"), "latest", DIGEST),
        (("rooms", 0, "image", "manifest"), "SHA256:" + "AB" * 32, DIGEST),
        (
            ("rooms", 0, "image", "environment"),
            {"A=B": "c"},
            "environment: expected names of at most 128 letters, digits and _, no digit first, got 'A=B'",
        ),
        (("rooms", 0, "image", "environment"), {"A": "c\0"}, "environment.A: expected text of at most"),
        (
            ("rooms", 0, "image", "environment"),
            {"A\n\x1b[31m": 1},
            r"environment.'A\\n\\x1b\[31m': expected text of at most",
        ),
        (
            ("rooms", 0, "image", "arguments"),
            ["a\0b"],
            "arguments\\[0\\]: expected text of at most 65536 characters",
        ),
        (
            ("rooms", 0, "image", "arguments"),
            [1],
            "arguments\\[0\\]: expected text of at most 65536 characters",
        ),
        (
            ("rooms", 0, "image", "arguments"),
            ["a" * 65_537],
            "arguments\\[0\\]: expected text of at most 65536 characters",
        ),
        (("rooms", 0, "image", "arguments"), ["a"] * 257, "arguments: expected a list of at most 256"),
        (("parties", 1, "role"), "operator", "role: expected one of"),
        (("parties", 0, "broker", "url"), "http://127.0.0.1:8443", URL),
        (("parties", 0, "broker", "url"), "https://127.0.0.1", URL),
        (("parties", 0, "broker", "url"), "https://127.0.0.1:99999", "broker.url"),
        (("parties", 0, "broker", "url"), "https://127.0.0.1:0", "broker.url"),
        (("parties", 0, "broker", "url"), "https://a@127.0.0.1:1", URL),
        (("parties", 0, "broker", "ledger_key"), "AAAA", "ledger_key: expected 32 bytes in base64"),
        (("parties", 0, "name"), "Alice", "name: expected a name: at most 64"),
        (("parties", 0, "name"), "\u0430lice", "name: expected a name: at most 64"),
        (("parties", 0, "signing_key"), "AAAA", "signing_key: expected 32 bytes in base64"),
        (("id",), "../x", "id: expected a name: at most 64"),
        (("format",), "strongroom-contract/1", "format: expected 'strongroom-contract/2'"),
    ],
)
def test_rule_34_laxer_or_stranger_values_are_refused(path, to, why):
    with pytest.raises(Malformed, match=why):
        parse(change(path, to))


def test_the_widest_arguments_are_read():
    arguments = ["a" * 65_536, "", *["b"] * 254]
    assert parse(change(("rooms", 0, "image", "arguments"), arguments)).rooms[0].image.arguments == tuple(
        arguments
    )


@pytest.mark.parametrize(
    ("table", "change", "why"),
    [
        ("parties", {"role": "auditor"}, "parties: name 'alice' appears twice"),
        ("datasets", {"manifest": "sha256:" + "ef" * 32}, "datasets: name 'flights' appears twice"),
        ("outputs", {"max_bytes": 1}, "outputs: path '/out' appears twice"),
        ("rooms", {"memory_mib": 300}, "rooms: name 'main' appears twice"),
        ("outputs", {"path": "/out/more"}, "/out beside paths below it, which it holds"),
    ],
)
def test_what_is_listed_twice_is_refused(table, change, why):
    value = document()
    holder = value if table in value else value["rooms"][0]
    holder[table].append({**holder[table][0], **change})
    with pytest.raises(Malformed, match=why):
        parse(value)


def test_one_person_cannot_be_two_parties():
    value = document()
    value["parties"][1]["signing_key"] = value["parties"][0]["signing_key"]
    with pytest.raises(Malformed, match=r"signing_key 'sha256:[0-9a-f]{64}' appears twice"):
        parse(value)


def test_differences_name_the_place():
    old = samples.a_contract()
    new = samples.a_contract(
        image=room_terms.Image(owner="bob", manifest_digest=samples.DIGEST, arguments=("-x",), environment={})
    )
    places = {place for place, _, _ in drafting.differences(old.raw, new.raw)}
    assert places == {
        "rooms[main].image.manifest",
        "rooms[main].image.arguments",
        "rooms[main].image.arguments[0]",
    }


def test_no_difference_hides_behind_another():
    """A drafter adds a base of its own, and a register called `name` to the one that stood there."""
    platform = samples.a_contract().platforms[0]
    (known,) = platform.references
    evil = dict.fromkeys(known, "evil")
    old = samples.a_contract()
    for name in ("name", "path"):
        both = (evil, {**known, name: "0"})
        new = samples.a_contract(platforms=(replace(platform, references=both),))
        shown = {(place, after) for place, _, after in drafting.differences(old.raw, new.raw)}
        assert {(f"platforms[0].references[0].{one}", '"evil"') for one in known} <= shown
        assert (f"platforms[0].references[1].{name}", '"0"') in shown


def test_each_room_has_the_disks_and_brokers_of_its_own():
    web = samples.a_room(name="web", datasets=())
    one = samples.a_contract(rooms=(samples.a_room(name="db"), web))
    alice, bob = samples.ALICE.party().keyid, samples.BOB.party().keyid
    assert one.disks_of(alice, room="db") == (samples.DIGEST,)
    assert one.disks_of(alice, room="web") == one.disks_of(alice, room="elsewhere") == ()
    assert one.disks_of(bob, room="web") == one.disks_of(bob) == (web.image.manifest_digest,)
    assert one.owners() == ("alice", "bob")
    assert (one.key_owners("db"), one.key_owners("web")) == (("alice",), ())
    with pytest.raises(Malformed, match="no room is called 'elsewhere'; there are: db, web"):
        one.room("elsewhere")


@examples(300)
@given(st.binary(max_size=300))
def test_any_bytes_parse_or_are_malformed(data):
    with pytest.raises(Malformed):
        contract.parse(data)


@examples(400)
@given(st.integers(0, len(samples.a_contract().raw) - 1), st.integers(1, 255))
def test_any_flipped_byte_changes_the_digest_or_is_refused(position, flip):
    one = samples.a_contract()
    raw = bytearray(one.raw)
    raw[position] ^= flip
    try:
        assert contract.parse(bytes(raw)).digest != one.digest
    except Malformed:
        pass
