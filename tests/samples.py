"""A small world for tests: two parties, a manifest each, and a contract between them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from strongroom.model import identity, party
from strongroom.model.contracts import agreement, certificate_terms, contract, drafting, room_terms
from strongroom_testing.contracts import changed

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
DIGEST = "sha256:" + "ab" * 32
REFERENCE = {
    "firmware": "sha256:" + "01" * 32,
    "kernel": "sha256:" + "02" * 32,
    "initrd": "sha256:" + "03" * 32,
    "cmdline": "sha256:" + "04" * 32,
    "machine": "q35",
}
ALICE = identity.generate("alice")
BOB = identity.generate("bob")


def broker(url="https://127.0.0.1:8443"):
    return party.BrokerAddress(url=url, pin=DIGEST, ledger_key=b"L" * 32, authority=DIGEST)


def a_room(**changes) -> room_terms.RoomTerms:
    """What a contract says of one room."""
    drawn = room_terms.RoomTerms(
        name=room_terms.DEFAULT_NAME,
        image=room_terms.Image(
            owner="bob", manifest_digest="sha256:" + "cd" * 32, arguments=None, environment={}
        ),
        datasets=(room_terms.Dataset(name="flights", owner="alice", manifest_digest=DIGEST),),
        outputs=(room_terms.Output(path="/out", recipients=("bob",), max_bytes=1 << 20),),
        logs=None,
        certificate=certificate_terms.CertificateTerms(names=("room.flights.example",), lifetime_seconds=600),
        wall_seconds=60,
        memory_mib=512,
    )
    return replace(drawn, **changes)


def a_contract(**changes) -> contract.Contract:
    """A valid contract; `changes` replace fields, those of its room too, before it is encoded and parsed again."""
    drawn = contract.Contract(
        raw=b"",
        id="flights",
        version=1,
        replaces=None,
        members=(
            contract.Member(party=ALICE.party(broker()), role=contract.Role.DATA_OWNER),
            contract.Member(party=BOB.party(), role=contract.Role.PROGRAM_OWNER),
        ),
        rooms=(a_room(),),
        disclosure=contract.Disclosure(
            output_sizes=contract.OutputSizes.EXACT, exit_status=contract.ExitStatus.EXACT
        ),
        receipts=contract.ReceiptTerms(wait_seconds=0),
        platforms=(
            contract.Platform(
                tee="tpm",
                simulated=True,
                memory_guard=True,
                roots=(DIGEST,),
                machines=("any",),
                references=(REFERENCE,),
            ),
        ),
        limits=contract.RunLimits(
            runs=1,
            not_before=NOW - timedelta(days=1),
            not_after=NOW + timedelta(days=30),
        ),
        approvals=contract.Approvals(parties=("alice", "bob"), threshold=2),
    )
    return contract.parse(drafting.encode(changed(drawn, **changes)))


def signed(one: contract.Contract, *signers: identity.Identity) -> agreement.Agreement:
    """The contract in its envelope, signed by `signers` (by both parties when none are given)."""
    out = agreement.draft(one)
    for signer in signers or (ALICE, BOB):
        out = agreement.add_signature(out, signer.signing)
    return out
