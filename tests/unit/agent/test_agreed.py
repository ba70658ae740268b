"""What the node hands over is held against what was signed."""

from __future__ import annotations

import pytest

from strongroom.agent import room
from strongroom.errors import Malformed, Refused
from tests.unit.agent.handover import Handover, envelope


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
    ],
)
def test_a_manifest_that_its_owner_did_not_sign_is_refused(data):
    with pytest.raises(Refused) as caught:
        Handover(data=data).check()
    assert caught.value.code == "unsigned-manifest"


def test_a_manifest_counts_under_whatever_key_id():
    Handover(data=lambda scene: envelope(scene.alice, "dataset", keyid=scene.bob.party().keyid)).check()


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
