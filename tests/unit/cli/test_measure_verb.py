"""`strongroom measure` in one process: what it prints, and how it says no."""

from __future__ import annotations

import json
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.bases.measure import snp
from strongroom.cli import main
from strongroom.cli.evidence import measure
from strongroom.errors import Misuse
from strongroom.parties import draft as drafts
from strongroom_testing import firmware
from tests.unit.compare import base_documents
from tests.unit.images import kit


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in (("bzImage", b"kernel"), ("initrd", b"initrd"), ("cmdline", b"quiet")):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "snp.fd").write_bytes(firmware.build(firmware.Shape()))
    return tmp_path


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["strongroom", "measure", *words])
    with pytest.raises(SystemExit) as left:
        main.main()
    printed = capsys.readouterr()
    return left.value.code, printed.out, printed.err


SNP = ("--for", "snp", "--ovmf", "snp.fd", "--vcpus", "2", "--vcpu-type", "EPYC-Milan")


def test_a_reference_is_what_contract_new_takes(base, monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, ".", *SNP, "--reference")
    assert code == 0
    (base / "reference.json").write_text(out)
    (platform,) = drafts.hardware_platforms([base / "reference.json"], machines=[("snp", "0102")])
    assert platform.references == tuple(json.loads(out)["references"])
    assert (platform.tee, platform.machines, platform.simulated) == ("snp", ("0102",), False)
    assert len(platform.roots) == 3


def test_without_a_shape_the_measurement_is_of_the_room_that_run_starts(base, monkeypatch, capsys):
    words = ("--for", "snp", "--ovmf", "snp.fd", "--reference")
    own = run(monkeypatch, capsys, ".", *words)
    assert own[0] == 0
    assert own == run(monkeypatch, capsys, ".", *words, "--vcpus", "1", "--vcpu-type", "EPYC-v4")
    assert own != run(monkeypatch, capsys, ".", *words, "--vcpus", "2", "--vcpu-type", "EPYC-v4")


def test_firmware_is_what_run_starts_here(base, monkeypatch, capsys):
    from strongroom.node import doctor

    _, named, _ = run(monkeypatch, capsys, ".", "--for", "snp", "--ovmf", "snp.fd", "--json")
    monkeypatch.setattr(doctor, "SNP_FIRMWARE", ())
    code, _, err = run(monkeypatch, capsys, ".", "--for", "snp")
    assert (code, "not-given" in err) == (2, True)
    monkeypatch.setattr(doctor, "SNP_FIRMWARE", (str((base / "snp.fd").relative_to("/")),))
    assert run(monkeypatch, capsys, ".", "--for", "snp", "--json")[1] == named


def test_two_references_of_one_tee_are_alternatives(base):
    for number in (1, 2):
        text = json.dumps({"tee": "snp", "references": [{"measurement": f"0{number}"}]})
        (base / f"{number}.json").write_text(text)
    paths = [base / "1.json", base / "2.json"]
    (platform,) = drafts.hardware_platforms(paths, any_machine=True)
    assert platform.references == ({"measurement": "01"}, {"measurement": "02"})
    assert platform.machines == ("any",)


@pytest.mark.parametrize(
    ("text", "machines", "why"),
    [
        ('{"tee": "tpm", "references": [{"pcr0": "00"}]}', [], "no vendor's root is pinned for tpm"),
        (
            '{"tee": "snp", "references": [{"measurement": "00"}]}',
            [("tdx", "01")],
            "there is no --reference for 'tdx'",
        ),
    ],
)
def test_references_that_no_platform_fits_are_refused(base, text, machines, why):
    (base / "r.json").write_text(text)
    with pytest.raises(Misuse, match=why):
        drafts.hardware_platforms([base / "r.json"], machines=machines)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--for", "sgx"), "one of local, snp, tdx"),
        (("--for", "snp", "--ovmf", "snp.fd", "--vcpus", "2"), "not-given"),
        (("--for", "snp", "--ovmf", "initrd"), "give a whole OVMF image"),
        ((*SNP, "--page-order", "never"), "one of each, section"),
        ((*SNP, "--vmm", "xen"), "one of qemu, ec2, gce"),
        ((*SNP, "--memory", "lots"), "a size like 2G"),
        ((*SNP, "--guest-features", "1"), "hexadecimal"),
        ((*SNP, "--reference", "--without", "rtmr9"), "no-such-register"),
        (("--for", "snp", "--ovmf", "nowhere.fd"), "nowhere.fd: No such file"),
        (("--for", "tdx", "--ovmf", "snp.fd", "--acpi", "."), "table-loader"),
        (("--for", "uki"), "strongroom.efi"),
        ((), "--for local, uki"),
    ],
)
def test_what_is_missing_or_unknown_is_told(base, monkeypatch, capsys, words, told):
    code, _, err = run(monkeypatch, capsys, ".", *words)
    assert code in (2, 5)
    assert told in err


def test_keys_of_an_id_block_are_told_beside_the_measurement(base, monkeypatch, capsys):
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    (base / "id.pem").write_bytes(key.public_bytes(serialization.Encoding.PEM, form))
    der = key.public_bytes(serialization.Encoding.DER, form)
    _, out, _ = run(monkeypatch, capsys, ".", *SNP, "--id-key", "id.pem", "--json")
    found = json.loads(out)
    assert [(one["name"], one["value"]) for one in found["beside"]] == [
        ("id_key_digest", snp.key_digest(der))
    ]
    assert "id_key_digest" not in found["references"][0]


@pytest.mark.parametrize("profile", ["local", "snp", "tdx"])
def test_a_command_line_that_is_not_one_line_is_refused(base, monkeypatch, capsys, profile):
    (base / "cmdline").write_bytes(b"quiet\n")
    (base / "tdx.fd").write_bytes(
        firmware.build(
            firmware.Shape(tdx=firmware.tdx_sections(front=0, size=32 * 4096), volume=firmware.measuring())
        )
    )
    words = {"local": ("--firmware", "initrd"), "snp": SNP[2:], "tdx": ("--ovmf", "tdx.fd")}[profile]
    code, _, err = run(monkeypatch, capsys, ".", "--for", profile, *words)
    assert code == 2
    assert "bad-text" in err


def test_a_base_says_what_it_was_built_for(base, monkeypatch, capsys):
    (base / "base.json").write_bytes(base_documents.document("snp"))
    code, out, _ = run(monkeypatch, capsys, ".", *SNP[2:], "--json")
    found = json.loads(out)
    assert (code, found["profile"], found["tee"]) == (0, "snp", "snp")
    assert found["references"] == [{"measurement": found["registers"][0]["value"]}]


def test_sizes_are_powers_of_two():
    assert [measure._bytes(text) for text in ("4096", "512M", "2G", "1T", "2GiB")] == [
        4096,
        512 << 20,
        2 << 30,
        1 << 40,
        2 << 30,
    ]


def test_a_difference_is_exit_code_7_and_json_says_what(base, monkeypatch, capsys):
    from strongroom.bases import initramfs

    for name in ("old", "new"):
        (base / name).mkdir()
        (base / name / "bzImage").write_bytes(b"kernel")
        (base / name / "initrd").write_bytes(initramfs.archive({}))
        (base / name / "cmdline").write_bytes(b"quiet console=none")
    assert run(monkeypatch, capsys, "diff", "old", "new")[0] == 0
    (base / "new" / "cmdline").write_bytes(b"quiet console=none debug")
    code, out, _ = run(monkeypatch, capsys, "diff", "old", "new", "--json")
    found = json.loads(out)
    assert code == 7
    assert found["same"] is False
    assert found["changes"] == [
        {
            "topic": "cmdline",
            "part": "cmdline",
            "name": "debug",
            "before": None,
            "after": "debug",
            "registers": [],
        }
    ]


def test_many_changes_are_counted_and_all_are_shown_when_asked_for(base, monkeypatch, capsys):
    from strongroom.bases import initramfs
    from strongroom.bases.files import File

    for name, files in (("old", {}), ("new", {f"f{number:02}": File(content=b"x") for number in range(30)})):
        (base / name).mkdir()
        (base / name / "bzImage").write_bytes(b"kernel")
        (base / name / "initrd").write_bytes(initramfs.archive(files))
        (base / name / "cmdline").write_bytes(b"quiet")
    _, out, _ = run(monkeypatch, capsys, "diff", "old", "new")
    assert "and 10 more (--all shows them)" in out
    assert "f29" not in out
    assert "f29" in run(monkeypatch, capsys, "diff", "old", "new", "--all")[1]


def test_oci_images_and_root_file_systems_are_compared_by_what_is_in_them(base, monkeypatch, capsys):
    for name, program in (("a", b"one"), ("b", b"two")):
        kit.simple(base / name, kit.entry(b"bin/program", program, mode=0o755) + kit.END)
    code, out, _ = run(monkeypatch, capsys, "diff", "a", "b")
    assert code == 7
    assert "image: bin/program" in out
    assert run(monkeypatch, capsys, "diff", "a", "a")[0] == 0
    for name, words in (("c", ["/bin/x"]), ("d", ["/bin/x", "--more"])):
        (base / "root/bin").mkdir(parents=True, exist_ok=True)
        (base / "root/bin/x").write_bytes(b"x")
        (base / f"{name}.json").write_text(json.dumps({"config": {"Entrypoint": words}}))
    code, out, _ = run(
        monkeypatch, capsys, "diff", "root", "root", "--config", "c.json", "--config", "d.json"
    )
    assert code == 7
    assert "setting     entrypoint: '/bin/x' -> '/bin/x' '--more'" in out
    assert run(monkeypatch, capsys, "diff", "root", "root", "--config", "c.json")[0] == 2


def test_unlike_things_are_not_compared(base, monkeypatch, capsys):
    from strongroom.bases import initramfs

    (base / "initrd").write_bytes(initramfs.archive({}))
    kit.simple(base / "a", kit.entry(b"bin/program", b"x", mode=0o755) + kit.END)
    code, _, err = run(monkeypatch, capsys, "diff", ".", "a")
    assert (code, "unlike" in err) == (2, True)
