"""`strongroom evidence show`: fields with their meaning, also of evidence that would be refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from strongroom.evidence.describe.show import describe
from strongroom.evidence.tpm import PARTS
from strongroom.model.evidence import Evidence
from strongroom_testing import contracts
from strongroom_testing.vendors import fake_tpm
from tests.unit.evidence.tpm_evidence import BINDING, GOOD, RSA


def show(tmp_path: Path, data: bytes, *options: str) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "evidence.json"
    file.write_bytes(data)
    program = Path(sys.executable).with_name("strongroom")
    return subprocess.run(
        [program, "evidence", "show", file, *options], capture_output=True, text=True, check=False
    )


def test_every_part_is_told(tmp_path):
    done = show(tmp_path, GOOD.encode())
    assert done.returncode == 0, done.stderr
    assert "verified  no" in done.stdout
    for part in PARTS:
        assert f"\n{part}\n" in done.stdout
    for text in ("SIMULATED", "Calling INT 19h", "PCR 12", fake_tpm.RECORD.kernel, "memory guard  on"):
        assert text in done.stdout


def test_programs_get_json(tmp_path):
    done = show(tmp_path, GOOD.encode(), "--json")
    told = json.loads(done.stdout)
    assert told["tee"] == "tpm"
    assert told["verified"] is False
    assert {one["part"] for one in told["fields"]} == set(PARTS)


def test_damaged_evidence_is_described_and_a_damaged_file_refused(tmp_path):
    parts = {**GOOD.parts, "quote": b"?", "note": b"hello"}
    del parts["event-log"]
    done = show(tmp_path, Evidence(tee="tpm", parts=parts).encode())
    assert done.returncode == 0
    for text in ("malformed", "missing", "unknown"):
        assert text in done.stdout
    done = show(tmp_path, b"{}")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_an_unknown_tee_is_described_by_its_parts():
    names = [one.name for one in describe(Evidence(tee="other", parts={"blob": b"x"}))]
    assert names == ["size", "unknown"]


@pytest.mark.parametrize("fault", [None, *fake_tpm.Fault])
def test_describing_never_fails(fault):
    machine = fake_tpm.FakeTpm(now=contracts.NOW)
    assert all(one.value for one in describe(machine.evidence(BINDING, fault=fault)))
    assert all(one.value for one in describe(RSA.evidence(BINDING)))
