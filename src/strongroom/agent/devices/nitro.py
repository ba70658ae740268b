"""AWS Nitro enclaves: the contract goes into PCR 16, which is then locked; evidence is an attestation document.

The Nitro Security Module (NSM) answers CBOR requests by one ioctl of `/dev/nsm` (Linux 6.8 and later, or AWS's own
module, whose ioctl is the same). PCRs 16 to 31 are the enclave's to extend; a locked one stays as it is until the
enclave ends.

Specs: Linux include/uapi/linux/nsm.h; aws/aws-nitro-enclaves-nsm-api (requests and responses, by name).
Parts as `evidence/nitro` names them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strongroom.agent.devices import character
from strongroom.crypto import digest
from strongroom.encoding import cbor, cbor_writer
from strongroom.errors import Malformed, Refused, Unavailable
from strongroom.model.endorsements import NONE, Endorsements
from strongroom.model.evidence import Evidence

if TYPE_CHECKING:
    from strongroom.agent.devices.character import Caller
    from strongroom.encoding.cbor import Value
    from strongroom.model.binding import Binding
    from strongroom.model.identifiers import ContractDigest
    from strongroom.model.room.channel import Start

_NSM = "run it again; if it stays so, the enclave's security module is not sound: try another instance"

TEE = "nitro"
DOCUMENT = "document"
MAX_REQUEST, MAX_RESPONSE = 0x1000, 0x3000
RAW = character.both_ways(
    0x0A, 0, 32
)  # struct nsm_raw: address and length of the request, and of the response
CONTRACT_PCR = 16
PCR_BYTES = 48
ZERO = bytes(PCR_BYTES)


@dataclass(kw_only=True)
class NitroAttester:
    """Binds one contract, then makes documents for any number of bindings."""

    device: Caller
    brought: Endorsements = field(default=NONE, init=False)

    def bind_contract(self, contract_digest: ContractDigest) -> None:
        """Extend PCR 16, which must be untouched, by the contract's raw digest, and lock it. Raises `Refused`."""
        value, locked = self._pcr()
        if value != ZERO or locked:
            raise Refused(
                f"binding the contract: PCR {CONTRACT_PCR} was already {'locked' if locked else 'extended'}",
                code="pcr-in-use",
                hint="a room binds one contract; something in the boot has bound another before",
            )
        raw = digest.raw(contract_digest)
        self._ask("ExtendPCR", {"index": CONTRACT_PCR, "data": raw})
        self._ask("LockPCR", {"index": CONTRACT_PCR})
        if self._pcr() != (hashlib.sha384(ZERO + raw).digest(), True):
            raise Refused(
                "binding the contract: the NSM did not extend and lock its PCR", code="pcr-wrong", hint=_NSM
            )

    def entropy(self) -> bytes:
        """Random bytes of the NSM's."""
        answer = self._ask("GetRandom", None)
        data = answer.data("random", low=1, high=MAX_RESPONSE)
        answer.done()
        return data

    def evidence(self, binding: Binding, start: Start) -> Evidence:  # noqa: ARG002 - nothing of the host's is needed
        """A document for `binding`. The room's keys are bound by their digest in it; it carries none itself."""
        answer = self._ask(
            "Attestation",
            {"user_data": binding.value("user_data"), "nonce": binding.value("nonce"), "public_key": None},
        )
        document = answer.data("document", low=1, high=MAX_RESPONSE)
        answer.done()
        return Evidence(tee=TEE, parts={DOCUMENT: document})

    def _pcr(self) -> tuple[bytes, bool]:
        """The contract's PCR, and whether it is locked."""
        answer = self._ask("DescribePCR", {"index": CONTRACT_PCR})
        value = answer.data("data", low=PCR_BYTES, high=PCR_BYTES)
        locked = answer.boolean("lock")
        answer.done()
        return value, locked

    def _ask(self, name: str, values: dict[int | str, Value] | None) -> cbor.Map:
        """One request; what the answer of the same name holds (nothing, for some)."""
        response = self._exchange(cbor_writer.dumps(name if values is None else {name: values}))
        what = f"NSM answer to {name}"
        value = cbor.loads(response, what, max_bytes=MAX_RESPONSE)
        if value == name:
            return cbor.Map({}, what)
        if isinstance(value, dict) and value.keys() == {name}:
            return cbor.Map(value[name], what)
        error = value.get("Error") if isinstance(value, dict) else None
        raise Unavailable(
            f"asking the NSM for {name}: it answered {error if isinstance(error, str) else 'another question'}"[
                :200
            ],
            code="nsm-failed",
            hint=_NSM,
        )

    def _exchange(self, request: bytes) -> bytes:
        if len(request) > MAX_REQUEST:
            raise Malformed("NSM request: too long", code="too-large", hint=_NSM)
        asked, response = bytearray(request), bytearray(MAX_RESPONSE)
        argument = bytearray(
            b"".join(
                character.word(word)
                for word in (character.address(asked), len(asked), character.address(response), len(response))
            )
        )
        try:
            self.device.call(RAW, argument)
        except OSError as cause:
            raise Unavailable(f"asking the NSM: {cause.strerror}", code="nsm-failed", hint=_NSM) from None
        length = int.from_bytes(argument[24:32], "little")
        if length > len(response):
            raise Malformed("NSM response: longer than its buffer", code="too-large", hint=_NSM)
        return bytes(response[:length])
