"""A small world for tests: two parties, a manifest each, and a contract between them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from strongroom.model import identity, party
from strongroom.model.contracts import agreement, contract, drafting

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


def a_contract(**changes) -> contract.Contract:
    """A valid contract; `changes` replace fields before it is encoded and parsed again."""
    drawn = contract.Contract(
        raw=b"",
        id="flights",
        version=1,
        replaces=None,
        members=(
            contract.Member(party=ALICE.party(broker()), role=contract.Role.DATA_OWNER),
            contract.Member(party=BOB.party(), role=contract.Role.PROGRAM_OWNER),
        ),
        image=contract.Image(
            owner="bob", manifest_digest="sha256:" + "cd" * 32, arguments=None, environment={}
        ),
        datasets=(contract.Dataset(name="flights", owner="alice", manifest_digest=DIGEST),),
        outputs=(contract.Output(path="/out", recipients=("bob",), max_bytes=1 << 20),),
        logs=None,
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
        network=contract.Network(egress=(), peers=()),
        certificate=contract.CertificateTerms(names=("room.flights.example",), lifetime_seconds=600),
        limits=contract.RunLimits(
            runs=1,
            not_before=NOW - timedelta(days=1),
            not_after=NOW + timedelta(days=30),
            wall_seconds=60,
            memory_mib=512,
        ),
        approvals=contract.Approvals(parties=("alice", "bob"), threshold=2),
    )
    return contract.parse(drafting.encode(replace(drawn, **changes)))


def signed(one: contract.Contract, *signers: identity.Identity) -> agreement.Agreement:
    """The contract in its envelope, signed by `signers` (by both parties when none are given)."""
    out = agreement.draft(one)
    for signer in signers or (ALICE, BOB):
        out = agreement.add_signature(out, signer.signing)
    return out
