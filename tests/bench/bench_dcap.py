"""SGX and TDX quotes verified per second, against the bare signatures that they need and against other verifiers.

warm: platform and collateral seen before, a new quote each time. cold: another platform each time (PCK chain and quoting
enclave never seen), the collateral known, as for a new machine of a fleet. everything new: chains, lists, TCB info and QE
identity never seen either. first of all: nothing ever seen in this process, not even a name. All are taken in turns, so
that a busy machine slows all alike. The peers keep nothing between calls: `dcap-qvl` (Rust), Intel's own library (C++)
and `intel-sgx-ra` (SGX version 3 alone; it compares no QE identity and no TCB level), each with the same quote and
collateral, offline; where one is not installed its rows say so.
"""

from __future__ import annotations

import logging
import tracemalloc
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography import x509 as library

from strongroom.crypto import public_key
from strongroom.crypto.pki import x509
from strongroom.encoding import pem
from strongroom.evidence import verify
from strongroom.evidence.formats import dcap, dcap_pck, dcap_quote, dcap_tcb
from strongroom.model.binding import Preset
from strongroom_testing.vendors import fake_intel
from tests.bench import turns

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.model.endorsements import Endorsements

    Step = Callable[[int], object]

ROUNDS = 100
MANY = 100_000
NOW = datetime.now(UTC).replace(microsecond=0)  # one of the peers asks the clock itself
KEPT = [one for one in vars(x509).values() if hasattr(one, "cache_clear")]
KINDS = (("sgx", 3, "SGX v3"), ("tdx", 4, "TDX v4"), ("tdx", 5, "TDX v5"))


def forget_platforms() -> None:
    """As if every chain were new: what is kept of leaves goes; what is kept of collateral stays."""
    dcap.PLATFORMS.clear()
    dcap.ASSESSMENTS.clear()
    x509._path.cache_clear()


def forget() -> None:
    forget_platforms()
    dcap.COLLATERALS.clear()
    for one in KEPT:
        one.cache_clear()


def forget_all() -> None:
    forget()
    x509._NAMES.clear()


def documents(endorsements: Endorsements) -> dict[str, tuple[bytes, bytes]]:
    """TCB info and QE identity, each with its signature."""
    return {
        part: dcap_tcb.split(endorsements.parts[part], key, what=part)
        for part, key in (("tcb-info", "tcbInfo"), ("qe-identity", "enclaveIdentity"))
    }


def qvl(intel: fake_intel.FakeIntel, endorsements: Endorsements, quotes: list[bytes]) -> Step:
    import dcap_qvl

    parts, signed = endorsements.parts, documents(endorsements)
    collateral = dcap_qvl.QuoteCollateralV3(
        pck_crl_issuer_chain=parts["pck-crl-issuer-chain"].decode(),
        root_ca_crl=parts["root-ca-crl"],
        pck_crl=parts["pck-crl"],
        tcb_info_issuer_chain=parts["tcb-info-issuer-chain"].decode(),
        tcb_info=signed["tcb-info"][0].decode(),
        tcb_info_signature=signed["tcb-info"][1],
        qe_identity_issuer_chain=parts["qe-identity-issuer-chain"].decode(),
        qe_identity=signed["qe-identity"][0].decode(),
        qe_identity_signature=signed["qe-identity"][1],
    )
    now, root = int(NOW.timestamp()), intel.root.certificate
    return lambda index: dcap_qvl.verify_with_root_ca(quotes[index], collateral, root, now)


def intels(_: fake_intel.FakeIntel, endorsements: Endorsements, quotes: list[bytes]) -> Step:

    parts = endorsements.parts
    leaf, ca, root = (pem.encode(one, b"CERTIFICATE").decode() for one in chain(quotes[0]))

    def step(index: int) -> None:
        result = verify(
            root,
            leaf,
            ca + root,
            parts["root-ca-crl"].hex(),
            parts["pck-crl"].hex(),
            parts["tcb-info"].decode(),
            parts["tcb-info-issuer-chain"].decode(),
            quotes[index],
            parts["qe-identity"].decode(),
            NOW,
        )
        if result.quote_status.name != "STATUS_OK":
            raise SystemExit(f"Intel's library refuses: {result.quote_status.name}")

    return step


def sgx_ra(_: fake_intel.FakeIntel, endorsements: Endorsements, quotes: list[bytes]) -> Step:
    from intel_sgx_ra import attest

    logging.getLogger("intel_sgx_ra").disabled = True
    logging.getLogger("intel_sgx_ra.log").disabled = True
    parts = endorsements.parts
    signer = library.load_pem_x509_certificate(parts["tcb-info-issuer-chain"])
    collateral = (
        parts["tcb-info"],
        parts["qe-identity"],
        signer,
        library.load_der_x509_crl(parts["root-ca-crl"]),
        library.load_der_x509_crl(parts["pck-crl"]),
    )
    return lambda index: attest.verify_quote(quotes[index], collateral)


# By name: what makes its step, and the TEEs that it reads.
PEERS = {
    "dcap-qvl": (qvl, ("sgx", "tdx")),
    "Intel's library": (intels, ("sgx",)),
    "intel-sgx-ra": (sgx_ra, ("sgx",)),
}


def chain(quote: bytes) -> tuple[bytes, ...]:
    parsed = dcap_quote.parse(quote)
    certified = dcap_quote.certification(parsed.version, parsed.certified)
    return dcap_pck.certificates(certified.data, what="pck", count=3)


def run() -> list[dict[str, object]]:
    """Rows for the table of `make bench`."""
    rows: list[dict[str, object]] = []
    intel = fake_intel.FakeIntel(now=NOW)
    roots = frozenset({intel.root_digest})
    for tee, version, name in KINDS:
        endorsements = intel.endorsements(tee=tee)
        bounds = [Preset(values={"report_data": index.to_bytes(64, "big")}) for index in range(ROUNDS)]
        evidence = [intel.evidence(bound, tee=tee, version=version) for bound in bounds]
        quotes = [one.parts["quote"] for one in evidence]
        parsed = [dcap_quote.parse(quote) for quote in quotes]
        point = parsed[0].certified[:64]
        key = public_key.key_of_point("secp256r1", point[:32], point[32:])

        def verified(index: int, evidence=evidence, bounds=bounds, endorsements=endorsements) -> object:
            return verify.verify(evidence[index], endorsements, binding=bounds[index], roots=roots, now=NOW)

        quick = {
            "bare": turns.Step(
                lambda at, parsed=parsed, key=key: key.verify_ecdsa(parsed[at].signature, parsed[at].signed)
            ),
            "warm": turns.Step(verified, verified),
        }
        slow = {
            "first of all": turns.Step(verified, lambda _: forget_all()),
            "everything new": turns.Step(verified, lambda _: forget()),
            "cold": turns.Step(verified, lambda _, verified=verified: (verified(0), forget_platforms())),
        }
        missing = []
        for peer, (make, tees) in PEERS.items():
            if tee in tees:
                try:
                    slow[peer] = turns.Step(make(intel, endorsements, quotes))
                except ImportError:
                    missing.append(turns.row(f"{name}, {peer}", "not installed"))
        # Apart, since the slow ones leave nothing of the quick ones in the processor's caches.
        took = turns.medians(slow, ROUNDS) | turns.medians(quick, ROUNDS)
        rows += report(name, took) + missing
    return [*rows, memory(intel)]


def report(name: str, took: dict[str, float]) -> list[dict[str, object]]:
    """Rows of one kind of quote."""
    rows = [
        turns.row(f"{name}, warm, of its bare signature", turns.share(took["bare"], took["warm"]), ">= 70 %")
    ]
    rows += [
        turns.row(f"{name}, {how}, a second", round(1e6 / took[how]))
        for how in ("warm", "cold", "everything new", "first of all")
    ]
    aims = {"warm": ">= 4", "cold": ">= 1"}
    for peer in PEERS:
        if peer in took:
            rows.append(turns.row(f"{name}, {peer}, a second", round(1e6 / took[peer])))
            rows += [
                turns.row(
                    f"{name}, {how}, times {peer}",
                    f"{took[peer] / took[how]:.2f}",
                    aims.get(how, "") if peer == "dcap-qvl" else "",
                )
                for how in ("warm", "cold", "everything new", "first of all")
            ]
    return rows


def memory(intel: fake_intel.FakeIntel) -> dict[str, object]:
    """Bytes that stay behind per verification, over many with platforms old and new."""
    endorsements, roots = intel.endorsements(), frozenset({intel.root_digest})
    bound = Preset(values={"report_data": bytes(64)})
    evidence = intel.evidence(bound)

    def several(count: int) -> None:
        for index in range(count):
            if index % 50 == 0:
                forget_platforms()
            verify.verify(evidence, endorsements, binding=bound, roots=roots, now=NOW)

    several(1000)
    tracemalloc.start()
    several(100)
    before, _ = tracemalloc.get_traced_memory()
    several(MANY)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    kept = max(after - before, 0) / MANY
    return turns.row(f"TDX v4, bytes kept per verification, over {MANY}", f"{kept:.2f}", "< 1")


if __name__ == "__main__":
    turns.show(run())
