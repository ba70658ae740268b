"""configfs-tsm: the kernel's one interface to reports of SEV-SNP and TDX (Linux 6.7 and later).

Spec: Linux Documentation/ABI/testing/configfs-tsm (below /sys/kernel/config/tsm/report). One folder is one report:

  1 make the folder            `provider` says which driver answers
  2 write `inblob`, and where the driver has levels `privlevel`; every write raises `generation` by one
  3 read `outblob`, the report, and `auxblob`, what the host handed out with it
  4 read `generation` again: another number means that somebody else asked in between, and the report is not of this room's data
  5 remove the folder

Each report has a folder of its own, named by the agent, so that 4 cannot happen unless something else in the room
asks; then nothing is attested.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.errors import Malformed, Refused, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

_TSM = "the kernel's configfs-tsm is of another version than this base: run it on the kernel of the base"

ROOT = "/sys/kernel/config/tsm/report"
MAX_OUT = 64 * 1024
MAX_AUX = 64 * 1024
_MAX_WORD = 64


class ConfigfsFiles:
    """The file operations that configfs offers. Each raises `OSError`."""

    def make(self, folder: str) -> None:
        """Make a folder."""
        os.mkdir(folder, 0o700)

    def remove(self, folder: str) -> None:
        """Remove a folder (its attributes go with it)."""
        os.rmdir(folder)

    def write(self, path: str, data: bytes) -> None:
        """Write an attribute in one go."""
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            if os.write(fd, data) != len(data):
                raise OSError(0, "written in part")
        finally:
            os.close(fd)

    def read(self, path: str, limit: int) -> bytes:
        """An attribute's bytes, one more than `limit` at most."""
        with open(path, "rb", buffering=0) as file:
            data = bytearray()
            while len(data) <= limit and (piece := file.read(limit + 1 - len(data))):
                data += piece
            return bytes(data)


@dataclass(frozen=True, kw_only=True)
class TsmReport:
    """One report. aux: what the host handed out with it, believed by nobody."""

    provider: str
    out: bytes
    aux: bytes


@dataclass(kw_only=True)
class Tsm:
    """The interface at `root`. Raises `Unavailable` when the kernel or the firmware does not answer."""

    files: ConfigfsFiles
    root: str = ROOT
    _asked: int = 0

    def provider(self) -> str:
        """Which driver answers."""
        with self._entry("asking which driver makes reports") as folder:
            return self._word(folder, "provider")

    def ask(self, data: bytes) -> TsmReport:
        """A report that carries the 64 bytes `data`, for the most privileged level that the firmware grants.

        Raises `Refused` when somebody else asked in between.
        """
        with self._entry("making a report") as folder:
            before = self._number(folder, "generation")
            self.files.write(f"{folder}/inblob", data)
            expected = before + 1
            floor = self._floor(folder)
            if floor is not None:
                self.files.write(f"{folder}/privlevel", str(floor).encode())
                expected += 1
            out = self._blob(folder, "outblob", MAX_OUT)
            provider = self._word(folder, "provider")
            aux = b""
            with contextlib.suppress(FileNotFoundError):
                aux = self._blob(folder, "auxblob", MAX_AUX)
            after = self._number(folder, "generation")
            if after != expected:
                raise Refused(
                    f"making a report: expected generation {expected}, got {after}",
                    code="report-raced",
                    hint="something else in the room asked for a report at the same time; nothing is attested",
                )
            return TsmReport(provider=provider, out=out, aux=aux)

    @contextlib.contextmanager
    def _entry(self, doing: str) -> Iterator[str]:
        self._asked += 1
        folder = f"{self.root}/strongroom-{self._asked}"
        try:
            self.files.make(folder)
            try:
                yield folder
            finally:
                self.files.remove(folder)
        except OSError as cause:
            raise Unavailable(
                f"{doing}: {cause.strerror or cause}",
                code="tsm-failed",
                hint="the kernel's log says what its driver or the firmware refused",
            ) from None

    def _floor(self, folder: str) -> int | None:
        """The most privileged level that may be asked for; None where the driver has no levels."""
        try:
            return self._number(folder, "privlevel_floor")
        except FileNotFoundError:
            return None

    def _number(self, folder: str, name: str) -> int:
        text = self._word(folder, name)
        if not text.isascii() or not text.isdigit():
            raise Malformed(f"configfs-tsm: {name} is {text[:40]!r}, not a number", hint=_TSM)
        return int(text)

    def _word(self, folder: str, name: str) -> str:
        return self._blob(folder, name, _MAX_WORD).decode("ascii", "replace").strip()

    def _blob(self, folder: str, name: str, limit: int) -> bytes:
        data = self.files.read(f"{folder}/{name}", limit)
        if len(data) > limit:
            raise Malformed(f"configfs-tsm: {name} is longer than {limit} bytes", code="too-large", hint=_TSM)
        return data
