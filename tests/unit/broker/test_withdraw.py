"""What an owner takes back: a contract, a disk. It counts at once, in every worker, and is in the ledger."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from strongroom.appraisal.wording.sentences import explain
from strongroom.broker import request_checks
from strongroom.broker.administration.remove_key import remove_key
from strongroom.broker.administration.status import status
from strongroom.broker.administration.withdraw import withdraw, withdraw_known
from strongroom.broker.admit_contract import admit
from strongroom.errors import Conflict, Malformed, NotFound, Refused
from strongroom.ledger import proof
from strongroom.ledger.describe import describe
from strongroom.model import messages, record
from strongroom.model.verdict import Check
from strongroom_testing import brokers
from strongroom_testing.contracts import changed
from tests.unit.broker.denials import failed


def withdrawn(world, agreement):
    proved = asyncio.run(withdraw(world.broker, agreement.encode()))
    return proof.verify(proved, world.broker.notary.public)[0]


def test_a_withdrawn_contract_is_released_by_no_worker(tmp_path):
    """Three brokers over one database, as workers and replicas are. The one that withdraws tells the others nothing."""
    with brokers.world(tmp_path) as one, brokers.world(tmp_path) as two, brokers.world(tmp_path) as owner:
        agreement = one.agreement()
        for worker in (one, two):
            assert isinstance(worker.ask(agreement), messages.ReleaseAnswer)
        entry = withdrawn(owner, agreement)
        assert (entry.kind, entry.contract_digest) == (
            record.RecordKind.WITHDRAWAL,
            agreement.contract.digest,
        )
        assert entry.body == {"id": "flights", "version": 1}
        for worker in (one, two, owner):
            assert failed(worker.ask(agreement))[0] == "contract.withdrawn"


def test_a_withdrawal_between_preparing_and_deciding_counts(world, monkeypatch):
    """The transaction decides: a room that was found good a moment before gets nothing."""
    agreement = world.agreement()
    body = world.room(agreement).request(world.challenge(agreement).nonce)
    check, asked = request_checks.check, []

    def checking(ask, state):
        made = check(ask, state)
        if not asked:
            asked.append(1)
            known = request_checks.versions.known(agreement.contract)
            series = request_checks.versions.series(agreement.contract)
            other = brokers.sqlite.open_store(world.directory / brokers.wiring.DATABASE)
            asyncio.run(other.write(lambda tx: tx.contracts.withdraw(series, known)))
            other.close()
        return made

    monkeypatch.setattr(request_checks, "check", checking)
    answer = asyncio.run(_elsewhere(world, body))
    assert failed(answer)[0] == "contract.withdrawn"


async def _elsewhere(world, body):
    return await asyncio.to_thread(world.release, body)


def test_no_version_before_or_after_is_released_nor_admitted(world):
    first = world.agreement()
    second = world.agreement(lambda c: replace(c, version=2, replaces=first.contract.digest))
    third = world.agreement(lambda c: replace(c, version=3, replaces=second.contract.digest))
    assert isinstance(world.ask(first), messages.ReleaseAnswer)
    asyncio.run(admit(world.broker, second.encode()))
    withdrawn(world, first)  # by the file of a version that is not the latest
    for version in (first, second, third):
        assert failed(world.ask(version))[0] == "contract.withdrawn"
    with pytest.raises(
        Conflict, match=r"contract\.withdrawn: expected a contract that its owner has not"
    ) as caught:
        asyncio.run(admit(world.broker, third.encode()))
    assert caught.value.code == "contract-withdrawn"
    (standing,) = status(world.store).contracts
    assert (standing.version, standing.withdrawn, standing.left) == (2, True, 0)


def test_another_contract_stands(world):
    other = world.agreement(lambda c: replace(c, id="other"))
    withdrawn(world, world.agreement())
    assert isinstance(world.ask(other), messages.ReleaseAnswer)


def test_a_contract_that_nobody_has_run_or_signed_can_be_withdrawn_once(world):
    agreement = world.agreement(signers=())
    entry = withdrawn(world, agreement)
    assert describe(entry) == "flights withdrawn, every version (the last one known: 1)"
    for again in (
        withdraw(world.broker, agreement.encode()),
        withdraw_known(world.broker, agreement.contract.digest),
    ):
        with pytest.raises(Conflict, match="flights is withdrawn already"):
            asyncio.run(again)
    assert world.store.ledger.size() == 1
    assert failed(world.ask(world.agreement()))[0] == "contract.withdrawn"


def test_a_contract_is_withdrawn_by_the_digest_that_status_shows(world):
    agreement = world.agreement()
    unknown = withdraw_known(world.broker, agreement.contract.digest)
    with pytest.raises(NotFound, match="is no contract's latest version that this broker knows"):
        asyncio.run(unknown)
    world.ask(agreement)
    asyncio.run(withdraw_known(world.broker, status(world.store).contracts[0].digest))
    assert failed(world.ask(agreement))[0] == "contract.withdrawn"


def test_what_this_broker_never_releases_is_not_withdrawn_here(world):
    strange = world.agreement(lambda c: changed(c, datasets=()))
    with pytest.raises(Refused, match="alice owns no disk of flights") as caught:
        asyncio.run(withdraw(world.broker, strange.encode()))
    assert caught.value.code == "not-ours"
    with pytest.raises(Malformed, match="envelope"):
        asyncio.run(withdraw(world.broker, b"{}"))
    assert world.store.ledger.size() == 0


def test_a_receipt_of_a_run_from_before_is_still_recorded(world):
    from strongroom.broker.running.receipt import receipt

    agreement = world.agreement()
    room = world.room(agreement)
    world.release(room.request(world.challenge(agreement).nonce))
    withdrawn(world, agreement)
    proved = asyncio.run(receipt(world.broker, room.receipt(world.clock.now)))
    assert proof.verify(proved, world.broker.notary.public)[0].kind is record.RecordKind.RECEIPT


def test_a_disk_that_was_taken_away_is_released_by_no_worker(tmp_path):
    with brokers.world(tmp_path) as one, brokers.world(tmp_path) as owner:
        agreement, disk = one.agreement(), brokers.manifest_digest(one.disk)
        assert isinstance(one.ask(agreement), messages.ReleaseAnswer)
        proved = asyncio.run(remove_key(owner.broker, disk))
        entry = proof.verify(proved, owner.broker.notary.public)[0]
        assert (entry.kind, entry.contract_digest, entry.body) == (
            record.RecordKind.DISK_REMOVAL,
            "",
            {"disk": disk},
        )
        assert describe(entry) == f"disk {disk} taken from the broker, with its key"
        answer = one.ask(agreement)
        assert failed(answer)[0] == "keys.present"
        told = next(check for check in answer.verdict["checks"] if check["name"] == "keys.present")
        assert disk in explain(Check(**told)).got
        with pytest.raises(NotFound, match="this broker has no disk sha256:"):
            asyncio.run(remove_key(owner.broker, disk))
        asyncio.run(brokers.add_key(owner.broker, one.disk, brokers.DISK_KEY))
        assert isinstance(one.ask(agreement), messages.ReleaseAnswer)


def test_the_bytes_of_a_key_that_was_taken_away_are_not_left_in_the_database(tmp_path):
    with brokers.world(tmp_path) as world:
        disk = brokers.manifest_digest(world.disk)
        (known,) = world.store.known_disks()
        asyncio.run(remove_key(world.broker, disk))
    assert known.sealed_key not in (tmp_path / brokers.wiring.DATABASE).read_bytes()


def test_status_tells_runs_used_and_left_and_denials_with_their_reasons(world):
    agreement = world.agreement(runs=2)
    for _ in range(2):
        assert isinstance(world.ask(agreement), messages.ReleaseAnswer)
    assert isinstance(world.ask(agreement), messages.DenialAnswer)
    told = status(world.store)
    (standing,) = told.contracts
    assert (standing.id, standing.permitted, standing.used, standing.left) == ("flights", 2, 2, 0)
    ((index, entry),) = told.denials
    assert index == 2
    assert describe(entry).startswith(
        "denied: contract.runs: expected fewer than 2 runs so far, got 2 runs so far"
    )
    made = told.to_json()
    assert made["denials"][0]["reason"]["name"] == "contract.runs"
    assert made["contracts"][0]["runs_left"] == 0
    assert made["budgets"]["denials_recorded_at_once"] == world.broker.budgets.denials
    assert made["disks"] == [
        {"manifest": brokers.manifest_digest(world.disk), "cipher": "aes-xts-plain64", "key": True}
    ]
    assert brokers.DISK_KEY.hex() not in str(made)
    second = world.agreement(lambda c: replace(c, version=2, replaces=agreement.contract.digest), runs=2)
    asyncio.run(admit(world.broker, second.encode()))
    later = status(world.store)
    assert later.earlier == ((agreement.contract.digest, 2, 0),)
    assert later.contracts[0].left == 0 + 2


def test_of_many_denials_the_last_ones_are_told(world):
    agreement = world.agreement(runs=1)
    for _ in range(13):
        world.ask(agreement)
    told = status(world.store).denials
    assert [index for index, _ in told] == list(range(12, 2, -1))
