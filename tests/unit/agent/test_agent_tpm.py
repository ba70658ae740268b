"""The TPM client against a real swtpm, provisioned as a node provisions it."""

from __future__ import annotations

import hashlib
import os
import shutil
from datetime import UTC, datetime

import pytest

from strongroom.agent import tpm
from strongroom.agent.devices import tpm as device
from strongroom.crypto import digest, sign, tls
from strongroom.crypto.pki import local_ca, x509
from strongroom.errors import Malformed, Refused, Unavailable
from strongroom.evidence.formats import tpm_quote
from strongroom.model import binding as binding_model
from strongroom.model.room.channel import Start
from strongroom.node.vtpm import provision

pytestmark = pytest.mark.skipif(shutil.which("swtpm") is None, reason="swtpm is not installed")

CONTRACT = "sha256:" + "ab" * 32


class Wire:
    """The node's client as a transport."""

    def __init__(self, client) -> None:
        self.exchange = client._exchange


@pytest.fixture(scope="module")
def provisioned():
    key = tls.generate()
    now = datetime.now(UTC)
    root = local_ca.make_root(key, name="test", now=now, random=os.urandom)
    certificates = []

    def certify(point):
        certificates.append(local_ca.certify_ak(key, root, point, name="test", now=now, random=os.urandom))
        return certificates[0]

    return provision.provision(certify), certificates[0], root


@pytest.fixture
def client(provisioned):
    fd = os.memfd_create("tpm")
    os.write(fd, provisioned[0])
    with provision._running(fd) as running:
        yield tpm.Tpm(Wire(running))
    os.close(fd)


def test_contract_is_bound_once(client):
    attester = device.TpmAttester(client)
    attester.bind_contract(CONTRACT)
    assert client.read_pcr(12) == hashlib.sha256(bytes(32) + digest.raw(CONTRACT)).digest()
    with pytest.raises(Refused) as caught:
        attester.bind_contract(CONTRACT)
    assert caught.value.code == "pcr-in-use"


def test_evidence_is_signed_by_the_certified_key_over_this_binding(client, provisioned):
    _, certificate, root = provisioned
    attester = device.TpmAttester(client, event_log="/absent")
    attester.bind_contract(CONTRACT)
    keys = binding_model.RoomKeys(signing=sign.generate().public.raw, tls=b"tls", kem=bytes(1216))
    binding = binding_model.Binding(
        nonce=bytes(32), contract_digest=CONTRACT, keys=keys, role="main", audience=CONTRACT
    )
    start = Start(agreement=b"", room="main", launch_record=b"record", issuers=root, manifests={})
    evidence = attester.evidence(binding, start)
    assert set(evidence.parts) == {
        "quote", "signature", "ak-certificate", "issuers", "pcrs", "event-log", "launch-record",
    }  # fmt: skip
    assert evidence.part("ak-certificate") == certificate
    assert evidence.part("launch-record") == b"record"
    quote = tpm_quote.parse_quote(evidence.part("quote"))
    assert quote.extra_data == hashlib.sha256(binding.digest()).digest()
    assert quote.selection == tuple(range(13))
    assert quote.pcr_digest == hashlib.sha256(evidence.part("pcrs")).digest()
    path = x509.verify_path(
        certificate,
        root,
        roots=frozenset({digest.sha256(root)}),
        purpose="2.23.133.8.3",
        now=datetime.now(UTC),
    )
    signature = tpm_quote.parse_signature(evidence.part("signature"))
    tpm_quote.check_signature(signature, path.leaf.key, evidence.part("quote"))
    with pytest.raises(Refused, match="signature:"):
        tpm_quote.check_signature(signature, path.leaf.key, evidence.part("quote") + b"x")


def test_random_bytes_differ(client):
    assert len({client.random() for _ in range(8)}) == 8


def test_what_the_tpm_refuses_is_unavailable(client):
    with pytest.raises(Unavailable, match="the TPM answered"):
        client.read_nv(0x01C1FFFF)
    with pytest.raises(Unavailable, match="the TPM answered"):
        client.quote(0x81019999, bytes(32), (0,))
    with pytest.raises(Malformed, match="a PCR is extended by 32 bytes, got 5"):
        client.extend_pcr(12, b"short")


def test_a_tpm_that_says_it_extended_and_did_not_is_found_out():
    class Liar:
        def read_pcr(self, index):
            return bytes(32)

        def extend_pcr(self, index, measurement):
            return

    with pytest.raises(Refused) as caught:
        device.TpmAttester(Liar()).bind_contract(CONTRACT)  # type: ignore[arg-type]
    assert caught.value.code == "pcr-wrong"


def test_a_tpm_that_is_always_busy_is_given_up():
    class Busy:
        calls = 0

        def exchange(self, command):
            Busy.calls += 1
            return bytes.fromhex("80010000000a00000922")

    with pytest.raises(Unavailable, match="the TPM stays busy"):
        tpm.Tpm(Busy()).random()
    assert Busy.calls == 100


def test_no_device():
    with pytest.raises(Unavailable) as caught:
        tpm.TpmDevice("/dev/absent-tpm")
    assert caught.value.code == "no-tpm"
