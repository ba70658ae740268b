"""Azure confidential VMs: the contract goes into PCR 12 of the paravisor's virtual TPM, evidence is its quote.

NV index 0x01400001 holds the HCL report: the processor's report, made by the paravisor at the VM's start, whose report
data vouch for the attestation key that the TPM keeps at handle 0x81000003. Over SEV-SNP that is all there is to get.
Over TDX it holds a TDREPORT, and the quote over it is made by the host's metadata service, which a room without a
network does not reach: no evidence is made there (`no-td-quote`).

Specs: Azure, "Guest attestation for confidential VMs"; `evidence/formats/azure_hcl.py` (the report's layout).
Parts as `evidence/azure` names them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.agent.devices import pcr
from strongroom.encoding import tpm2
from strongroom.errors import Malformed, Refused
from strongroom.model.endorsements import NONE
from strongroom.model.evidence import Evidence

if TYPE_CHECKING:
    from strongroom.agent import tpm
    from strongroom.model.binding import Binding
    from strongroom.model.identifiers import ContractDigest
    from strongroom.model.room.channel import Start

_REPORT = "run it again; if it stays so, the virtual TPM is none of Azure's confidential machines"

TEE = "azure"
HCL_NV = 0x01400001
AK_HANDLE = 0x81000003
QUOTED_PCRS = pcr.CLOUD
MAX_HCL = 16 * 1024
_KIND = slice(0x4C8, 0x4CC)
_SNP = 2


class AzureAttester:
    """Binds one contract, then makes evidence for any number of bindings."""

    brought = NONE

    def __init__(self, client: tpm.Tpm) -> None:
        self._tpm = client

    def bind_contract(self, contract_digest: ContractDigest) -> None:
        """Extend the contract's raw digest into PCR 12, which must be untouched. Raises `Refused`."""
        pcr.bind(self._tpm, contract_digest)

    def entropy(self) -> bytes:
        """Random bytes of the TPM's own generator."""
        return self._tpm.random()

    def evidence(self, binding: Binding, start: Start) -> Evidence:  # noqa: ARG002 - nothing of the host's is needed
        """A quote over PCRs 0 to 15 for `binding`, and the HCL report that vouches for its key."""
        report = self._tpm.read_nv(HCL_NV, authority=tpm2.OWNER)
        if len(report) > MAX_HCL:
            raise Malformed(
                f"HCL report: {len(report)} bytes, at most {MAX_HCL} allowed", code="too-large", hint=_REPORT
            )
        if int.from_bytes(report[_KIND], "little") != _SNP:
            raise Refused(
                "making evidence: this Azure VM is not over SEV-SNP, and its quote is the metadata service's to make",
                code="no-td-quote",
                hint="use a size with SEV-SNP (DCasv5, ECasv5 and later), until rooms reach Azure's quote service",
            )
        quote = self._tpm.quote(AK_HANDLE, binding.value("extra_data"), QUOTED_PCRS)
        return Evidence(
            tee=TEE,
            parts={
                "hcl-report": report,
                "quote": quote.attest,
                "signature": quote.signature,
                "pcrs": pcr.values(self._tpm, QUOTED_PCRS),
            },
        )
