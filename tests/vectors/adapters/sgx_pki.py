"""Intel's own cases of its PKI, without a quote: a chain and its revocation lists under a test root of Intel's.

`trustedRoot.pem` and the like is the root that the case trusts, if it is sound; not Intel's production root.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from strongroom.evidence.formats import dcap_pck
from tests.vectors.loaded import Loaded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def load(folder: Path, case: dict) -> Loaded:
    """What the case verifies: a PCK chain, a revocation list, or the chain of a TCB signing certificate."""
    now = datetime.fromisoformat(case["verify_at"])
    files = {name: (folder / name).read_bytes() for name in case["evidence_files"]}
    verify: Callable[[dict[str, bytes], datetime], None]
    if "IntelSGXCertificateChain.pem" in files:
        verify = _pck_chain
    elif "tcb.pem" in files:
        verify = _tcb_signing
    else:
        verify = _revocation_list
    return Loaded(now=now, partial=lambda: verify(files, now), notes=("certificates and lists, no quote",))


def _pck_chain(files: dict[str, bytes], now: datetime) -> None:
    root = dcap_pck.trusted_root(files["IntelSGXRootCACertificate.pem"], now=now)
    chain = dcap_pck.pck_chain(files["IntelSGXCertificateChain.pem"], roots=frozenset({root}), now=now)
    of_root = dcap_pck.revocation_list(files["rootCaCrl.pem"], what="root-ca-crl")
    of_ca = dcap_pck.revocation_list(files["intermediateCaCrl.pem"], what="pck-crl")
    dcap_pck.Window(
        *chain.spans,
        dcap_pck.check_revocation(of_root, chain.root, chain.ca, what="root-ca-crl"),
        dcap_pck.check_revocation(of_ca, chain.ca, chain.leaf, what="pck-crl"),
    ).check(now)


def _revocation_list(files: dict[str, bytes], now: datetime) -> None:
    root = dcap_pck.trusted_root(files["trustedRoot.pem"], now=now)
    path = dcap_pck.ca_chain(files["certChain.pem"], what="pck-crl", roots=frozenset({root}), now=now)
    listed = dcap_pck.revocation_list(files["crl.pem"], what="pck-crl")
    dcap_pck.Window(dcap_pck.check_revocation(listed, path.leaf, what="pck-crl")).check(now)


def _tcb_signing(files: dict[str, bytes], now: datetime) -> None:
    root = dcap_pck.trusted_root(files["root.pem"], now=now)
    path = dcap_pck.tcb_signer(files["tcb.pem"], what="tcb-info", roots=frozenset({root}), now=now)
    listed = dcap_pck.revocation_list(files["root_crl.pem"], what="root-ca-crl")
    dcap_pck.Window(
        *dcap_pck.spans("tcb-info", path),
        dcap_pck.check_revocation(listed, path.root, path.leaf, what="root-ca-crl"),
    ).check(now)
