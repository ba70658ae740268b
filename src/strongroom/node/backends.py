"""The back ends by name: which TEE each starts, from which part of the base, and whether this machine can.

No back end stands in for another: what a machine cannot do is refused with the reasons (`doctor`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.encoding import canonical, fields
from strongroom.errors import Misuse, Unavailable
from strongroom.node import doctor, launch_record

if TYPE_CHECKING:
    from pathlib import Path

    from strongroom.model.contracts.contract import Contract


BASE = "base.json"
MAX_BASE = 1 << 20  # bytes


@dataclass(frozen=True, kw_only=True)
class Backend:
    """tee: as contracts name it. profile: the folder of the base that it boots."""

    name: str
    tee: str
    profile: str


LOCAL = Backend(name="tpm", tee="tpm", profile="local")
# The profile `uki` has none: such a base is booted on machines of others, as on clouds.
BACKENDS = {
    backend.name: backend
    for backend in (
        LOCAL,
        Backend(name="qemu-snp", tee="snp", profile="snp"),
        Backend(name="qemu-tdx", tee="tdx", profile="tdx"),
        Backend(name="nitro", tee="nitro", profile="nitro"),
    )
}


def choose(name: str | None, contract: Contract) -> Backend:
    """The back end of that name; without one the local rooms, where the contract accepts them. Raises `Misuse`."""
    tees = {platform.tee for platform in contract.platforms}
    if name is None:
        if LOCAL.tee in tees:
            return LOCAL
        fitting = [backend.name for backend in BACKENDS.values() if backend.tee in tees]
        raise Misuse(
            f"the contract is for {', '.join(sorted(tees))}, not for local rooms",
            code="no-backend",
            hint=f"--backend {' or '.join(fitting)}"
            if fitting
            else "no back end of this version starts such rooms",
        )
    if name not in BACKENDS:
        raise Misuse(
            f"--backend {name[:40]!r}: no such back end",
            code="no-backend",
            hint=f"one of {', '.join(BACKENDS)}; `strongroom node doctor` tells which of them this machine can start",
        )
    chosen = BACKENDS[name]
    if chosen.tee not in tees:
        raise Misuse(
            f"--backend {name}: the contract names no platform {chosen.tee}, only {', '.join(sorted(tees))}",
            code="no-backend",
            hint=f"every broker would deny such a room: leave --backend out, or sign a contract with {chosen.tee}",
        )
    return chosen


def require(backend: Backend, host: doctor.Host, *, given: frozenset[str] = frozenset()) -> None:
    """Raise `Unavailable` with the reasons when this machine cannot run rooms of `backend`.

    given: names of needs that the caller brings himself (`firmware`).
    """
    missing = [need for need in doctor.ability(host, backend.name).missing if need.name not in given]
    if not missing:
        return
    reasons = "; ".join(f"{need.name}: {need.found}" for need in missing)
    raise Unavailable(
        f"this machine cannot run rooms of {backend.name}: {reasons}"[:900],
        code="backend-unable",
        hint=f"{missing[0].fix}. `strongroom node doctor` tells of every need",
    )


def usual_firmware(profile: str, host: doctor.Host) -> Path | None:
    """The firmware that rooms of a profile start with on this machine unless another is named; None where it has none, or takes none."""
    if profile == LOCAL.profile:
        return launch_record.FIRMWARE
    builds = {"snp": doctor.SNP_FIRMWARE, "tdx": doctor.TDX_FIRMWARE}
    return host.firmware(builds[profile]) if profile in builds else None


def base_folder(base: Path, backend: Backend) -> Path:
    """The part of the base that `backend` boots: a folder of the profile's name, or the base itself.

    Raises `Misuse` for a base of another profile, by what the base says of itself.
    """
    part = base / backend.profile
    folder = part if part.is_dir() else base
    profile = _profile(folder)
    if profile not in ("", backend.profile):
        raise Misuse(
            f"--base {folder}: is a base for {profile}, and --backend {backend.name} boots one for {backend.profile}",
            code="wrong-base",
            hint=f"`strongroom base build --for {backend.profile}` makes one"
            + "".join(
                f"; or --backend {other.name}" for other in BACKENDS.values() if other.profile == profile
            ),
        )
    return folder


def _profile(base: Path) -> str:
    """What a base says that it is for; nothing where it does not say."""
    try:
        with (base / BASE).open("rb") as source:
            top = fields.Fields(canonical.loads(source.read(MAX_BASE), what=BASE, max_bytes=MAX_BASE), BASE)
    except OSError:
        return ""
    return top.text("profile", max_length=16) if "profile" in top.names() else ""
