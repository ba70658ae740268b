"""TPM quotes verified per second (local rooms, Google's virtual TPMs), against the one signature that a quote needs.

Every round has evidence of its own: a new nonce, clock and signature, and every part in new bytes, as from a wire, so
that finding what is kept costs what it costs. warm: the machine's certificates, PCRs and log were seen before. new
machine: never seen, below an authority that was. cold: nothing was seen before. limit: the quote's signature alone, with
the same library and key, taken in turns with the rest. "own binding": the expected digest is made from nonce, contract
and keys in the measured time too (SHA-512 over 1.5 KB), which other rows get as bytes, as those of other TEEs do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from strongroom.crypto.pki import x509
from strongroom.evidence import gcp, tpm, verify
from strongroom.evidence.formats import eventlog_efi, tpm_quote
from strongroom.model.binding import Binding, Preset, RoomKeys
from strongroom.model.endorsements import NONE
from strongroom.model.evidence import Evidence
from strongroom_testing import contracts
from strongroom_testing.vendors import fake_google, fake_tpm
from tests.bench import turns

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.model.binding import Bound

    Make = Callable[[Binding], Evidence]

ROUNDS = 300
NOW = contracts.NOW
KEPT = [
    one
    for module in (x509, tpm, gcp, tpm_quote, eventlog_efi)
    for one in vars(module).values()
    if hasattr(one, "cache_clear")
]


def binding(index: int) -> Binding:
    return Binding(
        nonce=index.to_bytes(32, "big"),
        contract_digest=fake_tpm.digest("contract"),
        keys=RoomKeys(signing=b"s" * 32, tls=b"t" * 91, kem=b"k" * 1216),
        role="main",
        audience=fake_tpm.digest("audience"),
    )


def preset(index: int) -> Preset:
    bound = binding(index)
    return Preset(values={name: bound.value(name) for name in ("extra_data", "contract")})


def anew(evidence: Evidence) -> Evidence:
    """The same evidence in new bytes."""
    return Evidence(
        tee=evidence.tee, parts={name: bytes(bytearray(part)) for name, part in evidence.parts.items()}
    )


def bare(evidence: list[Evidence]) -> Callable[[int], object]:
    """The quote's signature by the library alone: key read, r and s encoded, before."""
    key = x509.parse(evidence[0].parts["ak-certificate"]).key.library
    signatures = [tpm_quote.parse_signature(one.parts["signature"]) for one in evidence]
    quotes = [one.parts["quote"] for one in evidence]
    if isinstance(key, ec.EllipticCurvePublicKey):
        algorithm = ec.ECDSA(hashes.SHA256())
        encoded = [encode_dss_signature(one.r, one.s) for one in signatures]
        return lambda index: key.verify(encoded[index], quotes[index], algorithm)
    scheme, over = padding.PKCS1v15(), hashes.SHA256()
    raws = [one.raw for one in signatures]
    return lambda index: key.verify(raws[index], quotes[index], scheme, over)


def forget(_: int) -> None:
    for one in KEPT:
        one.cache_clear()


def measure(name: str, make: Make, root: str, *, newcomer: Make | None = None) -> list[dict[str, object]]:
    """Rows of one kind of TPM and key. newcomer: makes evidence of a machine never seen, below the same root."""
    evidence = [make(binding(index)) for index in range(ROUNDS)]
    roots, held = frozenset({root}), {}

    def prepare(bound: Callable[[int], Bound], source: list[Evidence]) -> Callable[[int], None]:
        def step(index: int) -> None:
            held["evidence"], held["bound"] = anew(source[index]), bound(index)

        return step

    def verified(_: int) -> object:
        return verify.verify(held["evidence"], NONE, binding=held["bound"], roots=roots, now=NOW)

    def cold(index: int) -> None:
        forget(index)
        prepare(preset, evidence)(index)

    seldom = {"cold": turns.Step(verified, cold)}
    if newcomer is not None:
        machines = [newcomer(binding(index)) for index in range(ROUNDS)]
        seldom["new"] = turns.Step(verified, prepare(preset, machines))
    first = turns.medians(seldom, ROUNDS)
    took = turns.medians(
        {
            "limit": turns.Step(bare(evidence)),
            "warm": turns.Step(verified, prepare(preset, evidence)),
            "own": turns.Step(verified, prepare(binding, evidence)),
        },
        ROUNDS,
    )
    warm, limit = took["warm"], took["limit"]
    rows = [
        turns.row(f"{name}, warm, a second", round(1e6 / warm)),
        turns.row(f"{name}, its bare signature, a second (the limit)", round(1e6 / limit)),
        turns.row(f"{name}, warm, of the limit", turns.share(limit, warm), ">= 70 %"),
        turns.row(f"{name}, warm, above the limit, µs", f"{warm - limit:.1f}"),
        turns.row(f"{name}, warm, own binding, of the limit", turns.share(limit, took["own"])),
        turns.row(f"{name}, cold (nothing seen before), a second", round(1e6 / first["cold"])),
    ]
    if "new" in first:
        rows.append(turns.row(f"{name}, new machine below a known root, a second", round(1e6 / first["new"])))
    return rows


def run() -> list[dict[str, object]]:
    """Rows for the table of `make bench`."""
    rows: list[dict[str, object]] = []
    for algorithm, name in (("ecdsa", "ECDSA P-256"), ("rsa", "RSA-2048")):
        authority = fake_tpm.Authority(NOW)
        one = fake_tpm.FakeTpm(now=NOW, authority=authority, algorithm=algorithm)

        def other(bound: Binding, authority=authority) -> Evidence:
            return fake_tpm.FakeTpm(now=NOW, authority=authority).evidence(bound)

        rows += measure(f"tpm {name}", one.evidence, authority.root, newcomer=other)
    for algorithm, name in (("secp256r1", "ECDSA P-256"), ("rsa", "RSA-2048")):
        google = fake_google.FakeGoogle(now=NOW, algorithm=algorithm)
        rows += measure(f"gcp {name}", google.evidence, google.root)
    return rows


if __name__ == "__main__":
    turns.show(run())
