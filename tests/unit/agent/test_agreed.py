"""What the node hands over is held against what was signed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from strongroom.agent import room
from strongroom.crypto import digest
from strongroom.encoding import dsse
from strongroom.errors import Malformed, Refused
from strongroom.model import manifest as manifest_model
from strongroom.model import party as party_model
from strongroom.model.contracts import contract as contract_model
from strongroom.model.room import agreed
from strongroom.model.room.channel import Start, parse_start
from strongroom_testing import contracts

SETTINGS = manifest_model.ImageSettings(
    source="sha256:" + "5" * 64, entrypoint=("/bin/duckdb",), command=("-c", "select 1"), environment={"A": "image", "B": "b"},
    working_directory="/w", uid=7, gid=8, groups=(9,),
)  # fmt: skip


def envelope(identity, kind, cipher="none", signer=None, owner=None, keyid="") -> bytes:
    made = manifest_model.Manifest(
        raw=b"", kind=kind, name=kind, owner=(owner or identity).party().keyid, cipher=cipher, data_bytes=8192,
        hash_offset=8192, disk_bytes=16384, root_hash="sha256:" + "7" * 64, salt=bytes(32),
        image=SETTINGS if kind == "image" else None,
    )  # fmt: skip
    bare = dsse.Envelope(
        payload_type=manifest_model.PAYLOAD_TYPE, payload=manifest_model.encode(made), signatures=()
    )
    key = (signer or identity).signing
    keyid = keyid or identity.party().keyid
    return replace(bare, signatures=(dsse.DsseSignature(keyid=keyid, sig=key.sign(bare.pae())),)).encode()


class Handover:
    def __init__(
        self,
        *,
        image=None,
        data=None,
        broker=True,
        signers=("alice", "bob"),
        image_cipher="none",
        arguments=None,
    ):
        self.scene = contracts.scene()
        alice, bob = self.scene.alice, self.scene.bob
        self.image = image(self.scene) if image else envelope(bob, "image", image_cipher)
        self.data = data(self.scene) if data else envelope(alice, "dataset", "aes-xts-plain64")
        address = party_model.BrokerAddress(
            url="https://a.example:1",
            pin="sha256:" + "1" * 64,
            ledger_key=bytes(32),
            authority="sha256:" + "2" * 64,
        )

        def change(one):
            members = tuple(
                replace(
                    member,
                    party=replace(
                        member.party, broker=address if broker and member.party.name == "alice" else None
                    ),
                )
                for member in one.members
            )
            return replace(
                one,
                members=members,
                image=replace(
                    one.image,
                    manifest=payload_digest(self.image),
                    arguments=arguments,
                    environment={"A": "contract"},
                ),
                datasets=(
                    contract_model.Dataset(name="flights", owner="alice", manifest=payload_digest(self.data)),
                ),
            )

        self.agreement = self.scene.agreement(change, signers=signers)

    def check(self, **manifests):
        given = {"image": self.image, "data-0": self.data, **manifests}
        start = Start(
            agreement=self.agreement.encode(), launch_record=b"", issuers=b"",
            manifests={name: data for name, data in given.items() if data is not None},
        )  # fmt: skip
        assert parse_start(start.encode()) == start
        return agreed.check(self.agreement, start)


def payload_digest(data: bytes) -> str:
    payload = dsse.parse(data, payload_type=manifest_model.PAYLOAD_TYPE, max_payload=1 << 20).payload
    return digest.sha256(payload)


def test_terms_of_a_sound_handover():
    terms = Handover().check()
    assert [(serial, owner) for serial, owner, _ in terms.disks()] == [("image", "bob"), ("data-0", "alice")]
    assert terms.keys_from("alice") == {terms.datasets[0].digest}
    assert terms.keys_from("bob") == set()


def test_launch_follows_image_and_contract():
    launch = room.make_launch(Handover().check(), 1 << 30, "")
    assert launch.arguments == ("/bin/duckdb", "-c", "select 1")
    assert launch.environment == {"A": "contract", "B": "b"}
    assert (launch.working_directory, launch.uid, launch.gid, launch.groups) == ("/w", 7, 8, (9,))
    assert launch.datasets == {"flights": "/run/room/data-0"}
    fixed = room.make_launch(Handover(arguments=()).check(), 1 << 30, "")
    assert fixed.arguments == ("/bin/duckdb",)


@pytest.mark.parametrize("signers", [(), ("alice",), ("bob",)])
def test_missing_signatures_are_refused(signers):
    with pytest.raises(Refused) as caught:
        Handover(signers=signers).check()
    assert caught.value.code == "not-approved"


def test_another_disk_than_the_contracts_is_refused():
    made = Handover()
    for serial, data in (
        ("image", made.data),
        ("data-0", made.image),
        ("data-0", envelope(made.scene.alice, "dataset", "none")),
    ):
        with pytest.raises(Refused) as caught:
            made.check(**{serial: data})
        assert caught.value.code == "wrong-manifest"
    with pytest.raises(Refused) as caught:
        made.check(image=None)
    assert caught.value.code == "no-manifest"


@pytest.mark.parametrize(
    "data",
    [
        lambda scene: envelope(scene.alice, "dataset", signer=scene.bob),
        lambda scene: envelope(scene.alice, "dataset", owner=scene.bob),
        lambda scene: envelope(scene.bob, "dataset"),
        # A key id selects whose signature it is: hers under another's name is nobody's.
        lambda scene: envelope(scene.alice, "dataset", keyid=scene.bob.party().keyid),
    ],
)
def test_a_manifest_that_its_owner_did_not_sign_is_refused(data):
    with pytest.raises(Refused) as caught:
        Handover(data=data).check()
    assert caught.value.code == "unsigned-manifest"


def test_a_dataset_in_the_images_place_is_refused():
    with pytest.raises(Refused, match="expected the image"):
        Handover(image=lambda scene: envelope(scene.bob, "dataset")).check()


def test_encrypted_disks_need_their_owners_broker():
    with pytest.raises(Refused) as caught:
        Handover(image_cipher="aes-xts-plain64").check()
    assert caught.value.code == "no-broker"
    with pytest.raises(Refused) as caught:
        Handover(broker=False).check()
    assert caught.value.code == "no-broker"


def test_garbage_for_a_manifest_is_malformed():
    with pytest.raises(Malformed, match="key 'payloadType' is missing"):
        Handover().check(image=b"{}")
