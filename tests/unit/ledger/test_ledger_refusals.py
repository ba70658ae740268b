"""What a reader of a ledger or of a proof pack refuses, and no other test does."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from strongroom.appraisal import intoto
from strongroom.appraisal.reference import values
from strongroom.crypto import sign
from strongroom.encoding import fields
from strongroom.errors import Malformed, Refused
from strongroom.ledger import inspect, witness
from strongroom.model import binding
from tests import samples


def test_an_audit_goes_from_the_first_entry_to_the_last():
    frontier = witness._Frontier()
    frontier.put(0, 0, b"h" * 32)
    assert frontier.node(0, 0) == b"h" * 32
    with pytest.raises(Refused, match="ledger audit: the entries came out of order"):
        frontier.node(0, 1)


BINDING = binding.Binding(
    nonce=b"n" * 32,
    contract_digest=samples.DIGEST,
    keys=binding.RoomKeys(signing=b"s" * 32, tls=b"t" * 91, kem=b"k" * 1216),
    role="main",
    audience=samples.DIGEST,
)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"more": 1}, "unknown key 'more'"),
        ({"nonce": "AAAA"}, "nonce: expected 32 bytes in base64"),
        ({"signing": "AAAA"}, "signing: expected 32 bytes in base64"),
        ({"kem": "AAAA"}, "kem: expected 1216 bytes in base64"),
        ({"tls": "A" * 1372}, "tls: expected base64 of at most 1024 bytes"),
        ({"contract": "flights"}, "contract: expected sha256: and 64"),
        ({"audience": ""}, "audience: expected sha256: and 64"),
        ({"role": "Room"}, "role: expected a name: at most 64"),
    ],
)
def test_a_records_binding_is_refused_by_what_is_wrong(change, why):
    given = json.loads(json.dumps(BINDING.to_json()))
    assert binding.read(fields.Fields(given, "record.binding")) == BINDING
    with pytest.raises(Malformed, match=why):
        binding.read(fields.Fields({**given, **change}, "record.binding"))


@pytest.mark.parametrize("field", ["pin", "ledger_key", "authority"])
def test_a_reader_who_knows_another_broker_is_told(world, pack, field):
    """Each of the three by which a broker is known counts for whoever reads a pack."""
    alice = next(anchor for anchor in world.anchors if anchor.name == "alice")
    broker = pack.agreement.contract.party("alice").broker
    known = replace(alice, broker=broker)
    assert inspect.inspect(pack, anchors=[known]).holds
    other = {"pin": samples.DIGEST, "ledger_key": b"L" * 32, "authority": samples.DIGEST}[field]
    judged = inspect.inspect(pack, anchors=[replace(known, broker=replace(broker, **{field: other}))])
    assert [check.name for check in judged.failed] == ["parties.alice"]
    moved = replace(known, broker=replace(broker, url="https://elsewhere.example:1"))
    assert inspect.inspect(pack, anchors=[moved]).holds


def test_a_reader_who_knows_the_party_by_another_key_is_told(world, pack):
    """A party of the name that the reader trusts, and of a key that she does not know."""
    alice = next(anchor for anchor in world.anchors if anchor.name == "alice")
    stranger = replace(alice, signing_key=sign.generate().public, broker=None)
    judged = inspect.inspect(pack, anchors=[stranger])
    assert [check.name for check in judged.failed] == ["parties.alice"]


def test_a_statement_of_another_kind_holds_no_reference_values():
    subject = intoto.InTotoSubject(name="guest", digest=samples.DIGEST)
    made = intoto.InTotoStatement(
        subjects=(subject,), predicate_type="https://example.com/other", predicate={}
    )
    with pytest.raises(Malformed, match="reference file: expected a statement of type") as refused:
        values.read(made)
    assert refused.value.code == "wrong-type"


def test_a_file_of_statements_is_bounded():
    with pytest.raises(Malformed, match=r"statements: .* bytes, at most") as refused:
        intoto.lines(b"x" * (intoto.MAX_FILE + 1))
    assert refused.value.code == "too-large"
    assert intoto.lines(b"x" * intoto.MAX_FILE) == (b"x" * intoto.MAX_FILE,)
    assert intoto.lines(b"x\n" * intoto.MAX_LINES) == (b"x",) * intoto.MAX_LINES
    for bad in (b"", b"\n", b"x\n\n", b"x\n" * (intoto.MAX_LINES + 1)):
        with pytest.raises(Malformed, match="lines, each an envelope"):
            intoto.lines(bad)
