"""AMD SEV-SNP: the contract is HOSTDATA, evidence is an attestation report.

The host gives HOSTDATA at launch and nobody can change it afterwards; the agent compares it before it does anything
else. A report is asked for by configfs-tsm, or by /dev/sev-guest on older kernels. What came with it (a VCEK's or
VLEK's certificate) goes along to the broker, since AMD publishes no VLEK's; it is verified there.
Parts as `evidence/snp` names them. No random bytes of its own: the kernel seeds itself from the processor (RDRAND), and
since Linux 6.9 a confidential guest that cannot does not start.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strongroom.agent.devices import host_register
from strongroom.errors import Malformed
from strongroom.model.endorsements import NONE, Endorsements
from strongroom.model.evidence import Evidence

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.model.binding import Binding
    from strongroom.model.identifiers import ContractDigest
    from strongroom.model.room.channel import Start

_REPORT_SIZE = "the kernel's report is of another version than this base: run it on the kernel of the base"

TEE = "snp"
REPORT, VEK = "report", "vek"
REPORT_BYTES = 1184
MAX_VEK = 16 * 1024
MAX_CERTIFICATES = 16
# AMD 56421: whose certificate an entry of the table is.
VCEK = bytes.fromhex("63da758de6644564adc5f4b93be8accd")
VLEK = bytes.fromhex("a8074bc2a25a483eaae639c045a0b8a1")
_HOST_DATA = slice(0xC0, 0xE0)
_ENTRY = 24


@dataclass(kw_only=True)
class SnpAttester:
    """source: the report that carries 64 bytes, and the table of certificates that came with it."""

    source: Callable[[bytes], tuple[bytes, bytes]]
    brought: Endorsements = field(default=NONE, init=False)

    def bind_contract(self, contract_digest: ContractDigest) -> None:
        """Check that the guest was launched for `contract`. Raises `Refused`."""
        host_register.check("HOSTDATA", self.register(), contract_digest)

    def entropy(self) -> bytes:
        """None of its own."""
        return b""

    def evidence(self, binding: Binding, start: Start) -> Evidence:  # noqa: ARG002 - nothing of the host's is needed
        """A report for `binding`."""
        report, table = self._report(binding.value("report_data"))
        self.brought = brought(table)
        return Evidence(tee=TEE, parts={REPORT: report})

    def register(self) -> bytes:
        """The 32 bytes that the guest was launched with."""
        return self._report(bytes(64))[0][_HOST_DATA]

    def _report(self, data: bytes) -> tuple[bytes, bytes]:
        report, table = self.source(data)
        if len(report) != REPORT_BYTES:
            raise Malformed(
                f"SNP report: {len(report)} bytes, expected {REPORT_BYTES}",
                code="bad-length",
                hint=_REPORT_SIZE,
            )
        return report, table


def brought(table: bytes) -> Endorsements:
    """The VLEK's or VCEK's certificate of a certificate table; a damaged table is the host's, and brings nothing."""
    certificates: dict[bytes, bytes] = {}
    for index in range(MAX_CERTIFICATES):
        entry = table[index * _ENTRY : (index + 1) * _ENTRY]
        if len(entry) < _ENTRY or not any(entry[:16]):
            break
        start, length = int.from_bytes(entry[16:20], "little"), int.from_bytes(entry[20:24], "little")
        if 0 < length <= MAX_VEK and start + length <= len(table):
            certificates.setdefault(entry[:16], table[start : start + length])
    certificate = certificates.get(VLEK) or certificates.get(VCEK)
    return NONE if certificate is None else Endorsements(parts={VEK: certificate})
