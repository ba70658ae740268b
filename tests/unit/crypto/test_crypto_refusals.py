"""Keys, certificates, revocation lists and OCSP answers: each refusal of their readers, by its words."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509 as library
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509 import ocsp as library_ocsp

from strongroom.crypto import der, public_key, tls
from strongroom.crypto.pki import certificates, crl, issuers, key_signer, ocsp, vek, x509
from strongroom.crypto.pki.leaf import Leaf
from strongroom.encoding.reader import Reader
from strongroom.errors import Malformed, Refused
from strongroom_testing.vendors import certificate_maker as maker
from strongroom_testing.vendors import fake_amd

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
DAY = timedelta(days=1)
DATES = {"begins": NOW - DAY, "ends": NOW + DAY}
DER, SPKI = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo


@pytest.fixture(scope="module")
def p256():
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def rsa2048():
    return rsa.generate_private_key(65537, 2048)


def public(key) -> public_key.PublicKey:
    return public_key.PublicKey(key.public_key())


def raw(key, message, over, size):
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(over)))
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def test_ecdsa_signatures_are_of_the_curves_length_and_hash(p256, rsa2048):
    key = public(p256)
    good = raw(p256, b"message", hashes.SHA256(), 32)
    key.verify_ecdsa(good, b"message")
    for bad in (b"", good[:-1], good + b"\0", b"\0" + good):
        with pytest.raises(Refused, match=f"ECDSA signature of {len(bad)} bytes, not 64"):
            key.verify_ecdsa(bad, b"message")
    with pytest.raises(Refused, match="signature does not verify"):
        key.verify_ecdsa(raw(p256, b"message", hashes.SHA384(), 32), b"message")
    with pytest.raises(Refused, match="r or s is not between 1 and the order"):
        key.verify_ecdsa(bytes(32) + good[32:], b"message")
    with pytest.raises(Refused, match="r or s is not between 1 and the order"):
        key.verify_ecdsa(good[:32] + public_key.P256_ORDER.to_bytes(32, "big"), b"message")
    with pytest.raises(Refused, match="the key is rsa, the signature ECDSA") as refused:
        public(rsa2048).verify_ecdsa(good, b"message")
    assert refused.value.code == "wrong-key"
    p384, p521 = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP521R1())
    public(p384).verify_ecdsa(raw(p384, b"message", hashes.SHA384(), 48), b"message")
    with pytest.raises(Refused, match="the key is secp521r1, the signature ECDSA P-256 or P-384"):
        public(p521).verify_ecdsa(raw(p521, b"message", hashes.SHA384(), 66), b"message")


def test_a_certificates_scheme_is_one_of_its_issuers_kind_of_key(p256, rsa2048):
    by_p256 = library.load_der_x509_certificate(
        maker.issue(maker.Request(subject="a", key=p256, **DATES), "a", p256)
    )
    public(p256).verify_signed(by_p256, by_p256.tbs_certificate_bytes)
    with pytest.raises(InvalidSignature):
        public(rsa2048).verify_signed(by_p256, by_p256.tbs_certificate_bytes)
    with pytest.raises(InvalidSignature):
        public(p256).verify_signed(by_p256, by_p256.tbs_certificate_bytes + b"x")
    by_rsa = library.load_der_x509_certificate(
        maker.issue(maker.Request(subject="a", key=p256, **DATES), "a", rsa2048)  # type: ignore[arg-type]
    )
    public(rsa2048).verify_signed(by_rsa, by_rsa.tbs_certificate_bytes)
    with pytest.raises(InvalidSignature):
        public(p256).verify_signed(by_rsa, by_rsa.tbs_certificate_bytes)


def test_keys_are_made_of_points_and_numbers_that_are_keys(p256):
    numbers = p256.public_key().public_numbers()
    x, y = numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")
    assert public_key.key_of_point("secp256r1", x, y).spki == public(p256).spki
    for kind, first, second in (
        ("secp256r1", x + b"\0", y),
        ("secp256r1", x, y[:-1]),
        ("secp521r1", x, y),
        ("secp384r1", x, y),
        ("secp256r1", x, bytes(32)),
    ):
        with pytest.raises(Malformed, match=f"not a point of {kind}"):
            public_key.key_of_point(kind, first, second)
    for modulus, exponent in ((0, 65537), (3, 3), ((1 << 2047) + 1, 2), ((1 << 2047) + 1, 1)):
        with pytest.raises(Malformed, match="modulus and exponent make no RSA key"):
            public_key.key_of_modulus(modulus, exponent)


def test_public_keys_have_one_form_and_bounds(p256, monkeypatch):
    spki = public(p256).spki
    assert public_key.key_of_spki(spki).spki == spki
    edwards = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(DER, SPKI)
    for bad, why in (
        (b"\0" * (public_key.MAX_SPKI + 1), "public key: .* bytes, at most .* allowed"),
        (b"\0" * public_key.MAX_SPKI, "expected a SubjectPublicKeyInfo in DER"),
        (spki + b"\0", "expected a SubjectPublicKeyInfo in DER"),
        (edwards, "neither ECDSA nor RSA"),
    ):
        with pytest.raises(Malformed, match=why):
            public_key.key_of_spki(bad)


class Loose:
    """What a library returns that reads more than DER: it would write the thing otherwise."""

    def public_bytes(self, _encoding):
        return b"other"


def test_what_a_library_would_write_otherwise_is_refused(monkeypatch):
    """The library of today reads DER alone, so that a looser one stands in for it."""
    monkeypatch.setattr(x509.x509, "load_der_x509_certificate", lambda _: Loose())
    with pytest.raises(Malformed, match="certificate: not in the one DER form"):
        x509.parse(b"der")
    monkeypatch.setattr(crl.library_x509, "load_der_x509_crl", lambda _: Loose())
    with pytest.raises(Malformed, match="revocation list: not in the one DER form"):
        crl.parse(b"der")
    monkeypatch.setattr(ocsp.ocsp, "load_der_ocsp_response", lambda _: Loose())
    with pytest.raises(Malformed, match="OCSP answer: not in the one DER form"):
        ocsp.parse(b"der")


def test_a_path_of_authorities_has_one_to_so_many(p256):
    root = maker.issue(maker.Request(subject="a", key=p256, ca=True, **DATES), "a", p256)
    roots = frozenset({"sha256:" + hashlib.sha256(root).hexdigest()})
    assert x509.verify_ca_path((root,), roots=roots, now=NOW).root.der == root
    with pytest.raises(Malformed, match="certificates: 0, expected 1 to"):
        x509.verify_ca_path((), roots=roots, now=NOW)
    with pytest.raises(Malformed, match=f"certificates: {x509.MAX_PATH + 1}, expected 1 to"):
        x509.verify_ca_path((root,) * (x509.MAX_PATH + 1), roots=roots, now=NOW)


def test_an_authority_on_a_path_of_authorities_must_be_sound(p256):
    """`_sound` is asked for the authority itself too: an extension that nobody understands is refused."""
    middle = maker.new_key()
    root = maker.issue(maker.Request(subject="a", key=p256, ca=True, **DATES), "a", p256)
    roots = frozenset({"sha256:" + hashlib.sha256(root).hexdigest()})
    builder = (
        library.CertificateBuilder()
        .subject_name(library.Name([library.NameAttribute(library.NameOID.COMMON_NAME, "b")]))
        .issuer_name(library.load_der_x509_certificate(root).subject)
        .public_key(middle.public_key())
        .serial_number(7)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(library.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(library.KeyUsage(*(False,) * 5, True, True, False, False), critical=True)
    )
    good = builder.sign(p256, hashes.SHA256()).public_bytes(DER)
    assert x509.verify_ca_path((good, root), roots=roots, now=NOW).leaf.der == good
    strange = library.UnrecognizedExtension(library.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    bad = builder.add_extension(strange, critical=True).sign(p256, hashes.SHA256()).public_bytes(DER)
    with pytest.raises(Refused, match="critical extension"):
        x509.verify_ca_path((bad, root), roots=roots, now=NOW)


def test_der_of_another_tag_or_length_is_refused():
    assert der.expect(Reader(b"\x30\x00", "x"), der.SEQUENCE) == (b"", b"\x30\x00")
    with pytest.raises(Malformed, match=r"x: DER: expected SET \(tag 0x31\), got SEQUENCE \(tag 0x30\)"):
        der.expect(Reader(b"\x30\x00", "x"), der.SET)
    for data, why in (
        (b"\x30", "cut short"),
        (b"\x30\x01", "cut short"),
        (b"\x30\x81\x80" + bytes(127), "cut short"),
        (b"\x1f\x01\x00", "DER: tag 0x1f, of more than one byte"),
        (b"\x30\x80", "expected a length of 1 to 4 bytes, got an indefinite, longer or cut one"),
        (b"\x30\x85\0\0\0\0\1\0", "expected a length of 1 to 4 bytes, got an indefinite, longer or cut one"),
        (b"\x30\x82\x01", "expected a length of 1 to 4 bytes, got an indefinite, longer or cut one"),
        (b"\x30\x81\x7f" + bytes(127), "DER: length .* is not in its shortest form"),
        (b"\x30\x82\x00\xff" + bytes(255), "DER: length .* is not in its shortest form"),
    ):
        with pytest.raises(Malformed, match=why):
            der.elements(data)
    for data, why in (
        (b"\x1f\x01\x00", "DER: tag 0x1f, of more than one byte"),
        (b"\x30\x80", "expected a length of 1 to 4 bytes, got"),
        (b"\x30\x85\0\0\0\0\1\0", "expected a length of 1 to 4 bytes, got"),
        (b"\x30\x81\x7f" + bytes(127), "DER: length .* is not in its shortest form"),
        (b"\x30\x82\x00\xff" + bytes(255), "DER: length .* is not in its shortest form"),
        (b"\x30\x01", "x: 1 bytes wanted"),
    ):
        with pytest.raises(Malformed, match=why):
            der.read(Reader(data, "x"))
    for size in (0x7F, 0x80, 0xFF, 0x100, 0xFFFF, 0x10000):
        whole = der.wrap(der.SEQUENCE, bytes(size))
        assert der.elements(whole) == [(der.SEQUENCE, bytes(size), whole)]
        assert der.read(Reader(whole, "x")) == (der.SEQUENCE, bytes(size), whole)


# Certificate requests and authorities


def request(*common: str, key=None) -> bytes:
    name = library.Name([library.NameAttribute(library.NameOID.COMMON_NAME, one) for one in common])
    builder = library.CertificateSigningRequestBuilder().subject_name(name)
    return builder.sign(key or maker.new_key(), hashes.SHA256()).public_bytes(DER)


def test_a_request_has_at_most_one_common_name():
    assert certificates.read_request(request()).common_name == ""
    assert certificates.read_request(request("a")).common_name == "a"
    with pytest.raises(Malformed, match="2 common names, at most one allowed"):
        certificates.read_request(request("a", "b"))
    with pytest.raises(Malformed, match="expected PKCS#10 in DER"):
        certificates.read_request(b"junk")


def test_a_signer_is_of_its_key_and_its_certificate():
    key = key_signer.held(tls.generate())
    own = issuers.make_root(key, name="a", now=NOW, random=secrets.token_bytes)
    assert certificates.Signer(key, own).der == own
    with pytest.raises(Malformed, match=r"certificate: expected X.509 in DER"):
        certificates.Signer(key, b"junk")
    with pytest.raises(Malformed, match="its certificate is not of its key"):
        certificates.Signer(key_signer.held(tls.generate()), own)
    with pytest.raises(Malformed, match="unknown kind of public key"):
        certificates._spki(object())


def test_what_an_authority_and_its_leaf_may_do_is_said_bit_by_bit():
    key = key_signer.held(tls.generate())
    own = issuers.make_root(key, name="a", now=NOW, random=secrets.token_bytes)
    leaf = Leaf(
        common_name="a",
        unit="u",
        dns_names=("a.example",),
        uri="urn:a",
        spki=maker.spki(maker.new_key()),
        evidence_digest="sha256:" + "00" * 32,
        not_before=NOW,
        not_after=NOW + DAY,
    )
    issued = certificates.Signer(key, own).issue(leaf, serial=7)
    for der_, wanted in ((own, {"key_cert_sign", "crl_sign"}), (issued, {"digital_signature"})):
        usage = library.load_der_x509_certificate(der_).extensions.get_extension_for_class(library.KeyUsage)
        names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment")
        names += ("key_agreement", "key_cert_sign", "crl_sign")
        assert usage.critical
        assert {name for name in names if getattr(usage.value, name)} == wanted


# Revocation lists

CA = maker.new_key()
SHA384 = hashes.SHA384()


def issued(**changes) -> bytes:
    return maker.issue(
        maker.Request(**{"subject": "CA", "key": CA, "ca": True, **DATES, **changes}), "CA", CA
    )


def authority(**changes) -> x509.Certificate:
    return x509.parse(issued(**changes))


def revocations(*, extension=None, over=None, number=3, named=CA) -> bytes:
    """A list by CA. number, named: the list's number, and the key that it says is its authority's; None: says none."""
    builder = (
        library.CertificateRevocationListBuilder()
        .issuer_name(library.load_der_x509_certificate(authority().der).subject)
        .last_update(NOW - DAY)
        .next_update(NOW + DAY)
    )
    if number is not None:
        builder = builder.add_extension(library.CRLNumber(number), critical=False)
    if named is not None:
        key = library.AuthorityKeyIdentifier.from_issuer_public_key(named.public_key())
        builder = builder.add_extension(key, critical=False)
    if extension is not None:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(CA, over or hashes.SHA384()).public_bytes(DER)


def test_lists_are_refused_by_what_is_wrong():
    good = revocations()
    crl.check_issued(crl.parse(good), authority())
    strange = library.UnrecognizedExtension(library.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    # The algorithm that the signed part names, changed to SHA-256: the one outside says SHA-384.
    sha384, sha256 = bytes.fromhex("2a8648ce3d040303"), bytes.fromhex("2a8648ce3d040302")
    for bad, why in (
        (bytes(crl.MAX_BYTES + 1), "bytes, at most 1048576 allowed"),
        (bytes(crl.MAX_BYTES), "expected a CRL in DER, got other bytes"),
        (good + b"\0", "expected a CRL in DER, got other bytes"),
        (revocations(extension=strange), "critical extension 1.2.3.4 is not understood"),
        (revocations(number=None), "lacks cRLNumber"),
        (revocations(number=1 << 160), "lacks cRLNumber"),
        (revocations(named=None), "lacks authorityKeyIdentifier"),
        (good.replace(sha384, sha256, 1), "another algorithm than it says|expected a CRL in DER"),
    ):
        with pytest.raises(Malformed, match=why):
            crl.parse(bad)


def test_lists_count_by_who_signed_them_and_how():
    parsed = crl.parse(revocations())
    forged = revocations()[:-4] + b"\x11\x22\x33\x44"
    with pytest.raises(Refused, match="not issued by"):
        crl.check_issued(parsed, authority(subject="other"))
    with pytest.raises(Refused, match="its authorityKeyIdentifier names another key than CN=CA's"):
        crl.check_issued(crl.parse(revocations(named=maker.new_key())), authority())
    with pytest.raises(Refused, match="its authorityKeyIdentifier names another key than CN=CA's"):
        crl.check_issued(parsed, authority(key=maker.new_key()))
    with pytest.raises(Refused, match="its key may not sign revocation lists"):
        crl.check_issued(parsed, authority(ca=False))
    with pytest.raises(Refused, match="signature does not verify"):
        crl.check_issued(crl.parse(forged), authority())
    with pytest.raises(Refused, match="expected a signature with SHA-256, SHA-384 or SHA-512, got another"):
        crl.check_issued(crl.parse(revocations(over=hashes.SHA3_256())), authority())


# OCSP answers

LEAF = maker.issue(maker.Request(subject="chip", key=maker.new_key(), **DATES), "CA", CA)


def answer(*, identity=None, certificates_=(), critical=False, by=CA, over=SHA384) -> bytes:
    """An answer about LEAF in the name of CA, signed by the key `by` with the hash `over`."""
    issuer = library.load_der_x509_certificate(issued(key=by))
    builder = (
        library_ocsp.OCSPResponseBuilder()
        .add_response(
            cert=library.load_der_x509_certificate(LEAF),
            issuer=issuer,
            algorithm=identity or hashes.SHA256(),
            cert_status=library_ocsp.OCSPCertStatus.GOOD,
            this_update=NOW - DAY,
            next_update=NOW + DAY,
            revocation_time=None,
            revocation_reason=None,
        )
        .responder_id(library_ocsp.OCSPResponderEncoding.HASH, issuer)
    )
    if certificates_:
        builder = builder.certificates(certificates_)
    if critical:
        strange = library.UnrecognizedExtension(library.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
        builder = builder.add_extension(strange, critical=True)
    return builder.sign(by, over).public_bytes(DER)


def test_a_responder_is_vouched_for_by_the_issuer():
    """A certificate that came along with an answer, and that somebody else issued, names itself in the refusal."""
    key = maker.new_key()
    other = x509.parse(maker.issue(maker.Request(subject="CA", key=key, ca=True, **DATES), "CA", key))
    with pytest.raises(Refused, match="OCSP answer: its responder: ") as refused:
        judge(answer(certificates_=[library.load_der_x509_certificate(other.der)]))
    assert refused.value.code == "bad-answer"


def judge(data: bytes) -> None:
    root = authority()
    ocsp.check_good(ocsp.parse(data), x509.parse(LEAF), (root,), roots=frozenset({root.digest}), now=NOW)


def test_answers_are_refused_by_what_is_wrong():
    good = answer()
    judge(good)
    other = [library.load_der_x509_certificate(authority().der) for _ in range(5)]
    signature = library_ocsp.load_der_ocsp_response(good).signature
    spare = good.replace(b"\x00" + signature, b"\x01" + signature)
    assert spare != good
    down = library_ocsp.OCSPResponseBuilder.build_unsuccessful(
        library_ocsp.OCSPResponseStatus.TRY_LATER
    ).public_bytes(DER)
    for bad, why in (
        (bytes(ocsp.MAX_BYTES + 1), "bytes, at most 16384 allowed"),
        (spare, "its signature is not whole bytes|expected one in DER"),
        (answer(certificates_=other), "expected one about 1 certificate, .* got one about"),
        (answer(critical=True), "critical extension .* is not understood"),
        (down, "the responder says try_later"),
    ):
        with pytest.raises(Malformed, match=why):
            ocsp.parse(bad)


def test_an_answer_counts_signed_with_sha_2_alone(rsa2048):
    for over in (hashes.SHA256(), hashes.SHA384(), hashes.SHA512()):
        judge(answer(over=over))
    edwards = ed25519.Ed25519PrivateKey.generate()
    by_rsa = answer(by=rsa2048, over=hashes.SHA256())
    ocsp.parse(by_rsa)
    sha256 = bytes.fromhex("2a864886f70d01010b")  # sha256WithRSAEncryption; of MD5 and SHA-1: ...04 and ...05
    assert by_rsa.count(sha256) == 1
    for weak in (
        answer(over=hashes.SHA224()),
        answer(over=hashes.SHA3_256()),
        answer(over=hashes.SHA3_384()),
        answer(over=hashes.SHA3_512()),
        answer(by=edwards, over=None),
        by_rsa.replace(sha256, sha256[:-1] + b"\x04"),
        by_rsa.replace(sha256, sha256[:-1] + b"\x05"),
    ):
        with pytest.raises(Malformed, match="expected a signature with SHA-256, SHA-384 or SHA-512, got"):
            ocsp.parse(weak)


def test_an_answer_names_its_certificate_by_a_known_hash():
    with pytest.raises(Refused, match="names the certificate by sha224") as refused:
        judge(answer(identity=hashes.SHA224()))
    assert refused.value.code == "wrong-answer"
    judge(answer(identity=hashes.SHA1()))  # noqa: S303 - of the identity alone


# AMD's certificates of endorsement keys


@pytest.fixture(scope="module")
def chip():
    return fake_amd.FakeAmd(now=NOW)


def rebuilt(whole: bytes, index: int, element: bytes) -> bytes:
    """A VEK certificate with one element of its signed part replaced; its signature then means nothing."""
    ((_, top, _),) = der.elements(whole)
    body, algorithm, signature = (one[2] for one in der.elements(top))
    members = [one[2] for one in der.elements(der.elements(body)[0][1])]
    members[index] = element
    return der.wrap(der.SEQUENCE, der.wrap(der.SEQUENCE, *members), algorithm, signature)


def test_vek_certificates_are_refused_by_what_is_wrong(chip):
    good = chip.endorsements().parts["vek"]
    vek.parse(good)
    time = b"\x17\x0d261124120000Z"
    spki = public(ec.generate_private_key(ec.SECP256R1())).spki

    def extensions(count):
        one = [
            der.wrap(
                der.SEQUENCE,
                der.wrap(der.OBJECT_IDENTIFIER, bytes([0x2A, number])),
                der.wrap(der.OCTET_STRING, b""),
            )
            for number in range(count)
        ]
        return der.wrap(der.CONTEXT | der.CONSTRUCTED | 3, der.wrap(der.SEQUENCE, *one))

    name = lambda *members: der.wrap(der.SEQUENCE, *members)  # noqa: E731
    member = der.wrap(der.SET, der.wrap(der.SEQUENCE, b"\x06\x03\x55\x04\x03", b"\x0c\x01a"))
    period = lambda *times: der.wrap(der.SEQUENCE, *times)  # noqa: E731
    for bad, why in (
        (bytes(vek.MAX_BYTES + 1), "bytes, at most 4096 allowed"),
        (rebuilt(good, 0, b"\xa0\x03\x02\x01\x01"), "not X.509 version 3"),
        (rebuilt(good, 4, period(time)), "expected two times as its validity, got"),
        (rebuilt(good, 4, period(time, time, time)), "expected two times as its validity, got"),
        (rebuilt(good, 4, period(time, b"\x17\x0d261324120000Z")), "the time .* is none of the calendar"),
        (rebuilt(good, 4, period(time, b"\x17\x0b2611241200Z")), "expected a time like YYYYMMDDhhmmssZ, got"),
        (
            rebuilt(good, 4, period(time, b"\x17\x0d261124120000z")),
            "expected a time like YYYYMMDDhhmmssZ, got",
        ),
        (
            rebuilt(good, 4, period(time, b"\x16\x0d261124120000Z")),
            "expected a time like YYYYMMDDhhmmssZ, got",
        ),
        (rebuilt(good, 4, period(time, b"\x17\x0d26112412000\xb2Z")), "a time that is not ASCII"),
        (rebuilt(good, 5, name()), "expected one printable common name in its subject"),
        (rebuilt(good, 5, name(member, member)), "expected one printable common name in its subject"),
        (
            rebuilt(good, 5, name(der.wrap(der.SET, b"\x30\x00"))),
            "expected a type and a value in each member of a name",
        ),
        (rebuilt(good, 6, spki), "a key of kind secp256r1, expected P-384"),
        (rebuilt(good, 7, extensions(25)), "more than 24 extensions"),
    ):
        with pytest.raises(Malformed, match=why):
            vek.parse(bad)
    assert vek.parse(rebuilt(good, 7, extensions(24))).extensions == {}
    assert vek.parse(rebuilt(good, 4, period(b"\x17\x0d500101000000Z", time))).not_before.year == 1950
    assert vek.parse(rebuilt(good, 4, period(b"\x17\x0d491231235959Z", time))).not_before.year == 2049
    odd = vek.parse(rebuilt(good, 4, period(b"\x17\x0d271213141516Z", time))).not_before
    assert odd == datetime(2027, 12, 13, 14, 15, 16, tzinfo=UTC)
    late = b"\x18\x0f20501231235959Z"
    assert vek.parse(rebuilt(good, 4, period(time, late))).not_after.year == 2050


def test_extensions_are_amds_by_their_arc_and_numbers_of_one_byte_each(chip):
    """A number from 128 on has several bytes, which would be read as several numbers; no extension of AMD's has one."""
    arc = bytes.fromhex("2b060104019c7801")
    good = chip.endorsements().parts["vek"]

    def one(oid: bytes, value: bytes = b"v", tag: int = der.SEQUENCE) -> bytes:
        return der.wrap(tag, der.wrap(der.OBJECT_IDENTIFIER, oid), der.wrap(der.OCTET_STRING, value))

    def read(*listed: bytes) -> dict[str, bytes]:
        whole = der.wrap(der.CONTEXT | der.CONSTRUCTED | 3, der.wrap(der.SEQUENCE, *listed))
        return vek.parse(rebuilt(good, 7, whole)).extensions

    for numbers in (b"\x01", b"\x03\x01", b"\x7f", b"\x03\x7f"):
        assert read(one(arc + numbers)) == {".".join(map(str, numbers)): b"v"}
    for numbers in (b"", b"\x81\x01", b"\x03\x81\x01", b"\x81\x00\x03", b"\x80\x01"):
        assert read(one(arc + numbers)) == {}
    assert read(one(arc[:-1] + b"\x02\x01")) == {}
    assert read(one(arc + b"\x01", b"a"), one(arc + b"\x02", b"b")) == {"1": b"a", "2": b"b"}
    for value in (b"a", b"b"):
        with pytest.raises(Malformed, match="VEK extension: given twice"):
            read(one(arc + b"\x01", b"a"), one(arc + b"\x01", value))
    with pytest.raises(Malformed, match="VEK extension: expected a SEQUENCE, got tag 0x31"):
        read(one(arc + b"\x01", tag=der.SET))


def test_an_amd_authority_has_amds_form(chip, p256, rsa2048):
    middle, root = (x509.parse(one) for one in x509.split(chip.endorsements().parts["issuers"]))
    vek.check_authority(middle)
    vek.check_authority(root)
    for key in (p256, rsa2048):
        small = x509.parse(maker.issue(maker.Request(subject="a", key=key, ca=True, **DATES), "a", CA))
        with pytest.raises(Refused, match="its key is not RSA of 4096 bits"):
            vek.check_authority(small)
    with pytest.raises(Refused, match="not signed with RSASSA-PSS and SHA-384"):
        vek.check_authority(replace(middle, hash="sha256"))
    unpadded = x509.parse(
        x509.split(chip.endorsements(fault=fake_amd.Fault.ISSUER_SIGNED_WITHOUT_PSS).parts["issuers"])[0]
    )
    with pytest.raises(Refused, match="not signed with RSASSA-PSS and SHA-384"):
        vek.check_authority(unpadded)


def test_rsa_signatures_are_of_the_scheme_and_hash_that_was_asked(rsa2048):
    key = public(rsa2048)
    pss = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
    signature = rsa2048.sign(b"message", pss, hashes.SHA384())
    key.verify_rsa(signature, b"message", hash="sha384", pss=True)
    for asked in ({"hash": "sha384"}, {"hash": "sha256", "pss": True}):
        with pytest.raises(Refused, match="signature does not verify"):
            key.verify_rsa(signature, b"message", **asked)
    with pytest.raises(Refused, match=r"RSA signature of 257 bytes, not 256 as the modulus"):
        key.verify_rsa(signature + b"\0", b"message", hash="sha384", pss=True)


def test_rsa_keys_count_from_the_smallest_to_the_largest_size(rsa2048, monkeypatch):
    der_bytes = maker.issue(maker.Request(subject="r", key=rsa2048, ca=True, **DATES), "r", rsa2048)
    roots = frozenset({"sha256:" + hashlib.sha256(der_bytes).hexdigest()})
    for least, most, sound in ((2048, 2048, True), (2049, 4096, False), (1024, 2047, False)):
        monkeypatch.setattr(x509, "_MIN_RSA_BITS", least)
        monkeypatch.setattr(x509, "_MAX_RSA_BITS", most)
        x509._ca_path.cache_clear()
        if sound:
            assert x509.verify_ca_path((der_bytes,), roots=roots, now=NOW).leaf.der == der_bytes
        else:
            with pytest.raises(Refused, match="expected a key on P-256, P-384 or P-521, or RSA of"):
                x509.verify_ca_path((der_bytes,), roots=roots, now=NOW)
    x509._ca_path.cache_clear()


def test_a_certificate_says_the_same_algorithm_inside_and_out(p256):
    """Signed with SHA-384 as the outer name says, while the signed bytes say SHA-256."""
    root = x509.parse(maker.issue(maker.Request(subject="a", key=p256, ca=True, **DATES), "a", p256))
    leaf = maker.issue(maker.Request(subject="b", key=maker.new_key(), **DATES), "a", p256)
    ((_, body, _),) = der.elements(leaf)
    (_, _, signed), (_, _, algorithm), _ = der.elements(body)
    sha256, sha384 = bytes.fromhex("2a8648ce3d040302"), bytes.fromhex("2a8648ce3d040303")
    assert sha384 in algorithm

    def rebuilt(inner: bytes) -> x509.Certificate:
        signature = p256.sign(inner, ec.ECDSA(hashes.SHA384()))
        return x509.parse(der.wrap(der.SEQUENCE, inner, algorithm, der.wrap(3, b"\0" + signature)))

    x509._issued(rebuilt(signed), root)
    with pytest.raises(Refused, match="not issued and signed by"):
        x509._issued(rebuilt(signed.replace(sha384, sha256, 1)), root)


def test_times_of_a_vek_certificate_are_of_the_form_that_their_tag_says():
    utc, generalized = 0x17, 0x18
    assert vek._time(utc, b"260102030405Z") == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert vek._time(utc, b"500102030405Z") == datetime(1950, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert vek._time(generalized, b"20500102030405Z") == datetime(2050, 1, 2, 3, 4, 5, tzinfo=UTC)
    for tag, text in (
        (utc, b"20500102030405Z"),
        (generalized, b"260102030405Z"),
        (der.OCTET_STRING, b"20500102030405Z"),
        (der.OCTET_STRING, b"260102030405Z"),
    ):
        with pytest.raises(Malformed, match="expected a time like YYYYMMDDhhmmssZ, got"):
            vek._time(tag, text)
