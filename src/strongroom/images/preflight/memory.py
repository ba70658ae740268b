"""Is the contract's memory enough, as far as that can be seen from outside; and what it is divided into.

In a room `/` (what is written over the image) may grow to a quarter of the memory, /tmp and /dev/shm to half of it each,
and outputs are held there too (docs/room.md). The image itself is read from its disk block by block: its size
does not count, but on Nitro, where an enclave has no disk and all of it is in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.images.preflight.findings import Finding, blocks, fine, warns
from strongroom.images.preflight.program import ExaminedImage, path_of

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
# What the kernel and the agent need beside the program: measured in a local room of 512 MiB.
RESERVE_MIB = 112
# Program → (what it wants by default, MiB; why; how to ask for less).
_WANTS = {
    "java": (256, "a JVM takes a quarter of the memory as heap, and some 150 MiB beside it", "-Xmx"),
    "postgres": (
        256,
        "shared_buffers is 128 MiB by default, and its log (WAL) is written in pieces of 16 MiB",
        "shared_buffers, max_wal_size",
    ),
    "mysqld": (
        512,
        "its buffer pool is 128 MiB by default, its tables of definitions much more",
        "innodb_buffer_pool_size",
    ),
    "mongod": (512, "its cache is at least 256 MiB", "--wiredTigerCacheSizeGB"),
    "redis-server": (128, "all its data is in memory, and a save forks", 'maxmemory, save ""'),
    "node": (160, "V8 sizes its heap by the memory that it sees", "--max-old-space-size"),
    "Rscript": (256, "R holds whole tables in memory, often twice", "work in pieces"),
    "R": (256, "R holds whole tables in memory, often twice", "work in pieces"),
    "python3": (96, "", ""),
    "python": (96, "", ""),
    "clickhouse": (1024, "it expects servers with gigabytes", "max_server_memory_usage"),
    "elasticsearch": (1536, "a JVM with a heap of 1 GiB by default", "ES_JAVA_OPTS"),
}


def examine(subject: ExaminedImage, *, memory_mib: int, content_bytes: int) -> Iterator[Finding]:
    """Memory, for a contract with `memory_mib`."""
    usable = memory_mib - RESERVE_MIB
    where = f"memory_mib {memory_mib}"
    size = -(-content_bytes // MIB)
    if subject.platform == "nitro" and size >= usable:
        yield blocks(
            "memory",
            where,
            f"the image has {size} MiB, and an enclave holds all of it in memory",
            f"give it at least {memory_mib + size} MiB",
        )
        return
    if subject.platform == "nitro":
        usable -= size
    name = _program(subject)
    wants, why, less = _WANTS.get(name, (0, "", ""))
    if wants > usable:
        yield warns(
            "memory",
            where,
            f"{usable} MiB are left for the program; {name} wants {wants} or more: {why or 'it is that large itself'}",
            f"raise memory_mib to {wants + memory_mib - usable} or more"
            + (f", or set {less}" if less else ""),
        )
        return
    yield fine(
        "memory",
        where,
        f"{max(usable, 0)} MiB for the program; of them / may take {max(usable, 0) // 4}, /tmp and /dev/shm {max(usable, 0) // 2} each",
    )


def _program(subject: ExaminedImage) -> str:
    """The name of the known program that is started, or of the database that an entrypoint script is there for; or empty."""
    words = (*subject.settings.entrypoint, *subject.settings.command)
    for word in words[:8]:
        name = word.rpartition("/")[2].rstrip("0123456789.") or word
        if word.rpartition("/")[2] in _WANTS:
            return word.rpartition("/")[2]
        if name in _WANTS:
            return name
    first = path_of(subject, words[0])
    if first is not None and first.endswith((".sh", "entrypoint")):
        for name in _WANTS:
            if name in ("postgres", "mysqld", "mongod", "redis-server") and _has(subject, name):
                return name
    return ""


def _has(subject: ExaminedImage, name: str) -> bool:
    if path_of(subject, name) is not None:
        return True
    node = subject.tree.find(b"/usr/lib/postgresql") if name == "postgres" else None
    return node is not None
