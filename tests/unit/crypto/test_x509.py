"""Certificate paths: each rule of RFC 5280 that `crypto/pki/x509.py` claims, broken once."""

from __future__ import annotations

import hashlib
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import utils
from cryptography import x509 as library
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from strongroom.crypto import public_key, tls
from strongroom.crypto.pki import local_ca, x509
from strongroom.errors import Malformed, Refused

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
DAY = timedelta(days=1)
PURPOSE = "2.23.133.8.3"
ANY_PURPOSE = "2.5.29.37.0"
VECTORS = Path(__file__).parents[2] / "vectors" / "x509"


class Issuer:
    """A key with its certificates; `make` issues below it. Every departure from the sound is an option."""

    def __init__(self, name: str, key=None):
        self.name = library.Name([library.NameAttribute(library.NameOID.COMMON_NAME, name)])
        self.key = key or ec.generate_private_key(ec.SECP256R1())

    def make(
        self,
        subject: Issuer,
        *,
        ca: bool | None = True,
        path_length: int | None = None,
        usage: bool = True,
        cert_sign: bool | None = None,
        digital_signature: bool | None = None,
        purposes: tuple[str, ...] = (),
        begins: datetime = NOW - DAY,
        ends: datetime = NOW + DAY,
        algorithm: object = None,
        extension: library.ExtensionType | None = None,
        critical: bool = True,
        issuer: str = "",
        pss: bool = False,
    ) -> bytes:
        named = Issuer(issuer).name if issuer else self.name
        builder = (
            library.CertificateBuilder()
            .subject_name(subject.name)
            .issuer_name(named)
            .public_key(subject.key.public_key())
            .serial_number(library.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(ends)
        )
        if ca is not None:
            builder = builder.add_extension(library.BasicConstraints(ca=ca, path_length=path_length), True)
        if usage:
            signs = bool(ca) if cert_sign is None else cert_sign
            builder = builder.add_extension(
                library.KeyUsage(
                    (not signs) if digital_signature is None else digital_signature,
                    *(False, False, False, True),
                    signs,
                    *(False, False, False),
                ),
                True,
            )
        if purposes:
            oids = [library.ObjectIdentifier(one) for one in purposes]
            builder = builder.add_extension(library.ExtendedKeyUsage(oids), False)
        if extension is not None:
            builder = builder.add_extension(extension, critical)
        chosen = hashes.SHA256() if algorithm is None else algorithm
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            chosen = None
        scheme = padding.PSS(padding.MGF1(hashes.SHA256()), 32) if pss else None
        made = builder.sign(self.key, chosen, rsa_padding=scheme)  # type: ignore[arg-type]
        return made.public_bytes(serialization.Encoding.DER)


ROOT, MIDDLE, LEAF = Issuer("root"), Issuer("middle"), Issuer("leaf")
ROOT_DER = ROOT.make(ROOT)
MIDDLE_DER = ROOT.make(MIDDLE)


def leaf(**options) -> bytes:
    return MIDDLE.make(LEAF, **{"ca": False, "purposes": (PURPOSE,), **options})


def digest(der: bytes) -> str:
    return "sha256:" + hashlib.sha256(der).hexdigest()


def walk(*chain: bytes, roots=None, purpose: str = PURPOSE, now: datetime = NOW) -> str:
    """`accepted`, or the code of the refusal."""
    trusted = frozenset({digest(chain[-1])}) if roots is None else roots
    try:
        path = x509.verify_path(chain[0], b"".join(chain[1:]), roots=trusted, purpose=purpose, now=now)
    except (Refused, Malformed) as cause:
        return cause.code
    assert path.leaf.der == chain[0]
    assert path.root.der == chain[-1]
    return "accepted"


def test_a_sound_path_is_accepted():
    assert walk(leaf(), MIDDLE_DER, ROOT_DER) == "accepted"
    assert walk(ROOT.make(LEAF, ca=False, purposes=(PURPOSE,)), ROOT_DER) == "accepted"
    assert walk(leaf(purposes=("1.2.3", PURPOSE)), MIDDLE_DER, ROOT_DER) == "accepted"
    assert walk(leaf(usage=False), MIDDLE_DER, ROOT_DER) == "accepted"
    assert walk(leaf(ca=None), MIDDLE_DER, ROOT_DER) == "accepted"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"ca": True}, "bad-chain"),
        ({"purposes": ()}, "wrong-purpose"),
        ({"purposes": ("1.3.6.1.5.5.7.3.1",)}, "wrong-purpose"),
        ({"purposes": (ANY_PURPOSE,)}, "wrong-purpose"),
        ({"digital_signature": False}, "wrong-purpose"),
        ({"ends": NOW - timedelta(seconds=1)}, "expired"),
        ({"begins": NOW + timedelta(seconds=1)}, "not-yet-valid"),
        ({"issuer": "other"}, "bad-chain"),
        (
            {"extension": library.UnrecognizedExtension(library.ObjectIdentifier("1.2.3.4"), b"\5\0")},
            "bad-chain",
        ),
        ({"extension": library.InhibitAnyPolicy(0)}, "bad-chain"),
    ],
    ids=str,
)
def test_a_leaf_is_refused(options, code):
    assert walk(leaf(**options), MIDDLE_DER, ROOT_DER) == code


def test_extensions_that_are_not_critical_may_be_unknown():
    unknown = library.UnrecognizedExtension(library.ObjectIdentifier("1.2.3.4"), b"\5\0")
    assert walk(leaf(extension=unknown, critical=False), MIDDLE_DER, ROOT_DER) == "accepted"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"ca": False}, "bad-chain"),
        ({"ca": None}, "bad-chain"),
        ({"usage": False}, "bad-chain"),
        ({"cert_sign": False}, "bad-chain"),
        ({"purposes": ("1.3.6.1.5.5.7.3.1",)}, "wrong-purpose"),
        ({"purposes": (PURPOSE,)}, "accepted"),
        ({"purposes": (ANY_PURPOSE,)}, "accepted"),
        ({"ends": NOW - timedelta(seconds=1)}, "expired"),
        ({"begins": NOW + timedelta(seconds=1)}, "not-yet-valid"),
        (
            {
                "extension": library.NameConstraints(
                    permitted_subtrees=[library.DNSName("example.org")], excluded_subtrees=None
                )
            },
            "bad-chain",
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("place", ["middle", "root"])
def test_an_issuer_is_refused(options, code, place):
    if place == "middle":
        assert walk(leaf(), ROOT.make(MIDDLE, **options), ROOT_DER) == code
    else:
        assert walk(leaf(), MIDDLE_DER, ROOT.make(ROOT, **options)) == code


def test_path_length_is_kept():
    short = ROOT.make(ROOT, path_length=0)
    assert walk(ROOT.make(LEAF, ca=False, purposes=(PURPOSE,)), short) == "accepted"
    assert walk(leaf(), MIDDLE_DER, short) == "bad-chain"
    assert walk(leaf(), MIDDLE_DER, ROOT.make(ROOT, path_length=1)) == "accepted"


def test_only_the_given_roots_count():
    chain = (leaf(), MIDDLE_DER, ROOT_DER)
    assert walk(*chain, roots=frozenset()) == "untrusted-root"
    assert walk(*chain, roots=frozenset({digest(b"other")})) == "untrusted-root"
    # The middle one is trusted, but is not where the path ends; and a second root of the same name and key.
    assert walk(*chain, roots=frozenset({digest(MIDDLE_DER)})) == "untrusted-root"
    again = ROOT.make(ROOT)
    assert again != ROOT_DER
    assert walk(leaf(), MIDDLE_DER, again, roots=frozenset({digest(ROOT_DER)})) == "untrusted-root"


def test_names_and_keys_must_both_fit():
    impostor = Issuer("middle")
    forged = impostor.make(LEAF, ca=False, purposes=(PURPOSE,))
    assert walk(forged, MIDDLE_DER, ROOT_DER) == "bad-chain"
    assert walk(forged, impostor.make(impostor), ROOT_DER) == "bad-chain"
    assert walk(leaf(), ROOT_DER) == "bad-chain"
    assert walk(leaf(), ROOT_DER, MIDDLE_DER, roots=frozenset({digest(ROOT_DER)})) == "untrusted-root"


def test_sha1_counts_for_nothing():
    root = (VECTORS / "root.der").read_bytes()
    later = NOW + DAY
    assert walk((VECTORS / "leaf-sha256.der").read_bytes(), root, now=later) == "accepted"
    assert walk((VECTORS / "leaf-sha1.der").read_bytes(), root, now=later) == "bad-chain"


@pytest.mark.parametrize("name", ["leaf-sha1", "leaf-serial-0", "leaf-v1"])
@pytest.mark.parametrize("warned", [True, False], ids=["warnings raise", "warnings are ignored"])
def test_recorded_certificates_are_refused(name, warned):
    root = (VECTORS / "root.der").read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error" if warned else "ignore")
        x509._path.cache_clear()
        got = walk((VECTORS / f"{name}.der").read_bytes(), root, now=NOW + DAY)
    assert got in {"bad-chain", "malformed"}


def test_a_signature_of_spare_bits_is_malformed():
    # Such a certificate would verify: nobody signs how many bits of the signature are unused.
    good = leaf()
    while good[-1] & 1:
        good = leaf()
    place = good.rindex(b"\x00\x30", 0, -60)
    assert walk(good, MIDDLE_DER, ROOT_DER) == "accepted"
    spare = good[:place] + b"\x01" + good[place + 1 :]
    library.load_der_x509_certificate(spare).verify_directly_issued_by(
        library.load_der_x509_certificate(MIDDLE_DER)
    )
    assert walk(spare, MIDDLE_DER, ROOT_DER) == "malformed"


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(lambda: ec.generate_private_key(ec.SECP384R1()), id="p384"),
        pytest.param(lambda: ec.generate_private_key(ec.SECP521R1()), id="p521"),
        pytest.param(lambda: rsa.generate_private_key(65537, 2048), id="rsa2048"),
    ],
)
def test_other_strong_keys_serve(key):
    root = Issuer("root", key())
    assert walk(root.make(LEAF, ca=False, purposes=(PURPOSE,)), root.make(root)) == "accepted"


def test_rsa_pss_serves():
    root = Issuer("root", rsa.generate_private_key(65537, 2048))
    assert walk(root.make(LEAF, ca=False, purposes=(PURPOSE,), pss=True), root.make(root)) == "accepted"


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(lambda: ec.generate_private_key(ec.SECP256K1()), id="secp256k1"),
        pytest.param(lambda: rsa.generate_private_key(65537, 1024), id="rsa1024"),  # noqa: S505 - it must be refused
        pytest.param(ed25519.Ed25519PrivateKey.generate, id="ed25519"),
    ],
)
def test_other_keys_do_not(key):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", utils.CryptographyDeprecationWarning)
        root = Issuer("root", key())
        chain = (root.make(LEAF, ca=False, purposes=(PURPOSE,)), root.make(root))
    assert walk(*chain) in {"bad-chain", "unknown-key", "malformed"}


def test_certificates_are_cut_apart_strictly():
    assert x509.split(MIDDLE_DER + ROOT_DER) == (MIDDLE_DER, ROOT_DER)
    for bad, why in (
        (b"", "none"),
        (b"\x30", "expected a DER SEQUENCE at byte"),
        (ROOT_DER[:-1], "the last one is cut short"),
        (ROOT_DER + b"\0", "expected a DER SEQUENCE at byte"),
        (b"\x31" + ROOT_DER[1:], "expected a DER SEQUENCE at byte"),
        (ROOT_DER * 9, "more than 8"),
    ):
        with pytest.raises(Malformed, match=why):
            x509.split(bad)
    for head in (b"\x30\x80", b"\x30\x81\x7f", b"\x30\x82\x00\xff", b"\x30\x83\x01\x00\x00"):
        with pytest.raises(Malformed, match="expected a length in DER of at most 65535 at byte"):
            x509.split(head + bytes(70000))
    assert x509.split(b"\x30\x02\x05\x00") == (b"\x30\x02\x05\x00",)
    assert x509.split(b"\x30\x81\x80" + bytes(128)) == (b"\x30\x81\x80" + bytes(128),)


def test_parsing_is_bounded_and_strict():
    for bad, why in (
        (b"", "expected X.509 in DER, got other bytes"),
        (b"\x30\x00", "expected X.509 in DER, got other bytes"),
        (ROOT_DER + b"\0", "expected X.509 in DER, got other bytes"),
        (ROOT_DER[:-1], "expected X.509 in DER, got other bytes"),
        (bytes(x509.MAX_CERTIFICATE + 1), "at most"),
    ):
        with pytest.raises(Malformed, match=why):
            x509.parse(bad)


def test_names_are_fit_for_a_terminal():
    made = Issuer("red \x1b[31m text")
    assert "\x1b" not in x509.parse(made.make(made)).subject
    assert "red" in x509.parse(made.make(made)).subject


def test_every_flipped_byte_of_a_leaf_is_refused():
    good = leaf()
    assert walk(good, MIDDLE_DER, ROOT_DER) == "accepted"
    for place in range(len(good)):
        flipped = good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]
        assert walk(flipped, MIDDLE_DER, ROOT_DER) != "accepted"


def test_signatures_by_certified_keys():
    key = x509.parse(leaf()).key
    assert key.kind == "secp256r1"
    r, s = decode_dss_signature(LEAF.key.sign(b"message", ec.ECDSA(hashes.SHA256())))
    key.verify_rs(r=r, s=s, message=b"message", hash="sha256")
    order = public_key.P256_ORDER
    for bad_r, bad_s, why in (
        (r, s + 1, "signature does not verify"),
        (0, s, "ECDSA r or s is not between 1 and the order of the curve"),
        (r, 0, "ECDSA r or s is not between 1 and the order of the curve"),
        (order, s, "ECDSA r or s is not between 1 and the order of the curve"),
        (r, order, "ECDSA r or s is not between 1 and the order of the curve"),
        (r + order, s, "ECDSA r or s is not between 1 and the order of the curve"),
        (-r, s, "ECDSA r or s is not between 1 and the order of the curve"),
    ):
        with pytest.raises(Refused, match=why):
            key.verify_rs(r=bad_r, s=bad_s, message=b"message", hash="sha256")
    with pytest.raises(Refused, match="signature does not verify"):
        key.verify_rs(r=r, s=s, message=b"other", hash="sha256")
    with pytest.raises(Refused, match="the key is secp256r1, the signature RSA"):
        key.verify_rsa(b"s" * 256, b"message")
    signer = Issuer("rsa", rsa.generate_private_key(65537, 2048))
    strong = x509.parse(signer.make(signer)).key
    signature = signer.key.sign(b"message", padding.PKCS1v15(), hashes.SHA256())
    strong.verify_rsa(signature, b"message")
    for bad, why in (
        (b"", "RSA signature of .* bytes, not .* as the modulus"),
        (signature[:-1], "RSA signature of .* bytes, not .* as the modulus"),
        (b"\0" + signature, "RSA signature of .* bytes, not .* as the modulus"),
        (signature[:-1] + bytes([signature[-1] ^ 1]), "signature does not verify"),
    ):
        with pytest.raises(Refused, match=why):
            strong.verify_rsa(bad, b"message")
    with pytest.raises(Refused, match="the key is rsa, the signature ECDSA P-256 or P-384"):
        strong.verify_rs(r=r, s=s, message=b"message", hash="sha256")


def test_a_nodes_own_authority_makes_paths_that_verify():
    counter = iter(range(1, 100))
    random = lambda count: hashlib.shake_128(bytes([next(counter)])).digest(count)  # noqa: E731
    key = tls.generate()
    root = local_ca.make_root(key, name="test", now=NOW, random=random)
    numbers = LEAF.key.public_key().public_numbers()
    point = (numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big"))
    ak = local_ca.certify_ak(key, root, point, name="test", now=NOW, random=random)
    assert walk(ak, root) == "accepted"
    assert x509.parse(ak).spki_digest == digest(local_ca.spki(point))
