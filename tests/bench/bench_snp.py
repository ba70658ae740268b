"""Verifications of SEV-SNP and Azure evidence per second, warm and cold, against the bare signatures and other verifiers.

warm: certificates and list seen before. new chip: a VCEK never seen, below known authorities. cold: a chain and a list
never seen (of names that were: AMD's are always the same). first of all: nothing ever seen in this process. bare: the
signatures alone, with the same library: one ECDSA P-384, and for Azure one RSA-2048 more; cold three RSA-4096 (PSS) and
that of the list besides, and reading the keys. All in turns. The peers, where they are installed, get what they would fetch and
keep nothing parsed between calls: `secretvm-verify` checks chain, list and signature, `cvm-attest` chain and signature alone.
"""

from __future__ import annotations

import base64
import importlib.util
import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from strongroom.crypto import public_key
from strongroom.crypto.pki import vek, x509
from strongroom.encoding import pem
from strongroom.evidence import azure, snp, verify
from strongroom.evidence.formats import azure_hcl, snp_product, snp_report, tpm_quote
from strongroom.model.binding import Binding, RoomKeys
from strongroom_testing.vendors import fake_amd, fake_azure
from tests.bench import turns

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 400
COLD_ROUNDS = 60
NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
BOUND = Binding(
    nonce=b"n" * 32,
    contract_digest="sha256:" + "ab" * 32,
    keys=RoomKeys(signing=b"s" * 32, tls=b"t" * 91, kem=b"k" * 1216),
    role="main",
    audience="sha256:" + "ab" * 32,
)


def run() -> list[dict[str, object]]:
    """Rows for the table of `make bench`."""
    rows: list[dict[str, object]] = []
    for line in ("Milan", "Genoa", "Turin"):
        chip = fake_amd.FakeAmd(now=NOW, line=line)
        evidence, endorsements, roots = chip.evidence(BOUND), chip.endorsements(), frozenset({chip.root})
        report = snp_report.parse(evidence.parts["report"])
        key = vek.parse(endorsements.parts["vek"]).key

        def verified(evidence=evidence, endorsements=endorsements, roots=roots):
            return verify.verify(evidence, endorsements, binding=BOUND, roots=roots, now=NOW)

        def bare(key=key, report=report):
            key.verify_ecdsa(report.signature, report.signed)

        rows += _warm(f"snp {line}", verified, bare)
        if line != "Turin":
            rows += _cold(
                f"snp {line}", verified, lambda bare=bare, parts=endorsements.parts: _bare_chain(parts, bare)
            )
            rows += _peers(chip, evidence.parts["report"], verified)
    rows += _azure()
    return rows


def _azure() -> list[dict[str, object]]:
    vm = fake_azure.FakeAzure.over("snp", now=NOW)
    evidence, endorsements, roots = vm.evidence(BOUND), vm.endorsements(), frozenset({vm.root})
    hcl = azure_hcl.parse(evidence.parts[azure.HCL])
    report, key = snp_report.parse(hcl.report), vek.parse(endorsements.parts["vek"]).key
    signature = tpm_quote.parse_signature(evidence.parts["signature"])
    quote = evidence.parts["quote"]

    def verified():
        return verify.verify(evidence, endorsements, binding=BOUND, roots=roots, now=NOW)

    def bare():
        key.verify_ecdsa(report.signature, report.signed)
        tpm_quote.check_signature(signature, hcl.runtime.ak, quote)

    return _warm("azure over snp", verified, bare)


def _warm(name: str, verified: Callable[[], object], bare: Callable[[], object]) -> list[dict[str, object]]:
    took = turns.medians({"warm": _step(verified), "bare": _step(bare)}, ROUNDS)
    whole, limit = took["warm"], took["bare"]
    return [
        turns.row(f"{name}, warm, a second", round(1e6 / whole)),
        turns.row(f"{name}, bare signatures, a second", round(1e6 / limit)),
        turns.row(f"{name}, warm, of the bare signatures", turns.share(limit, whole), ">= 70 %"),
        turns.row(f"{name}, warm, above them, µs", round(whole - limit)),
    ]


def _cold(name: str, verified: Callable[[], object], bare: Callable[[], object]) -> list[dict[str, object]]:
    def new_chip(_: int) -> None:
        snp._check_issued.cache_clear()
        snp_product.read.cache_clear()

    steps = {
        "chip": turns.Step(lambda _: verified(), new_chip),
        "cold": turns.Step(lambda _: verified(), _forget),
        "first": turns.Step(lambda _: verified(), _forget_all),
        "bare": _step(bare),
    }
    took = turns.medians(steps, COLD_ROUNDS)
    return [
        turns.row(f"{name}, new chip, a second", round(1e6 / took["chip"])),
        turns.row(f"{name}, cold, a second", round(1e6 / took["cold"])),
        turns.row(f"{name}, cold, of its bare signatures", turns.share(took["bare"], took["cold"])),
        turns.row(f"{name}, first of all, a second", round(1e6 / took["first"])),
    ]


def _step(timed: Callable[[], object]) -> turns.Step:
    return turns.Step(lambda _: timed())


def _peers(chip: fake_amd.FakeAmd, report: bytes, verified: Callable[[], object]) -> list[dict[str, object]]:
    """The peers on the same bytes, what they would fetch given to them instead."""
    rows = []
    for name, module, make in (
        ("secretvm-verify", "secretvm", _secretvm),
        ("cvm-attest", "cvm_attest", _cvm_attest),
    ):
        if importlib.util.find_spec(module) is None:
            rows.append(turns.row(f"snp {chip.line}, {name}", "not installed"))
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # their X.509 library warns of AMD's serial numbers
            steps = {
                "cold": turns.Step(lambda _: verified(), _forget),
                "first of all": turns.Step(lambda _: verified(), _forget_all),
                "warm": turns.Step(lambda _: verified(), lambda _: verified()),
                "peer": _step(make(chip, report)),
            }
            took = turns.medians(steps, COLD_ROUNDS)
        rows.append(turns.row(f"snp {chip.line}, {name}, a second", round(1e6 / took["peer"])))
        rows += [
            turns.row(f"snp {chip.line}, {how}, times {name}", f"{took['peer'] / took[how]:.2f}")
            for how in ("warm", "cold", "first of all")
        ]
    return rows


def _secretvm(chip: fake_amd.FakeAmd, report: bytes) -> Callable[[], object]:
    """Its public function: certificate, chain, list, signature, debug."""
    from cryptography.x509 import load_der_x509_certificate
    from secretvm.verify import amd

    parts, text = chip.endorsements().parts, base64.b64encode(report).decode()
    chain = b"".join(pem.encode(der, b"CERTIFICATE") for der in x509.split(parts["issuers"]))
    amd._amd_fetch_vcek = lambda *_, **__: (load_der_x509_certificate(parts["vek"]), parts["vek"], chip.line)
    amd._amd_fetch_chain_pem = lambda *_, **__: chain
    amd._amd_fetch_crl = lambda *_, **__: parts["crl"]
    amd._PINNED_ARK_SPKI_SHA256 = {chip.line: chip.root.removeprefix("sha256:")}

    def step() -> None:
        result = amd.check_sev_cpu_attestation(text, product=chip.line)
        if not result.valid:
            raise SystemExit(f"secretvm-verify refuses: {result.errors}")

    return step


def _cvm_attest(chip: fake_amd.FakeAmd, report: bytes) -> Callable[[], object]:
    """Its verification of chain and signature: no list, no dates, no comparison of certificate and report."""
    from cvm_attest.snp import verify

    parts = chip.endorsements().parts
    chain = b"".join(pem.encode(der, b"CERTIFICATE") for der in x509.split(parts["issuers"]))

    def step() -> None:
        if verify._verify_report_signature(report, parts["vek"], chain) != (True, True):
            raise SystemExit("cvm-attest refuses")

    return step


def _bare_chain(parts: dict[str, bytes], bare: Callable[[], object]) -> None:
    """The signatures that a chain never seen before needs, and no check of what the certificates say."""
    from cryptography import x509 as library

    ask, ark = (library.load_der_x509_certificate(der) for der in x509.split(parts["issuers"]))
    leaf = vek.parse(parts["vek"])
    ark.verify_directly_issued_by(ark)
    ask.verify_directly_issued_by(ark)
    public_key.PublicKey(ask.public_key()).verify_rsa(leaf.signature, leaf.signed, hash="sha384", pss=True)
    library.load_der_x509_crl(parts["crl"]).is_signature_valid(ark.public_key())
    bare()


def _forget(_: int) -> None:
    for kept in (
        x509._ca_path,
        x509.parse_cached,
        x509._issued_kept,
        snp._check_issued,
        snp._list,
        snp_product.read,
    ):
        kept.cache_clear()


def _forget_all(index: int) -> None:
    _forget(index)
    x509._NAMES.clear()


if __name__ == "__main__":
    turns.show(run())
