"""An unmodified certbot against a broker's process, with the external account that a room got; and without one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from strongroom.crypto import tls
from strongroom.model import messages
from strongroom.model.contracts.certificate_terms import CertificateTerms, Interface
from strongroom_testing import broker_process, contracts
from strongroom_testing.acme_client import b64
from strongroom_testing.brokers import NAMES

CERTBOT = Path(sys.executable).with_name("certbot")
TERMS = CertificateTerms(names=NAMES, lifetime_seconds=3600, interfaces=(Interface.ACME,))


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    """(What certbot is told, the file by which it knows the broker) while the broker serves."""
    folder = tmp_path_factory.mktemp("acme")
    prepared = broker_process.prepare(folder / "broker")
    agreement = prepared.scene.agreement(
        lambda _: contracts.changed(prepared.agreement.contract, certificate=TERMS)
    )
    known = folder / "broker.pem"
    known.write_bytes(tls.pem_certificate(prepared.settings.certificate))
    with broker_process.served(prepared), prepared.client() as client:
        room = prepared.room_under(agreement)
        nonce = prepared.challenge(client, agreement).nonce
        status, answer = client.request("POST", "/v1/releases", room.request(nonce, names=NAMES))
        assert status == 200, answer
        sealed = messages.parse_release_answer(answer).account
        plain = room.kem.open(sealed, info=messages.account_info(room.binding(nonce)))
        yield messages.parse_external_account(plain), known


def certbot(folder, account, known, name, *, bound=True):
    binding = ("--eab-kid", account.kid, "--eab-hmac-key", b64(account.key)) if bound else ()
    folders = [
        part for option in ("config", "work", "logs") for part in (f"--{option}-dir", str(folder / option))
    ]
    return subprocess.run(
        [
            *(str(CERTBOT), "certonly", "--standalone", "--non-interactive", "--agree-tos"),
            *("--register-unsafely-without-email", "--server", account.directory, "-d", name, *binding),
            *folders,
        ],
        env={**os.environ, "REQUESTS_CA_BUNDLE": str(known)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_certbot_gets_a_certificate_for_the_contracts_name_and_no_other(account, tmp_path):
    told, known = account
    done = certbot(tmp_path, told, known, NAMES[0])
    assert done.returncode == 0, done.stdout + done.stderr
    live = tmp_path / "config" / "live" / NAMES[0]
    leaf, *_ = x509.load_pem_x509_certificates((live / "fullchain.pem").read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.DNSName(NAMES[0])]
    other = certbot(tmp_path, told, known, "other.example")
    assert other.returncode != 0
    assert "no name" in other.stdout + other.stderr


def test_certbot_without_the_rooms_external_account_gets_nothing(account, tmp_path):
    told, known = account
    done = certbot(tmp_path, told, known, NAMES[0], bound=False)
    assert done.returncode != 0
    assert not (tmp_path / "config" / "live").exists()
