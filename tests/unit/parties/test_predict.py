"""Registers predicted from files: what is missing or unfit is said of the file that it came from."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.bases.measure import snp, tdx
from strongroom.bases.measure.predict import MachineShape, Prediction
from strongroom.errors import Malformed, Misuse, NotFound
from strongroom.node import doctor
from strongroom.node.predict import predict_room
from strongroom.parties import predict
from strongroom_testing import firmware
from tests.unit.compare import base_documents

ROOM = MachineShape(vcpus=1, signature=snp.signature("EPYC-v4"))


@pytest.fixture
def base(tmp_path):
    for name, content in (("bzImage", b"kernel"), ("initrd", b"initrd"), ("cmdline", b"quiet")):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "snp.fd").write_bytes(firmware.build(firmware.Shape()))
    return tmp_path


def measured(base, shape=ROOM, **changes):
    asked = {"profile": "snp", "shape": shape, "firmware": base / "snp.fd", **changes}
    return predict.predict_base(base, **asked)


def test_a_prediction_is_of_the_files_and_of_the_shape(base):
    prediction = measured(base)
    assert isinstance(prediction, Prediction)
    assert (prediction.profile, prediction.tee) == ("snp", "snp")
    (register,) = prediction.registers
    assert prediction.references() == {"measurement": register.value}
    assert measured(base, MachineShape(vcpus=2, signature=ROOM.signature)) != prediction
    (base / "cmdline").write_bytes(b"quiet debug")
    assert measured(base) != prediction


@pytest.mark.parametrize(
    ("changes", "kind", "file"),
    [
        ({"profile": "sgx"}, Misuse, None),
        ({"shape": MachineShape(vcpus=1)}, Misuse, None),
        ({"firmware": None}, Misuse, None),
        ({"firmware": "initrd"}, Malformed, "initrd"),
        ({"firmware": "nowhere.fd"}, OSError, None),
        ({"profile": "uki", "firmware": None}, NotFound, None),
    ],
)
def test_what_is_missing_or_unfit_is_refused_and_named(base, changes, kind, file):
    if changes.get("firmware"):
        changes = {**changes, "firmware": base / changes["firmware"]}
    with pytest.raises(kind) as caught:
        measured(base, **changes)
    assert file is None or caught.value.file == base / file


def test_a_base_says_what_it_was_built_for_or_is_refused(base):
    with pytest.raises(Misuse, match=r"has no base\.json"):
        predict.built_for(base)
    (base / "base.json").write_bytes(base_documents.document("snp"))
    assert predict.built_for(base) == "snp"
    (base / "base.json").write_bytes(b"{}")
    with pytest.raises(Malformed, match=r"base\.json"):
        predict.built_for(base)


def test_acpi_tables_are_three_files_of_bounded_size(base):
    for name in ("table-loader", "rsdp", "tables"):
        with pytest.raises(FileNotFoundError, match=name):
            predict.load_acpi(base)
        (base / name).write_bytes(name.encode())
    assert predict.load_acpi(base) == tdx.Acpi(loader=b"table-loader", rsdp=b"rsdp", tables=b"tables")
    (base / "tables").write_bytes(bytes(predict.MAX_ACPI + 1))
    with pytest.raises(Malformed, match="larger than"):
        predict.load_acpi(base)


def test_a_public_key_is_one_block_of_pem(base):
    key = ec.generate_private_key(ec.SECP384R1())
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (base / "key.pem").write_bytes(public)
    assert predict.load_public_key(base / "key.pem")[:1] == b"\x30"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for data in (b"", b"junk", public + public, private):
        (base / "key.pem").write_bytes(data)
        with pytest.raises(Malformed) as caught:
            predict.load_public_key(base / "key.pem")
        assert caught.value.file == base / "key.pem"


def test_a_room_is_predicted_as_run_starts_it_where_nobody_chose(base, monkeypatch):
    monkeypatch.setattr(doctor, "SNP_FIRMWARE", (str((base / "snp.fd").relative_to("/")),))
    assert predict_room(base, profile="snp") == measured(base)
    (base / "base.json").write_bytes(base_documents.document("snp"))
    assert predict_room(base) == measured(base)
    two = MachineShape(vcpus=2, signature=ROOM.signature)
    assert predict_room(base, shape=two) == measured(base, two)


def test_a_shape_that_somebody_began_is_not_completed_in_silence(base):
    for shape in (
        MachineShape(vcpus=2),
        MachineShape(signature=ROOM.signature),
        MachineShape(vmm=snp.Vmm.EC2),
    ):
        with pytest.raises(Misuse) as caught:
            predict_room(base, profile="snp", shape=shape, firmware=base / "snp.fd")
        assert caught.value.code == "not-given"


def test_where_no_firmware_is_installed_it_has_to_be_given(base, monkeypatch):
    monkeypatch.setattr(doctor, "SNP_FIRMWARE", ())
    with pytest.raises(Misuse) as caught:
        predict_room(base, profile="snp")
    assert caught.value.code == "not-given"
