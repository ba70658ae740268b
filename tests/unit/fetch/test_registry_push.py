"""Putting things into a real registry, and artifacts about others."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace

import pytest

from strongroom.errors import Malformed, Refused, Unavailable
from strongroom.fetch.oci import artifacts, names, push
from strongroom.fetch.oci.push import CHUNK, Pusher
from strongroom.fetch.oci.session import RegistrySession
from strongroom.images import artifact
from strongroom.images.limits import LIMITS
from strongroom_testing import registry_server
from strongroom_testing.vendors.vendor_services import Reply, of_type
from tests.unit.fetch import registries
from tests.unit.fetch.registries import access
from tests.unit.images import kit

pytestmark = registries.needs_registry
KIND = "application/vnd.example.thing"


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    with registries.served(tmp_path_factory.mktemp("served")) as made:
        yield made


@pytest.fixture
def one(kept):
    kept[0].heal()
    return kept[0]


def repository(one, name, tag="new"):
    return names.parse(f"{one.host}/{name}:{tag}")


def uploads(one):
    return [(asked.method, len(asked.body)) for asked in one.asked if "/uploads/" in asked.target]


def thing(data=b"what it says", subject=None, kind=KIND):
    part = artifact.part_of(data, "text/plain", title="it.txt")
    made = artifact.Artifact(artifact_type=kind, parts=(part,), subject=subject, annotations={"a": "b"})
    return made, {part.digest: data}


def test_an_image_that_is_pushed_is_one_for_skopeo(one, kept, tmp_path):
    made, _, here, _ = kept[2]
    manifest = (made.path / "blobs/sha256" / here["digest"][7:]).read_bytes()
    document = json.loads(manifest)
    pusher = Pusher(repository(one, "pushed/it"), access=access(one))
    for row in (document["config"], *document["layers"]):
        pusher.blob((made.path / "blobs/sha256" / row["digest"][7:]).read_bytes())
    assert pusher.manifest(manifest, kit.OCI_MANIFEST, tag="new") == here["digest"]
    command = ["skopeo", "copy", "-q", "--src-tls-verify=false", "--preserve-digests"]
    source = f"docker://{kept[1].host}/pushed/it@{here['digest']}"
    subprocess.run([*command, source, f"oci:{tmp_path / 'out'}:x"], check=True)
    with kit.loaded(tmp_path / "out", tmp_path, digest=here["digest"]) as found:
        assert found.digest == here["digest"]


def test_a_small_blob_goes_in_one_piece_and_once(one):
    pusher = Pusher(repository(one, "push/small"), access=access(one))
    data = os.urandom(1000)
    pusher.blob(data)
    assert uploads(one) == [("POST", 0), ("PUT", 1000)]
    pusher.blob(data)
    assert len(uploads(one)) == 2


def test_a_large_blob_goes_in_pieces(one, kept):
    data = os.urandom(CHUNK + 5)
    digest = Pusher(repository(one, "push/large"), access=access(one)).blob(data)
    assert uploads(one) == [("POST", 0), ("PATCH", CHUNK), ("PATCH", 5), ("PUT", 0)]
    assert kept[1].blob(digest).read_bytes() == data


def test_a_piece_that_breaks_off_is_sent_again(one, kept):
    left = [True]
    one.loses = lambda asked: asked.method == "PATCH" and len(asked.body) == 5 and bool(left and left.pop())
    data = os.urandom(CHUNK + 5)
    digest = Pusher(repository(one, "push/broken-off"), access=access(one)).blob(data)
    assert kept[1].blob(digest).read_bytes() == data
    assert uploads(one) == [("POST", 0), ("PATCH", CHUNK), ("PATCH", 5), ("GET", 0), ("PATCH", 5), ("PUT", 0)]


def test_a_piece_whose_answer_is_lost_starts_the_blob_over(one, kept):
    left = [True]

    def lose(asked, reply):
        return Reply(raw=()) if asked.method == "PATCH" and left and left.pop() else reply

    one.spoil("/uploads/", lose)
    data = os.urandom(CHUNK + 5)
    digest = Pusher(repository(one, "push/lost"), access=access(one)).blob(data)
    assert kept[1].blob(digest).read_bytes() == data
    # This registry forgets an upload whose state it is not told.
    assert [method for method, _ in uploads(one)] == ["POST", "PATCH", "GET", "POST", "PATCH", "PATCH", "PUT"]


def test_a_blob_of_another_repository_is_mounted(one):
    data = os.urandom(5000)
    Pusher(repository(one, "mount/from"), access=access(one)).blob(data)
    one.asked.clear()
    digest = Pusher(repository(one, "mount/to"), access=access(one)).blob(data, other="mount/from")
    assert uploads(one) == [("POST", 0)]
    assert Pusher(repository(one, "mount/to"), access=access(one))._has(digest)


def test_rule_55_an_upload_is_not_sent_elsewhere(one):
    one.spoil("/uploads/", lambda _, reply: reply.having("Location", "https://127.0.0.1:1/take-it"))
    with pytest.raises(Refused) as caught:
        Pusher(repository(one, "push/elsewhere"), access=access(one)).blob(b"secret of the trade")
    assert caught.value.code == "redirect"


def test_a_registry_that_keeps_something_else_is_found_out(one):
    one.spoil("/manifests/", lambda _, reply: reply.having("Docker-Content-Digest", "sha256:" + "0" * 64))
    made, contents = thing()
    with pytest.raises(Refused) as caught:
        registry_server.push_artifact(repository(one, "push/liar"), made, contents, access=access(one))
    assert caught.value.code == "wrong-digest"


def test_a_registry_that_stays_broken_is_given_up(one):
    one.spoil("/uploads/", lambda *_: Reply(status=500))
    with pytest.raises(Unavailable, match="HTTP 500, asks to come back"):
        Pusher(repository(one, "push/broken"), access=access(one)).blob(b"x")


def test_an_artifact_comes_back_by_digest_and_by_tag_never(one):
    made, contents = thing()
    where = repository(one, "things")
    digest = registry_server.push_artifact(where, made, contents, access=access(one))
    held = artifacts.pull(where.by(digest), access=access(one), max_bytes=100)
    assert (held.digest, held.contents, held.artifact.parts[0].title) == (
        digest,
        (b"what it says",),
        "it.txt",
    )
    assert held.artifact.artifact_type == KIND
    with pytest.raises(Refused) as caught:
        artifacts.pull(where, access=access(one), max_bytes=100)
    assert caught.value.code == "tag-refused"
    with pytest.raises(Malformed) as caught:
        artifacts.pull(where.by(digest), access=access(one), max_bytes=5)
    assert caught.value.code == "too-large"


@pytest.mark.parametrize("api", [False, True], ids=["fallback tag", "referrers API"])
def test_what_is_about_an_image_is_found_from_its_digest(one, kept, api):
    image = kept[2][1]
    subject = artifact.Part(media_type=artifact.INDEX, digest=image["digest"], size=image["size"])
    where = repository(one, "team/it", tag="x")
    where = replace(where, tag=None)
    listed = f"/v2/team/it/referrers/{image['digest']}"
    made, contents = thing(b"about it", subject, f"{KIND}.{'api' if api else 'tag'}")
    if api:
        # This registry has no such API: the front plays the part.
        own = artifact.part_of(made.encode(), artifact.MANIFEST)
        body = artifact.encode_list((artifact.ListedArtifact(part=own, artifact_type=made.artifact_type),))
        one.files[listed] = of_type(artifact.INDEX, body)
        one.spoil("/manifests/", lambda asked, reply: reply.having("OCI-Subject", image["digest"]))
    digest = registry_server.push_artifact(where, made, contents, access=access(one))
    found = artifacts.about(
        where.by(image["digest"]), kinds=(made.artifact_type,), access=access(one), max_bytes=100
    )
    assert [(held.digest, held.contents) for held in found] == [(digest, (b"about it",))]
    assert not artifacts.about(where.by(image["digest"]), kinds=("other",), access=access(one), max_bytes=100)
    tagged = [asked for asked in one.asked if "manifests/sha256-" in asked.target]
    assert bool(tagged) is not api
    one.files.clear()


def test_a_second_artifact_does_not_put_out_the_first(one):
    subject = artifact.part_of(b"some manifest", artifact.MANIFEST)
    where = replace(repository(one, "pair"), tag=None)
    for data in (b"first", b"second", b"second"):
        made, contents = thing(data, subject)
        registry_server.push_artifact(where, made, contents, access=access(one))
    found = artifacts.about(where.by(subject.digest), kinds=(KIND,), access=access(one), max_bytes=100)
    assert [held.contents[0] for held in found] == [b"first", b"second"]


def test_rule_30_an_artifact_about_another_image_is_left_out(one):
    mine, other = (artifact.part_of(data, artifact.MANIFEST) for data in (b"mine", b"other"))
    where = replace(repository(one, "swap"), tag=None)
    made, contents = thing(b"about the other", other)
    digest = registry_server.push_artifact(where, made, contents, access=access(one))
    own = artifact.Part(media_type=artifact.MANIFEST, digest=digest, size=len(made.encode()))
    pusher = Pusher(where, access=access(one))
    pusher.list_at_tag(mine.digest, artifact.ListedArtifact(part=own, artifact_type=KIND))
    assert artifacts.about(where.by(mine.digest), kinds=(KIND,), access=access(one), max_bytes=100) == ()


def test_what_is_about_it_is_bounded(one):
    rows = artifact.encode_list(
        tuple(
            artifact.ListedArtifact(
                part=artifact.part_of(str(n).encode(), artifact.MANIFEST), artifact_type=KIND
            )
            for n in range(33)
        )
    )
    digest = "sha256:" + "5" * 64
    one.files[f"/v2/team/it/referrers/{digest}"] = of_type(artifact.INDEX, rows)
    with pytest.raises(Refused) as caught:
        artifacts.about(
            repository(one, "team/it").by(digest), kinds=(KIND,), access=access(one), max_bytes=100
        )
    assert caught.value.code == "too-many"
    one.files.clear()


def test_a_list_in_pages_is_read_to_its_end_and_no_further(one):
    digest = "sha256:" + "4" * 64
    where = f"/v2/team/it/referrers/{digest}"

    def page(number, link):
        part = artifact.part_of(str(number).encode(), artifact.MANIFEST)
        rows = artifact.encode_list((artifact.ListedArtifact(part=part, artifact_type=KIND),))
        return of_type(artifact.INDEX, rows, *([("Link", f'<{link}>; rel="next"')] if link else []))

    session = RegistrySession(access(one), one.host, "team/it")
    one.files |= {where: page(1, "/more"), "/more": page(2, "/last"), "/last": page(3, "")}
    assert len(push.referrers(session, digest)) == 3
    one.files["/last"] = page(3, where)
    with pytest.raises(Refused) as caught:
        push.referrers(session, digest)
    assert caught.value.code == "too-many"
    one.files["/last"] = page(3, "https://127.0.0.1:1/elsewhere")
    with pytest.raises(Refused) as caught:
        push.referrers(session, digest)
    assert caught.value.code == "redirect"
    one.files["/last"] = Reply(status=500)
    with pytest.raises(Unavailable, match="/last: HTTP 500"):
        push.referrers(session, digest)
    one.files.clear()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"mediaType": kit.OCI_INDEX}, "expected a document of type application"),
        ({"manifests": []}, "expected a document of type application"),
        ({"schemaVersion": 1}, "expected schemaVersion 2"),
        ({"layers": {}}, r"it\.layers: expected a list of at most 128"),
        ({"layers": [{}] * 200}, r"it\.layers: expected a list of at most 128"),
        ({"config": None}, r"it\.config: expected an object"),
        ({"artifactType": 5}, r"it\.artifactType: expected a media type"),
        ({"annotations": {"a": 1}}, r"it\.annotations: expected texts"),
        (
            {"annotations": {str(n): "" for n in range(100)}},
            r"it\.annotations: expected an object of at most 64 texts",
        ),
        (
            {"subject": {"mediaType": "x", "digest": "md5:1", "size": 1}},
            r"it\.subject\.digest: expected 'sha256:'",
        ),
        (
            {"subject": {"mediaType": "x", "digest": "sha256:" + "1" * 64, "size": -1}},
            r"it\.subject\.size: expected a size in bytes",
        ),
        ({"subject": []}, r"it\.subject: expected an object"),
    ],
)
def test_what_is_no_artifact_is_malformed(change, why):
    document = json.loads(thing()[0].encode())
    with pytest.raises(Malformed, match=why):
        artifact.parse(json.dumps({**document, **change}).encode(), what="it", limits=LIMITS)


def test_without_an_artifact_type_the_configuration_tells():
    document = json.loads(thing()[0].encode())
    del document["artifactType"]
    made = artifact.parse(json.dumps(document).encode(), what="it", limits=LIMITS)
    assert made.artifact_type == artifact.EMPTY_TYPE


def test_referrers_of_another_type_are_no_list(one):
    digest = "sha256:" + "6" * 64
    one.files[f"/v2/team/it/referrers/{digest}"] = of_type("text/html", b"<html>")
    session = RegistrySession(access(one), one.host, "team/it")
    assert push.referrers(session, digest) == ()
    one.files.clear()
