"""Asking a broker's public endpoints from a party's own machine, or a node's.

TLS 1.3, and the server's key must be the one that the contract or the party file pins; names and
dates of its certificate are not looked at, since the pin is the identity. Answers are bounded in size
and in time, however slowly they trickle; no redirect is followed, no proxy is asked.
"""

from __future__ import annotations

import contextlib
import http.client
import ssl
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom import files, host_log
from strongroom.appraisal import ear_token
from strongroom.crypto import sign, spki
from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed, Misuse, NotFound, Refused, Unavailable
from strongroom.fetch.http.deadline import deadline
from strongroom.host_log import LogLevel
from strongroom.ledger import checkpoint as checkpoint_format
from strongroom.ledger import tiles
from strongroom.model import messages, record
from strongroom.parties import result

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from strongroom.model.identifiers import RoomName, RunId
    from strongroom.model.party import BrokerAddress, Party

TIMEOUT_SECONDS = 10.0  # without a byte
TOTAL_SECONDS = 60.0  # for one answer
MAX_PROOF = 64 * 1024
_NO_BROKER = "something in front of the broker answers, or it is broken: its owner looks at what `strongroom broker serve` prints"
# A whole bundle of entries, each after its length.
MAX_TILE = tiles.WIDTH * (2 + record.MAX_BYTES)


@dataclass(frozen=True, kw_only=True)
class BrokerReader:
    """Questions to one broker. Raises `Unavailable`, `NotFound`, `Malformed`, or `Refused` for a wrong key."""

    address: BrokerAddress
    total_seconds: float = TOTAL_SECONDS

    @property
    def ledger_key(self) -> sign.VerifyingKey:
        """The key of its checkpoints, as its owner's party file has it."""
        return sign.VerifyingKey(self.address.ledger_key)

    def checkpoint(self) -> str:
        """The latest checkpoint note."""
        data = self.get("/v1/ledger/checkpoint", max_bytes=checkpoint_format.MAX_BYTES)
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise Malformed(
                f"{self.address.url}: the checkpoint is no text in UTF-8", code="malformed", hint=_NO_BROKER
            ) from None

    def consistency(self, first: int, second: int) -> tuple[bytes, ...]:
        """The proof that the ledger of `second` entries extends that of `first`.

        Raises `Refused` when the broker has none to show.
        """
        try:
            data = self.get(f"/v1/ledger/consistency?from={first}&to={second}", max_bytes=MAX_PROOF)
        except NotFound:
            raise Refused(
                f"the broker has no proof that its ledger grew from {first} to {second} entries",
                code="ledger-proof",
                hint="a ledger that only ever grew has one; keep the checkpoints that you have",
            ) from None
        what = "consistency proof"
        with self.saying():
            top = fields.Fields(canonical.loads(data, what=what, max_bytes=MAX_PROOF), what)
            hashes = [
                fields.Fields({"hash": item}, what).data("hash", max_bytes=32, exactly=32)
                for item in top.items("hashes", max_items=128)
            ]
            top.done()
        return tuple(hashes)

    def tile(self, path: str) -> bytes:
        """A tile, by what follows `tile/` in its C2SP path."""
        return self.get(f"/v1/ledger/tile/{path}", max_bytes=MAX_TILE)

    def result(self, run_id: RunId, *, audience: str, nonce: bytes, form: str) -> bytes:
        """The broker's attestation result of a run: a token, of which nothing is verified."""
        query = urllib.parse.urlencode({"audience": audience, "nonce": nonce.hex(), "form": form})
        path = f"/v1/results/{urllib.parse.quote(run_id, safe='')}?{query}"
        return self.get(path, max_bytes=ear_token.MAX_TOKEN)

    def standing(self, agreement: bytes, room: RoomName, earlier: tuple[bytes, ...]) -> messages.Standing:
        """How a room of a contract stands there. `NotFound`: this broker is of a version that cannot say."""
        request = messages.StandingRequest(agreement=agreement, room=room, earlier=earlier)
        data = self._ask("/v1/standings", max_bytes=messages.MAX_PROOF, body=request.encode())
        with self.saying():
            return messages.parse_standing(data)

    @contextlib.contextmanager
    def saying(self) -> Iterator[None]:
        """Within, what does not parse is this broker's answer: it is no file of the user's, and `--help` has no answer to it."""
        try:
            yield
        except Malformed as failure:
            failure.message = f"{self.address.url}: {failure.message}"
            failure.hint = failure.hint or _NO_BROKER
            raise

    def get(self, path: str, *, max_bytes: int) -> bytes:
        """The body of a 200 answer, at most `max_bytes`."""
        return self._ask(path, max_bytes=max_bytes)

    def _ask(self, path: str, *, max_bytes: int, body: bytes | None = None) -> bytes:
        method = "GET" if body is None else "POST"
        with host_log.timed(LogLevel.DEBUG, "broker asked", method=method, url=self.address.url + path):
            return self._asked(path, max_bytes=max_bytes, body=body)

    def _asked(self, path: str, *, max_bytes: int, body: bytes | None) -> bytes:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the pin below is the check
        connection = http.client.HTTPSConnection(
            self.address.host, self.address.port, timeout=TIMEOUT_SECONDS, context=context
        )
        try:
            connection.connect()
            with deadline(connection.sock, self.total_seconds):
                self._check_pin(connection.sock.getpeercert(binary_form=True))
                headers = {"Accept": "application/json, text/plain"}
                if body is not None:
                    headers["Content-Type"] = "application/json"
                connection.request("GET" if body is None else "POST", path, body=body, headers=headers)
                answer = connection.getresponse()
                length = answer.length
                content = answer.read(length) if length is not None and length <= max_bytes else b""
        # ValueError: a host name that no resolver takes, or a header that is none.
        except (OSError, http.client.HTTPException, ValueError) as cause:
            raise Unavailable(
                f"{self.address.url}: {type(cause).__name__}: {cause}",
                code="broker-unreachable",
                hint="its owner starts it with `strongroom broker serve`; the address is the one in the party file",
            ) from None
        finally:
            connection.close()
        # Without a length a cut answer would look like a whole one.
        if length is None or length > max_bytes or len(content) != length:
            why = "without a length" if length is None else "too large" if length > max_bytes else "cut off"
            raise Unavailable(
                f"{self.address.url}: the answer is {why}", code="broker-answer", hint=_NO_BROKER
            )
        if answer.status == http.HTTPStatus.NOT_FOUND:
            said, hint = _reason(content)
            raise NotFound(
                f"{self.address.url}{path}: {said or 'not found'}",
                code="not-found",
                hint=hint or "is it the broker that has it? The party file says which one is asked",
            )
        if answer.status == http.HTTPStatus.FORBIDDEN:
            raise _refusal(self.address.url, content)
        if answer.status != http.HTTPStatus.OK:
            said, hint = _reason(content)
            raise Unavailable(
                f"{self.address.url}: HTTP {answer.status}{said and ': ' + said}",
                code="broker-answer",
                hint=hint or _NO_BROKER,
            )
        return content

    def _check_pin(self, certificate: bytes | None) -> None:
        try:
            same = certificate and spki.digest_of_certificate(certificate) == self.address.pin
        except Malformed:
            same = False
        if not same:
            raise Refused(
                f"{self.address.url}: its key is not the pinned one",
                code="wrong-broker",
                hint="somebody else answers at that address, or the broker has new keys (`strongroom broker rotate-keys`): "
                "get its owner's party file again, and sign a contract that carries it",
            )


def ask_result(broker: Party, *, run_id: RunId, audience: str, nonce: bytes, out: Path) -> None:
    """Ask the broker of a party for its signed attestation result of a run, for one audience; write the token to the new file `out`.

    nonce: 8 to 64 fresh bytes of the audience's. The token is a CWT where the file's name ends in .cwt, else a JWT, and is not verified
    (`parties.result.verify_result`). Raises `Misuse` for a party without a broker and a file that exists, and like `BrokerReader`.
    """
    token = reader_of(broker).result(run_id, audience=audience, nonce=nonce, form=result.form(out))
    files.write(out, token)


def reader_of(party: Party) -> BrokerReader:
    """Questions to the broker of a party. Raises `Misuse` where it has none."""
    if party.broker is None:
        raise Misuse(
            f"{party.name} has no broker",
            hint="name a party file with a broker; `strongroom broker init` writes it in, so ask for the latest",
        )
    return BrokerReader(address=party.broker)


def _refusal(url: str, body: bytes) -> Refused | Unavailable:
    """The broker's own reason, which its pinned key vouches for."""
    what = f"{url}: refusal"
    try:
        error = _error(body, what)
    except Malformed:
        return Unavailable(f"{url}: HTTP 403", code="broker-answer", hint=_NO_BROKER)
    return Refused(f"{url}: {error.message}", code=error.code or "refused", hint=error.hint)


def _error(body: bytes, what: str) -> messages.BrokerError:
    return messages.read_error(fields.Fields(canonical.loads(body, what=what, max_bytes=len(body)), what))


def _reason(body: bytes) -> tuple[str, str]:
    """The broker's own message and hint; nothing where its answer has none."""
    try:
        error = _error(body, "error")
    except Malformed:
        return "", ""
    return error.message, error.hint
