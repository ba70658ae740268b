"""Certificates are revoked with what they were issued for, and the authority says so in lists and in answers that others verify."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp

from strongroom.broker.administration.withdraw import withdraw
from strongroom.broker.admit_contract import admit
from strongroom.broker.certificates import revoke, standing
from strongroom.crypto import digest, tls
from strongroom.crypto.pki import crl
from strongroom.crypto.pki import ocsp as verifier
from strongroom.crypto.pki import x509 as own
from strongroom.errors import Malformed, NotFound
from strongroom.model import record
from strongroom_testing import brokers, contracts
from strongroom_testing.contracts import changed


def certified(world, agreement):
    """The chain that a room of the contract gets: leaf, issuer, root (DER)."""
    answer = world.ask(agreement, names=brokers.NAMES)
    return answer.certificates


def question(chain, *, nonce=None, algorithm=None):
    leaf, issuer = (x509.load_der_x509_certificate(der) for der in chain[:2])
    builder = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, algorithm or hashes.SHA256())
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.build().public_bytes(serialization.Encoding.DER)


def is_revoked(world, chain):
    """What the list and the answer say, which have to agree."""
    leaf, issuer = own.parse(chain[0]), own.parse(chain[1])
    contract = x509.load_der_x509_certificate(chain[1]).subject.get_attributes_for_oid(
        x509.NameOID.COMMON_NAME
    )
    revocations = crl.parse(standing.contract_list(world.broker, f"sha256:{contract[0].value}"))
    crl.check_issued(revocations, issuer)
    now = world.clock()
    assert revocations.this_update <= now < revocations.next_update
    answer = verifier.parse(standing.ocsp(world.broker, question(chain)))
    if answer.status == "good":
        verifier.check_good(answer, leaf, (issuer, own.parse(chain[2])), roots=frozenset(), now=now)
    listed = revocations.revokes(leaf)
    assert listed == (answer.status == "revoked")
    return listed


def issuer_is_revoked(world, chain):
    revocations = crl.parse(standing.root_list(world.broker, None))
    crl.check_issued(revocations, own.parse(chain[2]))
    return revocations.revokes(own.parse(chain[1]))


def revoked_for(world, agreement, room):
    def work(transaction):
        return revoke.revoke_for(transaction, agreement.contract.digest, room, now=world.clock())

    return asyncio.run(world.store.write(work)).value


def test_rule_41_a_certificate_is_good_until_its_contract_is_withdrawn(world):
    agreement = world.agreement()
    chains = [certified(world, agreement) for _ in range(2)]
    assert not any(is_revoked(world, chain) for chain in chains)
    assert not issuer_is_revoked(world, chains[0])
    asyncio.run(withdraw(world.broker, agreement.encode()))
    assert all(is_revoked(world, chain) for chain in chains)
    assert issuer_is_revoked(world, chains[0])


@pytest.mark.parametrize("how", ["admitted", "released"])
def test_rule_41_the_next_version_revokes_what_the_one_before_it_was_certified_for(world, how):
    agreement = world.agreement()
    chain = certified(world, agreement)
    before = agreement.contract

    def next_version(one):
        return replace(one, version=2, replaces=before.digest)

    after = world.agreement(next_version)
    if how == "admitted":
        asyncio.run(admit(world.broker, after.encode()))
    fresh = certified(world, after)
    assert is_revoked(world, chain)
    assert issuer_is_revoked(world, chain)
    assert not is_revoked(world, fresh)
    assert not issuer_is_revoked(world, fresh)
    assert chain[1] != fresh[1]


def test_a_pause_revokes_a_rooms_certificates_and_lets_it_have_others_later(world):
    agreement = world.agreement()
    chain = certified(world, agreement)
    assert revoked_for(world, agreement, "other") == 0
    assert not is_revoked(world, chain)
    assert revoked_for(world, agreement, "main") == 1
    assert revoked_for(world, agreement, "main") == 0
    assert is_revoked(world, chain)
    assert not issuer_is_revoked(world, chain)
    assert not is_revoked(world, certified(world, agreement))
    assert revoked_for(world, agreement, None) == 1


def test_a_release_again_under_the_same_version_revokes_nothing(world):
    agreement = world.agreement()
    chain = certified(world, agreement)
    certified(world, agreement)
    assert not is_revoked(world, chain)


def test_every_certificate_is_in_the_ledger_with_its_issuer(world):
    agreement = world.agreement()
    room = world.room(agreement)
    answer = world.release(room.request(world.challenge(agreement).nonce, names=brokers.NAMES))
    body = record.parse(answer.ledger.entry).body
    leaf, issuer, root = (digest.sha256(der) for der in answer.certificates)
    assert (body["certificate"], body["issuer"]) == (leaf, issuer)
    assert root == world.settings.address.authority


def test_restart_restore_and_a_second_process_have_the_same_issuer_and_know_what_was_revoked(world):
    agreement = world.agreement()
    chain = certified(world, agreement)
    revoked_for(world, agreement, None)
    with brokers.world(world.directory) as again:
        assert is_revoked(again, chain)
        fresh = certified(again, agreement)
        assert fresh[1:] == chain[1:]
        assert not is_revoked(world, fresh)


def test_a_certificate_that_has_ended_is_forgotten(world):
    agreement = world.agreement()
    chain = certified(world, agreement)
    revoked_for(world, agreement, None)
    world.clock.advance(timedelta(days=2))
    empty = crl.parse(standing.contract_list(world.broker, agreement.contract.digest))
    assert not empty.revokes(own.parse(chain[0]))
    serial = own.parse(chain[0]).serial
    assert world.store.read(lambda state: state.certificates.find(serial)) is not None
    asyncio.run(world.store.write(lambda transaction: transaction.clock.reach(world.clock())))
    assert world.store.read(lambda state: state.certificates.find(serial)) is None


def test_the_number_of_a_list_grows(world):
    certified(world, world.agreement())
    numbers = []
    for _ in range(2):
        numbers.append(crl.parse(standing.root_list(world.broker, None)).number)
        world.clock.advance(timedelta(minutes=1))
    assert numbers[0] < numbers[1]


def test_a_list_that_says_the_same_is_signed_once_a_minute_and_another_at_once(world):
    agreement = world.agreement()
    chain = certified(world, agreement)
    digest_of = agreement.contract.digest
    first = standing.contract_list(world.broker, digest_of)
    world.clock.advance(timedelta(seconds=59))
    assert standing.contract_list(world.broker, digest_of) == first
    revoked_for(world, agreement, None)
    second = standing.contract_list(world.broker, digest_of)
    assert crl.parse(second).revokes(own.parse(chain[0]))
    assert crl.parse(second).number > crl.parse(first).number
    world.clock.advance(timedelta(minutes=1))
    assert standing.contract_list(world.broker, digest_of) != second
    assert len(world.broker.lists) == 1


def test_who_has_no_certificate_is_told_nothing_of_any(world):
    agreement = world.agreement()
    with pytest.raises(NotFound, match="nothing was issued under sha256:") as caught:
        standing.contract_list(world.broker, agreement.contract.digest)
    assert caught.value.code == "no-issuer"
    with pytest.raises(NotFound, match="none of this authority's roots"):
        standing.root_list(world.broker, agreement.contract.digest)
    with pytest.raises(Malformed, match="expected sha256: and 64"):
        standing.contract_digest("../x")
    chain = certified(world, agreement)
    # A number that was never issued, one beyond any, and a known one below another issuer.
    leaf = x509.load_der_x509_certificate(chain[0])
    for serial, issuer in ((1, chain[1]), (1 << 140, chain[1]), (leaf.serial_number, chain[2])):
        issued_by = x509.load_der_x509_certificate(issuer)
        key = issued_by.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        hashed = [hashes.Hash(hashes.SHA256()) for _ in range(2)]
        for each, data in zip(hashed, (issued_by.subject.public_bytes(), key), strict=True):
            each.update(data)
        asked = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
            hashed[0].finalize(), hashed[1].finalize(), serial, hashes.SHA256()
        )
        answer = ocsp.load_der_ocsp_response(
            standing.ocsp(world.broker, asked.build().public_bytes(serialization.Encoding.DER))
        )
        assert answer.response_status is ocsp.OCSPResponseStatus.UNAUTHORIZED


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda _: b"junk", "expected one in DER, about one certificate"),
        (lambda chain: question(chain) + b"x", "expected one in DER"),
        (lambda chain: question(chain, nonce=b"n" * 33), "expected a nonce of 1 to 32 bytes, got 33"),
        (lambda chain: question(chain, algorithm=hashes.SHA512()), "named by sha1 or sha256, got sha512"),
    ],
)
def test_questions_are_read_strictly(world, made, why):
    with pytest.raises(Malformed, match=why):
        standing.ocsp(world.broker, made(certified(world, world.agreement())))


def test_a_question_about_two_certificates_is_refused(world, tmp_path):
    (tmp_path / "issuer.pem").write_bytes(tls.pem_certificate(certified(world, world.agreement())[1]))
    ask = ["openssl", "ocsp", "-issuer", "issuer.pem", "-serial", "1", "-serial", "2", "-reqout", "two.der"]
    subprocess.run(ask, cwd=tmp_path, check=True, capture_output=True)
    with pytest.raises(Malformed, match="about one certificate"):
        standing.ocsp(world.broker, (tmp_path / "two.der").read_bytes())


def test_a_critical_extension_of_a_question_is_not_passed_over(world):
    leaf, issuer = (x509.load_der_x509_certificate(der) for der in certified(world, world.agreement())[:2])
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    builder = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, hashes.SHA256())
    asked = builder.add_extension(unknown, critical=True).build().public_bytes(serialization.Encoding.DER)
    with pytest.raises(Malformed, match=r"critical extension 1\.2\.3\.4 is not understood"):
        standing.ocsp(world.broker, asked)


def test_openssl_believes_lists_and_answers(world, tmp_path):
    """The whole path with lists, and an answer with its nonce, by a verifier that is not ours."""
    agreement = world.agreement()
    chain = certified(world, agreement)

    def write():
        for name, der in zip(("leaf", "issuer", "root"), chain, strict=True):
            (tmp_path / f"{name}.pem").write_bytes(tls.pem_certificate(der))
        lists = (
            standing.root_list(world.broker, None),
            standing.contract_list(world.broker, agreement.contract.digest),
        )
        pem = b"".join(
            x509.load_der_x509_crl(data).public_bytes(serialization.Encoding.PEM) for data in lists
        )
        (tmp_path / "lists.pem").write_bytes(pem)
        (tmp_path / "answer.der").write_bytes(standing.ocsp(world.broker, question(chain, nonce=b"n" * 16)))

    def openssl(*arguments):
        result = subprocess.run(
            ["openssl", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        return result.stdout + result.stderr

    at = str(int(contracts.NOW.timestamp()))
    verify = ("verify", "-attime", at, "-crl_check_all", "-CRLfile", "lists.pem", "-CAfile", "root.pem", "-untrusted", "issuer.pem", "leaf.pem")  # fmt: skip
    ask = ("ocsp", "-respin", "answer.der", "-sha256", "-issuer", "issuer.pem", "-cert", "leaf.pem", "-CAfile", "root.pem", "-no_nonce", "-attime", at, "-validity_period", "999999999")  # fmt: skip
    write()
    assert "leaf.pem: OK" in openssl(*verify)
    said = openssl(*ask)
    assert "leaf.pem: good" in said
    assert "Response verify OK" in said
    revoked_for(world, agreement, None)
    write()
    assert "certificate revoked" in openssl(*verify)
    assert "leaf.pem: revoked" in openssl(*ask)


def test_a_room_of_the_contracts_key_kind_alone_gets_a_certificate(world):
    def other_kind(one):
        certificate = one.rooms[0].certificate
        return changed(one, certificate=replace(certificate, key=type(certificate.key)("ed25519")))

    answer = world.ask(world.agreement(other_kind), names=brokers.NAMES)
    failed = [check["name"] for check in answer.verdict["checks"] if not check["ok"]]
    assert failed == ["certificate.kind", "evidence.verified"]
