"""OCSP answers by a real responder: `openssl ocsp` answers, this file's reader judges."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509 as library_x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509 import ocsp as library_ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from strongroom.crypto.pki import ocsp, x509
from strongroom.errors import Malformed, Refused
from strongroom_testing.vendors import certificate_maker as maker

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


def soon() -> datetime:
    """The responder answers by the machine's clock, maybe long after this file was imported."""
    return datetime.now(UTC) + timedelta(minutes=1)


class Responder:
    """An authority with one certificate, and what `openssl ocsp` needs to answer about it."""

    def __init__(self, folder, *, rsa_responder: bool):
        self.folder = folder
        self.key, leaf, answering = maker.new_key(), maker.new_key(), maker.new_key()
        if rsa_responder:
            answering = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        dates = {"begins": NOW - DAY, "ends": NOW + DAY}
        root = maker.issue(maker.Request(subject="CA", key=self.key, ca=True, **dates), "CA", self.key)
        certificate = maker.issue(maker.Request(subject="chip", key=leaf, **dates), "CA", self.key)
        marks = (library_x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]),)
        responder = maker.issue(
            maker.Request(subject="responder", key=answering, extensions=marks, **dates), "CA", self.key
        )
        for name, der in (("ca", root), ("leaf", certificate), ("responder", responder)):
            pem = library_x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)
            (folder / f"{name}.pem").write_bytes(pem)
        (folder / "key.pem").write_bytes(
            answering.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        self.leaf, self.root = x509.parse(certificate), x509.parse(root)

    def answer(self, status: str, *options: str) -> bytes:
        revoked = "" if status == "V" else f"{NOW - DAY:%y%m%d%H%M%S}Z"
        line = f"{status}\t{NOW + DAY:%y%m%d%H%M%S}Z\t{revoked}\t{self.leaf.serial:X}\tunknown\t/CN=chip\n"
        if len(f"{self.leaf.serial:X}") % 2:
            line = line.replace(f"\t{self.leaf.serial:X}", f"\t0{self.leaf.serial:X}")
        (self.folder / "index.txt").write_text(line)
        command = "openssl ocsp -index index.txt -CA ca.pem -rsigner responder.pem -rkey key.pem -rmd sha256"
        command += (
            " -issuer ca.pem -cert leaf.pem -no_nonce -reqout request.der -respout answer.der -noverify"
        )
        made = [*command.split(), *options]
        subprocess.run(
            [
                "openssl",
                "ocsp",
                "-issuer",
                "ca.pem",
                "-cert",
                "leaf.pem",
                "-no_nonce",
                "-reqout",
                "request.der",
            ],
            cwd=self.folder,
            check=True,
            capture_output=True,
        )
        del made[made.index("-issuer") : made.index("-respout")]
        subprocess.run([*made, "-reqin", "request.der"], cwd=self.folder, check=True, capture_output=True)
        return (self.folder / "answer.der").read_bytes()

    def check(self, der: bytes, *, now=None) -> None:
        ocsp.check_good(
            ocsp.parse(der),
            self.leaf,
            (self.root,),
            roots=frozenset({self.root.digest}),
            now=now or soon(),
        )


@pytest.fixture(scope="module", params=[False, True], ids=["ecdsa", "rsa"])
def responder(request, tmp_path_factory):
    return Responder(tmp_path_factory.mktemp("ocsp"), rsa_responder=request.param)


def test_a_real_responders_word_counts(responder):
    good = responder.answer("V", "-ndays", "1")
    responder.check(good)
    with pytest.raises(Refused) as caught:
        responder.check(good, now=soon() + timedelta(days=1))
    assert caught.value.code in {"expired", "bad-answer"}


def test_rule_04_a_revoked_certificate_is_refused(responder):
    with pytest.raises(Refused) as caught:
        responder.check(responder.answer("R", "-ndays", "1"))
    assert caught.value.code == "revoked"


def test_an_answer_without_an_end_is_none(responder):
    with pytest.raises(Malformed, match="lacks nextUpdate"):
        ocsp.parse(responder.answer("V"))


def test_an_answer_about_another_certificate_is_refused(responder):
    other = maker.issue(
        maker.Request(subject="other", key=maker.new_key(), begins=NOW - DAY, ends=NOW + DAY),
        "CA",
        responder.key,
    )
    with pytest.raises(Refused) as caught:
        ocsp.check_good(
            ocsp.parse(responder.answer("V", "-ndays", "1")),
            x509.parse(other),
            (responder.root,),
            roots=frozenset({responder.root.digest}),
            now=soon(),
        )
    assert caught.value.code == "wrong-answer"


@pytest.mark.parametrize(
    ("junk", "why"),
    [
        (b"", "expected one in DER, got other bytes"),
        (b"\x30\x00", "expected one in DER, got other bytes"),
        (b"x" * 100, "expected one in DER, got other bytes"),
        (b"\x30\x82" + bytes(600), "expected one in DER, got other bytes"),
        (bytes(ocsp.MAX_BYTES + 1), "at most"),
    ],
)
def test_junk_is_malformed(junk, why):
    with pytest.raises(Malformed, match=why):
        ocsp.parse(junk)


MAY = (library_x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]),)
SERVES = (library_x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),)
ANYTHING = (library_x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),)


class Tree:
    """A root, an authority under it with one certificate, and another authority that took the same name."""

    def __init__(self):
        self.keys = {name: maker.new_key() for name in ("root", "CA", "sibling", "chip", "responder")}
        self.root = self.issue("root", by="root", ca=True)
        self.issuer = self.issue("CA", by="root", ca=True)
        self.leaf = self.issue("chip", by="CA")

    def issue(self, subject, *, by, called=None, ca=False, extensions=()):
        request = maker.Request(
            subject=subject,
            key=self.keys[subject],
            begins=NOW - DAY,
            ends=NOW + DAY,
            ca=ca,
            extensions=extensions,
        )
        return maker.issue(request, called or by, self.keys[by])

    def good(self, responder, key):
        """A good answer about the leaf, signed by `key`, with the certificate `responder`."""
        library = library_x509.load_der_x509_certificate
        made = library_ocsp.OCSPResponseBuilder().add_response(
            cert=library(self.leaf), issuer=library(self.issuer), algorithm=hashes.SHA256(),
            cert_status=library_ocsp.OCSPCertStatus.GOOD, this_update=NOW - DAY, next_update=NOW + DAY,
            revocation_time=None, revocation_reason=None,
        )  # fmt: skip
        made = made.responder_id(library_ocsp.OCSPResponderEncoding.NAME, library(responder))
        made = made.certificates([library(responder)])
        der = made.sign(self.keys[key], hashes.SHA256()).public_bytes(serialization.Encoding.DER)
        issuers = (x509.parse(self.issuer), x509.parse(self.root))
        roots = frozenset({issuers[-1].spki_digest})
        ocsp.check_good(ocsp.parse(der), x509.parse(self.leaf), issuers, roots=roots, now=NOW)


def test_only_the_issuer_and_whom_it_certified_for_that_may_answer():
    tree = Tree()
    tree.good(tree.issue("responder", by="CA", extensions=MAY), "responder")
    for responder, key in (
        (tree.issue("responder", by="CA"), "responder"),
        (tree.issue("responder", by="CA", extensions=SERVES), "responder"),
        (tree.issue("responder", by="CA", extensions=ANYTHING), "responder"),
        (tree.issue("responder", by="root", extensions=MAY), "responder"),
        (tree.issue("responder", by="sibling", called="CA", extensions=MAY), "responder"),
        (tree.leaf, "chip"),
    ):
        with pytest.raises(Refused, match="its responder") as caught:
            tree.good(responder, key)
        assert caught.value.code == "bad-answer"


def test_a_signature_that_is_not_whole_bytes_is_malformed(tmp_path):
    """Its last bit said to be unused, which DER allows where that bit is zero: so answers are made until it is."""
    ours = Responder(tmp_path, rsa_responder=False)
    der = ours.answer("V", "-ndays", "1")
    while (signature := library_ocsp.load_der_ocsp_response(der).signature)[-1] & 1:
        der = ours.answer("V", "-ndays", "1")
    unused = der.index(signature) - 1
    assert der[unused] == 0
    with pytest.raises(Malformed, match="not whole bytes"):
        ocsp.parse(der[:unused] + b"\x01" + der[unused + 1 :])
