"""Every route of the broker, and what authenticates a request on it. The one place that lists them.

A test walks the application's routes and holds them to this table.
"""

from __future__ import annotations

from strongroom.api.routing import Auth, RouteRow
from strongroom.crypto.pki import ocsp_answers
from strongroom.model import messages, receipt, watch

KiB = 1024


ROUTES = (
    RouteRow(
        name="challenge",
        method="POST",
        path="/v1/challenges",
        auth=Auth.NONE,
        limit=4 * KiB,
        why="a nonce is worth nothing without evidence; open nonces are bounded",
    ),
    RouteRow(
        name="release",
        method="POST",
        path="/v1/releases",
        auth=Auth.EVIDENCE,
        limit=messages.MAX_REQUEST,
        why="keys leave sealed to the attested key, and only for an accepted verdict",
    ),
    RouteRow(
        name="renewal",
        method="POST",
        path="/v1/renewals",
        auth=Auth.EVIDENCE,
        limit=messages.MAX_REQUEST,
        why="no key leaves; a certificate does, for the TLS key of a released run that has proved itself anew",
    ),
    RouteRow(
        name="watch",
        method="POST",
        path="/v1/watches",
        auth=Auth.RUN_TOKEN,
        limit=watch.MAX_BYTES,
        why="says of a run what the ledger says; the token keeps strangers from the places of rooms that wait",
    ),
    RouteRow(
        name="receipt",
        method="POST",
        path="/v1/receipts",
        auth=Auth.ROOM_SIGNATURE,
        limit=2 * receipt.MAX_BYTES,
        why="a released run's receipts, each number higher than before, signed by the run's attested key",
    ),
    RouteRow(
        name="standing",
        method="POST",
        path="/v1/standings",
        auth=Auth.NONE,
        limit=messages.MAX_REQUEST,
        why="says of a contract, where this party has signed it, what a denied release would say; of others nothing; leaves no trace",
    ),
    RouteRow(
        name="acme-directory",
        method="GET",
        path="/acme/directory",
        auth=Auth.NONE,
        limit=0,
        why="says where ACME's resources are",
    ),
    RouteRow(
        name="acme-nonce",
        method="GET",
        path="/acme/new-nonce",
        auth=Auth.NONE,
        limit=0,
        why="a nonce is worth nothing without an account's key; none is kept until it is used",
    ),
    RouteRow(
        name="acme",
        method="POST",
        path="/acme/{path:path}",
        auth=Auth.ACCOUNT,
        limit=32 * KiB,
        why="an account is bound to what a room got sealed with its release, and gets the names of its contract alone",
    ),
    RouteRow(
        name="health",
        method="GET",
        path="/v1/health",
        auth=Auth.NONE,
        limit=0,
        why="says ready or not, and nothing else",
    ),
    RouteRow(
        name="checkpoint",
        method="GET",
        path="/v1/ledger/checkpoint",
        auth=Auth.NONE,
        limit=0,
        why="the ledger is public to whoever reaches the broker: digests, verdicts and receipts, no secret",
    ),
    RouteRow(
        name="tile",
        method="GET",
        path="/v1/ledger/tile/{path:path}",
        auth=Auth.NONE,
        limit=0,
        why="as the checkpoint",
    ),
    RouteRow(
        name="proof",
        method="GET",
        path="/v1/ledger/proof",
        auth=Auth.NONE,
        limit=0,
        why="as the checkpoint",
    ),
    RouteRow(
        name="consistency",
        method="GET",
        path="/v1/ledger/consistency",
        auth=Auth.NONE,
        limit=0,
        why="as the checkpoint",
    ),
    RouteRow(
        name="run",
        method="GET",
        path="/v1/ledger/run/{run}",
        auth=Auth.NONE,
        limit=0,
        why="as the checkpoint",
    ),
    RouteRow(
        name="result",
        method="GET",
        path="/v1/results/{run}",
        auth=Auth.NONE,
        limit=0,
        why="says what the ledger says of a release, for one audience and nonce; opens and releases nothing",
    ),
    RouteRow(
        name="authority",
        method="GET",
        path="/v1/authority",
        auth=Auth.NONE,
        limit=0,
        why="the authority's root certificates, which go out with every certificate",
    ),
    RouteRow(
        name="crl",
        method="GET",
        path="/v1/authority/crl",
        auth=Auth.NONE,
        limit=0,
        why="a revocation list is for whoever verifies: serial numbers and times, signed",
    ),
    RouteRow(
        name="contract-crl",
        method="GET",
        path="/v1/authority/crl/{contract}",
        auth=Auth.NONE,
        limit=0,
        why="as crl",
    ),
    RouteRow(
        name="ocsp",
        method="POST",
        path="/v1/authority/ocsp",
        auth=Auth.NONE,
        limit=ocsp_answers.MAX_BYTES,
        why="as crl, of one certificate whose serial number the asker knows",
    ),
)
