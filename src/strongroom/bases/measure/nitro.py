"""AWS Nitro: the PCRs of an enclave, predicted from its image file.

Specs: AWS Nitro Enclaves User Guide, "Cryptographic attestation" (PCR0–PCR4, PCR8);
aws-nitro-enclaves-image-format (what goes into each). SHA-384; each PCR is extended once, from zeros:

    PCR 0  kernel, command line, all ramdisks       PCR 2  the ramdisks but the first
    PCR 1  kernel, command line, the first ramdisk  PCR 8  the signing certificate (DER), where the image is signed

PCR 3 (the parent instance's role) and PCR 4 (its identity) are of the machine, not of the file. PCR 16 and above are the
enclave's own: the agent extends PCR 16 with the contract. An enclave in debug mode has zeros in all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from strongroom.bases.formats import eif, eif_signature


@dataclass(frozen=True, kw_only=True)
class NitroRegisters:
    """48 bytes each, in hexadecimal. pcr8 is None for an image without a signature: then PCR 8 stays zero."""

    pcr0: str
    pcr1: str
    pcr2: str
    pcr8: str | None

    def reference(self) -> dict[str, str]:
        """The registers by the names that claims and contracts give them (`evidence/nitro.py`)."""
        named = {"pcr0": self.pcr0, "pcr1": self.pcr1, "pcr2": self.pcr2}
        return named if self.pcr8 is None else {**named, "pcr8": self.pcr8}


def measure(image: bytes) -> NitroRegisters:
    """The registers of an image file. Raises `Malformed`, and `Refused` for a signature that Nitro would not take."""
    parsed = eif.parse(image)
    pcr0 = eif.register(parsed.kernel, parsed.cmdline, *parsed.ramdisks)
    if parsed.signature is not None:
        eif_signature.check(parsed.signature, pcr0)
    return NitroRegisters(
        pcr0=pcr0.hex(),
        pcr1=eif.register(parsed.kernel, parsed.cmdline, parsed.ramdisks[0]).hex(),
        pcr2=eif.register(*parsed.ramdisks[1:]).hex(),
        pcr8=None if parsed.signature is None else eif.register(parsed.signature.certificate).hex(),
    )
