"""SGX and TDX quotes verified per second, against the bare signatures that they need and against `dcap-qvl`.

"warm": platform and collateral seen before, a new quote each time. "new platform": another PCK chain and quoting enclave
each time, the collateral seen before. "first": nothing seen before, as in a program's first verification. All are taken
in turns in one process, so that a busy machine slows all alike. dcap-qvl keeps nothing between calls; without it
installed its rows are absent. Aims: warm at least 4 × dcap-qvl and 70 % of the bare signature of the quote; a new chain
each time no slower than dcap-qvl.
"""

from __future__ import annotations

import statistics
import time
import tracemalloc
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from strongroom.crypto import x509
from strongroom.evidence import dcap, dcap_quote, dcap_tcb, registry
from strongroom.model.binding import Preset
from strongroom_testing import fake_intel

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.model.endorsements import Endorsements

try:
    import dcap_qvl
except ImportError:
    dcap_qvl = None

ROUNDS = 300
MANY = 100_000
NOW = datetime(2026, 1, 1, tzinfo=UTC)
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


def medians(steps: dict[str, tuple[Callable[[], None] | None, Callable[[int], object]]]) -> dict[str, float]:
    """Microseconds of each step, all of them in turns."""
    took: dict[str, list[float]] = {name: [] for name in steps}
    for index in range(ROUNDS):
        for name, (before, step) in steps.items():
            if before is not None:
                before()
            begun = time.perf_counter()
            step(index)
            took[name].append((time.perf_counter() - begun) * 1e6)
    return {name: statistics.median(times) for name, times in took.items()}


def peer(
    intel: fake_intel.FakeIntel, endorsements: Endorsements, quotes: list[bytes]
) -> Callable[[int], object]:
    parts = endorsements.parts
    tcb, tcb_signature = dcap_tcb.split(parts["tcb-info"], "tcbInfo", what="tcb-info")
    identity, identity_signature = dcap_tcb.split(parts["qe-identity"], "enclaveIdentity", what="qe-identity")
    collateral = dcap_qvl.QuoteCollateralV3(
        pck_crl_issuer_chain=parts["pck-crl-issuer-chain"].decode(),
        root_ca_crl=parts["root-ca-crl"],
        pck_crl=parts["pck-crl"],
        tcb_info_issuer_chain=parts["tcb-info-issuer-chain"].decode(),
        tcb_info=tcb.decode(),
        tcb_info_signature=tcb_signature,
        qe_identity_issuer_chain=parts["qe-identity-issuer-chain"].decode(),
        qe_identity=identity.decode(),
        qe_identity_signature=identity_signature,
    )
    now = int(NOW.timestamp())
    root = intel.root.certificate
    return lambda index: dcap_qvl.verify_with_root_ca(quotes[index], collateral, root, now)


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
        key = x509.key_of_point("secp256r1", point[:32], point[32:])

        def verify(index: int, evidence=evidence, bounds=bounds, endorsements=endorsements) -> object:
            return registry.verify(evidence[index], endorsements, binding=bounds[index], roots=roots, now=NOW)

        steps: dict[str, tuple[Callable[[], None] | None, Callable[[int], object]]] = {
            "bare": (
                None,
                lambda at, parsed=parsed, key=key: key.verify_ecdsa(parsed[at].signature, parsed[at].signed),
            ),
            "first": (forget, verify),
            "warm": (lambda verify=verify: verify(0), verify),
            "new": (forget_platforms, verify),
        }
        if dcap_qvl is not None:
            steps["qvl"] = (None, peer(intel, endorsements, quotes))
        took = medians(steps)
        warm, bare = took["warm"], took["bare"]
        rows += [
            row(f"{name}, warm, a second", 1e6 / warm, ""),
            row(f"{name}, warm, % of its bare signature", 100 * bare / warm, ">= 70"),
            row(f"{name}, new platform, a second", 1e6 / took["new"], ""),
            row(f"{name}, first of all, a second", 1e6 / took["first"], ""),
        ]
        if "qvl" in took:
            qvl = took["qvl"]
            rows += [
                row(f"{name}, dcap-qvl, a second", 1e6 / qvl, ""),
                row(f"{name}, warm, times dcap-qvl", qvl / warm, ">= 4", digits=1),
                row(f"{name}, new platform, times dcap-qvl", qvl / took["new"], ">= 1", digits=2),
                row(f"{name}, first of all, times dcap-qvl", qvl / took["first"], "", digits=2),
            ]
    return [*rows, memory(intel)]


def memory(intel: fake_intel.FakeIntel) -> dict[str, object]:
    """Bytes that stay behind per verification, over many with platforms old and new."""
    endorsements, roots = intel.endorsements(), frozenset({intel.root_digest})
    bound = Preset(values={"report_data": bytes(64)})
    evidence = intel.evidence(bound)

    def several(count: int) -> None:
        for index in range(count):
            if index % 50 == 0:
                forget_platforms()
            registry.verify(evidence, endorsements, binding=bound, roots=roots, now=NOW)

    several(1000)
    tracemalloc.start()
    several(100)
    before, _ = tracemalloc.get_traced_memory()
    several(MANY)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return row(
        f"TDX v4, bytes kept per verification, over {MANY}", max(after - before, 0) / MANY, "< 1", digits=2
    )


def row(what: str, value: float, aim: str, *, digits: int = 0) -> dict[str, object]:
    return {"what": what, "value": round(value, digits) if digits else round(value), "aim": aim}


def main() -> None:
    """Print the rows."""
    for one in run():
        print(f"{one['what']:60} {one['value']!s:>10}  {one['aim']}")


if __name__ == "__main__":
    main()
