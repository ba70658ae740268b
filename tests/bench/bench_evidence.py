"""Microseconds to verify TPM evidence and to reach a verdict, with what is kept between runs and without.

"first" means that certificates, launch record, event log and contract signatures have not been seen
before, "again" that only the quote and the binding are new, as for the next room of a contract.
"""

from __future__ import annotations

import statistics
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from strongroom.appraisal import judge, terms
from strongroom.crypto import x509
from strongroom.evidence import registry, tpm
from strongroom.model.binding import Binding, RoomKeys
from strongroom.model.endorsements import NONE
from strongroom.model.verdict import Accepted, Check
from strongroom_testing import contracts, fake_tpm

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 300
GATES = (Check(name="nonce", expected="fresh", got="fresh", ok=True),)


def _forget() -> None:
    x509._path.cache_clear()
    tpm._predict.cache_clear()
    terms._kept_signers.cache_clear()


def _median(step: Callable[[int], object], *, forget: bool) -> float:
    took = []
    for index in range(ROUNDS):
        if forget:
            _forget()
        begun = time.perf_counter()
        step(index)
        took.append((time.perf_counter() - begun) * 1e6)
    return statistics.median(took)


def _bare(algorithm: str) -> float:
    """Microseconds of the one signature that new evidence needs, by the same library."""
    message = bytes(145)
    if algorithm == "ecdsa":
        elliptic = ec.generate_private_key(ec.SECP256R1())
        signature, public = elliptic.sign(message, ec.ECDSA(hashes.SHA256())), elliptic.public_key()
        return _median(lambda _: public.verify(signature, message, ec.ECDSA(hashes.SHA256())), forget=False)
    key = rsa.generate_private_key(65537, 2048)
    signed, known = key.sign(message, padding.PKCS1v15(), hashes.SHA256()), key.public_key()
    return _median(lambda _: known.verify(signed, message, padding.PKCS1v15(), hashes.SHA256()), forget=False)


def run() -> list[dict[str, object]]:
    """Rows for the table of `make bench`."""
    rows: list[dict[str, object]] = []
    for algorithm in ("ecdsa", "rsa"):
        scene = contracts.scene(tpm=fake_tpm.FakeTpm(now=contracts.NOW, algorithm=algorithm))
        agreement, roots = scene.agreement(), frozenset({scene.tpm.root})
        cases = []
        for index in range(ROUNDS):
            keys = RoomKeys(signing=b"s" * 32, tls=b"t" * 91, kem=b"k" * 1216)
            bound = Binding(
                nonce=index.to_bytes(32, "big"),
                contract=agreement.contract.digest,
                keys=keys,
                role="room",
                audience=fake_tpm.digest("audience"),
            )
            cases.append((bound, scene.tpm.evidence(bound)))

        def verify(index: int, cases=cases, roots=roots, now=scene.now) -> object:
            bound, evidence = cases[index]
            return registry.verify(evidence, NONE, binding=bound, roots=roots, now=now)

        def decide(index: int, cases=cases, agreement=agreement, now=scene.now) -> object:
            bound, evidence = cases[index]
            return judge.judge(
                agreement,
                evidence,
                NONE,
                binding=bound,
                gates=GATES,
                runs_used=0,
                now=now,
                lifetime=timedelta(hours=1),
            )

        if not isinstance(decide(0), Accepted):
            raise SystemExit("the evidence must be accepted, or this measures a refusal")
        bare = _bare(algorithm)
        rows.append(
            {"what": f"the bare {algorithm} signature, µs (the limit)", "value": round(bare), "aim": ""}
        )
        for name, step in (("verify", verify), ("judge", decide)):
            for again in (False, True):
                median = _median(step, forget=not again)
                rows.append(
                    {
                        "what": f"{name} tpm {algorithm}, {'again' if again else 'first'}, µs",
                        "value": round(median),
                        "aim": "< 1000" if again else "",
                    }
                )
                if name == "verify" and again:
                    share = f"{100 * bare / median:.0f} %"
                    rows.append(
                        {
                            "what": f"verify tpm {algorithm}, again, of the limit",
                            "value": share,
                            "aim": "≥ 70 %",
                        }
                    )
    return rows


def main() -> None:
    """Print the rows."""
    for row in run():
        print(f"{row['what']:45} {row['value']!s:>10}  {row['aim']}")


if __name__ == "__main__":
    main()
