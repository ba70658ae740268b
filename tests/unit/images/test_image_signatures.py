"""Signatures of images, as cosign makes them: by keys and by identities, each check refusing."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from strongroom.crypto import pinned_key
from strongroom.errors import Malformed, Misuse, Refused
from strongroom.images import keyless as image_keyless
from strongroom.images import signatures
from strongroom.images.signatures import Bundle, Simple, Trust
from strongroom_testing.vendors.fake_sigstore import IDENTITY, ISSUER, statement
from tests.unit.images.signed_by import (
    CURVES,
    MINE,
    NOW,
    OTHER,
    keyed,
    keyless,
    payload,
    private,
    public_pem,
    sign,
    sigstore,
    simple,
    trust,
    who,
)

KINDS = (*CURVES, "Ed25519", "RSA 2048")


@pytest.mark.parametrize("kind", KINDS)
def test_simple_signing_by_a_pinned_key(kind):
    made = signatures.verify([MINE], [simple(kind)], trust=trust(kind))
    assert (made.digest, made.form) == (MINE, "simple signing")
    assert made.by.startswith("key sha256:")


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_by_a_pinned_key(kind):
    assert signatures.verify([MINE], [keyed(kind)], trust=trust(kind)).form == "bundle"


def refused(candidates, digests=(MINE,), who=None):
    with pytest.raises(Refused) as caught:
        signatures.verify(list(digests), candidates, trust=who or trust("ECDSA P-256"))
    assert caught.value.code == "image-not-signed"
    return caught.value.message


def test_rule_30_a_signature_for_a_is_not_accepted_for_b():
    assert "another image" in refused([simple(digest=OTHER)])
    assert "another image" in refused([keyed(data=statement(OTHER))])
    assert "another image" in refused([simple(), keyed()], digests=(OTHER,))


def test_rule_30_only_the_pinned_key_counts():
    assert "none of the keys" in refused([simple(number=1)])
    assert "none of the keys" in refused([simple("Ed25519")])
    assert "none of the keys" in refused([keyed("RSA 2048")])


def test_any_of_several_pinned_keys_counts():
    both = Trust(keys=(*trust("Ed25519").keys, *trust("ECDSA P-256").keys))
    made = signatures.verify([MINE], [simple()], trust=both)
    assert made.by == f"key {both.keys[1].digest}"


def test_rubbish_beside_a_good_signature_does_not_hide_it():
    rubbish = [Simple(payload=b"{", signature=b""), Bundle(data=b"\xff"), simple(number=1)]
    assert signatures.verify([MINE], [*rubbish, simple()], trust=trust("ECDSA P-256"))


def test_an_image_without_any_signature_is_refused():
    assert "no signature at all" in refused([])


def test_nobody_trusted_is_a_misuse():
    with pytest.raises(Misuse, match="nobody is trusted"):
        signatures.verify([MINE], [simple()], trust=Trust())
    with pytest.raises(Misuse, match="expected digests"):
        signatures.verify([], [simple()], trust=trust("ECDSA P-256"))
    with pytest.raises(Misuse, match="expected digests"):
        signatures.verify(["latest"], [simple()], trust=trust("ECDSA P-256"))


def test_every_changed_byte_of_a_payload_or_its_signature_is_refused():
    good = simple()
    for number in range(len(good.payload)):
        data = bytearray(good.payload)
        data[number] ^= 1
        refused([Simple(payload=bytes(data), signature=good.signature)])
    for number in range(len(good.signature)):
        data = bytearray(good.signature)
        data[number] ^= 1
        refused([Simple(payload=good.payload, signature=bytes(data))])


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "atomic container signature"},
        {"image": {"docker-manifest-digest": MINE, "other": MINE}},
        {"image": {"Docker-manifest-digest": MINE}},
        {"image": {"docker-manifest-digest": MINE.upper()}},
        {"image": {"docker-manifest-digest": [MINE]}},
        {"more": 1},
        {"identity": None},
    ],
)
def test_a_payload_of_another_shape_is_refused_though_signed(changes):
    refused([simple(**changes)])


def test_rule_16_a_payload_with_two_digests_is_refused_though_signed():
    data = payload().replace(b'"type"', b'"image": {"docker-manifest-digest": "%s"}, "type"' % OTHER.encode())
    refused([Simple(payload=data, signature=sign("ECDSA P-256", data))])


@pytest.mark.parametrize(
    "data",
    [
        statement(MINE, predicate_type="https://slsa.dev/provenance/v1"),
        statement(MINE, subjects=2),
        statement(MINE, subjects=0),
        statement(MINE).replace(b"Statement/v1", b"Statement/v0.1"),
        statement(MINE).replace(b'"sha256"', b'"sha512"'),
        statement(MINE).replace(b'"sha256":', b'"sha512":"","sha256":'),
        b"[]",
        b"{}",
        b"not json",
    ],
)
def test_rule_30_a_signed_statement_that_is_no_signature_of_an_image_is_refused(data):
    refused([keyed(data=data)])


@pytest.mark.parametrize(
    "change",
    [
        lambda made: made.update(mediaType="application/vnd.dev.sigstore.bundle+json;version=0.1"),
        lambda made: made["dsseEnvelope"].update(payloadType="text/plain"),
        lambda made: made["dsseEnvelope"].update(signatures=[]),
        lambda made: made["dsseEnvelope"].update(signatures=[{}] * 20),
        lambda made: made["dsseEnvelope"].update(payload="?"),
        lambda made: made["dsseEnvelope"].update(payload=5),
        lambda made: made.pop("dsseEnvelope"),
        lambda made: made.pop("verificationMaterial"),
        lambda made: made.update(verificationMaterial=[]),
    ],
)
def test_a_bundle_of_another_shape_is_refused(change):
    made = json.loads(keyed().data)
    change(made)
    refused([Bundle(data=json.dumps(made).encode())])


def test_what_is_too_large_is_refused():
    refused([Bundle(data=b"{" + b" " * signatures.MAX_BYTES + b"}")])


@pytest.mark.parametrize(
    "key",
    [
        lambda: public_pem(ec.generate_private_key(ec.SECP256K1())),
        lambda: public_pem(rsa.generate_private_key(public_exponent=65537, key_size=1024)),  # noqa: S505 - that is the point
        lambda: b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        lambda: public_pem(private("Ed25519")) + public_pem(private("Ed25519")),
        lambda: b"",
    ],
)
def test_keys_of_other_kinds_are_not_pinned(key):
    with pytest.raises((Malformed, ValueError)) as caught:
        pinned_key.load(key())
    assert isinstance(caught.value, Malformed)


# Keyless.


def test_a_keyless_bundle_by_the_pinned_identity():
    made = signatures.verify([MINE], [keyless()], trust=who())
    assert (made.form, made.by) == ("keyless bundle", f"{IDENTITY}, says {ISSUER}")
    mail = keyless(identity="ann@example.org")
    assert signatures.verify([MINE], [mail], trust=who(name="ann@example.org"))


def test_rule_30_identity_and_issuer_are_both_pinned():
    assert "SAN" in refused([keyless()], who=who(name=IDENTITY.replace("main", "fork")))
    assert refused([keyless()], who=who(name=IDENTITY[:-1]))
    assert refused([keyless()], who=who(name="https://github.example/team/it/*"))
    assert refused([keyless()], who=who(issuer="https://accounts.example"))
    assert refused([keyless(issuer="https://accounts.example")], who=who())
    for half in ({"name": ""}, {"issuer": ""}):
        with pytest.raises(Misuse) as caught:
            who(**half)
        assert caught.value.code == "half-an-identity"


def test_rule_30_a_keyless_signature_for_a_is_not_accepted_for_b():
    assert "another image" in refused([keyless()], digests=(OTHER,), who=who())
    other = Bundle(data=json.dumps(sigstore().sign(statement(OTHER))).encode())
    assert "another image" in refused([other], who=who())


@pytest.mark.parametrize("part", ["ca", "ct", "rekor"])
def test_rule_30_another_instance_s_authority_or_logs_count_for_nothing(part):
    root = sigstore().trusted_root(**{part: sigstore(1)})
    refused([keyless()], who=who(root=root))


@pytest.mark.parametrize("part", ["certificateAuthorities", "ctlogs", "tlogs"])
def test_rule_30_a_trusted_root_without_a_part_trusts_nothing(part):
    root = sigstore().trusted_root()
    root[part] = []
    refused([keyless()], who=who(root=root))


def entry(made):
    return made["verificationMaterial"]["tlogEntries"][0]


def flip(text):
    data = bytearray(base64.b64decode(text))
    data[len(data) // 2] ^= 1
    return base64.b64encode(bytes(data)).decode()


def changed(*keys):
    def change(made):
        inner = made
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = flip(inner[keys[-1]])

    return change


LOG = ("verificationMaterial", "tlogEntries", 0)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(changed(*LOG, "inclusionPromise", "signedEntryTimestamp"), id="promise (SET)"),
        pytest.param(changed(*LOG, "inclusionProof", "rootHash"), id="root"),
        pytest.param(changed(*LOG, "inclusionProof", "hashes", 0), id="proof"),
        pytest.param(changed(*LOG, "canonicalizedBody"), id="body"),
        pytest.param(changed("dsseEnvelope", "payload"), id="payload"),
        pytest.param(changed("dsseEnvelope", "signatures", 0, "sig"), id="signature"),
        pytest.param(changed("verificationMaterial", "certificate", "rawBytes"), id="certificate"),
        pytest.param(lambda made: entry(made).update(integratedTime="1793534500"), id="time"),
        pytest.param(lambda made: entry(made).update(logIndex="1"), id="index"),
        pytest.param(lambda made: entry(made)["inclusionProof"].update(logIndex="1"), id="proof's index"),
        pytest.param(lambda made: entry(made)["inclusionProof"].update(treeSize="3"), id="size"),
        pytest.param(lambda made: entry(made)["inclusionProof"].update(hashes=[]), id="no hashes"),
        pytest.param(lambda made: entry(made).pop("inclusionProof"), id="no proof"),
        pytest.param(lambda made: entry(made).pop("inclusionPromise"), id="no promise, no time"),
        pytest.param(lambda made: entry(made)["inclusionProof"].pop("checkpoint"), id="no checkpoint"),
        pytest.param(
            lambda made: entry(made)["inclusionProof"]["checkpoint"].update(
                envelope=entry(made)["inclusionProof"]["checkpoint"]["envelope"].replace("\n5\n", "\n6\n")
            ),
            id="checkpoint",
        ),
        pytest.param(lambda made: made["verificationMaterial"].update(tlogEntries=[]), id="no entry"),
        pytest.param(lambda made: made["verificationMaterial"].pop("certificate"), id="no certificate"),
    ],
)
def test_rule_30_inclusion_and_its_promise_are_verified_offline(change):
    refused([keyless(change)], who=who())


def test_rule_30_the_log_s_entry_of_another_signature_does_not_serve():
    other = sigstore().sign(statement(OTHER))
    refused(
        [keyless(lambda made: made["verificationMaterial"].update(tlogEntries=[entry(other)]))], who=who()
    )


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"with_sct": False}, id="no certificate timestamp"),
        pytest.param({"logged": NOW + timedelta(hours=2)}, id="logged after the certificate's end"),
        pytest.param({"logged": NOW - timedelta(hours=2)}, id="logged before its beginning"),
        pytest.param({"purpose": ExtendedKeyUsageOID.SERVER_AUTH}, id="a certificate for servers"),
    ],
)
def test_certificates_that_may_not_sign_are_refused(options):
    refused([keyless(**options)], who=who())


def test_keys_alone_do_not_trust_certificates_nor_the_other_way_round():
    assert "you trust keys alone" in refused([keyless()])
    assert "none of the keys" in refused([keyed()], who=who())


def test_a_trusted_root_that_is_none_is_malformed():
    for data, why in (
        (b"", "not JSON"),
        (b"{}", "ValidationError"),
        (b"[]", "ValidationError"),
        (b'{"mediaType": "x"}', "ValidationError"),
        (b'{"a": 1, "a": 2}', "duplicate key 'a'"),
    ):
        identity = image_keyless.KeylessIdentity(name="a", issuer="b", trusted_root=data)
        with pytest.raises(Malformed, match=why):
            image_keyless.verify(keyless().data, identity=identity, payload_type="x")


def test_sigstore_s_own_trusted_root_loads_and_does_not_know_our_authority():
    import sigstore as library

    store = Path(library.__file__).parent / "_store"
    (file,) = [one for one in store.rglob("trusted_root.json") if "sigstore.dev" in str(one)]
    refused([keyless()], who=who(root=json.loads(file.read_bytes())))


def test_the_library_is_loaded_for_keyless_signatures_alone():
    program = (
        "import sys, strongroom.images.signatures, strongroom.fetch.oci.signed_images;"
        "sys.exit('sigstore' in sys.modules or 'requests' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
