"""A root's key in a token: SoftHSM's, by PKCS#11. Contracts' issuers come from it; rooms' certificates cost it nothing."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import threading
from pathlib import Path

import pytest
from cryptography import x509

from strongroom.authority.roots import RootState
from strongroom.broker.certificates import standing
from strongroom.broker.challenge import challenge
from strongroom.crypto import digest, tls
from strongroom.crypto.pki import crl
from strongroom.crypto.pki import x509 as own
from strongroom.errors import Misuse, Unavailable
from strongroom.model import identity as identity_model
from strongroom.model import messages
from strongroom.wiring import broker, token_key
from strongroom_testing import broker_process, brokers
from tests import verbs

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PIN = b"1234"
URI = f"pkcs11:token=broker;object=root?module-path={MODULE}"


@pytest.fixture(scope="module")
def token(tmp_path_factory):
    """A token of one's own, with a P-256 key pair in it, made by OpenSC."""
    folder = tmp_path_factory.mktemp("token")
    (folder / "tokens").mkdir()
    config = folder / "softhsm2.conf"
    config.write_text(
        f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    os.environ["SOFTHSM2_CONF"] = str(config)
    run(
        "softhsm2-util",
        "--init-token",
        "--free",
        "--label",
        "broker",
        "--pin",
        PIN.decode(),
        "--so-pin",
        "5678",
    )
    login = ("pkcs11-tool", "--module", MODULE, "--token-label", "broker", "--login", "--pin", PIN.decode())
    run(*login, "--keypairgen", "--key-type", "EC:prime256v1", "--label", "root", "--id", "01")
    run(*login, "--keypairgen", "--key-type", "EC:secp384r1", "--label", "other", "--id", "02")
    return folder


def run(*command):
    subprocess.run(command, check=True, capture_output=True, timeout=120)


@pytest.fixture
def prepared(tmp_path, token):
    return broker_process.prepare(tmp_path / "b")


def in_token(prepared):
    """The broker's folder after its root has become one in the token."""
    secret = token_key.with_pin(URI, PIN)
    broker.prepare_root(prepared.directory, brokers.PASSPHRASE, secret=secret)
    broker.switch_root(prepared.directory, brokers.PASSPHRASE, prepared.scene.alice.signing)
    return broker.read_settings(prepared.directory)


def certified(opened, prepared, settings):
    manifest = prepared.agreement.contract.rooms[0].datasets[0].manifest_digest
    agreement = prepared.scene.agreement(lambda one: brokers.contract_over(one, settings, manifest, runs=9))
    asked = messages.encode_challenge_request(agreement.contract.digest)
    nonce = asyncio.run(challenge(opened.broker, asked)).nonce
    room = brokers.Room(tpm=prepared.scene.tpm, agreement=agreement, audience=opened.broker.audience)
    answer = asyncio.run(brokers.release(opened.broker, room.request(nonce, names=brokers.NAMES)))
    assert isinstance(answer, messages.ReleaseAnswer)
    return agreement, answer.certificates


def test_a_root_in_a_token_certifies_and_its_key_is_in_no_file(prepared):
    settings = in_token(prepared)
    root = settings.root(RootState.CURRENT)
    with broker.open_broker(prepared.directory, brokers.PASSPHRASE) as opened:
        agreement, chain = certified(opened, prepared, settings)
        leaf, issuer, above = (x509.load_der_x509_certificate(der) for der in chain)
        leaf.verify_directly_issued_by(issuer)
        issuer.verify_directly_issued_by(above)
        above.verify_directly_issued_by(above)
        assert digest.sha256(chain[2]) == root.digest == settings.address.authority
        # Its list, too; and that of the contract, by a key of the broker's own.
        for data, der in (
            (standing.root_list(opened.broker, None), chain[2]),
            (standing.contract_list(opened.broker, agreement.contract.digest), chain[1]),
        ):
            crl.check_issued(crl.parse(data), own.parse(der))
        signer = opened.secrets.roots[0].signer.key
        assert isinstance(signer, token_key.TokenKey)
        assert PIN.decode() not in repr(signer) + repr(opened.secrets) + repr(signer._uri)
    data = Path(prepared.directory, broker.SETTINGS).read_bytes()
    assert b"pkcs11" not in data
    assert b"libsofthsm2" not in data


def test_a_token_serves_threads_and_a_process_that_was_forked(token):
    key = token_key.open_root_key(token_key.with_pin(URI, PIN))
    failures = []

    def sign():
        try:
            for _ in range(20):
                verify(key.spki, key.sign(b"x"), b"x")
        except BaseException as cause:  # noqa: BLE001 - shown by the test's own thread
            failures.append(cause)

    threads = [threading.Thread(target=sign) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    child = os.fork()
    if child == 0:
        try:
            verify(key.spki, key.sign(b"y"), b"y")
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def verify(spki, signature, data):
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    serialization.load_der_public_key(spki).verify(signature, data, ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize(
    ("uri", "pin"),
    [
        (URI.replace("object=root", "object=nothing"), PIN),
        (URI.replace("token=broker", "token=nobody"), PIN),
        (URI.replace(MODULE, "/no/module.so"), PIN),
    ],
)
def test_a_key_that_is_out_of_reach_is_said_and_nothing_is_served(prepared, uri, pin):
    with pytest.raises(Unavailable, match="is out of reach") as caught:
        broker.prepare_root(prepared.directory, brokers.PASSPHRASE, secret=token_key.with_pin(uri, pin))
    assert caught.value.code == "token"
    assert pin.decode() not in str(caught.value)
    assert [root.state for root in broker.read_settings(prepared.directory).roots] == [RootState.CURRENT]


def test_a_key_of_another_curve_is_no_roots(prepared):
    secret = token_key.with_pin(URI.replace("object=root", "object=other"), PIN)
    with pytest.raises(Misuse, match="expected a key on P-256"):
        broker.prepare_root(prepared.directory, brokers.PASSPHRASE, secret=secret)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "file:root",
        "pkcs11:",
        "pkcs11:token=a;object=b",
        "pkcs11:token=a?module-path=/x",
        "pkcs11:token=a;object=b?module-path=x.so",
        "pkcs11:token=a;object=b;id=%01?module-path=/x.so",
        "pkcs11:token=a;object=b?module-path=/x.so&module-name=y",
        "pkcs11:token=;object=b?module-path=/x.so",
        "pkcs11:token=a;object=b?module-path=/x.so&",
    ],
)
def test_uris_are_read_strictly(uri):
    with pytest.raises(Misuse, match="--key: expected pkcs11:token=LABEL"):
        token_key.parse(uri)


def test_a_uri_goes_there_and_back_whatever_a_pin_is_made_of():
    secret = token_key.with_pin(
        "pkcs11:token=my%20token;object=a%2Fb?module-path=/usr/lib/x.so", b"p&=;?%:\xc3\xa4"
    )
    parsed = token_key.parse(secret.decode())
    assert (parsed.token, parsed.object, parsed.module, parsed.pin) == (
        "my token",
        "a/b",
        "/usr/lib/x.so",
        "p&=;?%:ä",
    )
    with pytest.raises(Misuse, match="the PIN stands in the URI"):
        token_key.with_pin(URI + "&pin-value=1234", PIN)


def test_a_key_in_the_file_is_opened_as_ever():
    key = tls.generate()
    opened = token_key.open_root_key(key.der)
    verify(key.spki, opened.sign(b"x"), b"x")
    assert secrets.compare_digest(opened.spki, key.spki)


def command(folder, *words, pin=PIN):
    """`strongroom broker rotate-root` as a process of its own: its output's lines, or what it refused."""
    environment = {
        **os.environ,
        "STRONGROOM_PASSPHRASE": brokers.PASSPHRASE.decode(),
        "STRONGROOM_TOKEN_PIN": pin.decode(),
    }
    ended = verbs.run("broker", "rotate-root", folder, *words, env=environment)
    return ended.stdout.splitlines() if ended.returncode == 0 else ended.stderr


def test_the_verb_goes_the_three_ways_and_says_the_roots(prepared, tmp_path):
    folder = prepared.directory
    identity = tmp_path / "alice.identity"
    identity.write_bytes(
        identity_model.lock(prepared.scene.alice, brokers.PASSPHRASE, random=secrets.token_bytes)
    )
    identity.chmod(0o600)
    (start,) = command(folder)
    assert start.startswith("current   sha256:")
    assert "expected one of --prepare" in command(folder, "--prepare", "--retire")
    assert "expected one of --prepare" in command(folder, "--switch")
    assert "expected one of --prepare" in command(folder, "--retire", "--key", URI)
    assert "is out of reach: PinIncorrect" in command(folder, "--prepare", "--key", URI, pin=b"0000")
    assert "the PIN stands in the URI" in command(folder, "--prepare", "--key", URI + "&pin-value=1234")
    made = command(folder, "--prepare", "--key", URI)
    assert [line.split()[0] for line in made] == ["current", "next"]
    *said, current, previous = command(folder, "--switch", "-i", identity)
    assert said[0].startswith("the next root is the current one: ledger entry ")
    assert current.split() == ["current", made[1].split()[1]]
    assert previous.split() == ["previous", start.split()[1]]
    assert (tmp_path / "alice.party.json").exists()
    assert command(folder, "--retire") == [current]
    assert "there is no previous root" in command(folder, "--retire")
