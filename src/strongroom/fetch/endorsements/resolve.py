"""From evidence to the endorsements that its verifier reads: what to ask whom, decided by what the evidence says.

A quote names its FMSPC and its PCK CA in certificates that have to lead to a root that counts. An SNP report names its
processor, chip and TCB, and nobody can verify it before: it can at most make us ask AMD for something of no use. AWS
Nitro documents, TPM quotes and GPU reports carry all that is read; nobody publishes the key of an Arm CCA platform.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strongroom.crypto.pki import aia, x509
from strongroom.errors import Malformed, Misuse, NotFound, Refused
from strongroom.evidence import azure, gcp, snp
from strongroom.evidence.formats import azure_hcl, dcap_pck, dcap_quote, snp_product, snp_report
from strongroom.fetch.endorsements import amd, intel, issuers, nvidia
from strongroom.model.endorsements import NONE, SELF_CONTAINED, Endorsements
from strongroom.model.evidence import Evidence

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.fetch.endorsements.library import Library
    from strongroom.fetch.http.client import Service


@dataclass(frozen=True, kw_only=True)
class Vendors:
    """Whom to ask."""

    kds: Service = amd.KDS
    pcs: intel.Pcs = intel.PCS
    rims: Service = nvidia.RIMS
    publishers: issuers.Publishers = field(default_factory=issuers.Publishers)


@dataclass(frozen=True, kw_only=True)
class Fetcher:
    """Endorsements for evidence. update: which of Intel's TCB infos, `standard` or `early`. refresh: ask anew."""

    library: Library
    vendors: Vendors = field(default_factory=Vendors)
    update: str = intel.STANDARD
    refresh: bool = False

    def endorse(self, evidence: Evidence, *, now: datetime, vek: bytes | None = None) -> Endorsements:
        """All that the evidence's verifier needs at `now`. vek: a VEK certificate (DER) that came with the evidence.

        Raises `Unavailable`, `NotFound`, `Refused`, or `Malformed` when the evidence does not parse.
        """
        hardware = _hardware(evidence)
        if hardware is None:
            return NONE
        if hardware.tee in ("sgx", "tdx"):
            return self._intel(hardware, now)
        return self._amd(hardware, now, vek)

    def rims(self, evidence: Evidence, *, now: datetime) -> dict[str, bytes]:
        """The RIMs of a GPU's driver and firmware by their ids. Nothing here compares with them."""
        asks = [nvidia.rim(self.vendors.rims, name) for name in nvidia.named(evidence)]
        statements = [self.library.get(ask, now=now, refresh=self.refresh) for ask in asks]
        return {statement.key.rpartition("/")[2]: nvidia.document(statement) for statement in statements}

    def issuers(self, certificate: bytes, *, now: datetime) -> bytes:
        """The issuers of an attestation key's certificate, as evidence of `gcp` has them in its part `issuers`."""
        return issuers_above(certificate, self.library, self.vendors.publishers, now=now)

    def _intel(self, evidence: Evidence, now: datetime) -> Endorsements:
        pcs = self.vendors.pcs
        quote = dcap_quote.parse(evidence.part("quote"))
        certified = dcap_quote.certification(quote.version, quote.certified)
        parts: dict[str, bytes] = {}
        chain = certified.data
        if certified.kind != dcap_quote.PCK_CHAIN:
            parts |= self.library.get(pcs.pck_certificates(certified.data), now=now).parts
            chain = parts["pck-certificate-chain"]
        # Verified first: nobody makes us ask for a platform that Intel never certified (rule 59).
        pck = dcap_pck.pck_chain(chain, roots=self.library.roots, now=now)
        tcb = self.library.get(
            pcs.tcb_info(evidence.tee, pck.platform.fmspc.hex(), self.update), now=now, refresh=self.refresh
        )
        root = intel.root_of(tcb.parts["tcb-info-issuer-chain"])
        for ask in (
            pcs.qe_identity(evidence.tee, self.update),
            pcs.pck_revocations(pck.ca_kind),
            pcs.root_revocations(root),
        ):
            parts |= self.library.get(ask, now=now, refresh=self.refresh).parts
        parts |= tcb.parts
        del parts["root"]
        return Endorsements(parts=parts)

    def _amd(self, evidence: Evidence, now: datetime, vek: bytes | None) -> Endorsements:
        report = snp_report.parse(evidence.part(snp.REPORT))
        kind = "vlek" if report.signing_key == snp_report.VLEK else "vcek"
        if kind == "vlek" and vek is None:
            raise NotFound(
                "the report is signed with a provider's key (VLEK), whose certificate AMD does not publish",
                code="not-published",
                hint="the host hands it to the guest with the report (extended guest request): give it with --vek FILE",
            )
        lines = _lines(report, vek)
        for line in lines:
            try:
                return self._of_line(report, kind, line, now, vek)
            except NotFound:
                if line is lines[-1]:
                    raise
        raise NotFound(
            "no line of processors to ask for",
            code="not-published",
            hint="give the chip's certificate, which the host has: --vek FILE",
        )

    def _of_line(
        self,
        report: snp_report.SnpReport,
        kind: str,
        line: snp_product.Line,
        now: datetime,
        vek: bytes | None,
    ) -> Endorsements:
        kds, library = self.vendors.kds, self.library
        chain = library.get(amd.chain(kds, kind, line.name), now=now).parts["issuers"]
        if vek is None:
            # Not refreshed: AMD certifies a chip at a TCB once.
            ask = amd.vcek(kds, line, report.chip_id, report.reported_tcb, chain)
            vek = library.get(ask, now=now).parts["vek"]
        listed = library.get(amd.revocations(kds, kind, line.name, chain), now=now, refresh=self.refresh)
        return Endorsements(parts={snp.VEK: vek, snp.ISSUERS: chain, snp.CRL: listed.parts["crl"]})


def _hardware(evidence: Evidence) -> Evidence | None:
    """The evidence of the processor itself, None where there is nothing to fetch for it."""
    parts = evidence.parts
    if evidence.tee in ("sgx", "tdx", "snp"):
        return evidence
    if evidence.tee == "azure":
        if azure.TD_QUOTE in parts:
            return Evidence(tee="tdx", parts={"quote": parts[azure.TD_QUOTE]})
        hcl = azure_hcl.parse(evidence.part(azure.HCL))
        if hcl.tee != "snp":
            raise Malformed(
                f"azure evidence: TDX without the part {azure.TD_QUOTE}",
                code="missing-part",
                hint="collect it again, with the TD quote that Azure's quote service returns for the report",
            )
        return Evidence(tee="snp", parts={snp.REPORT: hcl.report})
    if evidence.tee == "gcp":
        if gcp.TD_QUOTE in parts:
            return Evidence(tee="tdx", parts={"quote": parts[gcp.TD_QUOTE]})
        return (
            Evidence(tee="snp", parts={snp.REPORT: parts[gcp.SNP_REPORT]})
            if gcp.SNP_REPORT in parts
            else None
        )
    if evidence.tee in SELF_CONTAINED:
        return None
    raise NotFound(
        f"{evidence.tee[:40]}: nobody publishes endorsements for it",
        code="not-published",
        hint="the platform's maker hands them out: give them to `strongroom evidence verify --endorsements`",
    )


def _lines(report: snp_report.SnpReport, vek: bytes | None) -> list[snp_product.Line]:
    """The line of processors that a report is from. Version 2 does not say it: then the certificate's line, or all possible."""
    if vek is not None:
        certificate = snp_product.read(vek)
        line = None if certificate is None else certificate.line
    elif report.version == 2:
        return [line for line in snp_product.LINES.values() if line.without_cpuid]
    else:
        line = snp_product.line_of_cpuid(report.family, report.model)
    if line is None:
        raise NotFound(
            f"processor family {report.family:#x}, model {report.model:#x}: not known to this version",
            code="unknown-product",
            hint="a newer Strongroom may know it; until then its evidence does not count",
        )
    return [line]


def issuers_above(
    certificate: bytes, library: Library, publishers: issuers.Publishers, *, now: datetime
) -> bytes:
    """The issuers of an attestation key's certificate (DER), concatenated, root last: up to one of the library's roots.

    Raises `Refused` where they lead elsewhere, `NotFound` where a certificate names no issuer.
    """
    above: list[bytes] = []
    keys: list[str] = []
    current = x509.parse(certificate)
    while current.subject != current.issuer:
        urls = aia.issuer_urls(current)
        if not urls or len(above) == issuers.MAX_DEPTH:
            raise NotFound(
                f"{current.subject}: names no issuer's certificate that leads to a root within {issuers.MAX_DEPTH} steps",
                code="not-published",
                hint="give the issuers' certificates to `strongroom evidence verify --endorsements`",
            )
        ask = publishers.certificate(urls[0])
        above.append(library.get(ask, now=now).parts["certificate"])
        keys.append(ask.key)
        current = x509.parse(above[-1])
    if not above:
        raise Misuse(
            f"{current.subject}: its own issuer, so that nobody vouches for it",
            hint="an attestation key's certificate has an issuer: is this the platform's evidence?",
        )
    try:
        x509.verify_path(certificate, b"".join(above), roots=library.roots, purpose=None, now=now)
    except Refused:
        for key in keys:
            library.drop(key)
        raise
    return b"".join(above)
