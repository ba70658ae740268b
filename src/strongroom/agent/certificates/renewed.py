"""A new certificate while the program runs: written, said to the program, and looked for at its port.

What comes of it is said in one word, which may leave the room as its phase, and in one line for the program's sealed log.
"""

from __future__ import annotations

import enum
import os
import time
from typing import TYPE_CHECKING

from strongroom.agent import launcher
from strongroom.agent.certificates import taken
from strongroom.agent.certificates.taken import Taken

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from strongroom.agent.certificates.delivery import CertificateFolder, Generation
    from strongroom.agent.program import Waiter

COMMAND_SECONDS = 30.0
_PAUSE = 0.1


class Delivered(enum.StrEnum):
    """How far a new certificate came."""

    WRITTEN = "certificate-written"  # nobody looked whether the program took it
    TAKEN = "certificate-taken"
    KEPT_OLD = "certificate-kept-old"  # the program serves another
    UNREACHABLE = "certificate-unreachable"  # no TLS server answers at the port to look at
    COMMAND_FAILED = "certificate-command-failed"

    @property
    def good(self) -> bool:
        """Whether nothing speaks against it."""
        return self in (Delivered.WRITTEN, Delivered.TAKEN)


_WORDS = {
    Delivered.WRITTEN: "a new certificate lies in {folder}",
    Delivered.TAKEN: "a new certificate lies in {folder}, and the program serves it at port {port}",
    Delivered.KEPT_OLD: "a new certificate lies in {folder}, but the program still serves another at port {port}: "
    "see above for what it says of its files, and whether their owner and mode suit it",
    Delivered.UNREACHABLE: "a new certificate lies in {folder}, but no TLS server answers at port {port}",
    Delivered.COMMAND_FAILED: "a new certificate lies in {folder}, but the command that makes the program read it failed (status {status})",
}
_OUTCOMES = {
    Taken.NEW: Delivered.TAKEN,
    Taken.OLD: Delivered.KEPT_OLD,
    Taken.UNREACHABLE: Delivered.UNREACHABLE,
}


def deliver(
    folder: CertificateFolder,
    generation: Generation,
    *,
    process: int,
    waiter: Waiter,
    connect: Callable[[], socket.socket],
    reloaded: Callable[[], int | None],
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Delivered, str]:
    """Deliver `generation` to a program that runs; what came of it, and the line for its log. Raises `OSError` where nothing was written.

    process: process 1 of the program's namespaces. connect: as `taken.wait_for`. reloaded: the wait status of the command that makes the
    program read its files again, None as long as it runs or has not begun.
    """
    wanted = folder.delivery
    folder.write(generation)
    status = 0
    if wanted.signal is not None or wanted.command is not None:
        launcher.reload(process)
        ended = _ended(waiter, reloaded, clock)
        status = -1 if ended is None else os.waitstatus_to_exitcode(ended)
    outcome = Delivered.WRITTEN
    if wanted.check is not None:
        outcome = _OUTCOMES[taken.wait_for(waiter, connect, wanted.check, generation.leaf, clock=clock)]
    if status and outcome is not Delivered.TAKEN:
        outcome = Delivered.COMMAND_FAILED
    return outcome, _WORDS[outcome].format(folder=wanted.folder, port=wanted.check, status=status)


def _ended(waiter: Waiter, reloaded: Callable[[], int | None], clock: Callable[[], float]) -> int | None:
    deadline = clock() + COMMAND_SECONDS
    while (status := reloaded()) is None and clock() < deadline:
        waiter.turn(_PAUSE)
    return status
