"""Trees for the tests: small helpers that make entries with content in memory."""

from __future__ import annotations

import io
import random

from strongroom.seal.tree import Entry, EntryKind

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
ACL = bytes.fromhex("0200000001000600ffffffff04000400ffffffff20000400ffffffff")


def folder(path: bytes = b"", mode: int = 0o755, **more: object) -> Entry:
    return Entry(path=path, kind=EntryKind.DIRECTORY, mode=mode, **more)


def file(path: bytes, content: bytes = b"", mode: int = 0o644, **more: object) -> Entry:
    return Entry(
        path=path, kind=EntryKind.FILE, mode=mode, size=len(content), open=lambda: io.BytesIO(content), **more
    )


def link(path: bytes, target: bytes) -> Entry:
    return Entry(path=path, kind=EntryKind.SYMLINK, mode=0o777, target=target)


def noise(count: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(count)  # noqa: S311 - content, no secret


def rich() -> list[Entry]:
    """Everything at once: sizes around block borders, many names, links, attributes, odd owners and times."""
    shared = {
        "content": noise(5 * 4096 + 17),
        "mode": 0o4755,
        "uid": 70000,
        "gid": 80000,
        "mtime": 1 << 33,
        "xattrs": {b"user.k": b"v", b"security.capability": CAPABILITY, b"system.posix_acl_access": ACL},
        "link_group": 1,
    }
    entries = [folder(), folder(b"a", mtime=5), folder(b"empty", 0o1777), folder(b"many")]
    entries += [file(b"a/x", **shared), file(b"a/y", **shared), file(b"zero")]
    entries += [link(b"l", b"a/x"), link(b"long", b"q/" * 2000 + b"z"), link(b"dangling", b"nowhere")]
    entries += [
        file(b"big-xattrs", b"abc", 0o600, xattrs={b"user.%d" % i: bytes([i]) * 3000 for i in range(20)})
    ]
    entries += [
        file(b"n%d" % size, noise(size, size)) for size in (1, 4095, 4096, 4097, 8192, 1 << 20, (1 << 20) + 1)
    ]
    entries += [file(b"many/%b%d" % (b"n" * (i % 200), i), bytes([i % 256]) * (i % 700)) for i in range(700)]
    entries += [folder(b"many/ " + b"!" * i) for i in range(60)]
    entries += [
        folder(b"!before-the-dots"),
        file("ünïcode-名前".encode(), b"u"),
        file(b"\xff\xfe not utf-8", b"x"),
    ]
    return entries
