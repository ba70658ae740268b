"""Nitro documents verified per second: cold (every chain new), warm (chain seen before), and the bare signature.

The limit is ECDSA P-384 over the document's signed bytes with the same library and the same key, in the same run,
taken in turns with what is measured, so that a busy machine slows all alike.
"""

from __future__ import annotations

import statistics
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from strongroom.crypto import x509
from strongroom.evidence import nitro, registry
from strongroom.model.binding import Preset
from strongroom.model.endorsements import NONE
from strongroom_testing import fake_aws

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 300
KEPT = [
    one for one in vars(x509).values() if hasattr(one, "cache_clear")
]  # what is remembered of certificates
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def run() -> list[dict[str, object]]:
    """Rows for the table of `make bench`."""
    aws = fake_aws.FakeAws(now=NOW)
    binding = Preset(values={"user_data": b"u" * 64, "nonce": b"n" * 32})
    evidence = aws.evidence(binding, indefinite=True)
    roots = frozenset({aws.root})
    document = nitro.parse(evidence.parts["document"])
    key = x509.parse(document.certificate).key.library
    signed, signature = document.signed.signed(), document.signed.signature
    der = encode_dss_signature(int.from_bytes(signature[:48], "big"), int.from_bytes(signature[48:], "big"))
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise SystemExit("the fake's key is not ECDSA")
    algorithm = ec.ECDSA(hashes.SHA384())

    def bare() -> None:
        key.verify(der, signed, algorithm)

    def warm() -> None:
        registry.verify(evidence, NONE, binding=binding, roots=roots, now=NOW)

    def cold() -> None:
        for kept in KEPT:
            kept.cache_clear()
        warm()

    def known() -> None:
        x509._path.cache_clear()
        warm()

    limit, seen, new, below = _medians(bare, warm, cold, known)
    return [
        {
            "what": "nitro, the signature alone, per second (the limit)",
            "value": round(1e6 / limit),
            "aim": "",
        },
        {"what": "nitro warm, verifications per second", "value": round(1e6 / seen), "aim": ""},
        {"what": "nitro warm, of the limit", "value": f"{100 * limit / seen:.0f} %", "aim": "≥ 70 %"},
        {"what": "nitro warm, µs beside the signature", "value": round(seen - limit), "aim": "< 60"},
        {"what": "nitro cold, verifications per second", "value": round(1e6 / new), "aim": ""},
        {"what": "nitro cold, of its six signatures", "value": f"{100 * 6 * limit / new:.0f} %", "aim": ""},
        {
            "what": "nitro, new certificate below known authorities, per second",
            "value": round(1e6 / below),
            "aim": "",
        },
    ]


def _medians(*steps: Callable[[], None]) -> list[float]:
    took: list[list[float]] = [[] for _ in steps]
    for _ in range(ROUNDS):
        for index, step in enumerate(steps):
            step()  # the step before may have emptied or filled what this one uses
            begun = time.perf_counter()
            step()
            took[index].append((time.perf_counter() - begun) * 1e6)
    return [statistics.median(one) for one in took]


def main() -> None:
    """Print the rows."""
    for row in run():
        print(f"{row['what']:55} {row['value']!s:>10}  {row['aim']}")


if __name__ == "__main__":
    main()
