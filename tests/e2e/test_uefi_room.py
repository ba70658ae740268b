"""A whole room on a machine as a cloud has it: UEFI, the disk image of the profile `uki`, a virtual TPM as Google's.

The contract names registers that were predicted from `strongroom.efi`; the agent finds the TPM by itself; a real broker
judges. Google is a fake with an authority of its own, so the contract says `simulated`; all else is what users run.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from strongroom.bases.measure import uki as measure_uki
from strongroom.errors import PolicyDenied
from strongroom.model.contracts import agreement as agreement_model
from strongroom.model.contracts import contract as contract_model
from strongroom.model.contracts import drafting
from strongroom.model.contracts import policy as policy_model
from strongroom.model.receipt import Outcome
from strongroom.model.room import channel
from strongroom.node import relay, run_folder
from strongroom.node.room import _brokers
from strongroom_testing.vendors.fake_google import FakeGoogle
from tests.e2e import measured_boot, real_rooms
from tests.unit.agent import cloud_tpms

pytestmark = [
    pytest.mark.room,
    pytest.mark.soak,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        bool(real_rooms.missing() or measured_boot.missing()),
        reason=real_rooms.missing() or measured_boot.missing(),
    ),
]
# What the files do not decide, and the parties sign that they do not compare: see docs/artefacts.md.
MACHINES = ("pcr0", "pcr1", "pcr2", "pcr3", "pcr5", "pcr6", "pcr7", "pcr10")


@pytest.fixture(scope="module")
def world():
    root = Path(tempfile.mkdtemp(prefix="strongroom-uefi-"))
    made = real_rooms.prepare(root)
    yield made
    made.close()
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """The profile's folder, a Google, and the state of a TPM that it made."""
    folder = tmp_path_factory.mktemp("uki") / "base"
    real_rooms.strongroom("base", "build", "--for", "uki", "--out", folder)
    google = FakeGoogle(now=datetime.now(UTC).replace(microsecond=0))
    return folder, google, measured_boot.provisioned(lambda tpm: cloud_tpms.equip_google(tpm, google))


def signed(world, machine, script: str, reference: dict[str, str]):
    """A contract over the world's disks for machines with these registers."""
    _, google, _ = machine
    local = agreement_model.read(world.contract(script).read_bytes()).contract
    platform = contract_model.Platform(
        tee="gcp",
        simulated=True,
        memory_guard=False,
        roots=(google.root,),
        machines=("any",),
        references=(reference,),
        policy=policy_model.Policy(any_value=MACHINES),
    )
    made = replace(local, id=f"{local.id}-uefi", platforms=(platform,), raw=b"")
    agreed = agreement_model.draft(contract_model.parse(drafting.encode(made)))
    for name in ("alice", "bob"):
        agreed = agreement_model.add_signature(agreed, world.identity(name).signing)
    return agreed


def run(world, machine, agreed, out: Path) -> list[str]:
    """What a node would do; returns the phases. Raises what the room says."""
    folder, google, state = machine
    out.mkdir()
    start = channel.Start(
        agreement=agreed.encode(),
        room="main",
        launch_record=b"",
        issuers=google.issuers,
        manifests={
            "image": world.path("query.manifest.json").read_bytes(),
            "data-0": world.path("flights.manifest.json").read_bytes(),
        },
    )
    disks = measured_boot.from_disk(folder / "strongroom.img")
    disks += measured_boot.further_disk(world.path("query.disk"), "image")
    disks += measured_boot.further_disk(world.path("flights.disk"), "data-0")
    phases: list[str] = []
    with measured_boot.started_machine(state, *disks, memory=768) as link:
        files = run_folder.Inbox(out, agreed.contract, "main")
        wire = relay.Relay(
            link,
            brokers=_brokers(agreed),
            start=start.encode(),
            inbox=files,
            on_phase=lambda name, _: phases.append(name),
            on_note=lambda _: None,
            watched={},
        )
        try:
            wire.serve(relay.Patience(hello=400, silence=300, total=800))
        finally:
            wire.close()
            files.close()
    return phases


def test_a_room_whose_registers_were_predicted_gets_the_key_and_does_its_work(world, machine, tmp_path):
    image = (machine[0] / "strongroom.efi").read_bytes()
    predicted = measure_uki.measure(image).reference()
    script = "wc -l </data/flights/table.csv >/out/rows"
    phases = run(world, machine, signed(world, machine, script, predicted), tmp_path / "out")
    assert phases == [
        "booted", "contract-bound", "attested:alice", "disks-open", "program-started", "program-ended",
        "outputs-sealed", "receipt-posted", "outputs-sent",
    ]  # fmt: skip
    told = json.loads((tmp_path / "out/release-alice.json").read_bytes())["verdict"]
    checks = {one["name"]: one for one in told["checks"]}
    for name, value in predicted.items():
        assert checks[f"platform.reference.{name}"]["got"] == value
        assert checks[f"platform.reference.{name}"]["ok"]
    ran = real_rooms.Ran(code=0, text="", folder=tmp_path / "out")
    assert ran.receipt.outcome is Outcome.EXITED
    assert ran.output(world.identity("bob"))["rows"].split()[0] == str(real_rooms.ROWS).encode()


def test_an_image_that_the_parties_did_not_sign_for_gets_nothing(world, machine, tmp_path):
    image = (machine[0] / "strongroom.efi").read_bytes()
    changed = image.replace(b"quiet loglevel=0", b"quiet loglevel=1")
    assert changed != image
    other = measure_uki.measure(changed).reference()
    with pytest.raises(PolicyDenied) as caught:
        run(world, machine, signed(world, machine, "exit 0", other), tmp_path / "out")
    failed = {check.name for check in caught.value.verdict.failed}
    assert failed == {f"platform.reference.{name}" for name in ("pcr4", "pcr9", "pcr11")}
    assert not (tmp_path / "out/receipt.json").exists()
