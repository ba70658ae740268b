"""Credentials: a real TPM opens those made for its own keys, and no other TPM and no other key does."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass

import pytest

from strongroom.encoding import tpm2, tpm2_credential
from strongroom.errors import Conflict, Malformed, Misuse, Refused, Unavailable
from strongroom.evidence.formats import tpm_credential
from tests.unit.evidence import swtpm

CREDENTIAL = hashlib.sha256(b"a credential").digest()
INTEGRITY = "0x1df"  # TPM_RC_INTEGRITY of the first parameter
SEED = hashlib.sha256(b"a seed").digest()


@dataclass
class Started:
    """A running TPM with an EK and an AK in it."""

    tpm: swtpm.Client
    ek: int
    ak: int
    ek_public: tpm_credential.Public
    ak_public: tpm_credential.Public

    def activate(self, challenge: tpm_credential.CredentialChallenge, *, ak: int | None = None) -> bytes:
        session = self.tpm.run(tpm2_credential.start_policy_session(os.urandom(16)), handles=1).handles[0]
        try:
            self.tpm.run(tpm2_credential.policy_secret(session))
            command = tpm2_credential.activate_credential(
                ak or self.ak, self.ek, session, challenge.credential_blob, challenge.secret
            )
            return tpm2_credential.read_credential(self.tpm.run(command).parameters)
        finally:
            self.tpm.run(tpm2.flush_context(session))

    def create(self, hierarchy: int, template: bytes) -> tuple[int, tpm_credential.Public]:
        answer = self.tpm.run(tpm2_credential.create_primary(hierarchy, template), handles=1)
        return answer.handles[0], tpm_credential.parse_public(tpm2.read_sized(answer.parameters))


@contextlib.contextmanager
def started(kind: str):
    with swtpm.fresh() as tpm:
        new = Started(tpm, 0, 0, None, None)
        new.ek, new.ek_public = new.create(tpm2.ENDORSEMENT, tpm2_credential.ek_template(kind))
        answer = tpm.run(tpm2.create_ak(tpm2.OWNER), handles=1)
        new.ak = answer.handles[0]
        new.ak_public = tpm_credential.parse_public(tpm2.read_sized(answer.parameters))
        yield new


@pytest.fixture(scope="module", params=["rsa", "secp256r1"])
def one(request):
    with started(request.param) as tpm:
        yield tpm


@pytest.fixture(scope="module", params=["rsa"])
def other(request):
    with started(request.param) as tpm:
        yield tpm


def challenge(ek: tpm_credential.Public, ak: tpm_credential.Public) -> tpm_credential.CredentialChallenge:
    return tpm_credential.make(ek, ek.key, ak, CREDENTIAL, seed=SEED)


@swtpm.needs_swtpm
def test_rule_13_a_tpm_recovers_the_credential_made_for_its_own_two_keys(one):
    assert one.activate(challenge(one.ek_public, one.ak_public)) == CREDENTIAL


@swtpm.needs_swtpm
def test_rule_13_another_tpm_cannot_activate(one, other):
    # The attacker holds its own, genuine TPM and claims an AK of another machine for it, or the other way round.
    for ek, ak in ((one.ek_public, other.ak_public), (one.ek_public, one.ak_public)):
        with pytest.raises(Unavailable, match="answered"):
            other.activate(challenge(ek, ak))
    with pytest.raises(Unavailable, match=INTEGRITY):
        other.activate(challenge(other.ek_public, one.ak_public))
    assert other.activate(challenge(other.ek_public, other.ak_public)) == CREDENTIAL


@swtpm.needs_swtpm
def test_rule_13_a_name_that_is_not_the_loaded_keys_is_refused(one):
    handle, second = one.create(tpm2.ENDORSEMENT, one.ak_public.raw)
    try:
        assert second.name != one.ak_public.name
        with pytest.raises(Unavailable, match=INTEGRITY):
            one.activate(challenge(one.ek_public, second))
        assert one.activate(challenge(one.ek_public, second), ak=handle) == CREDENTIAL
    finally:
        one.tpm.run(tpm2.flush_context(handle))


@swtpm.needs_swtpm
def test_the_name_is_the_tpms_own(one):
    answer = one.tpm.run(tpm2.read_public(one.ak)).parameters
    assert tpm2.read_sized(answer) == one.ak_public.raw
    assert tpm2.read_sized(answer) == one.ak_public.name


@swtpm.needs_swtpm
def test_every_changed_byte_of_a_challenge_is_refused_by_the_tpm(one):
    good = challenge(one.ek_public, one.ak_public)
    for index in range(2, len(good.credential_blob)):
        blob = bytearray(good.credential_blob)
        blob[index] ^= 0x40
        with pytest.raises(Unavailable, match="the TPM answered"):
            one.activate(tpm_credential.CredentialChallenge(credential_blob=bytes(blob), secret=good.secret))


@swtpm.needs_swtpm
def test_rule_13_only_certified_and_native_keys_are_asked(one, other):
    with pytest.raises(Refused, match="certificate"):
        tpm_credential.make(one.ek_public, other.ek_public.key, one.ak_public, CREDENTIAL, seed=SEED)
    with pytest.raises(Refused, match="endorsement"):
        tpm_credential.make(one.ak_public, one.ak_public.key, one.ak_public, CREDENTIAL, seed=SEED)
    with pytest.raises(Refused, match="attestation"):
        tpm_credential.make(one.ek_public, one.ek_public.key, one.ek_public, CREDENTIAL, seed=SEED)
    for bit in (
        tpm_credential.FIXED_TPM,
        tpm_credential.FIXED_PARENT,
        tpm_credential.SENSITIVE_DATA_ORIGIN,
        tpm_credential.RESTRICTED,
        tpm_credential.SIGN,
    ):
        raw = bytearray(one.ak_public.raw)
        raw[4:8] = (one.ak_public.attributes & ~bit).to_bytes(4, "big")
        with pytest.raises(Refused, match="attestation"):
            challenge(one.ek_public, tpm_credential.parse_public(bytes(raw)))


@swtpm.needs_swtpm
def test_lengths_are_exact(one):
    for credential, seed in ((b"", SEED), (bytes(15), SEED), (bytes(33), SEED), (CREDENTIAL, bytes(31))):
        with pytest.raises(Misuse, match="credential: expected 16 to 32 bytes and a seed of 32, got"):
            tpm_credential.make(one.ek_public, one.ek_public.key, one.ak_public, credential, seed=seed)


@swtpm.needs_swtpm
def test_rule_13_a_machines_name_never_moves_to_another_endorsement_key(one, other):
    def enrol(known, name, tpm, answer=CREDENTIAL):
        return tpm_credential.enrol(
            known,
            name,
            endorsement=tpm.ek_public,
            attestation=tpm.ak_public,
            credential=CREDENTIAL,
            answer=answer,
        )

    first = enrol({}, "machine-1", one)
    assert enrol({"machine-1": first}, "machine-1", one) == first  # the same TPM again
    with pytest.raises(Conflict, match="neither name nor key moves"):
        enrol({"machine-1": first}, "machine-1", other)
    with pytest.raises(Conflict, match="neither name nor key moves"):
        enrol({"machine-1": first}, "machine-2", one)
    assert enrol({"machine-1": first}, "machine-2", other).endorsement_key != first.endorsement_key
    for wrong in (b"", bytes(32), CREDENTIAL[:-1], CREDENTIAL + b"\0"):
        with pytest.raises(Refused, match="these keys are not of one TPM"):
            enrol({}, "machine-1", one, answer=wrong)


@swtpm.needs_swtpm
def test_public_areas_are_parsed_strictly(one):
    for public in (one.ek_public, one.ak_public):
        for cut in range(len(public.raw)):
            with pytest.raises(Malformed, match="bytes wanted at offset"):
                tpm_credential.parse_public(public.raw[:cut])
        for bad, why in (
            (public.raw + b"\0", "1 trailing bytes"),
            (b"\0\x08" + public.raw[2:], "expected an RSA or ECC key named by"),
            (public.raw[:2] + b"\0\x04" + public.raw[4:], "expected an RSA or ECC key named by"),
        ):
            with pytest.raises(Malformed, match=why):
                tpm_credential.parse_public(bad)
    with pytest.raises(Malformed, match="1025 bytes, at most 1024 allowed"):
        tpm_credential.parse_public(bytes(tpm_credential.MAX_PUBLIC + 1))
    for bad in ("dsa", ""):
        with pytest.raises(Malformed, match="expected rsa or secp256r1"):
            tpm2_credential.ek_template(bad)
    with pytest.raises(Malformed, match="expected a nonce of 16 bytes"):
        tpm2_credential.start_policy_session(b"short")
