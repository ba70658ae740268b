"""Signatures where cosign keeps them, in a real registry; and the verb."""

from __future__ import annotations

import base64
import json
import sys

import pytest

from strongroom.cli import main as entry
from strongroom.errors import Refused, Unavailable
from strongroom.fetch.oci import names, push, signed_images
from strongroom.images import artifact
from strongroom.images import signatures as image_signatures
from strongroom_testing import registry_server
from strongroom_testing.vendors.fake_sigstore import statement
from strongroom_testing.vendors.vendor_services import Reply
from tests.unit.fetch import registries
from tests.unit.fetch.registries import access
from tests.unit.images import signed_by as made_by

pytestmark = registries.needs_registry


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    with registries.served(tmp_path_factory.mktemp("served")) as made:
        yield made


@pytest.fixture
def one(kept):
    kept[0].heal()
    return kept[0]


def image(one, digest, repository):
    return names.parse(f"{one.host}/{repository}@{digest}")


def attach_simple(one, reference, *signatures):
    """As `cosign sign` does: one manifest at the tag, with the configuration of an image."""
    pusher = push.Pusher(reference, access=access(one))
    config = b'{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":[]},"config":{}}'
    rows = []
    for signed in signatures:
        digest = pusher.blob(signed.payload)
        text = base64.b64encode(signed.signature).decode()
        rows.append(
            {
                "mediaType": image_signatures.SIMPLE_TYPE,
                "digest": digest,
                "size": len(signed.payload),
                "annotations": {signed_images.SIGNATURE: text},
            }
        )
    kind = "application/vnd.oci.image.config.v1+json"
    described = {"mediaType": kind, "digest": pusher.blob(config), "size": len(config)}
    document = {"schemaVersion": 2, "mediaType": artifact.MANIFEST, "config": described, "layers": rows}
    tag = reference.digest.replace(":", "-") + ".sig"
    pusher.manifest(json.dumps(document).encode(), artifact.MANIFEST, tag=tag)


def attach_bundle(one, reference, bundle):
    part = artifact.part_of(bundle.data, image_signatures.BUNDLE_TYPE)
    subject = artifact.Part(media_type=artifact.INDEX, digest=reference.digest, size=1)
    made = artifact.Artifact(artifact_type=image_signatures.BUNDLE_TYPE, parts=(part,), subject=subject)
    registry_server.push_artifact(reference, made, {part.digest: bundle.data}, access=access(one))


def bundle_of(payload):
    return made_by.keyed(data=payload)


KEY = made_by.trust("ECDSA P-256")


def test_a_signature_at_cosign_s_tag_is_found(one):
    where = image(one, made_by.MINE, "signed/simple")
    attach_simple(one, where, made_by.simple(number=1), made_by.simple())
    signed = signed_images.require(where, (made_by.MINE,), trust=KEY, access=access(one))
    assert signed.form == "simple signing"


def test_a_bundle_among_the_referrers_is_found(one):
    where = image(one, made_by.MINE, "signed/bundle")
    attach_bundle(one, where, bundle_of(statement(made_by.MINE)))
    assert signed_images.require(where, (made_by.MINE,), trust=KEY, access=access(one)).form == "bundle"
    attach_bundle(one, where, made_by.keyless())
    found = signed_images.require(where, (made_by.MINE,), trust=made_by.who(), access=access(one))
    assert found.form == "keyless bundle"


def test_a_signature_of_the_index_serves_its_image(one):
    where = image(one, made_by.MINE, "signed/index")
    attach_simple(one, where, made_by.simple())
    both = (made_by.OTHER, made_by.MINE)
    assert signed_images.require(where, both, trust=KEY, access=access(one)).digest == made_by.MINE


def test_rule_30_another_image_s_signature_at_this_one_s_tag_is_refused(one):
    where = image(one, made_by.MINE, "signed/swapped")
    attach_simple(one, where, made_by.simple(digest=made_by.OTHER))
    attach_bundle(one, where, bundle_of(statement(made_by.OTHER)))
    with pytest.raises(Refused, match="another image"):
        signed_images.require(where, (made_by.MINE,), trust=KEY, access=access(one))


def test_an_attestation_is_no_signature(one):
    where = image(one, made_by.MINE, "signed/attested")
    attach_bundle(
        one, where, bundle_of(statement(made_by.MINE, predicate_type="https://slsa.dev/provenance/v1"))
    )
    with pytest.raises(Refused, match="no signature"):
        signed_images.require(where, (made_by.MINE,), trust=KEY, access=access(one))


def test_an_image_that_nobody_signed_is_refused(one):
    where = image(one, made_by.MINE, "signed/nothing")
    with pytest.raises(Refused, match="no signature at all"):
        signed_images.require(where, (made_by.MINE,), trust=KEY, access=access(one))


def test_rubbish_at_the_tag_does_not_hide_a_bundle(one):
    where = image(one, made_by.MINE, "signed/rubbish")
    attach_bundle(one, where, bundle_of(statement(made_by.MINE)))
    one.spoil(".sig", lambda *_: Reply(body=b"rubbish", headers=(("Content-Type", artifact.MANIFEST),)))
    assert signed_images.require(where, (made_by.MINE,), trust=KEY, access=access(one))


def test_a_registry_that_is_away_signs_nothing(one):
    one.spoil("/v2/", lambda *_: Reply(status=500))
    with pytest.raises(Unavailable, match=r"\.sig: HTTP 500"):
        signed_images.require(image(one, made_by.MINE, "x"), (made_by.MINE,), trust=KEY, access=access(one))


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["strongroom", "image", "verify", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        entry.main()
    told = capsys.readouterr()
    return left.value.code, told.out + told.err


@pytest.fixture
def files(tmp_path):
    """Key, payload, signature, bundle and trusted root as files."""
    signed = made_by.simple()
    for name, data in {
        "key.pem": made_by.public_pem(made_by.private("ECDSA P-256", 0)),
        "payload.json": signed.payload,
        "payload.sig": base64.b64encode(signed.signature) + b"\n",
        "bundle.json": made_by.keyless().data,
        "root.json": json.dumps(made_by.sigstore().trusted_root()).encode(),
    }.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_the_verb_asks_a_registry(one, files, monkeypatch, capsys):
    where = image(one, made_by.MINE, "signed/verb")
    attach_simple(one, where, made_by.simple())
    options = ("--key", files / "key.pem", "--registry-ca", one.ca)
    code, told = run(monkeypatch, capsys, where, *options, "--json")
    assert (code, json.loads(told)["digest"]) == (0, made_by.MINE)
    code, told = run(monkeypatch, capsys, image(one, made_by.OTHER, "signed/verb"), *options)
    assert (code, "image-not-signed" in told) == (3, True)
    tagged = str(where).replace(f"@{made_by.MINE}", ":latest")
    assert run(monkeypatch, capsys, tagged, *options)[0] == 3


def test_the_verb_judges_files_and_asks_nobody(files, monkeypatch, capsys):
    simple = (
        "--key",
        files / "key.pem",
        "--payload",
        files / "payload.json",
        "--signature",
        files / "payload.sig",
    )
    assert run(monkeypatch, capsys, made_by.MINE, *simple)[0] == 0
    assert run(monkeypatch, capsys, made_by.OTHER, *simple)[0] == 3
    who = ("--identity", made_by.IDENTITY, "--issuer", made_by.ISSUER, "--trusted-root", files / "root.json")
    keyless = ("--bundle", files / "bundle.json")
    assert run(monkeypatch, capsys, made_by.MINE, *who, *keyless)[0] == 0
    assert run(monkeypatch, capsys, made_by.OTHER, *who, *keyless)[0] == 3
    for half in (who[:2], who[2:], who[:4], (*who, "--key", files / "key.pem"), ()):
        code, told = run(monkeypatch, capsys, made_by.MINE, *half, *keyless)
        assert (code, "half-an-identity" in told) == (2, True)
    assert run(monkeypatch, capsys, made_by.MINE, *who)[0] == 2
    assert run(monkeypatch, capsys, made_by.MINE, *simple[:4])[0] == 2


def test_rule_51_credentials_come_by_file_or_descriptor(one, files, monkeypatch, capsys):
    where = image(one, made_by.MINE, "signed/verb")
    attach_simple(one, where, made_by.simple())
    login = files / "login"
    login.write_text("me:hush")
    options = ("--key", files / "key.pem", "--registry-ca", one.ca)
    with login.open("rb") as opened:
        assert run(monkeypatch, capsys, where, *options, "--credentials-fd", opened.fileno())[0] == 0
    assert run(monkeypatch, capsys, where, *options, "--credentials-fd", 9999)[0] == 2
    config = files / "config.json"
    config.write_text(json.dumps({"auths": {one.host: {"auth": base64.b64encode(b"me:hush").decode()}}}))
    code, told = run(monkeypatch, capsys, where, *options, "--credentials", config)
    assert (code, "hush" in told) == (0, False)


def convert(monkeypatch, capsys, folder, *words):
    from strongroom.model import identity

    if not (folder / "bob.identity").exists():
        made = identity.lock(identity.generate("bob"), b"x", random=lambda count: b"\x01" * count)
        (folder / "bob.identity").write_bytes(made)
    monkeypatch.setenv("STRONGROOM_PASSPHRASE", "x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    options = ["--name", "it", "--out", folder / "out", "-i", folder / "bob.identity", "--json"]
    monkeypatch.setattr(sys, "argv", ["strongroom", "convert", *map(str, [*words, *options])])
    with pytest.raises(SystemExit) as left:
        entry.main()
    told = capsys.readouterr()
    return left.value.code or 0, told.out + told.err


def test_rule_30_convert_takes_nothing_that_those_who_must_did_not_sign(
    one, kept, files, monkeypatch, capsys
):
    index = kept[2][1]["digest"]
    where = image(one, index, "team/it")
    demand = ("--signed-by", files / "key.pem", "--registry-ca", one.ca)
    code, told = convert(monkeypatch, capsys, files, where, *demand)
    assert (code, "image-not-signed" in told) == (3, True)
    assert not [asked for asked in one.asked if "/blobs/" in asked.target]  # nothing of it was fetched
    attach_simple(one, where, made_by.simple(digest=index))
    code, told = convert(monkeypatch, capsys, files, where, *demand)
    assert code == 0, told
    assert json.loads(told)["source"]["index"] == index


def test_a_demand_that_cannot_be_met_is_no_silent_pass(one, kept, files, monkeypatch, capsys):
    demand = ("--signed-by", files / "key.pem")
    for what in (kept[2][0].path, files / "compose.yaml", "image.tar"):
        code, told = convert(monkeypatch, capsys, files, what, *demand)
        assert (code, "no-signature-here" in told) == (2, True)
    where = image(one, kept[2][1]["digest"], "team/it")
    assert convert(monkeypatch, capsys, files, where, *demand, "--digest", made_by.OTHER)[0] == 2
    code, told = convert(monkeypatch, capsys, files, where, "--signer-identity", "me")
    assert (code, "half-an-identity" in told) == (2, True)
