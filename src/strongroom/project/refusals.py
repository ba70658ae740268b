"""What keeps `up` from beginning, said before anything is made: ways that it does not go, paths that lead nowhere, ports that others have."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from strongroom.errors import Malformed, Misuse, NotFound, Unavailable
from strongroom.node import run_status
from strongroom.node.guard import launch
from strongroom.node.network import addresses
from strongroom.project import network
from strongroom.project import plan as plans

if TYPE_CHECKING:
    from pathlib import Path

    from strongroom.project.folder import StateFolder
    from strongroom.project.model import Project


def refuse_other_ways(compose: Path, project: Project) -> None:
    """Raises `Misuse` for a file of several parties or for hardware, `Unavailable` where the rooms' memory cannot be guarded."""
    if project.parties:
        raise Misuse(
            f"{compose}: names several parties, who sign before anything runs",
            code="several-parties",
            hint=f"each types `strongroom join --as NAME`; then `strongroom contract new --compose {compose} --out contract.json` drafts what they sign",
        )
    platforms = project.platforms
    if platforms.simulated is False or platforms.references:
        raise Misuse(
            f"{compose}: asks for rooms on hardware; `up` starts rooms of this machine, which no vendor vouches for",
            code="only-simulated",
            hint="leave `simulated` and `references` out; docs/operator.md shows rooms in a TEE",
        )
    if platforms.bases or platforms.nodes or platforms.machines:
        raise Misuse(
            f"{compose}: names bases, nodes or machines; `up` makes this machine's own",
            code="only-own-node",
            hint="leave them out; `contract new --compose` takes them, for several parties",
        )
    if platforms.memory_guard and (reason := launch.supported()):
        raise Unavailable(
            f"{compose}: the rooms' memory cannot be guarded here: {reason}",
            code="no-memory-guard",
            hint="run as root; or write x-strongroom: {platforms: {memory_guard: false}}, and root reads their memory",
        )


def refuse_missing(compose: Path, project: Project) -> None:
    """Raises `NotFound` where the file names images or data that are not there, all of them at once."""
    place = compose.resolve().parent
    named = [
        *(
            (f"services.{service.name}: image", service.image)
            for service in project.services
            if service.image
        ),
        *((f"datasets.{name}", path) for name, path in project.datasets.items()),
    ]
    missing = [f"{where} {path}" for where, path in named if not (place / path).exists()]
    if missing:
        raise NotFound(
            f"{compose}: no such file or folder: {', '.join(missing)}",
            code="no-such-file",
            hint="paths in the file begin in its own folder; are they right?",
        )


def refuse_taken_ports(folder: StateFolder, project: Project) -> None:
    """Raises `Unavailable` where another program listens at a port that a service publishes. What rooms of this folder hold themselves is not asked for."""
    held = _held_addresses(folder)
    for service in project.services:
        reached = network.places(project, service)
        for address in (*reached.published.values(), *reached.tunnels.values()):
            if address in held or address.startswith(plans.UNIX):
                continue
            what = f"services.{service.name}: ports"
            addresses.listen(addresses.read(address, what), what)[0].close()


def _held_addresses(folder: StateFolder) -> set[str]:
    """Where the rooms listen that have not ended, also those that nobody keeps up any more."""
    held: set[str] = set()
    with contextlib.suppress(OSError, Malformed):
        status = plans.read_status(folder)
        for room in plans.read_plan(folder).rooms:
            child = None if status is None else status.room(room.name)
            if child is not None and child.run is not None and goes_on(folder.path / child.run):
                held |= {*room.published.values(), *room.tunnels.values()}
    return held


def goes_on(run: Path) -> bool:
    """Whether a run goes on in its folder."""
    try:
        with run_status.held(run):
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False
