"""What the vendors really said: recorded collateral, served over HTTPS, is taken, kept and verifies as recorded.

The recordings are those of tests/vectors; without them these tests are skipped. The pinned roots count, nothing else.
"""

from __future__ import annotations

import json
import urllib.parse
from datetime import datetime

import pytest

from strongroom.evidence import roots as pinned
from strongroom.evidence import verify
from strongroom.evidence.formats import snp_product, snp_report
from strongroom.fetch.endorsements import amd
from strongroom.fetch.endorsements.resolve import Fetcher
from strongroom_testing.vendors.vendor_services import of_type, serve
from tests.unit.fetch.vendors import library
from tests.vectors import runner
from tests.vectors.adapters import sgx, snp, tdx

ADAPTERS = {"sgx": sgx, "tdx": tdx, "snp": snp}


def loaded(tee):
    """Cases of a TEE with endorsements that verify at their time."""
    root = runner.folder() / tee
    found = []
    for path in sorted(root.glob("*/case.json")) if root.is_dir() else ():
        case = json.loads(path.read_bytes())
        if case["expected"]["verdict"] != "accept":
            continue
        one = ADAPTERS[tee].load(path.parent, case)
        if one.evidence is not None and one.endorsements.parts:
            found.append(pytest.param(one, id=path.parent.name))
    return found


INTEL = loaded("sgx") + loaded("tdx")
AMD = sorted((runner.folder() / "snp").glob("*/ask_ark.pem")) if runner.folder().is_dir() else []
absent = pytest.mark.skipif(
    not runner.folder().is_dir(), reason="the recorded evidence is not beside the project"
)


@absent
def test_there_are_recordings():
    assert len(INTEL) >= 10
    assert AMD


@absent
@pytest.mark.parametrize("one", INTEL)
def test_intel_s_collateral_is_taken_and_verifies(tmp_path, one):
    tee, parts = one.evidence.tee, one.endorsements.parts
    start, quoted = f"/{tee}/certification/v4", urllib.parse.quote
    with serve(tmp_path) as services:
        services.files |= {
            f"{start}/tcb": of_type(
                "application/json",
                parts["tcb-info"],
                ("TCB-Info-Issuer-Chain", quoted(parts["tcb-info-issuer-chain"])),
            ),
            f"{start}/qe/identity": of_type(
                "application/json",
                parts["qe-identity"],
                ("SGX-Enclave-Identity-Issuer-Chain", quoted(parts["qe-identity-issuer-chain"])),
            ),
            "/sgx/certification/v4/pckcrl": of_type(
                "application/pkix-crl",
                parts["pck-crl"],
                ("SGX-PCK-CRL-Issuer-Chain", quoted(parts["pck-crl-issuer-chain"])),
            ),
            "/IntelSGXRootCA.der": of_type("application/pkix-crl", parts["root-ca-crl"]),
        }
        made = Fetcher(library=library(tmp_path, roots=pinned.PINNED), vendors=services.vendors)
        found = made.endorse(one.evidence, now=one.now)
    got = verify.verify(one.evidence, found, binding=one.binding, roots=one.roots, now=one.now)
    assert got == verify.verify(
        one.evidence, one.endorsements, binding=one.binding, roots=one.roots, now=one.now
    )
    again = Fetcher(library=library(tmp_path, roots=pinned.PINNED, offline=True))
    assert again.endorse(one.evidence, now=one.now) == found


@absent
@pytest.mark.parametrize("path", AMD, ids=lambda path: path.parent.name)
def test_amd_s_certificates_are_taken(tmp_path, path):
    """Without AMD's list, which no recording has: the chain and the chip's certificate."""
    case = json.loads((path.parent / "case.json").read_bytes())
    parts = snp.amd_endorsements(path.parent).parts
    if case["expected"]["verdict"] not in ("accept", "crypto_valid") or "vek" not in parts:
        pytest.skip("a case that is to be refused, or without the chip's certificate")
    now = datetime.fromisoformat(case["verify_at"])
    report = (path.parent / "report.bin").read_bytes()
    chain = path.read_bytes()
    parsed = snp_report.parse(report)
    kind = "vlek" if parsed.signing_key == snp_report.VLEK else "vcek"
    line = snp_product.read(parts["vek"]).line
    with serve(tmp_path) as services:
        services.files[f"/{kind}/v1/{line.name}/cert_chain"] = of_type("application/x-pem-file", chain)
        made = library(tmp_path, roots=pinned.PINNED)
        issuers = made.get(amd.chain(services.service, kind, line.name), now=now).parts["issuers"]
        assert issuers == parts["issuers"]
        if kind == "vcek":
            ask = amd.vcek(services.service, line, parsed.chip_id, parsed.reported_tcb, issuers)
            services.files[ask.path.partition("?")[0]] = of_type("application/octet-stream", parts["vek"])
            assert made.get(ask, now=now).parts["vek"] == parts["vek"]
