"""Verifications of SEV-SNP and Azure evidence per second, cold and warm, against the bare signatures, in one process.

cold: certificates and list never seen before; warm: seen. bare: the signatures alone, with the same library: one ECDSA
P-384, and for Azure one RSA-2048 more; cold three RSA-4096 (PSS) and that of the list besides, and reading the keys. The
share is median over median of interleaved rounds. `secretvm-verify` and `cvm-attest` are measured where they are installed.
"""

from __future__ import annotations

import base64
import importlib.util
import statistics
import time
import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from strongroom.crypto import vek, x509
from strongroom.encoding import pem
from strongroom.evidence import azure, azure_hcl, registry, snp, snp_product, snp_report, tpm_quote
from strongroom.model.binding import Binding, RoomKeys
from strongroom_testing import fake_amd, fake_azure

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 400
COLD_ROUNDS = 60
NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
BOUND = Binding(
    nonce=b"n" * 32,
    contract="sha256:" + "ab" * 32,
    keys=RoomKeys(signing=b"s" * 32, tls=b"t" * 91, kem=b"k" * 1216),
    role="room",
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

        def verify(evidence=evidence, endorsements=endorsements, roots=roots):
            return registry.verify(evidence, endorsements, binding=BOUND, roots=roots, now=NOW)

        def bare(key=key, report=report):
            key.verify_ecdsa(report.signature, report.signed)

        rows += _warm(f"snp {line}", verify, bare)
        if line != "Turin":
            rows += _cold(
                f"snp {line}", verify, lambda bare=bare, parts=endorsements.parts: _bare_chain(parts, bare)
            )
            rows += _peers(chip, evidence.parts["report"], verify)
    rows += _azure()
    return rows


def _azure() -> list[dict[str, object]]:
    vm = fake_azure.FakeAzure.over("snp", now=NOW)
    evidence, endorsements, roots = vm.evidence(BOUND), vm.endorsements(), frozenset({vm.root})
    hcl = azure_hcl.parse(evidence.parts[azure.HCL])
    report, key = snp_report.parse(hcl.report), vek.parse(endorsements.parts["vek"]).key
    signature = tpm_quote.parse_signature(evidence.parts["signature"])
    quote = evidence.parts["quote"]

    def verify():
        return registry.verify(evidence, endorsements, binding=BOUND, roots=roots, now=NOW)

    def bare():
        key.verify_ecdsa(report.signature, report.signed)
        tpm_quote.check_signature(signature, hcl.runtime.ak, quote)

    return _warm("azure over snp", verify, bare)


def _warm(name: str, verify: Callable[[], object], bare: Callable[[], object]) -> list[dict[str, object]]:
    whole, limit = _interleaved(verify, bare, ROUNDS)
    return [
        {"what": f"{name}, warm, verifications/s", "value": round(1 / whole), "aim": ""},
        {"what": f"{name}, bare signatures/s", "value": round(1 / limit), "aim": ""},
        {"what": f"{name}, warm, share of bare", "value": f"{limit / whole:.0%}", "aim": "≥ 70 %"},
        {"what": f"{name}, warm, above bare, µs", "value": round((whole - limit) * 1e6), "aim": "< 60"},
    ]


def _cold(name: str, verify: Callable[[], object], bare: Callable[[], object]) -> list[dict[str, object]]:
    def new_chain() -> object:
        _forget()
        return verify()

    def new_chip() -> object:
        snp._issued.cache_clear()
        snp_product.read.cache_clear()
        return verify()

    whole, limit = _interleaved(new_chain, bare, COLD_ROUNDS)
    chip, _ = _interleaved(new_chip, bare, COLD_ROUNDS)
    return [
        {"what": f"{name}, cold (everything new), verifications/s", "value": round(1 / whole), "aim": ""},
        {"what": f"{name}, cold, share of bare", "value": f"{limit / whole:.0%}", "aim": ""},
        {"what": f"{name}, new chip of a known line, verifications/s", "value": round(1 / chip), "aim": ""},
    ]


def _peers(chip: fake_amd.FakeAmd, report: bytes, verify: Callable[[], object]) -> list[dict[str, object]]:
    """The peers on the same bytes, what they would fetch given to them instead. They keep nothing parsed between calls."""
    rows = []
    for name, module, make in (
        ("secretvm-verify", "secretvm", _secretvm),
        ("cvm-attest", "cvm_attest", _cvm_attest),
    ):
        if importlib.util.find_spec(module) is None:
            rows.append({"what": f"snp {chip.line}, {name}", "value": "not installed", "aim": ""})
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # their X.509 library warns of AMD's serial numbers
            step = make(chip, report)

            def cold() -> object:
                _forget()
                return verify()

            ours, theirs = _interleaved(verify, step, COLD_ROUNDS)
            fresh, _ = _interleaved(cold, step, COLD_ROUNDS)
        rows += [
            {"what": f"snp {chip.line}, {name}, verifications/s", "value": round(1 / theirs), "aim": ""},
            {
                "what": f"snp {chip.line}, times {name}: warm, cold",
                "value": f"{theirs / ours:.1f}, {theirs / fresh:.1f}",
                "aim": "",
            },
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
    x509.PublicKey(ask.public_key()).verify_rsa(leaf.signature, leaf.signed, hash="sha384", pss=True)
    library.load_der_x509_crl(parts["crl"]).is_signature_valid(ark.public_key())
    bare()


def _forget() -> None:
    for kept in (x509._ca_path, x509.kept, x509._issued_kept, snp._issued, snp._list, snp_product.read):
        kept.cache_clear()


def _interleaved(one: Callable[[], object], other: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median seconds of both, measured in turns, so that noise falls on both."""
    took: tuple[list[float], list[float]] = ([], [])
    for step in (one, other):
        step()
    for _ in range(rounds):
        for step, times in zip((one, other), took, strict=True):
            begun = time.perf_counter()
            step()
            times.append(time.perf_counter() - begun)
    return statistics.median(took[0]), statistics.median(took[1])


def main() -> None:
    """Print the rows."""
    for row in run():
        print(f"{row['what']:56} {row['value']!s:>12}  {row['aim']}")


if __name__ == "__main__":
    main()
