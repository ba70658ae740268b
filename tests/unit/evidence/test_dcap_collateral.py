"""Intel's collateral: each certificate of its chains is asked for on a list, and each has its own dates."""

from __future__ import annotations

import copy
from datetime import timedelta

import pytest
from cryptography import x509 as library

from strongroom.encoding import pem
from strongroom.errors import EvidenceRefused
from strongroom.evidence.formats import dcap_tcb
from strongroom.model.endorsements import Endorsements
from strongroom_testing.vendors import fake_intel, intel_pki
from strongroom_testing.vendors.intel_pki import TCB_SIGNING, Entity
from tests.unit.evidence.dcap_evidence import ENDORSED, GOOD, INTEL, NOW, refusal, verified

DAY = timedelta(days=1)
BEGINS, SOON, ENDS = NOW - 365 * DAY, NOW + 10 * DAY, NOW + 3650 * DAY


def renewed(one: Entity, issuer: Entity | None, *, ends=ENDS, **made) -> Entity:
    """The same name and key in another certificate, with another serial number."""
    again = copy.copy(one)
    again.serial = library.random_serial_number()
    again.certificate = intel_pki._certificate(again, issuer or again, BEGINS, ends, **made)
    again.chain = pem.encode(again.certificate, b"CERTIFICATE") + (issuer.chain if issuer else b"")
    return again


def root(ends=ENDS) -> Entity:
    return renewed(INTEL.root, None, ends=ends, ca=True, path_length=1)


def pck_ca(ends=ENDS, *, issuer: Entity = INTEL.root) -> Entity:
    return renewed(INTEL.ca, issuer, ends=ends, ca=True, path_length=0)


def signer(ends=ENDS, *, issuer: Entity = INTEL.root) -> Entity:
    """Another key that signs TCB info or QE identities."""
    return Entity(TCB_SIGNING, issuer, BEGINS, ends)


def collateral(
    *,
    tcb_info: Entity = INTEL.signer,
    identity: Entity = INTEL.signer,
    ca: Entity = INTEL.ca,
    on_root: int | None = None,
    on_pck: int | None = None,
    lists_end=(ENDS, ENDS),
) -> Endorsements:
    """Intel's collateral by these keys and chains. on_root, on_pck: a serial number on either list."""
    parts = dict(ENDORSED["sgx"].parts)
    for name, key, one in (("tcb-info", "tcbInfo", tcb_info), ("qe-identity", "enclaveIdentity", identity)):
        inner, _ = dcap_tcb.split(parts[name], key, what=name)
        parts[name] = fake_intel._document(key, inner, one.key)
        parts[f"{name}-issuer-chain"] = one.chain
    parts["root-ca-crl"] = INTEL._list(INTEL.root, INTEL.root.key, lists_end[0], on_root)
    parts["pck-crl"] = INTEL._list(ca, ca.key, lists_end[1], on_pck)
    parts["pck-crl-issuer-chain"] = ca.chain
    return Endorsements(parts=parts)


@pytest.fixture(scope="module")
def whole() -> dict[str, Entity]:
    """Three keys and certificates of their own, where usually TCB info and QE identity share one."""
    return {"tcb_info": signer(), "identity": signer(), "ca": pck_ca()}


@pytest.mark.parametrize(
    ("where", "revoked"),
    [
        pytest.param("on_root", lambda whole: whole["tcb_info"], id="signer of TCB info"),
        pytest.param("on_root", lambda whole: whole["identity"], id="signer of QE identities"),
        pytest.param("on_root", lambda whole: whole["ca"], id="issuer of the platforms' list"),
        pytest.param("on_root", lambda _: INTEL.ca, id="issuer of the platform"),
        pytest.param("on_pck", lambda _: INTEL.pck, id="platform"),
    ],
)
def test_rule_04_each_certificate_is_asked_for_on_its_issuers_list(whole, where, revoked):
    serial = revoked(whole).serial
    assert refusal(GOOD["sgx", 3], collateral(**whole)) == "accepted"
    assert refusal(GOOD["sgx", 3], collateral(**whole, **{where: serial})) == "revoked"
    other = {"on_root": "on_pck", "on_pck": "on_root"}[where]
    assert refusal(GOOD["sgx", 3], collateral(**whole, **{other: serial})) == "accepted"


@pytest.mark.parametrize(
    ("name", "ending", "check", "what"),
    [
        ("tcb_info", lambda: signer(SOON), "tcb-info.validity", "CN=Intel SGX TCB Signing"),
        ("tcb_info", lambda: signer(issuer=root(SOON)), "tcb-info.validity", "CN=Intel SGX Root CA"),
        ("identity", lambda: signer(SOON), "qe-identity.validity", "CN=Intel SGX TCB Signing"),
        ("identity", lambda: signer(issuer=root(SOON)), "qe-identity.validity", "CN=Intel SGX Root CA"),
        ("ca", lambda: pck_ca(SOON), "pck-crl.validity", "CN=Intel SGX PCK Platform CA"),
        ("ca", lambda: pck_ca(issuer=root(SOON)), "pck-crl.validity", "CN=Intel SGX Root CA"),
        ("lists_end", lambda: (SOON, ENDS), "root-ca-crl.validity", "revocation list of"),
        ("lists_end", lambda: (ENDS, SOON), "pck-crl.validity", "revocation list of"),
    ],
)
def test_rule_03_what_was_verified_and_kept_ends_with_its_first_part(whole, name, ending, check, what):
    endorsements = collateral(**{**whole, name: ending()})
    assert refusal(GOOD["sgx", 3], endorsements) == "accepted"
    assert refusal(GOOD["sgx", 3], endorsements, now=SOON) == "accepted"
    with pytest.raises(EvidenceRefused) as caught:
        verified(GOOD["sgx", 3], endorsements, now=SOON + DAY)
    assert caught.value.check == check
    assert what in caught.value.expected
    assert refusal(GOOD["sgx", 3], collateral(**whole), now=SOON + DAY) == "accepted"
