"""What a registry, or whoever may write into it, can make a client fetch, hold and knock at."""

from __future__ import annotations

import pytest

from strongroom.errors import Malformed, Refused
from strongroom.fetch.http import addresses, streaming
from strongroom.fetch.http.client import Client
from strongroom.fetch.oci import artifacts, pull
from strongroom.fetch.oci import session as registry_session
from strongroom.fetch.oci.session import Access
from strongroom.images import signatures
from strongroom_testing.registry_front import front
from tests.unit.fetch.registries import AMD64, access
from tests.unit.fetch.registry_documents import INDEX, MANIFEST, index_of, named, serve
from tests.unit.images import kit


@pytest.fixture
def one(tmp_path):
    with front(tmp_path / "front") as made:
        yield made


def test_rule_59_indexes_within_indexes_are_bounded_together(one, tmp_path):
    """A thousand indexes, each of which names a thousand: a million documents, of 4 MiB each."""
    inner = [serve(one, index_of([], annotations={"n": str(n)}), INDEX) for n in range(40)]
    middle = [
        serve(one, index_of(inner * 25, annotations={"pad": str(n) * 200_000}), INDEX) for n in range(8)
    ]
    top = serve(one, index_of(middle * 100), INDEX)
    with pytest.raises(Refused, match="too many or too large documents") as caught:
        pull.pull(named(one, top["digest"]), platform=AMD64, into=tmp_path / "x", access=access(one))
    assert caught.value.code == "too-large"
    assert len(one.asked) < 100


def test_rule_59_files_of_artifacts_are_bounded_together(one):
    """A signature's artifact of 128 files of half a MiB each, 32 of them: 2 GiB to hold before one is judged."""
    subject = {"mediaType": MANIFEST, "digest": kit.sha256(b"image"), "size": 1}
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": kit.sha256(b"{}"), "size": 2}
    size = signatures.MAX_BYTES
    part = serve(one, b"x" * size, signatures.BUNDLE_TYPE, kept="blobs")
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": signatures.BUNDLE_TYPE}
    document |= {"config": config, "layers": [part] * 128, "subject": subject}
    large = serve(one, document, MANIFEST)
    listed = index_of([{**large, "artifactType": signatures.BUNDLE_TYPE}])
    serve(one, listed, INDEX, kept="referrers", name=subject["digest"])
    where = named(one, subject["digest"])
    kinds = (signatures.BUNDLE_TYPE,)
    assert artifacts.about(where, kinds=kinds, access=access(one), max_bytes=size) == ()
    with pytest.raises(Malformed, match="at most"):
        artifacts.pull(named(one, large["digest"]), access=access(one), max_bytes=size)
    assert not any("/blobs/" in asked.target for asked in one.asked)


def test_artifacts_about_something_else_are_not_fetched(one):
    """A list is the registry's word; the artifact's own manifest says what it is about, before its files come."""
    part = serve(one, b"x", signatures.BUNDLE_TYPE, kept="blobs")
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": signatures.BUNDLE_TYPE}
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": kit.sha256(b"{}"), "size": 2}
    other = {"mediaType": MANIFEST, "digest": kit.sha256(b"other"), "size": 1}
    made = serve(one, document | {"config": config, "layers": [part], "subject": other}, MANIFEST)
    digest = kit.sha256(b"image")
    listed = index_of([{**made, "artifactType": signatures.BUNDLE_TYPE}])
    serve(one, listed, INDEX, kept="referrers", name=digest)
    kinds = (signatures.BUNDLE_TYPE,)
    assert artifacts.about(named(one, digest), kinds=kinds, access=access(one), max_bytes=1 << 19) == ()
    assert not any("/blobs/" in asked.target for asked in one.asked)


PUBLIC, PRIVATE = "8.8.8.8", "10.0.0.7"


@pytest.mark.parametrize("where", ["redirect", "tokens"])
@pytest.mark.parametrize("spoken_to", [PUBLIC, PRIVATE])
def test_rule_55_only_an_answer_out_of_a_private_network_leads_into_one(monkeypatch, where, spoken_to):
    """The registry's own name stands for a private address besides, or will at the next question: that is its owner's to say."""
    names = {"registry.example": (PUBLIC, PRIVATE), "internal.example": ("10.0.0.1",)}
    monkeypatch.setattr(
        addresses.socket,
        "getaddrinfo",
        lambda host, port, **_: [(2, 1, 6, "", (one, port)) for one in names[host]],
    )

    class Answer:
        address, url, status = spoken_to, "https://registry.example/v2/x", 307 if where == "redirect" else 401

        def header(self, name):
            return "https://internal.example/x" if name == "location" else ""

        def headers(self, _):
            return ('Bearer realm="https://internal.example/token"',)

    asked = []

    class Exchange:
        def __init__(self, _client, service, _request, *, ends):
            host, port = service.place()
            addresses.resolve(host, port, private=service.private)
            asked.append(host)
            if host == "internal.example":
                raise Refused("there", code="arrived")

        def __enter__(self):
            return Answer()

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(streaming, "exchange", Exchange)
    session = registry_session.RegistrySession(Access(client=Client(tries=1)), "registry.example", "team/it")
    with pytest.raises(Refused) as caught, session.ask("GET", session.url("/blobs/x"), blob=1):
        pass
    assert caught.value.code == ("forbidden-address" if spoken_to == PUBLIC else "arrived")
    assert ("internal.example" in asked) == (spoken_to == PRIVATE)
