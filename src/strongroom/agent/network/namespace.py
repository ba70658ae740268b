"""The program's network namespace: its loopback and listeners, which the launcher makes, and the agent's way into it.

The launcher makes them before there is any process of the program, and hands them over through a Unix socket. No process of
the agent's stays in the namespace: for each connection to the program the agent enters it, makes a socket and leaves.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.agent import kernel
from strongroom.agent.network import places
from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Sequence

BACKLOG = 128  # connections of the program's that nobody has taken yet, at each address
_OWN = "/proc/self/ns/net"
_SIOCSIFFLAGS, _SIOCSIFADDR = 0x8914, 0x8916
_IFF_UP_RUNNING = 0x41
_LOOPBACK = "lo"
_MOST_FILES = 1 + 2 * places.MAX_HOSTS
_TENTATIVE_SECONDS, _PAUSE = 2.0, 0.001
# What a kernel without IPv6 answers, or one where it is switched off.
_NO_IPV6 = frozenset((errno.EAFNOSUPPORT, errno.EACCES, errno.EPERM, errno.EADDRNOTAVAIL))


@dataclass(frozen=True, kw_only=True)
class Handed:
    """What the launcher hands over. listeners: by place ("HOST:PORT"), one for each address; they do not block."""

    namespace: ProgramNamespace
    listeners: dict[str, tuple[socket.socket, ...]]

    def close(self) -> None:
        """Let go of all of it."""
        self.namespace.close()
        for group in self.listeners.values():
            for listener in group:
                listener.close()


class ProgramNamespace:
    """A descriptor of the namespace, and one of the agent's own."""

    def __init__(self, inner: int) -> None:
        self._inner = inner
        self._own = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)

    def socket(self, family: socket.AddressFamily) -> socket.socket:
        """A TCP socket in it, which does not block. Raises `OSError`. Nothing else of the agent's runs meanwhile, and no code of the program's."""
        if self._inner < 0:
            raise OSError(errno.ESHUTDOWN, "the program's network namespace is closed")
        kernel.enter(self._inner, kernel.CLONE_NEWNET)
        try:
            connection = socket.socket(family, socket.SOCK_STREAM)
        finally:
            kernel.enter(self._own, kernel.CLONE_NEWNET)
        connection.setblocking(False)
        return connection

    def close(self) -> None:
        """Let go of both."""
        if self._inner >= 0:
            os.close(self._inner)
            os.close(self._own)
            self._inner = self._own = -1


def bring_up() -> None:
    """Switch the loopback of this namespace on. Raises `OSError`."""
    request = _LOOPBACK.encode().ljust(16, b"\x00") + _IFF_UP_RUNNING.to_bytes(2, "little") + bytes(22)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plug:
        fcntl.ioctl(plug.fileno(), _SIOCSIFFLAGS, request)


def hand_over(fd: int, listeners: Sequence[str]) -> None:
    """Listen at each place in this namespace, and send all of it to `take_over` at the other end of `fd`. Raises `OSError`."""
    hosts = places.hosts(listeners)
    with ExitStack() as stack:
        files = [os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)]
        stack.callback(os.close, files[0])
        counts = []
        has_ipv6 = all(_add_ipv6(places.addresses(index)[1]) for index in range(len(hosts)))
        for place in listeners:
            host, _, port = place.rpartition(":")
            ipv4, ipv6 = places.addresses(hosts.index(host))
            group = [_listen(socket.AF_INET, ipv4, int(port))]
            if has_ipv6:
                group.append(_listen(socket.AF_INET6, ipv6, int(port)))
            for listener in group:
                stack.enter_context(listener)
                files.append(listener.fileno())
            counts.append(len(group))
        with socket.socket(fileno=os.dup(fd)) as link:
            rights = struct.pack(f"={len(files)}i", *files)
            link.sendmsg([bytes([0, *counts])], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def take_over(fd: int, listeners: Sequence[str]) -> Handed | None:
    """What the launcher sends; None where it has ended without. Raises `Malformed`."""
    with socket.socket(fileno=os.dup(fd)) as link:
        space = socket.CMSG_SPACE(4 * _MOST_FILES)
        message, ancillary, _, _ = link.recvmsg(_MOST_FILES, space, socket.MSG_CMSG_CLOEXEC)
    if not message:
        return None
    files = [number for _, _, data in ancillary for number in struct.unpack(f"={len(data) // 4}i", data)]
    counts = message[1:]
    if len(counts) != len(listeners) or len(files) != 1 + sum(counts):
        for number in files:
            os.close(number)
        raise Malformed(
            f"the launcher hands over {len(files)} descriptors, expected others",
            code="warden",
            hint="the launcher and the agent are of one version: please report it",
        )
    groups, at = {}, 1
    for place, count in zip(listeners, counts, strict=True):
        groups[place] = tuple(socket.socket(fileno=number) for number in files[at : at + count])
        at += count
    return Handed(namespace=ProgramNamespace(files[0]), listeners=groups)


def _listen(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        deadline = time.monotonic() + _TENTATIVE_SECONDS
        while True:  # an address of IPv6 is tentative for an instant, on the loopback too
            try:
                listener.bind((address, port))
                break
            except OSError as cause:
                if cause.errno != errno.EADDRNOTAVAIL or time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _add_ipv6(address: str) -> bool:
    """Give the loopback that address; false where this kernel has no IPv6."""
    raw = socket.inet_pton(socket.AF_INET6, address)
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as plug:
            request = raw + struct.pack("=Ii", 128, socket.if_nametoindex(_LOOPBACK))
            fcntl.ioctl(plug.fileno(), _SIOCSIFADDR, request)
    except OSError as cause:
        if cause.errno not in _NO_IPV6:
            raise
        return False
    return True
