"""Intel TDX: the contract is MRCONFIGID, evidence is a quote.

The host gives MRCONFIGID at launch and nobody can change it afterwards. The agent reads it from a TDREPORT, which the
TDX module makes by itself (`/dev/tdx_guest`, TDX_CMD_GET_REPORT0), so that it is compared before anything else and
without asking anybody. A TDREPORT counts on its own machine alone: what brokers verify is a quote over one, which
the host's quoting enclave makes, by configfs-tsm (TDVMCALL GetQuote; Linux 6.7 and later). There is no other way
to a quote here, so that a kernel with /dev/tdx_guest alone cannot attest.

Specs: Linux include/uapi/linux/tdx-guest.h; Intel TDX Module 1.5 ABI, TDREPORT_STRUCT.
Parts as `evidence/tdx` names them; an event log (CCEL) is not sent: policies compare the registers.
No random bytes of its own: see `snp`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strongroom.agent.devices import character, host_register
from strongroom.errors import Unavailable
from strongroom.model.endorsements import NONE, Endorsements
from strongroom.model.evidence import Evidence

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.agent.devices.character import Caller
    from strongroom.model.binding import Binding
    from strongroom.model.identifiers import ContractDigest
    from strongroom.model.room.channel import Start

TEE = "tdx"
PATH = "/dev/tdx_guest"
QUOTE = "quote"
DATA_BYTES, REPORT_BYTES = 64, 1024
GET_REPORT = character.both_ways(ord("T"), 1, DATA_BYTES + REPORT_BYTES)
# TDREPORT: REPORTMACSTRUCT, TEE_TCB_INFO, 17 reserved; then TDINFO: ATTRIBUTES, XFAM, MRTD, MRCONFIGID.
MR_CONFIG_ID = slice(512 + 64, 512 + 112)
_QUOTE_HEADER, _BODY_V4, _BODY_HEAD_V5 = 48, 584, 6


@dataclass(kw_only=True)
class TdxAttester:
    """device: asked for TDREPORTs. source: the quote that carries 64 bytes."""

    device: Caller
    source: Callable[[bytes], bytes]
    brought: Endorsements = field(default=NONE, init=False)

    def bind_contract(self, contract_digest: ContractDigest) -> None:
        """Check that the trust domain was launched for `contract`. Raises `Refused`."""
        host_register.check("MRCONFIGID", self.register(), contract_digest)

    def entropy(self) -> bytes:
        """None of its own."""
        return b""

    def evidence(self, binding: Binding, start: Start) -> Evidence:  # noqa: ARG002 - nothing of the host's is needed
        """A quote for `binding`."""
        return Evidence(tee=TEE, parts={QUOTE: trimmed(self.source(binding.value("report_data")))})

    def register(self) -> bytes:
        """The 48 bytes that the trust domain was launched with."""
        argument = bytearray(DATA_BYTES + REPORT_BYTES)
        try:
            self.device.call(GET_REPORT, argument)
        except OSError as cause:
            raise Unavailable(
                f"asking {PATH} for a TDREPORT: {cause.strerror}",
                code="tdx-guest-failed",
                hint="the kernel's log says what the TDX module refused",
            ) from None
        return bytes(argument[DATA_BYTES:][MR_CONFIG_ID])


def trimmed(quote: bytes) -> bytes:
    """The quote without the zeros with which some hosts fill the rest of its buffer: verifiers take no byte more.

    What does not look like a quote is left as it is; it is not the agent who judges.
    """
    version = int.from_bytes(quote[:2], "little")
    body = _BODY_V4
    if version == 5:
        body = _BODY_HEAD_V5 + int.from_bytes(quote[_QUOTE_HEADER + 2 : _QUOTE_HEADER + 6], "little")
    at = _QUOTE_HEADER + body
    end = at + 4 + int.from_bytes(quote[at : at + 4], "little")
    return quote[:end] if end <= len(quote) and not any(quote[end:]) else quote
