"""Where a room mounts its own over an image: one table, by which the agent mounts and `convert` judges.

A mount point that is a link in the image is followed inside it, as container runtimes do: `/data -> /srv/data` puts the
datasets there. Where links lead is decided on the image alone, before anything is mounted; it stands still meanwhile, as
the image is read-only and its program does not run yet. Refused, with the room's reason (`mount-point`):
  1 a link in a circle, or to the top of the image
  2 a file where a folder has to be, at the end or on the way
  3 a way through what another mount covers, since it is not there any more once that is mounted
  4 two mounts in one place, or one within another. Memory for temporary files may hold others, and /tmp may be /dev/shm
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.encoding.symlinks import Symlinks
from strongroom.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A place of the room's own. `purpose` goes on from "PATH is"; `mode` is the folder's where an image has none."""

    path: bytes
    purpose: str
    mode: int = 0o755

    @property
    def shown(self) -> str:
        """The path for messages."""
        return "/" + self.path.decode()


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A mount and its place in the image: a path without links, from the image's top."""

    mount: Mount
    place: bytes


DEV = Mount(path=b"dev", purpose="where a room has its devices")
TMP = Mount(path=b"tmp", purpose="a room's memory for temporary files", mode=0o1777)
OUT = Mount(path=b"out", purpose="where a room takes results from")
DATA = Mount(path=b"data", purpose="where a room puts the datasets")
PROC = Mount(path=b"proc", purpose="where a room shows what programs ask the kernel")
TLS = Mount(path=b"run/strongroom/tls", purpose="where a room puts its key and certificates")
MOUNTS = (DEV, TMP, OUT, DATA, PROC)  # in every room; TLS where the contract has certificate names
SHM = b"/shm"  # below DEV's place, made by the room


def of_certificates(folder: str) -> Mount:
    """The mount of the room's key and certificates at the folder that the contract says (an absolute path)."""
    path = folder.lstrip("/").encode()
    return TLS if path == TLS.path else Mount(path=path, purpose=TLS.purpose)


def place(
    *,
    target: Callable[[bytes], bytes | None],
    is_file: Callable[[bytes], bool],
    certificates: bool,
    tls: Mount = TLS,
) -> tuple[Placed, ...]:
    """The places of all mounts in the order of mounting: what lies in another comes after it, and /proc last.

    target: a link's text by its path, None for all else. is_file: whether there is something that is neither folder nor
    link. Both are asked by paths in which no part but the last may be a link. tls: where certificates go. Raises `Refused`. /tmp is left out where it is
    one with /dev/shm.
    """
    wanted = (*MOUNTS, tls) if certificates else MOUNTS
    links = Symlinks(target, chroot=True)
    ends = {mount: _end(mount, links, is_file) for mount in wanted}
    there_still = Symlinks(
        lambda path: None if any(is_within(path, end) for end in ends.values()) else target(path), chroot=True
    )
    for mount, end in ends.items():
        if there_still.resolve(mount.path) != end:
            raise _refused(mount, "its link leads through a folder that the room covers", _PLAIN)
    memory = (ends[TMP], ends[DEV] + SHM)
    if memory[0] == memory[1]:
        del ends[TMP]
    for mount, end in ends.items():
        for other, there in ends.items():
            if mount is not other and _disturbs(end, there, memory):
                both = f"in your image it leads to {_show(end)}, and {other.shown} to {_show(there)}: one covers the other"
                raise _refused(mount, both, _PLAIN)
    placed = (Placed(mount=mount, place=end) for mount, end in ends.items())
    return tuple(sorted(placed, key=lambda placement: (placement.mount is PROC, placement.place.count(b"/"))))


def is_within(path: bytes, folder: bytes) -> bool:
    """Whether `path` lies below `folder`, which it is not itself."""
    return path.startswith(folder + b"/")


_PLAIN = "make it a plain folder of the image, or lead the link elsewhere"


def _end(mount: Mount, links: Symlinks, is_file: Callable[[bytes], bool]) -> bytes:
    end = links.resolve(mount.path)
    if not end:
        raise _refused(mount, "its link leads in a circle, or to the top of the image", _PLAIN)
    parts = end.split(b"/")
    for count in range(1, len(parts) + 1):
        path = b"/".join(parts[:count])
        if is_file(path):
            where = "there" if path == mount.path else f"at {_show(path)}, where that leads"
            hint = "copy the file elsewhere in the image, like /usr/local/bin"
            raise _refused(mount, f"your image has a file {where}", hint)
    return end


def _disturbs(end: bytes, there: bytes, memory: tuple[bytes, ...]) -> bool:
    """Whether a mount at `end` would cover, or be seen in, what another has at `there`."""
    if end == there:
        return True
    held = there in memory or any(is_within(end, place) and is_within(place, there) for place in memory)
    return is_within(end, there) and not held


def _refused(mount: Mount, what: str, hint: str) -> Refused:
    return Refused(f"{mount.shown} is {mount.purpose}; {what}", code="mount-point", hint=hint)


def _show(path: bytes) -> str:
    return "/" + path[:200].decode("ascii", "backslashreplace")
