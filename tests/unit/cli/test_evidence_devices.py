"""`strongroom evidence` over a machine with GPUs: files beside the machine's own evidence, or all in one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from strongroom.cli.evidence import commands as verbs
from strongroom.errors import Malformed, PolicyDenied
from strongroom.evidence import verify
from strongroom.model.binding import Preset
from strongroom.model.endorsements import NONE
from strongroom_testing.vendors import fake_aws, fake_nvidia
from tests import samples

NOW, AT = samples.NOW, "2026-11-24T12:00:00Z"
NONCE = b"n" * 32
BOUND = Preset(values={"nonce": NONCE, "user_data": b"u" * 64, "report_data": b"u" * 64, "public_key": b""})


@pytest.fixture
def scene(tmp_path):
    """A Nitro enclave and two GPUs, each in a file of its own, and a policy that accepts them."""
    aws, vendor = fake_aws.FakeAws(now=NOW), fake_nvidia.Authority(now=NOW)
    gpus = [fake_nvidia.FakeGpu(now=NOW, authority=vendor) for _ in range(2)]
    cpu, shown = aws.evidence(BOUND), [gpu.evidence(BOUND) for gpu in gpus]
    claims = verify.verify(cpu, NONE, binding=BOUND, roots=frozenset({aws.root}), now=NOW)
    (tmp_path / "cpu.json").write_bytes(cpu.encode())
    for place, one in enumerate(shown):
        (tmp_path / f"gpu-{place}.json").write_bytes(one.encode())
    (tmp_path / "whole.json").write_bytes(replace(cpu, devices=tuple(shown)).encode())
    said = tmp_path / "endorsements"
    said.mkdir()
    for name, data in fake_nvidia.endorsements(zip(gpus, shown, strict=True)).parts.items():
        (said / f"{name}.der").write_bytes(data)
    measured = {f"m{index}": fake_nvidia.measured(f"measurement {index}").hex() for index in range(1, 65)}
    platform = {
        "tee": "nitro",
        "simulated": True,
        "roots": [aws.root],
        "machines": ["any"],
        "references": [dict(claims.registers)],
        "policy": {
            "devices": {"count": 2, "roots": [vendor.root], "machines": ["any"], "references": [measured]}
        },
    }
    policy = {"format": "strongroom-policy/1", "name": "test", "platforms": [platform]}
    (tmp_path / "policy.json").write_text(json.dumps(policy))
    return tmp_path


def verified(scene, file, *devices, **changes):
    asked = {
        "policy": scene / "policy.json",
        "endorsements": scene / "endorsements",
        "nonce": NONCE.hex(),
        "user_data": (b"u" * 64).hex(),
        "public_key": "",
        "at": AT,
        **changes,
    }
    verbs.verify(scene / file, device=[scene / one for one in devices], **asked)


def test_devices_in_files_of_their_own_and_all_in_one_are_judged_alike(scene, capsys):
    verified(scene, "cpu.json", "gpu-0.json", "gpu-1.json", as_json=True)
    apart = json.loads(capsys.readouterr().out)
    verified(scene, "whole.json", as_json=True)
    assert json.loads(capsys.readouterr().out) == apart
    assert apart["result"] == "accepted"
    assert [one["facts"]["model"] for one in apart["claims"]["devices"]] == ["GH100", "GH100"]
    assert [len(one["registers"]) for one in apart["claims"]["devices"]] == [64, 64]


@pytest.mark.parametrize(
    ("devices", "check"),
    [
        ((), "evidence.devices.count"),
        (("gpu-0.json",), "evidence.devices.count"),
        (("gpu-1.json", "gpu-0.json"), "evidence.devices.0.chain.revocation"),
        (("gpu-0.json", "gpu-0.json"), "evidence.devices.1.chain.revocation"),
        (("gpu-0.json", "cpu.json"), "evidence.devices.1.tee"),
    ],
)
def test_rule_14_other_devices_than_the_policy_names_are_denied(scene, devices, check):
    with pytest.raises(PolicyDenied) as caught:
        verified(scene, "cpu.json", *devices)
    assert [one.name for one in caught.value.verdict.failed] == [check]


def test_without_the_issuers_word_they_are_not_compared(scene):
    with pytest.raises(PolicyDenied) as caught:
        verified(scene, "whole.json", endorsements=None)
    assert [one.name for one in caught.value.verdict.failed] == ["platform.devices.compared"]


def test_every_device_is_shown(scene, capsys):
    verbs.show(scene / "whole.json")
    shown = capsys.readouterr().out
    assert "evidence of nitro with 2 attached device(s)" in shown
    assert "device 0 (nvgpu): report" in shown
    assert "device 1 (nvgpu): certificates" in shown
    verbs.diff(scene / "whole.json", scene / "cpu.json")
    assert "device 1 (nvgpu): report" in capsys.readouterr().out


def test_two_files_of_one_part_are_refused(scene):
    (scene / "endorsements" / "device-0.ocsp-1.txt").write_bytes(b"x")
    with pytest.raises(Exception, match="two files for the part"):
        verified(scene, "whole.json")


def test_a_device_within_a_device_is_malformed(scene):
    value = json.loads((scene / "whole.json").read_text())
    value["devices"][0]["devices"] = value["devices"][1:]
    (scene / "nested.json").write_text(json.dumps(value, separators=(",", ":"), sort_keys=True))
    with pytest.raises(Malformed, match=r"devices\[0\]: unknown key 'devices'"):
        verified(scene, "nested.json")
