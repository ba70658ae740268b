"""Nitro documents verified per second: cold (every chain new), warm (chain seen before), and the bare signature.

warm: every certificate seen before. new certificate: an enclave's certificate never seen, below known authorities. cold:
no certificate seen before. The limit is ECDSA P-384 over the document's signed bytes with the same library and the same key, in the same run,
taken in turns with what is measured, so that a busy machine slows all alike.
"""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from strongroom.crypto.pki import x509
from strongroom.evidence import nitro, verify
from strongroom.model.binding import Preset
from strongroom.model.endorsements import NONE
from strongroom_testing.vendors import fake_aws
from tests.bench import turns

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
        verify.verify(evidence, NONE, binding=binding, roots=roots, now=NOW)

    def forget(_: int) -> None:
        for kept in KEPT:
            kept.cache_clear()

    # Apart from the slow steps, which leave nothing of these in the processor's caches.
    took = turns.medians(
        {"limit": turns.Step(lambda _: bare()), "warm": turns.Step(lambda _: warm())}, ROUNDS
    )
    took |= turns.medians(
        {
            "below": turns.Step(lambda _: warm(), lambda _: x509._path.cache_clear()),
            "cold": turns.Step(lambda _: warm(), forget),
            "six": turns.Step(lambda _: [bare() for _ in range(6)]),
        },
        ROUNDS,
    )
    limit, seen = took["limit"], took["warm"]
    return [
        turns.row("nitro, its bare signature, a second (the limit)", round(1e6 / limit)),
        turns.row("nitro, warm, a second", round(1e6 / seen)),
        turns.row("nitro, warm, of the limit", turns.share(limit, seen), ">= 70 %"),
        turns.row("nitro, warm, above the limit, µs", round(seen - limit)),
        turns.row("nitro, new certificate below known authorities, a second", round(1e6 / took["below"])),
        turns.row("nitro, cold, a second", round(1e6 / took["cold"])),
        turns.row("nitro, cold, of its six signatures", turns.share(took["six"], took["cold"])),
    ]


if __name__ == "__main__":
    turns.show(run())
