"""The library without a room: identity, sealing, conversion, a contract and an opened disk, in one process and with nothing printed."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

import strongroom
from strongroom import Draft, Member, NodeDescription, Output, Role, RoomDraft
from strongroom.crypto import sign
from strongroom.images.signatures import Trust
from tests import samples

NOW = datetime(2026, 12, 1, 12, 0, tzinfo=UTC)
PASSPHRASE = b"correct horse"


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """Alice's and bob's identities, her sealed data and his sealed program."""
    here = tmp_path_factory.mktemp("desk")
    alice = strongroom.new_identity("alice", passphrase=PASSPHRASE, out=here).identity
    bob = strongroom.new_identity("bob", passphrase=lambda: PASSPHRASE, out=here).identity
    (here / "sales").mkdir()
    (here / "sales/sales.csv").write_text("north,120\n")
    (here / "image/bin").mkdir(parents=True)
    (here / "image/bin/count").write_bytes(b"\x7fELF")
    (here / "config.json").write_text(json.dumps({"config": {"Entrypoint": ["/bin/count"], "User": "1000"}}))
    sealed = strongroom.seal_files([here / "sales"], name="sales", owner=alice, out=here)
    program = strongroom.convert_image(
        str(here / "image"), config=here / "config.json", name="count", owner=bob, out=here
    )
    return here, alice, bob, sealed, program


def draft(desk, **changes):
    here, alice, bob, sealed, program = desk
    broker = samples.a_contract().members[0].party.broker
    node = NodeDescription(root=samples.DIGEST, machine=samples.DIGEST)
    (here / "base.json").write_text(json.dumps({"reference": {"pcr0": "00"}}))
    platform = strongroom.local_platform(nodes=[node], bases=[here / "base.json"], simulated=True)
    made = Draft(
        id="sales",
        members=(
            Member(party=alice.party(broker), role=Role.DATA_OWNER),
            Member(party=bob.party(), role=Role.PROGRAM_OWNER),
        ),
        rooms=(
            RoomDraft(
                image=program.manifest_file,
                datasets=(("", sealed.manifest_file),),
                outputs=(Output(path="/out", recipients=("bob",), max_bytes=1 << 20),),
            ),
        ),
        platforms=(platform,),
    )
    of_room = {name: changes.pop(name) for name in ("outputs", "datasets") if name in changes}
    return replace(made, rooms=(replace(made.rooms[0], **of_room),), **changes)


def test_an_identity_opens_with_its_passphrase_alone(desk):
    here, alice, *_ = desk
    assert strongroom.open_identity(here / "alice.identity", passphrase=PASSPHRASE).party() == alice.party()
    assert strongroom.load_party(here / "alice.party.json") == alice.party()
    with pytest.raises(strongroom.Refused, match="the passphrase is another one"):
        strongroom.open_identity(here / "alice.identity", passphrase=b"another")


def test_a_sealed_folder_is_verified_and_opened_by_its_owner_alone(desk, tmp_path, capsys):
    _, alice, bob, sealed, _ = desk
    assert not sealed.empty
    assert strongroom.verify_disk(sealed.disk, owner=alice.party()) == sealed.manifest
    with pytest.raises(strongroom.Refused, match="owner"):
        strongroom.open_sealed(sealed.disk, identity=bob, out=tmp_path / "bob")
    out = strongroom.open_sealed(sealed.disk, identity=alice, out=tmp_path / "alice")
    assert (out / "sales.csv").read_text() == "north,120\n"
    assert capsys.readouterr() == ("", "")


def test_what_is_there_is_not_sealed_over(desk):
    here, alice, bob, _, program = desk
    assert (program.key_file, program.manifest.cipher) == (None, "none")
    assert program.summary.settings.entrypoint == ("/bin/count",)
    for again in (
        lambda: strongroom.seal_files([here / "sales"], name="sales", owner=alice, out=here / "image/.."),
        lambda: strongroom.convert_image(
            str(here / "image"), config=here / "config.json", name="count", owner=bob, out=here
        ),
    ):
        with pytest.raises(strongroom.Misuse) as caught:
            again()
        assert caught.value.code in {"exists", "out-inside"}
    assert (here / "sales.key.age").exists()


def test_a_contract_is_drafted_signed_by_both_and_would_run(desk, tmp_path):
    _, alice, bob, _, _ = desk
    agreement = strongroom.draft_contract(draft(desk), now=NOW)
    contract = agreement.contract
    assert (contract.version, contract.limits.runs, contract.approvals.threshold) == (1, 1, 2)
    assert contract.rooms[0].datasets[0].name == "sales"
    assert not strongroom.check_contract(agreement, now=NOW).would_run
    parties = {member.party.name: member.party for member in contract.members}
    for signer, other in ((alice, "bob"), (bob, "alice")):
        agreement = strongroom.sign_contract(
            agreement, identity=signer, own=parties[signer.name], trust=[parties[other]]
        )
    assert agreement.approved()
    outlook = strongroom.check_contract(agreement, now=NOW)
    assert outlook.would_run
    outlook.require()
    file = tmp_path / "contract.json"
    file.write_bytes(agreement.encode())
    assert strongroom.load_agreement(file).contract == contract


def test_nobody_signs_what_names_another_key_in_their_place(desk):
    _, alice, bob, _, _ = desk
    agreement = strongroom.draft_contract(draft(desk), now=NOW)
    own = agreement.contract.party("alice")
    with pytest.raises(strongroom.Refused) as caught:
        strongroom.sign_contract(agreement, identity=alice, own=replace(own, broker=None))
    assert caught.value.code == "other-entry"
    with pytest.raises(strongroom.Misuse) as caught:
        strongroom.sign_contract(agreement, identity=bob, own=own)
    assert caught.value.code == "other-party-file"
    review = strongroom.review_contract(agreement, signer=alice.party(), own=own)
    assert (review.compared, review.not_compared, review.signed_before) == (("alice",), ("bob",), None)


def test_brokers_are_asked_by_whatever_network_the_caller_gives(desk):
    agreement = strongroom.draft_contract(draft(desk), now=NOW)
    asked = []

    def ask(address, signed, room):
        asked.append((address.url, signed, room))
        raise strongroom.Unavailable("not there", code="broker-unreachable")

    outlook = strongroom.check_contract(agreement, now=NOW, ask=ask)
    assert (asked, outlook.silent["alice"].code) == ([], "address-not-vouched")  # she has not signed
    trusted = [agreement.contract.party("alice")]
    outlook = strongroom.check_contract(agreement, now=NOW, ask=ask, trust=trusted)
    assert asked == [(trusted[0].broker.url, agreement.envelope.encode(), "main")]
    assert outlook.silent["alice"].code == "broker-unreachable"


def test_a_party_file_that_differs_is_told_whether_or_not_brokers_are_asked(desk):
    agreement = strongroom.draft_contract(draft(desk), now=NOW)
    other = replace(agreement.contract.party("alice"), signing_key=sign.generate().public)
    with pytest.raises(strongroom.Refused, match="alice") as caught:
        strongroom.check_contract(agreement, now=NOW, trust=[other])
    assert caught.value.code == "other-entry"


@pytest.mark.parametrize("change", [{"image": "image"}, {"image": "compose.yaml", "from_": "image"}, {"image": f"reg.example/app@{samples.DIGEST}", "digest": samples.DIGEST}])  # fmt: skip
def test_a_demanded_signature_is_never_passed_over(desk, tmp_path, change):
    here, _, bob, *_ = desk
    (here / "compose.yaml").write_text(
        f"services:\n  app:\n    image: reg.example/app@{samples.DIGEST}\n    network_mode: none\n"
    )
    image = change["image"] if "@" in change["image"] else str(here / change["image"])
    more = {"from_": here / change["from_"]} if "from_" in change else {"digest": change.get("digest")}
    with pytest.raises(strongroom.Misuse, match=r"signature is demanded|has to be signed"):
        strongroom.convert_image(
            image, config=here / "config.json", name="app", owner=bob, out=tmp_path, signers=Trust(), **more
        )
    assert not list(tmp_path.glob("app*"))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"id": "Not A Name"}, None),
        ({"platforms": ()}, None),
        ({"outputs": (Output(path="/out", recipients=("carol",), max_bytes=1),)}, "unknown-party"),
        ({"datasets": (("", Path("nowhere.json")),)}, None),
    ],
)
def test_what_cannot_be_agreed_is_not_drafted(desk, change, code):
    with pytest.raises((strongroom.Malformed, OSError)) as caught:
        strongroom.draft_contract(draft(desk, **change), now=NOW)
    assert code is None or caught.value.code == code


def test_a_disk_of_somebody_who_is_no_party_is_refused(desk, tmp_path):
    here, *_ = desk
    carol = strongroom.new_identity("carol", passphrase=PASSPHRASE, out=tmp_path).identity
    sealed = strongroom.seal_files([here / "sales"], name="other", owner=carol, out=tmp_path)
    with pytest.raises(strongroom.Misuse, match="among the parties"):
        strongroom.draft_contract(draft(desk, datasets=(("", sealed.manifest_file),)), now=NOW)


def test_a_run_without_its_parts_is_refused_before_anything_starts(desk, tmp_path):
    _, _, _, sealed, program = desk
    agreement = strongroom.draft_contract(draft(desk), now=NOW)
    with pytest.raises(strongroom.Misuse, match="--node"):
        strongroom.run_contract(
            agreement, base=tmp_path, sealed_disks=[sealed.disk, program.disk], out=tmp_path / "run"
        )
    with pytest.raises(strongroom.Refused) as caught:
        strongroom.run_contract(
            agreement, base=tmp_path, sealed_disks=[sealed.disk], node=tmp_path, out=tmp_path / "run"
        )
    assert caught.value.code == "missing-disk"
    assert not (tmp_path / "run").exists()


def test_a_folder_without_a_receipt_has_no_proof(tmp_path):
    with pytest.raises(strongroom.Misuse, match="holds no receipt"):
        strongroom.export_proof(tmp_path, out=tmp_path / "run.proof")
    assert not (tmp_path / "run.proof").exists()
