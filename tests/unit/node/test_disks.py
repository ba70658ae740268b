from __future__ import annotations

import pytest

from strongroom.encoding import dsse
from strongroom.errors import Malformed, Misuse, NotFound, Refused
from strongroom.model import manifest as manifest_model
from strongroom.model.contracts import room_terms
from strongroom.node import disks
from tests import samples


def sealed_disk(folder, name, owner, *, signer=None, kind="dataset"):
    """A disk file of the right size with its signed manifest beside it."""
    image = None
    if kind == "image":
        image = manifest_model.ImageSettings(
            source=samples.DIGEST,
            entrypoint=("/bin/true",),
            command=(),
            environment={},
            working_directory="/",
            uid=0,
            gid=0,
            groups=(),
        )
    manifest = manifest_model.Manifest(
        raw=b"",
        kind=kind,
        name=name,
        owner=owner.party().keyid,
        cipher="none",
        data_bytes=4096,
        hash_offset=4096,
        disk_bytes=8192,
        root_hash=samples.DIGEST,
        salt=bytes(32),
        image=image,
    )
    payload = manifest_model.encode(manifest)
    signer = signer or owner
    pae = dsse.pae(manifest_model.PAYLOAD_TYPE, payload)
    envelope = dsse.Envelope(
        payload_type=manifest_model.PAYLOAD_TYPE,
        payload=payload,
        signatures=(dsse.DsseSignature(keyid=owner.party().keyid, sig=signer.signing.sign(pae)),),
    )
    disk = folder / f"{name}.disk"
    disk.write_bytes(bytes(8192))
    (folder / f"{name}.manifest.json").write_bytes(envelope.encode())
    return disk


def contract_of(image, dataset):
    return samples.a_contract(
        image=room_terms.Image(
            owner="bob", manifest_digest=image.manifest.digest, arguments=None, environment={}
        ),
        datasets=(
            room_terms.Dataset(name="flights", owner="alice", manifest_digest=dataset.manifest.digest),
            room_terms.Dataset(name="again", owner="alice", manifest_digest=dataset.manifest.digest),
        ),
    )


@pytest.fixture
def pair(tmp_path):
    image = disks.load(sealed_disk(tmp_path, "query", samples.BOB, kind="image"))
    dataset = disks.load(sealed_disk(tmp_path, "flights", samples.ALICE))
    return image, dataset


def test_disks_get_the_serials_of_their_places(pair, tmp_path):
    image, dataset = pair
    drives, manifests = disks.match(
        contract_of(image, dataset), contract_of(image, dataset).rooms[0], [dataset, image]
    )
    assert [(one.serial, one.path.name) for one in drives] == [
        ("image", "query.disk"),
        ("data-0", "flights.disk"),
        ("data-1", "flights.disk"),
    ]
    assert manifests["data-1"] == (tmp_path / "flights.manifest.json").read_bytes()


def test_a_missing_disk_is_named(pair):
    image, dataset = pair
    with pytest.raises(Refused, match="dataset flights of alice") as caught:
        disks.match(contract_of(image, dataset), contract_of(image, dataset).rooms[0], [image])
    assert caught.value.code == "missing-disk"
    assert "query.disk" in caught.value.message


def test_another_program_is_not_the_contracts(pair, tmp_path):
    image, dataset = pair
    other = disks.load(sealed_disk(tmp_path, "exfiltrate", samples.BOB, kind="image"))
    with pytest.raises(Refused, match="the image of bob"):
        disks.match(contract_of(image, dataset), contract_of(image, dataset).rooms[0], [other, dataset])


def test_a_disk_too_many_is_refused(pair, tmp_path):
    image, dataset = pair
    other = disks.load(sealed_disk(tmp_path, "more", samples.ALICE))
    with pytest.raises(Misuse, match=r"more\.disk"):
        disks.match(
            contract_of(image, dataset), contract_of(image, dataset).rooms[0], [image, dataset, other]
        )


def test_a_manifest_by_somebody_else(pair, tmp_path):
    image, _ = pair
    forged = disks.load(sealed_disk(tmp_path, "forged", samples.ALICE, signer=samples.BOB))
    with pytest.raises(Refused, match="its manifest is not signed by alice"):
        disks.match(contract_of(image, forged), contract_of(image, forged).rooms[0], [image, forged])


def test_a_manifest_by_nobody(pair, tmp_path):
    image, dataset = pair
    stripped = disks.SealedDisk(
        path=dataset.path,
        signed=dsse.Envelope(
            payload_type=manifest_model.PAYLOAD_TYPE, payload=dataset.manifest.raw, signatures=()
        ).encode(),
        manifest=dataset.manifest,
    )
    with pytest.raises(Refused) as caught:
        disks.match(contract_of(image, stripped), contract_of(image, stripped).rooms[0], [image, stripped])
    assert caught.value.code == "unsigned-manifest"


def test_a_disk_cut_short(tmp_path):
    disk = sealed_disk(tmp_path, "flights", samples.ALICE)
    disk.write_bytes(bytes(4096))
    with pytest.raises(Refused, match="4096 bytes, its manifest says 8192"):
        disks.load(disk)


def test_files_that_are_not_there(tmp_path):
    disk = sealed_disk(tmp_path, "flights", samples.ALICE)
    (tmp_path / "flights.manifest.json").rename(tmp_path / "elsewhere")
    with pytest.raises(NotFound) as caught:
        disks.load(disk)
    assert caught.value.code == "no-manifest"
    assert disks.load(disk, tmp_path / "elsewhere").manifest.name == "flights"
    disk.unlink()
    with pytest.raises(NotFound) as caught:
        disks.load(disk, tmp_path / "elsewhere")
    assert caught.value.code == "no-disk"


def test_a_manifest_that_is_none(tmp_path):
    disk = sealed_disk(tmp_path, "flights", samples.ALICE)
    (tmp_path / "flights.manifest.json").write_bytes(b"{}")
    with pytest.raises(Malformed, match="envelope: key 'payloadType' is missing"):
        disks.load(disk)


@pytest.mark.parametrize("suffix", [".manifest.json", ".key.age"])
def test_another_file_of_a_disk_is_told_from_the_disk(tmp_path, suffix):
    sealed_disk(tmp_path, "flights", samples.ALICE)
    with pytest.raises(Misuse, match=f"flights{suffix}: a disk's .* by its name") as caught:
        disks.load(tmp_path / f"flights{suffix}")
    assert caught.value.hint == f"name the disk itself: {tmp_path / 'flights.disk'}"
