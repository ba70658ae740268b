"""Pulling by digest from a real registry, through a front that does mischief."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from strongroom.errors import Malformed, Misuse, NotFound, Refused, Unavailable
from strongroom.fetch.http.client import Client
from strongroom.fetch.oci import names
from strongroom.fetch.oci import pull as registry
from strongroom.images import load
from strongroom.images.limits import LIMITS
from strongroom_testing.registry_front import cut, front
from strongroom_testing.vendors.vendor_services import Reply
from tests.unit.fetch import registries
from tests.unit.fetch.registries import AMD64, ARM64, access, name, pull
from tests.unit.images import kit

pytestmark = registries.needs_registry


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    with registries.served(tmp_path_factory.mktemp("served")) as made:
        yield made


@pytest.fixture
def one(kept):
    kept[0].heal()
    return kept[0]


@pytest.fixture
def index(kept):
    return kept[2][1]["digest"]


@pytest.fixture
def image_digest(kept):
    return kept[2][2]["digest"]


def layer(kept, number=-1):
    made, _, here, _ = kept[2]
    manifest = json.loads((made.path / "blobs/sha256" / here["digest"][7:]).read_bytes())
    return manifest["layers"][number]


def blobs_asked(one):
    return [asked for asked in one.asked if "/blobs/" in asked.target]


def test_an_image_is_pulled_by_its_digest_and_converts(one, index, image_digest, tmp_path):
    seen = []
    made = registry.pull(
        name(one.host, index),
        platform=AMD64,
        into=tmp_path / "cache",
        access=access(one),
        progress=lambda *told: seen.append(told),
    )
    assert (made.digest, made.index, made.notes) == (image_digest, index, ())
    assert seen[-1][0] == seen[-1][1] > 300_000
    assert made.fetched > 300_000
    with kit.loaded(made.layout, tmp_path, digest=made.digest) as found:
        assert found.digest == image_digest
        assert b"noise" in {entry.path for entry in found.entries}


def test_what_is_there_is_not_fetched_again(one, index, tmp_path):
    pull(one, index, tmp_path)
    before = len(blobs_asked(one))
    again = pull(one, index, tmp_path)
    assert len(blobs_asked(one)) == before
    assert again.fetched < 2000  # the index


def test_a_damaged_blob_is_fetched_anew(one, kept, index, tmp_path):
    pull(one, index, tmp_path)
    file = tmp_path / "blobs/sha256" / layer(kept)["digest"][7:]
    data = bytearray(file.read_bytes())
    data[1000] ^= 1
    file.write_bytes(data)
    one.asked.clear()
    assert pull(one, index, tmp_path).fetched > 300_000
    assert len(blobs_asked(one)) == 1
    with kit.loaded(tmp_path, tmp_path, digest=index):
        pass


def test_several_images_share_a_folder(one, kept, index, image_digest, tmp_path):
    there = kept[2][3]["digest"]
    pull(one, index, tmp_path)
    assert pull(one, index, tmp_path, platform=ARM64).digest == there
    pull(one, image_digest, tmp_path)
    with kit.loaded(tmp_path, tmp_path, digest=image_digest) as found:
        assert found.digest == image_digest
    named = json.loads((tmp_path / "index.json").read_bytes())["manifests"]
    assert [entry["digest"] for entry in named] == [index, image_digest]


def test_all_of_it_is_private(one, index, tmp_path):
    pull(one, index, tmp_path / "cache")
    modes = {path: path.stat().st_mode & 0o077 for path in (tmp_path / "cache").rglob("*")}
    assert set(modes.values()) == {0}


def test_rule_29_a_tag_is_shown_and_never_kept(one, index, tmp_path):
    tagged = names.parse(f"{one.host}/team/it:today")
    assert registry.resolve(tagged, access=access(one)).descriptor.digest == index
    with pytest.raises(Refused, match=index) as caught:
        registry.pull(tagged, platform=AMD64, into=tmp_path, access=access(one))
    assert caught.value.code == "tag-refused"
    assert not list(tmp_path.iterdir())
    missing = names.parse(f"{one.host}/team/it:tomorrow")
    with pytest.raises(Refused) as caught:
        registry.pull(missing, platform=AMD64, into=tmp_path, access=access(one))
    assert caught.value.code == "tag-refused"


def test_rule_29_an_index_and_its_image_are_told_apart(one, kept, index, image_digest, tmp_path):
    assert pull(one, index, tmp_path).index == index
    assert pull(one, image_digest, tmp_path).index is None
    assert pull(one, index, tmp_path, platform=ARM64).digest == kept[2][3]["digest"]
    from strongroom.images import oci

    with pytest.raises(NotFound, match="linux/riscv64"):
        pull(one, index, tmp_path, platform=oci.parse_platform("linux/riscv64"))


@pytest.mark.parametrize("what", ["index", "manifest", "blob"])
def test_rule_29_a_changed_byte_is_refused_whatever_it_is_in(one, kept, index, image_digest, tmp_path, what):
    digest = {"index": index, "manifest": image_digest, "blob": layer(kept)["digest"]}[what]

    def change(_, reply):
        middle = len(reply.body) // 2
        body = reply.body[:middle] + bytes([reply.body[middle] ^ 1]) + reply.body[middle + 1 :]
        return replace(reply, body=body)

    one.spoil(digest, change)
    with pytest.raises(Refused) as caught:
        pull(one, index, tmp_path)
    assert caught.value.code == "wrong-digest"
    assert not (tmp_path / "blobs/sha256" / digest[7:]).exists()
    assert not (tmp_path / "index.json").exists()


@pytest.mark.parametrize(
    "kind", ["text/html", "application/json", "application/vnd.oci.image.manifest.v1+json", ""]
)
def test_rule_29_another_media_type_is_refused(one, index, tmp_path, kind):
    one.spoil(f"manifests/{index}", lambda _, reply: reply.having("Content-Type", kind))
    with pytest.raises(Malformed) as caught:
        pull(one, index, tmp_path)
    assert caught.value.code == "bad-media-type"


def test_rule_29_a_manifest_that_its_index_calls_something_else_is_refused(
    one, image_digest, index, tmp_path
):
    docker = "application/vnd.docker.distribution.manifest.v2+json"
    one.spoil(f"manifests/{image_digest}", lambda _, reply: reply.having("Content-Type", docker))
    with pytest.raises(Malformed, match="its index says"):
        pull(one, index, tmp_path)


def test_a_blob_that_breaks_off_goes_on_from_there(one, kept, index, tmp_path):
    digest, size = layer(kept)["digest"], layer(kept)["size"]
    one.spoil(digest, lambda _, reply: cut(reply, 120_000))
    made = pull(one, index, tmp_path)
    ranges = [asked.header("range") for asked in one.asked if digest in asked.target]
    assert ranges == ["", "bytes=120000-", "bytes=240000-"]
    assert made.fetched < size + 10_000


def test_a_pull_that_was_interrupted_goes_on_where_it_stopped(one, kept, index, tmp_path):
    digest, size = layer(kept)["digest"], layer(kept)["size"]
    one.spoil(
        digest, lambda asked, reply: Reply(status=503) if asked.header("range") else cut(reply, 250_000)
    )
    with pytest.raises(Unavailable, match="HTTP 503"):
        pull(one, index, tmp_path)
    assert (tmp_path / "partial" / digest[7:]).stat().st_size == 250_000
    one.heal()
    made = pull(one, index, tmp_path)
    assert one.asked[-1].header("range") == "bytes=250000-"
    assert made.fetched < size - 250_000 + 2000
    assert not (tmp_path / "partial" / digest[7:]).exists()


def test_a_pull_that_was_killed_goes_on_where_it_stopped(one, kept, index, tmp_path):
    digest = layer(kept)["digest"]
    whole = (kept[2][0].path / "blobs/sha256" / digest[7:]).read_bytes()
    killed = threading.Event()

    def stall():
        yield b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(whole)
        yield whole[:150_000]
        killed.wait(60)

    one.spoil(digest, lambda *_: Reply(raw=stall()))
    program = (
        "import sys; from pathlib import Path; from strongroom.images import oci; from strongroom.fetch.oci import pull as registry,"
        " names as registry_names; from strongroom.fetch.oci.session import Access;"
        "registry.pull(registry_names.parse(sys.argv[1]), platform=oci.parse_platform('linux/amd64'),"
        " into=Path(sys.argv[2]), access=Access(ca=Path(sys.argv[3])))"
    )
    words = [str(name(one.host, index)), str(tmp_path / "cache"), str(one.ca)]
    partial = tmp_path / "cache" / "partial" / digest[7:]
    with subprocess.Popen([sys.executable, "-c", program, *words]) as child:
        ends = time.monotonic() + 60
        while not (partial.exists() and partial.stat().st_size == 150_000) and time.monotonic() < ends:
            time.sleep(0.02)
        child.kill()
    killed.set()
    one.heal()
    pull(one, index, tmp_path / "cache")
    assert one.asked[-1].header("range") == "bytes=150000-"


def test_a_poisoned_beginning_is_thrown_away(one, kept, index, tmp_path):
    digest = layer(kept)["digest"]
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / digest[7:]).write_bytes(bytes(200_000))
    pull(one, index, tmp_path)
    ranges = [asked.header("range") for asked in one.asked if digest in asked.target]
    assert ranges == ["bytes=200000-", ""]


@pytest.mark.parametrize(
    "told", ["bytes 0-9/10", "bytes 200000-5/6", "", "bytes 200000-300001/*", "pages 1-2/3"]
)
def test_a_range_that_is_another_one_is_not_taken(one, kept, index, tmp_path, told):
    digest = layer(kept)["digest"]
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / digest[7:]).write_bytes(bytes(200_000))

    def lie(asked, reply):
        return reply.having("Content-Range", told) if asked.header("range") else reply

    one.spoil(digest, lie)
    pull(one, index, tmp_path)
    with kit.loaded(tmp_path, tmp_path, digest=index):
        pass


def test_a_server_that_knows_no_ranges_starts_over(one, kept, index, tmp_path):
    digest = layer(kept)["digest"]
    whole = (kept[2][0].path / "blobs/sha256" / digest[7:]).read_bytes()
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / digest[7:]).write_bytes(whole[:1000])
    one.spoil(digest, lambda _, reply: Reply(body=whole))
    assert pull(one, index, tmp_path).fetched > len(whole)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_registry_is_asked_again_after_what_it_says(one, index, tmp_path, status):
    left = [0, 1]

    def busy(_, reply):
        return (
            Reply(status=status, headers=(("Retry-After", "3"),))
            if left and left.pop() is not None
            else reply
        )

    one.spoil("/manifests/", busy)
    waits = []
    pull(one, index, tmp_path, waits=waits)
    assert waits == [3, 3]


def test_a_registry_that_stays_busy_is_given_up(one, index, tmp_path):
    one.spoil("/manifests/", lambda *_: Reply(status=429, headers=(("Retry-After", "1"),)))
    with pytest.raises(Unavailable) as caught:
        pull(one, index, tmp_path)
    assert caught.value.code == "registry-busy"
    assert len(one.asked) == 3
    one.heal()
    one.spoil("/manifests/", lambda *_: Reply(status=503, headers=(("Retry-After", "86400"),)))
    waits = []
    with pytest.raises(Unavailable, match="HTTP 503, asks to come back in 86400 s"):
        pull(one, index, tmp_path, waits=waits)
    assert (len(one.asked), waits) == (1, [])


def test_rule_59_a_blob_never_grows_past_its_size(one, kept, index, tmp_path):
    digest, size = layer(kept)["digest"], layer(kept)["size"]

    def endless():
        yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        while True:
            yield b"10000\r\n" + bytes(0x10000) + b"\r\n"

    one.spoil(digest, lambda *_: Reply(raw=endless()))
    with pytest.raises(Refused) as caught:
        pull(one, index, tmp_path)
    assert caught.value.code == "wrong-size"
    assert not (tmp_path / "partial" / digest[7:]).exists()
    assert size < 400_000


def test_rule_59_a_document_is_bounded(one, index, tmp_path):
    def huge():
        yield b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.index.v1+json\r\n"
        yield b"Content-Length: 99999999999\r\n\r\n"
        yield bytes(1000)

    one.spoil("/manifests/", lambda *_: Reply(raw=huge()))
    with pytest.raises(Malformed) as caught:
        pull(one, index, tmp_path)
    assert caught.value.code == "too-large"


def test_rule_59_layers_that_are_too_much_together_are_not_begun(one, index, tmp_path):
    with pytest.raises(Refused) as caught:
        pull(one, index, tmp_path, limits=replace(LIMITS, total_bytes=100_000))
    assert caught.value.code == "too-large"
    assert not blobs_asked(one)


def test_rule_59_a_trickle_meets_its_end(one, index, tmp_path):
    def trickle():
        yield b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.index.v1+json\r\n"
        yield b"Content-Length: 1000\r\n\r\n"
        while True:
            time.sleep(0.05)
            yield b" "

    one.spoil("/manifests/", lambda *_: Reply(raw=trickle()))
    client = Client(read_seconds=1, total_seconds=0.6, tries=1, sleep=lambda _: None)
    with pytest.raises(Unavailable, match="cut off"):
        pull(one, index, tmp_path, client=client)


def test_what_is_not_there_is_said_to_be(one, tmp_path):
    with pytest.raises(NotFound, match=r"sha256:1{64}: not there"):
        pull(one, "sha256:" + "1" * 64, tmp_path)


def test_rule_55_an_unknown_certificate_is_not_spoken_to(one, index, tmp_path):
    with pytest.raises(Unavailable, match="CERTIFICATE"):
        registry.pull(
            name(one.host, index), platform=AMD64, into=tmp_path, access=replace(access(one), ca=None)
        )


def test_rule_55_plain_http_is_for_loopback_and_by_name(kept, index, tmp_path):
    _, real, _ = kept
    plain = replace(access(kept[0]), ca=None)
    with pytest.raises(Unavailable, match="WRONG_VERSION_NUMBER"):
        registry.pull(name(real.host, index), platform=AMD64, into=tmp_path, access=plain)
    allowed = replace(plain, plain_http_to_loopback=True)
    assert registry.pull(name(real.host, index), platform=AMD64, into=tmp_path, access=allowed).index == index
    from strongroom.fetch.oci.session import RegistrySession

    assert RegistrySession(allowed, "192.0.2.1:5000", "x").base.startswith("https:")
    assert RegistrySession(allowed, "localhost:5000", "x").base.startswith("https:")
    assert RegistrySession(allowed, "[::1]:5000", "x").base.startswith("http:")


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[fd00:ec2::254]", "100.100.100.200", "[::ffff:169.254.169.254]"]
)
def test_rule_55_metadata_addresses_are_no_registries(one, index, tmp_path, host):
    with pytest.raises(Refused) as caught:
        registry.pull(name(f"{host}:443", index), platform=AMD64, into=tmp_path, access=access(one))
    assert caught.value.code == "forbidden-address"
    named = replace(access(one), mirrors=(f"{host}:443",))
    made = registry.pull(name(one.host, index), platform=AMD64, into=tmp_path, access=named)
    assert "forbidden" in made.notes[0] or "no address" in made.notes[0]


def test_rule_55_a_manifest_is_not_followed_elsewhere(one, index, tmp_path):
    one.spoil(
        "/manifests/", lambda *_: Reply(status=307, headers=(("Location", "https://127.0.0.1:1/v2/x"),))
    )
    with pytest.raises(Refused) as caught:
        pull(one, index, tmp_path)
    assert caught.value.code == "redirect"


def test_rule_55_a_blob_may_lie_elsewhere_and_no_credential_goes_there(one, kept, index, tmp_path):
    digest = layer(kept)["digest"]
    whole = (kept[2][0].path / "blobs/sha256" / digest[7:]).read_bytes()
    with front(tmp_path / "elsewhere", like=one) as other:
        other.files["/storage"] = Reply(body=whole)
        target = f"https://{other.host}/storage?signed=1"
        challenge = Reply(status=401, headers=(("WWW-Authenticate", 'Basic realm="it"'),))
        one.spoil("/v2/", lambda asked, reply: reply if asked.header("authorization") else challenge)
        moved = Reply(status=307, headers=(("Location", target),))
        one.spoil(digest, lambda _, reply: reply if reply.status == 401 else moved)
        from strongroom.fetch.oci.login import Keyring

        login = Keyring(by_host={one.host: registries.READER, other.host: registries.READER})
        made = replace(access(one), keyring=login)
        registry.pull(name(one.host, index), platform=AMD64, into=tmp_path / "cache", access=made)
        assert [asked.target for asked in other.asked] == ["/storage?signed=1"]
        assert not other.asked[0].header("authorization")
        assert [asked.header("authorization") for asked in one.asked if digest in asked.target][-1] == (
            registries.READER.basic()
        )  # which had been shown where it belongs


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:1/x",
        "https://169.254.169.254/x",
        "file:///etc/passwd",
        "https://a@127.0.0.1/x",
        "//",
        "",
    ],
)
def test_rule_55_a_blob_is_not_followed_to_where_nobody_should_go(one, kept, index, tmp_path, target):
    one.spoil(layer(kept)["digest"], lambda *_: Reply(status=307, headers=(("Location", target),)))
    with pytest.raises(Refused) as caught:
        pull(one, index, tmp_path)
    assert caught.value.code in ("redirect", "forbidden-address")


def test_rule_55_a_ring_of_redirects_is_left(one, kept, index, tmp_path):
    digest = layer(kept)["digest"]
    one.spoil(digest, lambda asked, _: Reply(status=307, headers=(("Location", asked.target),)))
    with pytest.raises(Refused, match="more than"):
        pull(one, index, tmp_path)


def test_rule_26_mirrors_are_asked_in_order_and_never_believed(one, kept, index, image_digest, tmp_path):
    real = kept[1]
    digest = layer(kept)["digest"]
    with (
        front(tmp_path / "a", like=one, upstream=real.host) as liar,
        front(tmp_path / "b", like=one, upstream=real.host) as good,
    ):
        liar.spoil(digest, lambda _, reply: replace(reply, body=bytes(len(reply.body))))
        made = replace(access(one), mirrors=(liar.host, good.host))
        found = registry.pull(name(one.host, index), platform=AMD64, into=tmp_path / "cache", access=made)
        assert found.digest == image_digest
        assert not one.asked
        assert [digest in asked.target for asked in good.asked] == [True]
        assert liar.host in found.notes[0]


def test_a_mirror_that_breaks_off_is_gone_on_from_at_the_next(one, kept, index, tmp_path):
    digest = layer(kept)["digest"]
    with front(tmp_path / "a", like=one, upstream=kept[1].host) as mirror:
        mirror.spoil(
            digest, lambda asked, reply: Reply(status=500) if asked.header("range") else cut(reply, 200_000)
        )
        made = replace(access(one), mirrors=(mirror.host,))
        registry.pull(name(one.host, index), platform=AMD64, into=tmp_path / "cache", access=made)
        assert [asked.header("range") for asked in one.asked] == ["bytes=200000-"]


def test_a_mirror_without_it_stays_in_use(one, index, tmp_path):
    with front(tmp_path / "a", like=one) as empty:
        made = replace(access(one), mirrors=(empty.host,))
        found = registry.pull(name(one.host, index), platform=AMD64, into=tmp_path / "cache", access=made)
        assert found.notes == ()
        assert len(empty.asked) == len(one.asked)


def test_mirrors_are_hosts(one, index, tmp_path):
    with pytest.raises(Misuse, match="mirror 'https://mirror'"):
        registry.pull(
            name(one.host, index),
            platform=AMD64,
            into=tmp_path,
            access=replace(access(one), mirrors=("https://mirror",)),
        )


def test_processes_that_want_the_same_blob_fetch_it_once(one, kept, index, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: pull(one, index, tmp_path), range(8)))
    assert len([asked for asked in one.asked if layer(kept)["digest"] in asked.target]) == 1


def test_docker_s_media_types_are_read_as_well(one, kept, tmp_path):
    registries.put(kept[2][0], kept[1].host, repository="docker/it", docker=True)
    tagged = names.parse(f"{one.host}/docker/it:today")
    top = registry.resolve(tagged, access=access(one)).descriptor
    assert top.media_type == "application/vnd.docker.distribution.manifest.list.v2+json"
    made = pull(one, top.digest, tmp_path, repository="docker/it")
    with kit.loaded(tmp_path, tmp_path, digest=made.digest) as found:
        assert found.digest == made.digest


def test_a_registry_that_speaks_tls_itself(one, kept, tmp_path):
    with registries.server.registry(tmp_path / "tls", tls=one.certificate) as real:
        registries.put(kept[2][0], real.host)
        reference = name(real.host, kept[2][1]["digest"])
        made = registry.pull(reference, platform=AMD64, into=tmp_path / "cache", access=access(one))
        assert made.digest == kept[2][2]["digest"]


def test_what_was_pulled_is_what_convert_reads(one, index, tmp_path):
    made = pull(one, index, tmp_path)
    (tmp_path / "scratch").mkdir()
    with load.load(made.layout, scratch=tmp_path / "scratch", digest=made.digest, platform=AMD64) as found:
        assert found.settings.entrypoint == ("/bin/program",)
