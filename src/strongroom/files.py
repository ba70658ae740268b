"""Small files: read within bounds, written whole or not at all, and private where it matters; and which of ours one is."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from strongroom.crypto import age
from strongroom.encoding import canonical
from strongroom.errors import Malformed, Misuse, of_file

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_MAX_SMALL = 1 << 20
_EROFS = (0xE0F5E1E2).to_bytes(4, "little")
_NAMED = re.compile(r"(?:strongroom-|application/vnd\.strongroom\.)([a-z]+)(?:/[0-9]+|\+json)", re.ASCII)
_KINDS = {
    "identity": "an identity file",
    "party": "a party file",
    "contract": "a contract",
    "manifest": "a disk's manifest",
    "receipt": "a receipt",
    "rotation": "a rotation of keys",
    "policy": "a policy file",
    "reference": "a file of reference values",
    "proof": "a proof pack",
    "base": "a base's description",
    "node": "a node's description",
    "run": "a run's status",
    "launch": "a launch record",
}

DISK = "a sealed disk"


def read(path: Path, *, max_bytes: int) -> bytes:
    """The whole file, at most `max_bytes`. Raises `Malformed` when it is larger."""
    with path.open("rb") as source:
        data = source.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise Malformed(f"{path}: larger than {max_bytes} bytes", code="too-large")
    return data


def parsed(path: Path, parse: Callable[[bytes], T], *, max_bytes: int) -> T:
    """What `parse` makes of the file. What it raises names the file."""
    with of_file(path):
        return parse(read(path, max_bytes=max_bytes))


def read_text(path: Path, *, max_bytes: int) -> str:
    """The same as text. Raises `Malformed` when it is not UTF-8."""
    try:
        return read(path, max_bytes=max_bytes).decode()
    except UnicodeDecodeError:
        raise Malformed(f"{path}: is no text", code="not-text") from None


def kind(path: Path) -> str:
    """What a file of ours is, by its own words ("a party file"); empty when it does not say.

    An encrypted disk says nothing: it is one by its name.
    """
    try:
        with path.open("rb") as source:
            data = source.read(_MAX_SMALL + 1)
    except OSError:
        return ""
    if data.startswith(age.MAGIC):
        return "an age file (a key, a result or a log, sealed)"
    if path.suffix == ".disk" or data[1024:1028] == _EROFS:
        return DISK
    if len(data) > _MAX_SMALL:
        return ""
    try:
        top = canonical.loads(data, what=path.name, max_bytes=_MAX_SMALL)
    except Malformed:
        return ""
    format_name = (top.get("format") or top.get("payloadType")) if isinstance(top, dict) else None
    named = _NAMED.fullmatch(format_name) if isinstance(format_name, str) else None
    return _KINDS.get(named[1], "") if named else ""


def write(path: Path, data: bytes, *, private: bool = False, replace: bool = False) -> None:
    """Write atomically: the file is there whole, or not at all. `private` means mode 0600.

    `replace` is for a plain file alone: never a device, a link or a folder in its place.
    """
    if os.path.lexists(path):
        if not replace:
            raise taken(path, private=private)
        if not stat.S_ISREG(path.lstat().st_mode):
            raise Misuse(f"{path}: is no plain file", code="not-a-file", hint="name the file itself")
    part = path.with_name(f".{path.name}.{os.urandom(4).hex()}.part")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644)
    try:
        with os.fdopen(fd, "wb") as target:
            target.write(data)
            target.flush()
            os.fsync(target.fileno())
        part.replace(path)
    except BaseException as failure:
        part.unlink(missing_ok=True)
        if isinstance(failure, OSError) and failure.filename is None:
            failure.filename = str(path)  # a full disk does not say whose
        raise


def taken(path: Path, *, private: bool) -> Misuse:
    """The refusal to write over a file. A private one may be the only key to something: no hint says to remove it."""
    return Misuse(
        f"{path}: exists already",
        code="exists",
        hint="it may be the only key to what is sealed with it: keep it, and name another file or folder"
        if private
        else "remove it, or name another file",
    )


def state_folder(name: str) -> Path:
    """Where something that has to outlive a cleaning of caches is kept: $XDG_STATE_HOME/strongroom/NAME."""
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
    return base / "strongroom" / name
