"""A machine's vsock device whose other end is this process: for QEMU's `vhost-user-vsock-pci`, where the host has no vsock.

The guest sees the device that an enclave sees, and its kernel's own driver drives it. What it connects to is given by a
function of the test's. Only what a guest needs that connects outwards is here.

Specs: vhost-user protocol (QEMU docs/interop/vhost-user); Virtio 1.2, 2.7 (split virtqueues) and 5.10 (socket device).
"""

from __future__ import annotations

import mmap
import os
import select
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Connect = Callable[[int, int], socket.socket | None]

HOST_FEATURES = 1 << 32 | 1 << 30  # VIRTIO_F_VERSION_1, VHOST_USER_F_PROTOCOL_FEATURES
PROTOCOL_FEATURES = 1 << 9  # VHOST_USER_PROTOCOL_F_CONFIG
GET_FEATURES, SET_MEM_TABLE, GET_PROTOCOL_FEATURES, GET_CONFIG = 1, 5, 15, 24
SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE, SET_VRING_KICK, SET_VRING_CALL = range(8, 14)
TO_GUEST, FROM_GUEST = 0, 1

HEADER = "<QQIIIHHIII"  # from and to: address, port; length, type, operation, flags, buffer, forwarded
HEADER_BYTES = 44
REQUEST, RESPONSE, RESET, SHUTDOWN, DATA, CREDIT_UPDATE, CREDIT_REQUEST = range(1, 8)
STREAM, BOTH_WAYS = 1, 3
BUFFER = 256 * 1024
PIECE = 3072  # fits into one buffer of the guest's kernel, which are of a page less its own use


@dataclass
class Queue:
    """A split virtqueue. desc, avail, used: addresses in QEMU's own memory."""

    size: int = 0
    desc: int = 0
    avail: int = 0
    used: int = 0
    next: int = 0
    kick: int = -1
    call: int = -1


@dataclass
class Stream:
    """A connection: bytes that went each way, and how many the guest has room for."""

    outside: socket.socket
    room: int
    taken: int = 0
    forwarded: int = 0
    told: int = 0
    sent: int = 0

    @property
    def credit(self) -> int:
        return self.room - ((self.sent - self.taken) & 0xFFFFFFFF)


@dataclass(kw_only=True)
class Device:
    """The device of the machine with address `cid`, served in a thread until QEMU goes.

    connect(port, guest's port): the socket that a connection of the guest's leads to; None refuses it.
    """

    cid: int
    connect: Connect
    regions: list[tuple[int, int, int, memoryview]] = field(default_factory=list)
    queues: list[Queue] = field(default_factory=lambda: [Queue(), Queue(), Queue()])
    streams: dict[tuple[int, int], Stream] = field(default_factory=dict)
    waiting: list[bytes] = field(default_factory=list)

    def start(self, link: socket.socket) -> threading.Thread:
        """Serve QEMU's end of `link`, which is taken over."""
        thread = threading.Thread(target=self.serve, args=(link,), daemon=True)
        thread.start()
        return thread

    def serve(self, link: socket.socket) -> None:
        try:
            while self.turn(link):
                pass
        finally:
            link.close()
            for stream in self.streams.values():
                stream.outside.close()
            for queue in self.queues:
                self.replace(queue, kick=-1, call=-1)

    def turn(self, link: socket.socket) -> bool:
        """Wait for anything and do what it asks for; False when QEMU has gone."""
        kicks = {queue.kick: queue for queue in self.queues if queue.kick >= 0}
        while self.waiting and self.to_guest(self.waiting[0]):
            self.waiting.pop(0)
        ready = not self.waiting and self.available(self.queues[TO_GUEST])
        outside = {stream.outside: key for key, stream in self.streams.items() if ready and stream.credit > 0}
        readable, _, _ = select.select([link, *kicks, *outside], [], [])
        if link in readable:
            return self.take_message(link)
        for one in readable:
            if one in kicks:
                os.eventfd_read(one)
                if kicks[one] is self.queues[FROM_GUEST]:
                    self.from_guest()
            elif outside[one] in self.streams:
                self.bring(outside[one])
        return True

    # What QEMU says.

    def take_message(self, link: socket.socket) -> bool:
        head, descriptors, _, _ = socket.recv_fds(link, 12, 8)
        if len(head) < 12:
            return False
        kind, flags, size = struct.unpack("<III", head)
        body = b""
        while len(body) < size:
            body += link.recv(size - len(body))
        answer = self.answer(kind, body, descriptors)
        if answer is not None:
            link.sendall(struct.pack("<III", kind, flags & 3 | 4, len(answer)) + answer)
        return True

    def answer(self, kind: int, body: bytes, descriptors: list[int]) -> bytes | None:
        if kind == GET_FEATURES:
            return struct.pack("<Q", HOST_FEATURES)
        if kind == GET_PROTOCOL_FEATURES:
            return struct.pack("<Q", PROTOCOL_FEATURES)
        if kind == GET_CONFIG:
            offset, size, _ = struct.unpack_from("<III", body)
            return body[:12] + struct.pack("<Q", self.cid)[offset : offset + size].ljust(size, b"\x00")
        if kind == SET_MEM_TABLE:
            self.regions = [
                self.mapped(descriptor, *struct.unpack_from("<QQQQ", body, 8 + 32 * index))
                for index, descriptor in enumerate(descriptors)
            ]
        elif kind in (SET_VRING_KICK, SET_VRING_CALL):
            (index,) = struct.unpack("<Q", body)
            name = "kick" if kind == SET_VRING_KICK else "call"
            self.replace(self.queues[index & 0xFF], **{name: descriptors[0] if descriptors else -1})
            self.from_guest()
        elif kind in (SET_VRING_NUM, SET_VRING_BASE, SET_VRING_ADDR, GET_VRING_BASE):
            index, value = struct.unpack_from("<II", body)
            queue = self.queues[index]
            if kind == SET_VRING_NUM:
                queue.size = value
            elif kind == SET_VRING_BASE:
                queue.next = value
            elif kind == SET_VRING_ADDR:
                queue.desc, queue.used, queue.avail = struct.unpack_from("<QQQ", body, 8)
            else:
                self.replace(queue, kick=-1)
                queue.desc = 0
                return struct.pack("<II", index, queue.next)
        return None

    def mapped(
        self, fd: int, guest: int, size: int, qemus: int, offset: int
    ) -> tuple[int, int, int, memoryview]:
        try:
            return guest, size, qemus, memoryview(mmap.mmap(fd, offset + size))[offset:]
        finally:
            os.close(fd)

    def replace(self, queue: Queue, **descriptors: int) -> None:
        for name, fd in descriptors.items():
            if getattr(queue, name) >= 0:
                os.close(getattr(queue, name))
            setattr(queue, name, fd)

    # The guest's memory, and the queues in it.

    def at(self, address: int, *, guest: bool = False) -> memoryview:
        """Memory from there to the end of its region."""
        for start, size, qemus, view in self.regions:
            base = start if guest else qemus
            if base <= address < base + size:
                return view[address - base :]
        raise AssertionError(f"no memory at {address:#x}")

    def available(self, queue: Queue) -> bool:
        if not queue.desc:
            return False
        return struct.unpack_from("<H", self.at(queue.avail), 2)[0] != queue.next

    def pop(self, queue: Queue) -> tuple[int, list[memoryview]]:
        """The next chain of buffers of a queue that has one."""
        head = at = struct.unpack_from("<H", self.at(queue.avail), 4 + 2 * (queue.next % queue.size))[0]
        queue.next = (queue.next + 1) & 0xFFFF
        parts = []
        while True:
            address, length, flags, following = struct.unpack_from("<QIHH", self.at(queue.desc), 16 * at)
            parts.append(self.at(address, guest=True)[:length])
            if not flags & 1:
                return head, parts
            at = following

    def push(self, queue: Queue, head: int, written: int) -> None:
        used = self.at(queue.used)
        index = struct.unpack_from("<H", used, 2)[0]
        struct.pack_into("<II", used, 4 + 8 * (index % queue.size), head, written)
        struct.pack_into("<H", used, 2, (index + 1) & 0xFFFF)
        if queue.call >= 0 and not struct.unpack_from("<H", self.at(queue.avail))[0] & 1:
            os.eventfd_write(queue.call, 1)

    # Packets.

    def to_guest(self, packet: bytes) -> bool:
        queue = self.queues[TO_GUEST]
        if not self.available(queue):
            return False
        head, parts = self.pop(queue)
        rest = packet
        for part in parts:
            piece = rest[: len(part)]
            part[: len(piece)] = piece
            rest = rest[len(piece) :]
        assert not rest
        self.push(queue, head, len(packet))
        return True

    def say(self, key: tuple[int, int], operation: int, *, data: bytes = b"", flags: int = 0) -> None:
        port, guests = key
        stream = self.streams.get(key)
        forwarded = 0
        if stream is not None:
            forwarded = stream.told = stream.forwarded & 0xFFFFFFFF
        self.waiting.append(
            struct.pack(
                HEADER, 3, self.cid, port, guests, len(data), STREAM, operation, flags, BUFFER, forwarded
            )
            + data
        )

    def bring(self, key: tuple[int, int]) -> None:
        """What came from outside, as much as one buffer of the guest's takes."""
        stream = self.streams[key]
        try:
            data = stream.outside.recv(min(PIECE, stream.credit))
        except OSError:
            data = b""
        if data:
            stream.sent += len(data)
            self.say(key, DATA, data=data)
        else:
            self.say(key, SHUTDOWN, flags=BOTH_WAYS)
            self.streams.pop(key).outside.close()

    def from_guest(self) -> None:
        queue = self.queues[FROM_GUEST]
        while queue.kick >= 0 and self.available(queue):
            head, parts = self.pop(queue)
            packet = b"".join(parts)
            self.push(queue, head, 0)
            self.take(packet)

    def take(self, packet: bytes) -> None:
        _, _, guests, port, length, _, operation, flags, room, taken = struct.unpack_from(HEADER, packet)
        key = (port, guests)
        if operation == REQUEST:
            outside = self.connect(port, guests)
            if outside is not None:
                self.streams[key] = Stream(outside, room, taken)
            self.say(key, RESET if outside is None else RESPONSE)
            return
        stream = self.streams.get(key)
        if stream is None:
            if operation != RESET:
                self.say(key, RESET)
            return
        stream.room, stream.taken = room, taken
        if operation == DATA:
            try:
                stream.outside.sendall(packet[HEADER_BYTES : HEADER_BYTES + length])
            except OSError:
                operation = RESET
            stream.forwarded += length
            if ((stream.forwarded - stream.told) & 0xFFFFFFFF) > BUFFER // 4:
                self.say(key, CREDIT_UPDATE)
        elif operation == CREDIT_REQUEST:
            self.say(key, CREDIT_UPDATE)
        if operation == RESET or (operation == SHUTDOWN and flags & BOTH_WAYS == BOTH_WAYS):
            self.say(key, RESET)
            self.streams.pop(key).outside.close()
