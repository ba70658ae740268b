"""Reading a broker's public endpoints from a party's own machine.

TLS 1.3, and the server's key must be the one that the contract or the party file pins; names and
dates of its certificate are not looked at, since the pin is the identity. Answers are bounded.
"""

from __future__ import annotations

import http.client
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.crypto import spki
from strongroom.encoding import canonical, fields
from strongroom.errors import NotFound, Refused, Unavailable
from strongroom.model import messages

if TYPE_CHECKING:
    from strongroom.model.party import BrokerAddress

TIMEOUT_SECONDS = 10
MAX_BYTES = messages.MAX_ANSWER


@dataclass(frozen=True, kw_only=True)
class BrokerReader:
    """GETs from one broker. Raises `Unavailable`, `NotFound`, or `Refused` for a wrong key."""

    address: BrokerAddress

    def checkpoint(self) -> str:
        """The latest checkpoint note."""
        return self.get("/v1/ledger/checkpoint").decode("utf-8", "replace")

    def consistency(self, first: int, second: int) -> tuple[bytes, ...]:
        """The proof that the ledger of `second` entries extends that of `first`."""
        data = self.get(f"/v1/ledger/consistency?from={first}&to={second}")
        top = fields.Fields(
            canonical.loads(data, what="consistency proof", max_bytes=MAX_BYTES), "consistency proof"
        )
        hashes = []
        for item in top.items("hashes", max_items=128):
            one = fields.Fields({"hash": item}, "consistency proof")
            hashes.append(one.data("hash", max_bytes=32, exactly=32))
        return tuple(hashes)

    def tile(self, path: str) -> bytes:
        """A tile, by what follows `tile/` in its C2SP path."""
        return self.get(f"/v1/ledger/tile/{path}")

    def get(self, path: str) -> bytes:
        """The body of a 200 answer."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the pin below is the check
        connection = http.client.HTTPSConnection(
            self.address.host, self.address.port, timeout=TIMEOUT_SECONDS, context=context
        )
        try:
            connection.connect()
            certificate = connection.sock.getpeercert(binary_form=True)
            if not certificate or spki.digest_of_certificate(certificate) != self.address.pin:
                raise Refused(
                    f"{self.address.url}: its key is not the pinned one",
                    code="wrong-broker",
                    hint="somebody else answers at that address, or the broker was set up anew",
                )
            connection.request("GET", path, headers={"Accept": "application/json, text/plain"})
            answer = connection.getresponse()
            body = answer.read(MAX_BYTES + 1)
        except (OSError, http.client.HTTPException) as cause:
            raise Unavailable(
                f"{self.address.url}: {type(cause).__name__}: {cause}",
                code="broker-unreachable",
                hint="is the broker running, and is the address right?",
            ) from None
        finally:
            connection.close()
        if len(body) > MAX_BYTES:
            raise Unavailable(f"{self.address.url}: the answer is too large", code="broker-answer")
        if answer.status == 404:
            raise NotFound(f"{self.address.url}{path}: not found", code="not-found")
        if answer.status != 200:
            raise Unavailable(f"{self.address.url}: HTTP {answer.status}", code="broker-answer")
        return body
