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

OK = 200
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


class BrokerTls:
    """TLS 1.3 with the broker of `party`, as a state: what comes is given to it, what is to go out is taken from it.

    certificate: the broker's (DER), once the handshake is over.
    """

    def __init__(self, party: PartyName, address: BrokerAddress) -> None:
        self._party = party
        self._address = address
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the pin below is stricter than any chain
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=address.host)
        self.certificate = b""

    def incoming(self, data: bytes) -> None:
        """Bytes have come."""
        self._incoming.write(data)

    def outgoing(self) -> bytes:
        """Bytes that are to go out."""
        return self._outgoing.read()

    def handshake(self) -> bool:
        """Go on with the handshake; whether it is over, and the pin held. Raises `Unavailable`, `Refused`."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as cause:
            raise self._failed(f"TLS with the broker of {self._party}", cause) from None
        certificate = self._tls.getpeercert(binary_form=True) or b""
        pin = spki.digest_of_certificate(certificate)
        if pin != self._address.pin:
            raise Refused(
                f"TLS with the broker of {self._party}: expected the key {self._address.pin}, got {pin}",
                code="wrong-pin",
                hint="somebody else answers at the broker's address, or the broker has a new TLS key",
            )
        self.certificate = certificate
        return True

    def write(self, data: bytes | memoryview) -> int:
        """Encrypt some of `data`; how much. Raises `Unavailable`."""
        try:
            return self._tls.write(data)
        except ssl.SSLError as cause:
            raise self._failed("writing to the broker", cause) from None

    def read(self) -> bytes:
        """What has come, in the clear; empty for nothing yet. Raises `Unavailable`, at the end too."""
        try:
            data = self._tls.read(_CHUNK)
        except ssl.SSLWantReadError:
            return b""
        except ssl.SSLError as cause:
            raise self._failed("reading the broker's answer", cause) from None
        if not data:
            raise Unavailable(
                f"the broker of {self._party} closed the connection early", code="cut-off", hint=_ODD_ANSWER
            )
        return data

    @staticmethod
    def _failed(what: str, cause: ssl.SSLError) -> Unavailable:
        return Unavailable(f"{what}: {cause.reason}", code="tls-failed", hint=_ODD_ANSWER)


def request_head(address: BrokerAddress, path: str, length: int) -> bytes:
    """The head of a POST of so many bytes of JSON."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    return (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{address.port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    ).encode("ascii")


class BrokerConnection:
    """One TLS connection to the broker of `party`; any number of requests, one after the other. certificate: the broker's (DER)."""

    def __init__(self, channel: Channel, party: PartyName, address: BrokerAddress, *, timeout: float) -> None:
        """Connect and check the pin, within `timeout` seconds. Raises `Unavailable`, `Refused`."""
        self._address = address
        self._party = party
        self._buffer = bytearray()
        self._tls = BrokerTls(party, address)
        self._stream = channel.open_stream(party)
        deadline = time.monotonic() + timeout
        try:
            while not self._tls.handshake():
                self._flush()
                self._receive(deadline)
            self._flush()
        except BaseException:
            self._stream.close()
            raise
        self.certificate = self._tls.certificate

    def post(self, path: str, body: bytes, *, max_answer: int, timeout: float) -> BrokerAnswer:
        """POST `body` as JSON; the answer's body is at most `max_answer` bytes."""
        deadline = time.monotonic() + timeout
        self._write(request_head(self._address, path, len(body)) + body)
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

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view[:_CHUNK]) :]
            self._flush()

    def _fill(self, deadline: float) -> None:
        while not (data := self._tls.read()):
            self._flush()
            self._receive(deadline)
        self._buffer += data

    def _flush(self) -> None:
        if data := self._tls.outgoing():
            self._stream.write(data)

    def _receive(self, deadline: float) -> None:
        data = self._stream.read(deadline)
        if not data:
            raise Unavailable(
                f"the broker of {self._party} cannot be reached, or closed the connection early",
                code="cut-off",
                hint="is the broker running at the address that the contract names?",
            )
        self._tls.incoming(data)


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
