"""A room's certificates from its first to its last: written before the program starts, delivered again at each renewal.

A new generation has a new key. The Workload API, where the contract has it, hands out the same generation as the files.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from strongroom.agent import init
from strongroom.agent.certificates import delivery, renewed, workload_api
from strongroom.agent.certificates.delivery import CertificateFolder, Generation
from strongroom.model.contracts import certificate_terms

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from strongroom.agent.attest import Released
    from strongroom.agent.certificates.workload_api import WorkloadApi
    from strongroom.agent.container import ContainerLaunch
    from strongroom.agent.program import RunningProgram, Waiter
    from strongroom.crypto.pki.csr import RoomTlsKey
    from strongroom.model.contracts.certificate_terms import CertificateTerms
    from strongroom.model.identifiers import RunId
    from strongroom.model.room.agreed import Terms

_BYTES = 1 << 20  # of the memory that they lie in


class RoomCertificates:
    """What the program finds. workload: the process that hands the same out by the Workload API; None where the contract has none."""

    def __init__(
        self, terms: Terms, certificate: CertificateTerms, workload: WorkloadApi | None, *, run_id: RunId
    ) -> None:
        self._workload = workload
        self._id = certificate_terms.spiffe_id(
            terms.contract.id, terms.room.name, run_id, certificate.trust_domain
        )
        self._terms = certificate
        place = f"{init.ROOM}/tls"
        init.mount_memory(place, _BYTES, "0500")
        wanted = delivery.of(certificate, uid=terms.settings.uid, gid=terms.settings.gid)
        self.folder = CertificateFolder(place, wanted)

    def write(self, released: Sequence[Released], key: RoomTlsKey) -> None:
        """The first generation: the key, and each broker's chain for it. Raises `OSError`."""
        generation = _generation(released, key)
        self.folder.write(generation)
        if self._workload is not None:
            self._workload.hand_out(self.folder, generation, self._id)

    def launch(self, launch: ContainerLaunch) -> ContainerLaunch:
        """The launch with its certificates, and how the program is made to read later ones."""
        wanted = self._terms.delivery
        place = certificate_terms.FOLDER if wanted is None else wanted.folder
        if self._workload is not None:
            socket_at = {workload_api.VARIABLE: workload_api.path(place)}
            launch = replace(launch, environment={**socket_at, **launch.environment})
        if wanted is None:
            return replace(launch, tls=self.folder.folder)
        return replace(
            launch,
            tls=self.folder.folder,
            tls_place=wanted.folder,
            reload=wanted.command or (),
            signal=0 if wanted.signal is None else signal.Signals[f"SIG{wanted.signal.value}"].value,
        )

    def deliver(
        self,
        released: Sequence[Released],
        key: RoomTlsKey,
        *,
        running: RunningProgram,
        waiter: Waiter,
        connect: Callable[[], socket.socket],
        must_hurry: Callable[[], bool],
    ) -> str:
        """The next generation, to a program that runs. Returns what came of it, in a word. must_hurry: whether something waits that ends the room:
        then nobody waits for the program.
        """
        generation = _generation(released, key)
        running.expect_reload()
        try:
            outcome, line = renewed.deliver(
                self.folder,
                generation,
                process=running.process,
                waiter=waiter,
                connect=connect,
                reloaded=lambda: running.reloaded,
                clock=lambda: math.inf if must_hurry() else time.monotonic(),
            )
        except (
            OSError
        ) as cause:  # the memory is full, or process 1 is just going: the program has what it had
            running.remark(f"a new certificate was not written: {os.strerror(cause.errno or 0)}")
            return "certificate-not-written"
        running.remark(line)
        if self._workload is not None:
            with contextlib.suppress(OSError):  # its process is gone: the files are there
                self._workload.hand_out(self.folder, generation, self._id)
        return outcome.value


def _generation(released: Sequence[Released], key: RoomTlsKey) -> Generation:
    return Generation(
        key=key,
        chains={release.party: release.answer.certificates for release in released},
        accounts={release.party: release.account for release in released if release.account is not None},
    )
