"""HTTP/1.1 over TLS 1.3 to a broker, through a stream of the channel.

The broker's TLS key is pinned by the contract; its certificate says nothing else that counts here, so
that no date, name or chain is looked at and the room's clock does not matter.
Understood: a status line, headers, one body of known length. Everything else is refused.
"""

from __future__ import annotations

import re
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.crypto import spki
from strongroom.errors import Malformed, Refused, Unavailable

if TYPE_CHECKING:
    from strongroom.agent.channel import Channel
    from strongroom.model.identifiers import PartyName
    from strongroom.model.party import BrokerAddress

_ODD_ANSWER = "something else than a broker may answer at that address, or stand between: ask its owner, and try `strongroom ledger show` with its party file"

MAX_HEAD = 16 * 1024
MAX_HEADERS = 64
_CHUNK = 64 * 1024
_STATUS = re.compile(rb"HTTP/1\.1 ([2-5][0-9]{2})(?: [\x20-\x7e]*)?")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}):[ \t]*([\x20-\x7e\t]{0,4096}?)[ \t]*")
_LENGTH = re.compile(rb"[0-9]{1,10}")


@dataclass(frozen=True, kw_only=True)
class BrokerAnswer:
    """Status code and body."""

    status: int
    body: bytes


class BrokerConnection:
    """One TLS connection to the broker of `party`; any number of requests, one after the other. certificate: the broker's (DER)."""

    def __init__(self, channel: Channel, party: PartyName, address: BrokerAddress, *, timeout: float) -> None:
        """Connect and check the pin, within `timeout` seconds. Raises `Unavailable`, `Refused`."""
        self._address = address
        self._party = party
        self._buffer = bytearray()
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the pin below is stricter than any chain
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=address.host)
        self.certificate = b""
        self._stream = channel.open_stream(party)
        try:
            self._handshake(party, time.monotonic() + timeout)
        except BaseException:
            self._stream.close()
            raise

    def post(self, path: str, body: bytes, *, max_answer: int, timeout: float) -> BrokerAnswer:
        """POST `body` as JSON; the answer's body is at most `max_answer` bytes."""
        deadline = time.monotonic() + timeout
        host = f"[{self._address.host}]" if ":" in self._address.host else self._address.host
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}:{self._address.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._write(head.encode("ascii") + body)
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > MAX_HEAD:
                raise Malformed("the broker's answer: its head is too long", hint=_ODD_ANSWER)
            self._fill(deadline)
        status, length = parse_head(bytes(self._buffer[:end]), max_answer=max_answer)
        del self._buffer[: end + 4]
        while len(self._buffer) < length:
            self._fill(deadline)
        answer = bytes(self._buffer[:length])
        del self._buffer[:length]
        return BrokerAnswer(status=status, body=answer)

    def close(self) -> None:
        """Give the stream back."""
        self._stream.close()

    def _handshake(self, party: PartyName, deadline: float) -> None:
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                self._receive(deadline)
            except ssl.SSLError as cause:
                raise Unavailable(
                    f"TLS with the broker of {party}: {cause.reason}", code="tls-failed", hint=_ODD_ANSWER
                ) from None
        self._flush()
        certificate = self._tls.getpeercert(binary_form=True) or b""
        pin = spki.digest_of_certificate(certificate)
        if pin != self._address.pin:
            raise Refused(
                f"TLS with the broker of {party}: expected the key {self._address.pin}, got {pin}",
                code="wrong-pin",
                hint="somebody else answers at the broker's address, or the broker has a new TLS key",
            )
        self.certificate = certificate

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._tls.write(view[:_CHUNK]) :]
            except ssl.SSLError as cause:
                raise Unavailable(
                    f"writing to the broker: {cause.reason}", code="tls-failed", hint=_ODD_ANSWER
                ) from None
            self._flush()

    def _fill(self, deadline: float) -> None:
        while True:
            try:
                data = self._tls.read(_CHUNK)
            except ssl.SSLWantReadError:
                self._flush()
                self._receive(deadline)
                continue
            except ssl.SSLError as cause:
                raise Unavailable(
                    f"reading the broker's answer: {cause.reason}", code="tls-failed", hint=_ODD_ANSWER
                ) from None
            if not data:
                raise Unavailable(
                    f"the broker of {self._party} closed the connection early",
                    code="cut-off",
                    hint=_ODD_ANSWER,
                )
            self._buffer += data
            return

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._stream.write(self._outgoing.read())

    def _receive(self, deadline: float) -> None:
        data = self._stream.read(deadline)
        if not data:
            raise Unavailable(
                f"the broker of {self._party} cannot be reached, or closed the connection early",
                code="cut-off",
                hint="is the broker running at the address that the contract names?",
            )
        self._incoming.write(data)


def parse_head(head: bytes, *, max_answer: int) -> tuple[int, int]:
    """Status and body length out of an answer's head (without the empty line). Raises `Malformed`."""
    lines = head.split(b"\r\n")
    match = _STATUS.fullmatch(lines[0])
    if match is None or len(lines) > MAX_HEADERS:
        raise Malformed("the broker's answer: not an HTTP/1.1 answer", hint=_ODD_ANSWER)
    length = None
    for line in lines[1:]:
        header = _HEADER.fullmatch(line)
        if header is None:
            raise Malformed("the broker's answer: a header that is none", hint=_ODD_ANSWER)
        name = header[1].lower()
        if name == b"transfer-encoding":
            raise Malformed(
                "the broker's answer: a transfer encoding, where a plain length is expected", hint=_ODD_ANSWER
            )
        if name == b"content-length":
            if length is not None or _LENGTH.fullmatch(header[2]) is None:
                raise Malformed(
                    "the broker's answer: a content length that is no number, or there twice",
                    hint=_ODD_ANSWER,
                )
            length = int(header[2])
    if length is None or length > max_answer:
        raise Malformed(
            f"the broker's answer: expected a length of at most {max_answer} bytes", hint=_ODD_ANSWER
        )
    return int(match[1]), length
