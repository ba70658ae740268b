"""Bytes of an image, where they lie, and the one way they come out: checked.

A `Blob` is a run of bytes in an open file (a file of an OCI layout, or a member of an archive).
`document` and `unpack` compare size and SHA-256 with what the image says before anything is
parsed; a layer is decompressed only after its compressed digest held, and its tar is looked at
only after the digest of the uncompressed bytes (OCI config, diff_id) held. How a layer is compressed its own first
bytes say, as to container runtimes; media types are wrong about it at times, and the diff_id holds or not. Layers go to
a `Spool`: an unnamed file that only this process can open and that vanishes with it.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
import subprocess
import tempfile
import threading
import zlib
from contextlib import closing
from typing import TYPE_CHECKING, cast

from strongroom.errors import Malformed, NotFound, Refused
from strongroom.images.limits import SMALLER

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path
    from typing import BinaryIO, Self

    from strongroom.images.limits import ImageLimits

CHUNK = 1 << 20
_GZIP = b"\x1f\x8b\x08"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"  # after a byte from 0x50 to 0x5f
_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}
_ZSTD_WINDOW = "128MB"


class Blob:
    """`size` bytes at `offset` of an open file. Closing it closes its own descriptor."""

    def __init__(self, fd: int, offset: int, size: int, what: str) -> None:
        self._fd = fd
        self._offset = offset
        self.size = size
        self.what = what
        self.taken = 0
        """Bytes that the last `chunks` has given out."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`, fewer only at the end."""
        count = min(count, self.size - offset)
        return read_at(self._fd, self._offset + offset, count) if count > 0 else b""

    def part(self, offset: int, size: int, what: str) -> Blob:
        """A run within this one, on a descriptor of its own."""
        return Blob(os.dup(self._fd), self._offset + offset, size, what)

    def chunks(self) -> Iterator[bytes]:
        """All bytes in order. Raises `Malformed` when the file turns out shorter."""
        self.taken = 0
        while self.taken < self.size:
            chunk = self.read_at(self.taken, CHUNK)
            if not chunk:
                raise Malformed(f"{self.what}: ends at byte {self.taken} of {self.size}", code="truncated")
            self.taken += len(chunk)
            yield chunk


class Spool:
    """Decompressed bytes in an unnamed, private file in folder `scratch`. Closing it frees them."""

    def __init__(self, scratch: Path | None, *, fd: int = -1) -> None:
        """In `scratch`; or, with None, what lies in the open file `fd`, which from now on belongs to the spool."""
        self._file: io.RawIOBase
        if scratch is not None:
            self._file = cast("io.RawIOBase", tempfile.TemporaryFile(dir=scratch, buffering=0))  # noqa: SIM115 - closed by close()
        else:
            self._file = io.FileIO(fd, "r+b" if _writable(fd) else "rb")
        self.size = os.fstat(self._file.fileno()).st_size

    def fileno(self) -> int:
        """The descriptor, which stays the spool's."""
        return self._file.fileno()

    def digest(self) -> str:
        """Of all bytes."""
        return digest_of(self.read_at(at, CHUNK) for at in range(0, self.size, CHUNK))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the space."""
        self._file.close()

    def append(self, data: bytes) -> None:
        """Add bytes at the end."""
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) or 0 :]
        self.size += len(data)

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`, fewer only at the end."""
        return read_at(self._file.fileno(), offset, count)

    def open(self, offset: int, size: int) -> BinaryIO:
        """A reader of `size` bytes at `offset`; any number may be open at once."""
        return cast("BinaryIO", io.BufferedReader(_Slice(self._file.fileno(), offset, size)))


def _writable(fd: int) -> bool:
    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


class _Slice(io.RawIOBase):
    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd = fd
        self._start = offset
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = min(max(base + offset, 0), self._size)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")[: self._size - self._at]  # type: ignore[arg-type]
        count = os.preadv(self._fd, [view], self._start + self._at) if view else 0
        self._at += count
        return count


def read_at(fd: int, offset: int, count: int) -> bytes:
    """Like `os.pread`, but short only at the end of the file."""
    data = os.pread(fd, count, offset)
    while len(data) < count:
        more = os.pread(fd, count - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def document(blob: Blob, *, digest: str | None, size: int | None, max_bytes: int) -> bytes:
    """A small blob, whole and checked. A `size` or `digest` of None is not compared. Raises `Malformed`, `Refused`."""
    _check_size(blob, size)
    if blob.size > max_bytes:
        raise Malformed(
            f"{blob.what}: {blob.size} bytes, at most {max_bytes} allowed",
            code="too-large",
            hint="no image has so large a document: give the image that is meant",
        )
    data = b"".join(blob.chunks())
    if digest is not None:
        _check_digest(blob.what, "digest", digest, "sha256:" + hashlib.sha256(data).hexdigest())
    return data


def unpack(
    blob: Blob,
    spool: Spool,
    *,
    digest: str | None,
    size: int | None,
    diff_id: str,
    limits: ImageLimits,
    progress: Callable[[int], None],
) -> None:
    """Put a layer's uncompressed bytes into `spool`, checked against both digests.

    `progress` is called with numbers of the blob's bytes. Raises `Malformed`, `Refused`, or
    `NotFound` when the `zstd` program is not installed.
    """
    _check_size(blob, size)
    compression = compression_of(blob)
    if digest is not None and compression != "none":
        # Decompressors are large programs: they see no byte that the image's digest does not cover.
        _check_digest(blob.what, "digest", digest, digest_of(blob.chunks()))
    diff = hashlib.sha256()
    reported = 0
    with closing(_DECODERS[compression](blob)) as stream:
        for data in stream:
            diff.update(data)
            spool.append(data)
            progress(blob.taken - reported)
            reported = blob.taken
            _check_growth(blob, spool.size, limits)
    got = "sha256:" + diff.hexdigest()
    if digest is not None and compression == "none":
        _check_digest(blob.what, "digest", digest, got)
    _check_digest(blob.what, "uncompressed digest (diff_id)", diff_id, got)


def decompressed(blob: Blob, scratch: Path, limits: ImageLimits) -> Blob:
    """All of `blob`, which is closed, in an unnamed file in `scratch`. For what no digest says beforehand."""
    with blob, Spool(scratch) as spool:
        with closing(_DECODERS[compression_of(blob)](blob)) as stream:
            for data in stream:
                spool.append(data)
                _check_growth(blob, spool.size, limits)
        return Blob(os.dup(spool.fileno()), 0, spool.size, blob.what)


def compression_of(blob: Blob) -> str:
    """`gzip`, `zstd` or `none`, by the first bytes. Raises `Refused` for what is not decompressed here."""
    head = blob.read_at(0, 8)
    if head.startswith(_GZIP):
        return "gzip"
    if head.startswith(_ZSTD) or (head[:1] and head[0] >> 4 == 5 and head[1:4] == _ZSTD_SKIPPABLE):
        return "zstd"
    other = next((name for magic, name in _OTHERS.items() if head.startswith(magic)), None)
    if other is not None:
        raise Refused(
            f"{blob.what}: compressed with {other}",
            code="unknown-compression",
            hint="few runtimes know that for layers; make the image again with gzip or zstd",
        )
    return "none"


def _check_size(blob: Blob, size: int | None) -> None:
    if size is not None and blob.size != size:
        raise Refused(
            f"{blob.what}: expected {size} bytes, got {blob.size}",
            code="wrong-size",
            hint="the image is damaged or was changed; fetch it again",
        )


def _check_digest(what: str, name: str, expected: str, got: str) -> None:
    if expected != got:
        raise Refused(
            f"{what}: {name}: expected {expected}, got {got}",
            code="wrong-digest",
            hint="the image is damaged or was changed; fetch it again",
        )


def digest_of(chunks: Iterator[bytes]) -> str:
    """The text digest of a stream of bytes."""
    state = hashlib.sha256()
    for chunk in chunks:
        state.update(chunk)
    return "sha256:" + state.hexdigest()


def _check_growth(blob: Blob, grown: int, limits: ImageLimits) -> None:
    if grown > limits.layer_bytes:
        raise Refused(
            f"{blob.what}: more than {limits.layer_bytes} bytes when decompressed",
            code="too-large",
            hint=SMALLER,
        )


def _plain(blob: Blob) -> Generator[bytes, None, None]:
    yield from blob.chunks()


def _gunzip(blob: Blob) -> Generator[bytes, None, None]:
    """One or more members (RFC 1952, 2.2). Padding after the last is no member; the diff_id says that all was there."""
    state = zlib.decompressobj(zlib.MAX_WBITS | 16)
    complete = False
    rest = b""
    for chunk in blob.chunks():
        data, rest = rest + chunk, b""
        while True:
            if complete and data:
                if len(data) == 1:
                    rest = data
                    break
                if not data.startswith(_GZIP[:2]):
                    return
                state = zlib.decompressobj(zlib.MAX_WBITS | 16)
                complete = False
            try:
                out = state.decompress(data, CHUNK)
            except zlib.error as cause:
                raise Malformed(f"{blob.what}: gzip: {cause}", code="bad-gzip") from None
            if out:
                yield out
            complete = state.eof
            data = state.unused_data if complete else state.unconsumed_tail
            if not data and (complete or len(out) < CHUNK):
                break
    if not complete:
        raise Malformed(f"{blob.what}: gzip: ends too early", code="truncated")


def _unzstd(blob: Blob) -> Generator[bytes, None, None]:
    """Through the `zstd` program (RFC 8878), which gets the bytes and nothing else."""
    program = shutil.which("zstd")
    if program is None:
        raise NotFound(
            f"{blob.what}: is compressed with zstd, which is not installed",
            code="no-zstd",
            hint="apt-get install zstd (Debian, Ubuntu)",
        )
    command = [program, "-d", "-c", "-q", f"--memory={_ZSTD_WINDOW}"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"LC_ALL": "C"},
        bufsize=0,
    ) as child:
        feeder = threading.Thread(target=_feed, args=(blob, child), daemon=True)
        feeder.start()
        try:
            assert child.stdout is not None  # noqa: S101 - asked for with PIPE
            while out := child.stdout.read(CHUNK):
                yield out
            status = child.wait()
        finally:
            child.kill()
            feeder.join()
        if status != 0:
            raise Malformed(f"{blob.what}: zstd: does not decompress", code="bad-zstd")


def _feed(blob: Blob, child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None  # noqa: S101 - asked for with PIPE
    try:
        with child.stdin as sink:
            for chunk in blob.chunks():
                view = memoryview(chunk)
                while view:
                    view = view[sink.write(view) :]
    except (BrokenPipeError, Malformed):
        # The program's exit status tells; a short blob is a truncated frame to it.
        child.kill()


_DECODERS: dict[str, Callable[[Blob], Generator[bytes, None, None]]] = {
    "none": _plain,
    "gzip": _gunzip,
    "zstd": _unzstd,
}
