"""Hardware rooms as far as a machine without such hardware goes: started by what stands in for it, or refused."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from strongroom.agent.channel import Channel
from strongroom.agent.disks import nbd as agent_nbd
from strongroom.errors import Malformed, NotFound, Refused, Unavailable
from strongroom.model.contracts import agreement as agreement_model
from strongroom.model.room import channel as wire
from strongroom.node import doctor, room, tee_room
from strongroom.node.nitro import cli
from strongroom.node.nitro import room as nitro_room
from strongroom.node.qemu import machine
from strongroom.node.qemu import tee as qemu_tee
from tests import samples

CONTRACT = samples.a_contract()
AGREEMENT = agreement_model.draft(CONTRACT)
ENCLAVE = "i-0123456789abcdef0-enc0123456789abcde"


def order(tmp_path, **changes):
    out = tmp_path / "out"
    out.mkdir()
    made = room.Order(
        room="main", node=None, base=tmp_path, agreement=AGREEMENT, drives=(), manifests={}, out=out
    )
    return replace(made, **changes)


class Instance:
    """A parent instance: `nitro-cli` starts `enclave` in a thread, which connects by Unix sockets."""

    def __init__(self, tmp_path, enclave, *, answer=None, cid=None):
        self.folder, self.enclave, self.answer, self.cid = tmp_path, enclave, answer, cid
        self.ran, self.threads = [], []

    def listen(self, port):
        made = socket.socket(socket.AF_UNIX)
        made.bind(str(self.folder / str(port)))
        made.listen()
        return made

    def connect(self, port):
        made = socket.socket(socket.AF_UNIX)
        made.connect(str(self.folder / str(port)))
        return made

    def ask(self, line):
        self.ran.append(line)
        if line[1] == "terminate-enclave":
            return "{}"
        self.started = int(line[line.index("--enclave-cid") + 1])
        if self.enclave is not None:
            thread = threading.Thread(target=self.enclave, args=(self,))
            self.threads.append(thread)
            thread.start()
        told = {"EnclaveID": ENCLAVE, "EnclaveCID": self.started}
        return self.answer if self.answer is not None else f"Started enclave\n{json.dumps(told)}"

    def run(self, made):
        try:
            return nitro_room.NitroRoom(
                order=made,
                listen=self.listen,
                cid_of=lambda _address: self.started if self.cid is None else self.cid,
                ask=self.ask,
                boot_seconds=1,
            ).run()
        finally:
            for thread in self.threads:
                thread.join(60)


@pytest.fixture
def eif(tmp_path):
    (tmp_path / cli.EIF).write_bytes(b"eif")
    return tmp_path


def test_an_enclave_speaks_on_its_channel_and_reads_its_disks(eif):
    disk = bytes(range(256)) * 64
    (eif / "flights.disk").write_bytes(disk)
    seen = {}

    def enclave(instance):
        channel = Channel(instance.connect(wire.VSOCK_CHANNEL).detach(), ends=True)
        channel.send_control("hello")
        seen["start"] = wire.parse_start(channel.receive_control(10))
        with instance.connect(wire.VSOCK_DISKS) as connection:
            seen["size"] = agent_nbd.negotiate(connection, "data-0")
        channel.send_control("phase", name="booted", milliseconds=1)
        channel.send_control("failed", code="contract-mismatch", message="no", hint="h", checks=[])
        # The node hangs up first: then nothing more is to be said.
        with pytest.raises(Unavailable) as caught:
            channel.receive_control(10)
        seen["end"] = caught.value.code

    instance = Instance(eif, enclave)
    drives = (machine.Drive(serial="data-0", path=eif / "flights.disk"),)
    with pytest.raises(Refused) as caught:
        instance.run(order(eif, drives=drives, manifests={"data-0": b"signed"}))
    assert caught.value.code == "contract-mismatch"
    assert (seen["size"], seen["end"]) == (len(disk), "channel-lost")
    assert seen["start"].agreement == AGREEMENT.envelope.encode()
    assert (seen["start"].launch_record, seen["start"].issuers) == (b"", b"")
    assert [line[1] for line in instance.ran] == ["run-enclave", "terminate-enclave"]
    assert instance.ran[1][-1] == ENCLAVE
    assert not (eif / "out" / "launch-record.json").exists()


def test_an_enclave_that_dies_is_told_and_taken_away(eif):
    def enclave(instance):
        connection = instance.connect(wire.VSOCK_CHANNEL)
        connection.sendall(
            wire.Frame(type=wire.FrameType.CONTROL, stream=0, payload=b'{"kind":"hello"}').encode()
        )
        connection.recv(10)
        connection.close()

    instance = Instance(eif, enclave)
    with pytest.raises(Unavailable) as caught:
        instance.run(order(eif))
    assert caught.value.code == "room-died"
    assert instance.ran[-1][1] == "terminate-enclave"


def test_another_enclaves_connection_is_none(eif):
    def enclave(instance):
        with instance.connect(wire.VSOCK_CHANNEL) as connection:
            connection.recv(10)

    with pytest.raises(Unavailable) as caught:
        Instance(eif, enclave, cid=4).run(order(eif))
    assert caught.value.code == "room-silent"


def test_an_enclave_that_never_connects_is_taken_away(eif):
    instance = Instance(eif, None)
    with pytest.raises(Unavailable) as caught:
        instance.run(order(eif))
    assert (caught.value.code, instance.ran[-1][1]) == ("room-silent", "terminate-enclave")


def test_nitro_cli_that_starts_nothing(eif):
    instance = Instance(eif, None, answer="[ E51 ] no resources")
    with pytest.raises(Malformed, match="E51"):
        instance.run(order(eif))
    assert [line[1] for line in instance.ran] == ["run-enclave"]


def test_a_base_without_an_image_for_enclaves(tmp_path):
    with pytest.raises(NotFound) as caught:
        Instance(tmp_path, None).run(order(tmp_path))
    assert caught.value.code == "no-base"


def test_one_room_at_a_time_listens_by_vsock():
    try:
        first = nitro_room.listen_by_vsock(21339)
    except Unavailable as cause:
        pytest.skip(cause.message)
    with first, pytest.raises(Unavailable) as caught:
        nitro_room.listen_by_vsock(21339)
    assert caught.value.code == "address-taken"
    assert nitro_room.vsock_cid((7, 21339)) == 7
    assert nitro_room.vsock_cid("") is None


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed")
def test_without_the_hardware_qemu_ends_and_its_words_are_told(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    for name in ("bzImage", "initrd", "base.disk", "OVMF.amdsev.fd"):
        (base / name).write_bytes(bytes(4096))
    (base / "cmdline").write_text("quiet")
    made = order(tmp_path, base=base, firmware=base / "OVMF.amdsev.fd")
    tee = qemu_tee.Snp(contract_digest=CONTRACT.digest, cbit=51, reduced=1)
    with pytest.raises(Unavailable) as caught:
        tee_room.TeeRoom(order=made, tee=tee).run()
    assert caught.value.code == "room-died"
    assert "sev-snp-guest" in caught.value.message or "SEV-SNP" in caught.value.message


# The command line on a machine without a TEE, whatever this one has: it looks for devices below an empty folder.
WITHOUT_A_TEE = """
import sys
from pathlib import Path
from strongroom.cli.main import main
from strongroom.node import doctor

doctor.Host.__init__.__kwdefaults__["root"] = Path(sys.argv.pop(1))
main()
"""


def strongroom(root, *words):
    line = [sys.executable, "-c", WITHOUT_A_TEE, str(root), *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(("backend", "tee"), [("qemu-snp", "snp"), ("qemu-tdx", "tdx"), ("nitro", "nitro")])
def test_no_back_end_pretends(tmp_path, backend, tee):
    bare = tmp_path / "machine"
    bare.mkdir()
    assert not doctor.ability(doctor.Host(root=bare), backend).able
    platform = replace(CONTRACT.platforms[0], tee=tee)
    made = samples.a_contract(platforms=(platform,))
    (tmp_path / "contract.json").write_bytes(samples.signed(made).encode())
    options = ("--base", tmp_path, "--disk", tmp_path / "d", "--out", tmp_path / "out")
    for words in (
        ("run", tmp_path / "contract.json", *options, "--backend", backend),
        ("node", "doctor", "--backend", backend),
    ):
        done = strongroom(bare, *words)
        assert (done.returncode, "Traceback" in done.stderr) == (4, False)
        assert "error [backend-unable]: this machine cannot run rooms of" in done.stderr
        assert "hint: " in done.stderr
    # Without a back end named nothing local stands in for it.
    done = strongroom(bare, "run", tmp_path / "contract.json", *options)
    assert done.returncode == 2
    assert f"--backend {backend}" in done.stderr
    assert not (tmp_path / "out").exists()
