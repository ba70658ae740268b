"""What SEV-SNP and TDX add to a room's QEMU: pure functions, held by golden tests.

Specs: QEMU 10.1, qapi/qom.json (SevSnpGuestProperties since 9.1, TdxGuestProperties since 10.1),
docs/system/i386/amd-memory-encryption.rst and tdx.rst. Virtio devices need no option of their own: with
`confidential-guest-support` QEMU turns on `iommu_platform` and turns off legacy modes itself, and takes private memory
from guest_memfd; the memory backend named here is the shared part.

The contract's digest is the TEE's register that the host fills at launch: HOSTDATA (32 bytes) and MRCONFIGID (48
bytes, zeros after it). One processor, so that the launch digest depends on nothing that a contract does not name.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strongroom.crypto import digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from strongroom.model.identifiers import ContractDigest

POLICY = 0x30000  # SMT allowed, and the bit that is always one; no debugging, no migration agent
PROCESSOR = "EPYC-v4"
_ID, _MEMORY = "tee", "ram"
_CONFIG_ID = 48  # bytes; HOSTDATA has 32, as the digest


@dataclass(frozen=True, kw_only=True)
class Snp:
    """SEV-SNP. cbit and reduced: where the host's encryption bit is, and what it takes of the address (CPUID 8000001Fh).

    processor: the model whose signature goes into the launch digest (`strongroom measure`).
    """

    contract_digest: ContractDigest
    cbit: int
    reduced: int
    processor: str = PROCESSOR

    @property
    def machine(self) -> str:
        """Options of -machine."""
        return f"confidential-guest-support={_ID},memory-backend={_MEMORY}"

    def objects(self, memory_mib: int) -> list[str]:
        """Memory, then the TEE: kernel, initrd and command line go into the launch digest by their hashes."""
        host_data = base64.b64encode(digest.raw(self.contract_digest)).decode()
        tee = (
            f"sev-snp-guest,id={_ID},cbitpos={self.cbit},reduced-phys-bits={self.reduced},policy={POLICY:#x}"
        )
        return ["-object", _memory(memory_mib), "-object", f"{tee},host-data={host_data},kernel-hashes=on"]


@dataclass(frozen=True, kw_only=True)
class Tdx:
    """TDX. quoting: QEMU's SocketAddress of the quote generation service (QGS), as its object form."""

    contract_digest: ContractDigest
    quoting: Mapping[str, str] = field(
        default_factory=lambda: {"type": "unix", "path": "/var/run/tdx-qgs/qgs.socket"}
    )
    processor: str = "host"

    @property
    def machine(self) -> str:
        """Options of -machine. TDX knows no in-kernel I/O APIC."""
        return f"kernel-irqchip=split,confidential-guest-support={_ID},memory-backend={_MEMORY}"

    def objects(self, memory_mib: int) -> list[str]:
        """Memory, then the TEE. JSON, since a socket address has no other form here."""
        tee = {
            "qom-type": "tdx-guest",
            "id": _ID,
            "mrconfigid": base64.b64encode(
                digest.raw(self.contract_digest).ljust(_CONFIG_ID, b"\0")
            ).decode(),
            "sept-ve-disable": True,
            "quote-generation-socket": dict(self.quoting),
        }
        return ["-object", _memory(memory_mib), "-object", json.dumps(tee)]


def _memory(memory_mib: int) -> str:
    return f"memory-backend-memfd,id={_MEMORY},size={memory_mib}M,share=on,prealloc=off"
