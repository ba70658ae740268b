"""Provisioning and launch measurement against the real swtpm."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import socket
import struct
import subprocess
import threading

import pytest

from strongroom.crypto import digest, spki, tls
from strongroom.crypto.pki import local_ca, x509
from strongroom.encoding import tpm2
from strongroom.errors import Malformed, Misuse, NotFound, Refused, Unavailable
from strongroom.evidence.formats import tpm_quote
from strongroom.node.vtpm import create, hcrtm, provision, swtpm
from strongroom.node.vtpm import state as tpm_state
from tests.samples import NOW

ALL = tuple(range(13))


@contextlib.contextmanager
def started(state, record=None):
    """A TPM over a copy of `state`, behind the launch measurer, as QEMU would start it."""
    fd = os.memfd_create("state", os.MFD_CLOEXEC)
    os.write(fd, state)
    qemu, proxy = socket.socketpair()
    to_swtpm, control = socket.socketpair()
    data, data_end = socket.socketpair()
    child = subprocess.Popen(swtpm.arguments(fd, control.fileno()), pass_fds=(fd, control.fileno()))
    measurer = hcrtm.LaunchMeasurer(proxy, to_swtpm, lambda: record)
    try:
        with qemu, control, data, data_end:
            control.close()
            measurer.start()
            qemu.settimeout(10)
            data.settimeout(10)
            socket.send_fds(qemu, [struct.pack(">I", swtpm.CMD_SET_DATAFD)], [data_end.fileno()])
            assert qemu.recv(64) == bytes(4)
            qemu.sendall(struct.pack(">II", swtpm.CMD_INIT, 0))
            assert qemu.recv(64) == bytes(4)
            assert measurer.measured
            client = provision.TpmClient(data)
            client.run(tpm2.startup())
            yield client
    finally:
        measurer.stop()
        child.kill()
        child.wait()
        os.close(fd)


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nodes") / "here"
    return create.create(folder, "here", now=NOW, random=secrets.token_bytes)


def read_nv(client, index):
    size = tpm2.read_nv_size(client.run(tpm2.nv_read_public(index)).parameters)
    return tpm2.read_sized(client.run(tpm2.nv_read(index, size, 0)).parameters)


def test_the_folder_reads_back(node):
    assert tpm_state.load(node.folder) == node
    assert node.to_json()["machine"] == node.machine
    for one in node.folder.iterdir():
        assert one.stat().st_mode & 0o077 == 0


def test_the_launch_record_is_the_first_word_of_pcr_0(node):
    record = b'{"kernel":"..."}' * 600  # longer than one chunk
    with started(node.tpm_state(), record) as client:
        pcr = tpm2.read_pcr(client.run(tpm2.pcr_read(0)).parameters, 0)
        others = [tpm2.read_pcr(client.run(tpm2.pcr_read(n)).parameters, n) for n in range(1, 17)]
    assert pcr == hashlib.sha256(bytes(31) + b"\x04" + hashlib.sha256(record).digest()).digest()
    assert pcr == tpm_quote.extend(tpm_quote.H_CRTM_START, hashlib.sha256(record).digest())
    assert set(others) == {bytes(32)}


def test_another_record_is_another_pcr(node):
    values = set()
    for record in (b"one", b"two"):
        with started(node.tpm_state(), record) as client:
            values.add(tpm2.read_pcr(client.run(tpm2.pcr_read(0)).parameters, 0))
    assert len(values) == 2


def test_quotes_verify_against_the_certificate_in_the_tpm(node):
    extra = secrets.token_bytes(32)
    with started(node.tpm_state(), b"r") as client:
        client.run(tpm2.pcr_extend(12, hashlib.sha256(b"contract").digest()))
        answer = client.run(tpm2.quote(provision.AK_HANDLE, extra, ALL))
        attest, signature = tpm2.read_quote(answer.parameters)
        certificate = read_nv(client, provision.AK_CERTIFICATE_NV)
        public = tpm2.read_sized(client.run(tpm2.read_public(provision.AK_HANDLE)).parameters)
        pcrs = b"".join(tpm2.read_pcr(client.run(tpm2.pcr_read(n)).parameters, n) for n in ALL)
    path = x509.verify_path(
        certificate, node.issuers, roots=frozenset({node.root}), purpose=local_ca.AK_PURPOSE, now=NOW
    )
    assert path.leaf.spki_digest == node.machine == spki.digest_of_certificate(certificate)
    assert digest.sha256(local_ca.spki(tpm2.read_p256_point(public))) == node.machine
    assert "SIMULATED" in path.root.subject
    tpm_quote.check_signature(tpm_quote.parse_signature(signature), path.leaf.key, attest)
    quote = tpm_quote.parse_quote(attest)
    assert (quote.extra_data, quote.selection) == (extra, ALL)
    assert quote.pcr_digest == hashlib.sha256(pcrs).digest()
    with pytest.raises(Refused, match="signature does not verify"):
        tpm_quote.check_signature(tpm_quote.parse_signature(signature), path.leaf.key, attest[:-1] + b"\x00")


def test_rooms_side_by_side_share_no_pcr(node):
    with started(node.tpm_state(), b"r") as one, started(node.tpm_state(), b"r") as other:
        one.run(tpm2.pcr_extend(12, bytes(32)))
        assert tpm2.read_pcr(other.run(tpm2.pcr_read(12)).parameters, 12) == bytes(32)
        assert tpm2.read_pcr(one.run(tpm2.pcr_read(12)).parameters, 12) != bytes(32)
    assert hashlib.sha256(node.tpm_state()).digest()  # the template itself is only read


def test_the_attestation_key_signs_nothing_that_looks_like_a_quote(node):
    # A restricted key: TPM2_Sign over a digest that the TPM did not make itself is refused.
    sign = bytes.fromhex("80020000004f0000015d") + struct.pack(">I", provision.AK_HANDLE)
    sign += bytes.fromhex("00000009400000090000000000") + b"\x00\x20" + bytes(32)
    sign += bytes.fromhex("0010") + bytes.fromhex("8024400000070000")
    sign = sign[:2] + struct.pack(">I", len(sign)) + sign[6:]
    with started(node.tpm_state(), b"r") as client, pytest.raises(Unavailable) as caught:
        client.run(sign)
    assert caught.value.message.endswith("0x3e0")  # TPM_RC_TICKET, of parameter 3


def test_only_the_sha256_bank_is_there(node):
    sha1 = bytes.fromhex("800100000014") + bytes.fromhex("0000017e") + bytes.fromhex("00000001000403ff0000")
    with started(node.tpm_state(), b"r") as client:
        answer = client.run(sha1).parameters
    answer.u32()
    assert answer.take(answer.remaining).endswith(struct.pack(">I", 0))  # no value


def test_a_folder_that_is_there_stays_as_it_is(node, tmp_path):
    with pytest.raises(Misuse, match="here: exists already"):
        create.create(node.folder, "here", now=NOW, random=secrets.token_bytes)
    with pytest.raises(Malformed, match="node name 'Not A Name'"):
        create.create(tmp_path / "n", "Not A Name", now=NOW, random=secrets.token_bytes)
    assert not (tmp_path / "n").exists()


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(swtpm, "PROGRAM", "swtpm-that-is-not-there")
    with pytest.raises(NotFound) as caught:
        create.create(tmp_path / "n", "here", now=NOW, random=secrets.token_bytes)
    assert caught.value.code == "no-swtpm"
    monkeypatch.setattr(swtpm, "PROGRAM", "false")
    with pytest.raises(Unavailable) as failed:
        create.create(tmp_path / "n", "here", now=NOW, random=secrets.token_bytes)
    assert failed.value.code == "tpm-failed"
    assert list(tmp_path.iterdir()) == []


def test_parts_that_do_not_belong_together(node, tmp_path):
    other = create.create(tmp_path / "other", "other", now=NOW, random=secrets.token_bytes)
    for name in ("root.der", "ak.der"):
        own = (other.folder / name).read_bytes()
        (other.folder / name).write_bytes((node.folder / name).read_bytes())
        with pytest.raises(Malformed) as caught:
            tpm_state.load(other.folder)
        assert caught.value.code == "mismatch"
        (other.folder / name).write_bytes(own)
    with pytest.raises(NotFound, match=r"nowhere/node\.json: not there"):
        tpm_state.load(tmp_path / "nowhere")


def test_two_nodes_are_two_machines(node, tmp_path):
    other = create.create(tmp_path / "other", "here", now=NOW, random=secrets.token_bytes)
    assert other.machine != node.machine
    assert other.root != node.root


def test_a_point_off_the_curve_gets_no_certificate():
    key = tls.generate()
    root = local_ca.make_root(key, name="n", now=NOW, random=secrets.token_bytes)
    with pytest.raises(Malformed, match="its point is not on P-256"):
        local_ca.certify_ak(
            key, root, (b"\x01" * 32, b"\x02" * 32), name="n", now=NOW, random=secrets.token_bytes
        )


def test_a_record_that_cannot_be_measured_stops_the_room():
    """swtpm says no to the hash: QEMU's control channel closes, so that the guest never starts."""
    qemu, proxy = socket.socketpair()
    to_swtpm, fake = socket.socketpair()
    measurer = hcrtm.LaunchMeasurer(proxy, to_swtpm, lambda: b"record")

    def refuse():
        fake.recv(64)
        fake.sendall(bytes(4))  # CMD_INIT succeeds
        fake.recv(64)
        fake.sendall(struct.pack(">I", 9))

    thread = threading.Thread(target=refuse)
    thread.start()
    with qemu, fake:
        measurer.start()
        qemu.settimeout(10)
        qemu.sendall(struct.pack(">II", swtpm.CMD_INIT, 0))
        assert qemu.recv(64) == b""
        thread.join()
    measurer.stop()
    assert not measurer.measured
    assert measurer.failure is not None
    assert measurer.failure.code == "tpm-failed"
