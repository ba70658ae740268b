"""Local rooms: the contract goes into PCR 12, evidence is a TPM quote.

Parts as `model/evidence.py` and `evidence/tpm` name them. The AK is a restricted signing key that the
node's TPM was provisioned with; its certificate lies in an NV index.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from strongroom.agent.devices import pcr
from strongroom.model.endorsements import NONE
from strongroom.model.evidence import Evidence

if TYPE_CHECKING:
    from strongroom.agent import tpm
    from strongroom.model.binding import Binding
    from strongroom.model.identifiers import ContractDigest
    from strongroom.model.room.channel import Start

TEE = "tpm"
# Where the node puts them when it provisions the TPM (`node/vtpm/provision.py`).
AK_HANDLE = 0x81010020
AK_CERTIFICATE_NV = 0x01C10002
QUOTED_PCRS = tuple(range(13))
EVENT_LOG = "/sys/kernel/security/tpm0/binary_bios_measurements"
_MAX_EVENT_LOG = 512 * 1024  # bytes


class TpmAttester:
    """Binds one contract, then makes evidence for any number of bindings."""

    brought = NONE  # endorsements that come with the evidence

    def __init__(self, client: tpm.Tpm, *, event_log: str = EVENT_LOG) -> None:
        self._tpm = client
        self._event_log = event_log

    def bind_contract(self, contract_digest: ContractDigest) -> None:
        """Extend the contract's raw digest into PCR 12, which must be untouched. Raises `Refused`."""
        pcr.bind(self._tpm, contract_digest)

    def entropy(self) -> bytes:
        """Random bytes of the TPM's own generator, to be mixed into the kernel's."""
        return self._tpm.random()

    def evidence(self, binding: Binding, start: Start) -> Evidence:
        """A quote over PCRs 0 to 12 for `binding`, with all that a verifier needs beside its roots."""
        # `Binding.value("extra_data")`: a quote has room for 32 bytes of the 64.
        quote = self._tpm.quote(AK_HANDLE, hashlib.sha256(binding.digest()).digest(), QUOTED_PCRS)
        return Evidence(
            tee=TEE,
            parts={
                "quote": quote.attest,
                "signature": quote.signature,
                "ak-certificate": self._tpm.read_nv(AK_CERTIFICATE_NV),
                "issuers": start.issuers,
                "pcrs": pcr.values(self._tpm, QUOTED_PCRS),
                "event-log": self._read_event_log(),
                "launch-record": start.launch_record,
            },
        )

    def _read_event_log(self) -> bytes:
        # A missing log is sent as empty; it is the verifier who says whether it can do without.
        try:
            fd = os.open(self._event_log, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        with open(fd, "rb") as file:
            return file.read(_MAX_EVENT_LOG)
