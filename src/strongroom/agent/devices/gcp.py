"""Google Compute Engine: the contract goes into PCR 12 of the virtual TPM, evidence is its quote and the hardware's report.

Google keeps no attestation key in the TPM: NV indices hold its certificates, and the templates from which the
endorsement seed makes the same keys again. The ECC key is taken where it is there, else the RSA one. On a confidential
VM the processor's own report for the same binding goes along; its contract register is Google's to fill, so that it
must be untouched, or hold the contract too.

Specs: google/go-tpm-tools, client/handles.go (the indices). Parts as `evidence/gcp` names them; the issuers of the
key's certificate come from the node, which can ask for them (`fetch`); the broker believes none that is not Google's.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from strongroom.agent.devices import host_register, pcr
from strongroom.model.endorsements import NONE, Endorsements
from strongroom.model.evidence import Evidence

if TYPE_CHECKING:
    from strongroom.agent import tpm
    from strongroom.agent.devices.snp import SnpAttester
    from strongroom.agent.devices.tdx import TdxAttester
    from strongroom.model.binding import Binding
    from strongroom.model.identifiers import ContractDigest
    from strongroom.model.room.channel import Start

TEE = "gcp"
# (certificate, template) of the attestation key.
ECC, RSA = (0x01C10002, 0x01C10003), (0x01C10000, 0x01C10001)
QUOTED_PCRS = pcr.CLOUD
EVENT_LOG = "/sys/kernel/security/tpm0/binary_bios_measurements"
_MAX_EVENT_LOG = 512 * 1024


class GcpAttester:
    """Binds one contract, then makes evidence for any number of bindings. hardware: None where there is none."""

    def __init__(
        self,
        client: tpm.Tpm,
        indices: frozenset[int],
        *,
        hardware: SnpAttester | TdxAttester | None = None,
        event_log: str = EVENT_LOG,
    ) -> None:
        self._tpm = client
        self._certificate, self._template = ECC if set(ECC) <= indices else RSA
        self._hardware = hardware
        self._event_log = event_log

    @property
    def brought(self) -> Endorsements:
        """What came with the hardware's report."""
        return NONE if self._hardware is None else self._hardware.brought

    def bind_contract(self, contract_digest: ContractDigest) -> None:
        """Extend the contract's raw digest into PCR 12, which must be untouched. Raises `Refused`."""
        register = self._register()
        if any(register):
            host_register.check("the hardware's contract register", register, contract_digest)
        pcr.bind(self._tpm, contract_digest)

    def entropy(self) -> bytes:
        """Random bytes of the TPM's own generator."""
        return self._tpm.random()

    def evidence(self, binding: Binding, start: Start) -> Evidence:
        """A quote over PCRs 0 to 15 for `binding`, and what a verifier needs beside."""
        handle = self._tpm.create_primary(self._tpm.read_nv(self._template))
        try:
            quote = self._tpm.quote(handle, binding.value("extra_data"), QUOTED_PCRS)
        finally:
            self._tpm.flush(handle)
        parts = {
            "quote": quote.attest,
            "signature": quote.signature,
            "ak-certificate": self._tpm.read_nv(self._certificate),
            "issuers": start.issuers,
            "pcrs": pcr.values(self._tpm, QUOTED_PCRS),
        }
        if log := self._read_event_log():
            parts["event-log"] = log
        return Evidence(tee=TEE, parts=parts | self._report(binding, start))

    def _report(self, binding: Binding, start: Start) -> dict[str, bytes]:
        if self._hardware is None:
            return {}
        hardware_evidence = self._hardware.evidence(binding, start)
        return {
            {"snp": "snp-report", "tdx": "td-quote"}[hardware_evidence.tee]: part
            for part in hardware_evidence.parts.values()
        }

    def _register(self) -> bytes:
        return b"" if self._hardware is None else self._hardware.register()

    def _read_event_log(self) -> bytes:
        try:
            fd = os.open(self._event_log, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        with open(fd, "rb") as file:
            return file.read(_MAX_EVENT_LOG)
