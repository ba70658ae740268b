from __future__ import annotations

import gzip
import hashlib
import json
import os
import socket
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from strongroom.errors import Conflict, Malformed, Misuse, NotFound, Refused, StrongroomError
from strongroom.images import load, oci
from strongroom.images.limits import ImageLimits
from strongroom.model import manifest as manifest_model
from strongroom.model.room import mounts
from strongroom.seal.tree import EntryKind
from tests.unit.images.kit import (
    ACCOUNTS,
    END,
    OCI_INDEX,
    OCI_MANIFEST,
    PROGRAM,
    Layout,
    entry,
    folder,
    listing,
    loaded,
    sha256,
    simple,
    symlink,
)

if TYPE_CHECKING:
    from pathlib import Path

ARM = oci.ImagePlatform(os="linux", architecture="arm64", variant="v8")
BASE = PROGRAM + ACCOUNTS + END


def fingerprint(found: load.Loaded) -> str:
    state = hashlib.sha256(repr(found.settings).encode())
    for one in found.entries:
        state.update(repr((one.path, one.kind, one.mode, one.uid, one.gid, one.mtime, one.target)).encode())
        state.update(repr((sorted(one.xattrs.items()), one.link_group)).encode())
        if one.open is not None:
            with one.open() as source:
                state.update(source.read())
    return state.hexdigest()


@pytest.mark.parametrize("compression", ["", "+gzip"])
def test_an_oci_layout(tmp_path: Path, compression: str) -> None:
    layout = Layout(tmp_path / "image")
    described = layout.image(
        BASE, entry(b"bin/.wh.program") + entry(b"x", b"1") + END, compression=compression
    )
    layout.index(described)
    with loaded(layout.path, tmp_path) as found:
        assert found.digest == found.settings.source == described["digest"]
        assert found.summary.kind == "OCI layout"
        assert found.summary.layers == 2
        assert found.settings.entrypoint == ("/bin/program",)
        assert found.settings.environment == {"PATH": load.DEFAULT_PATH, "HOME": "/root"}
        assert found.settings.working_directory == "/"
        assert found.summary.notes == ("the program '/bin/program' is not in the image",)
        paths = {one.path for one in found.entries}
        assert b"bin/program" not in paths
        assert {b"x", *load.EXPECTED, *(mount.path for mount in mounts.MOUNTS)} <= paths


def test_the_same_image_is_the_same_tree_in_every_form(tmp_path: Path) -> None:
    layout = simple(tmp_path / "image", BASE, entry(b"x", b"1") + END)
    seen = set()
    for path in (layout.path, layout.archive(tmp_path / "image.tar"), layout.path):
        with loaded(path, tmp_path) as found:
            seen.add(fingerprint(found))
    assert len(seen) == 1


def test_a_name_is_shown_and_not_stored(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "image")
    described = layout.image(BASE)
    layout.index(described | {"annotations": {oci.REF_NAME: "latest"}})
    with loaded(layout.path, tmp_path) as found:
        assert found.summary.names == ("latest",)
        assert "latest" not in repr(found.settings)


def test_several_images_need_a_digest(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "image")
    one = layout.image(BASE) | {"annotations": {oci.REF_NAME: "one"}}
    two = layout.image(BASE, config={"Entrypoint": ["/two"]}) | {"annotations": {oci.REF_NAME: "two"}}
    layout.index(one, two)
    with pytest.raises(Refused) as caught, loaded(layout.path, tmp_path):
        pass
    assert caught.value.code == "choose-digest"
    assert one["digest"] in caught.value.hint
    assert "two" in caught.value.hint
    with loaded(layout.path, tmp_path, digest=two["digest"]) as found:
        assert found.settings.entrypoint == ("/two",)
        assert found.summary.names == ("two",)
    with pytest.raises(NotFound, match="no image"), loaded(layout.path, tmp_path, digest=sha256(b"three")):
        pass


def test_an_index_is_chosen_from_by_platform_and_told_apart(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "image")
    amd = layout.image(BASE) | {"platform": {"os": "linux", "architecture": "amd64"}}
    arm = layout.image(BASE, architecture="arm64", variant="v8") | {
        "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}
    }
    other = layout.image(END) | {"platform": {"os": "unknown", "architecture": "unknown"}}
    inner = layout.json(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [amd, arm, other]}, OCI_INDEX
    )
    layout.index(inner | {"annotations": {oci.REF_NAME: "v1"}})
    for digest, platform, wanted in (
        (None, load.PLATFORM, amd),
        (None, ARM, arm),
        (inner["digest"], ARM, arm),
        (amd["digest"], load.PLATFORM, amd),
    ):
        with loaded(layout.path, tmp_path, digest=digest, platform=platform) as found:
            assert found.digest == wanted["digest"]
            assert found.summary.index == inner["digest"]
            assert found.summary.names == ("v1",)
    with pytest.raises(Refused, match="linux/arm64"), loaded(layout.path, tmp_path, digest=arm["digest"]):
        pass
    with (
        pytest.raises(NotFound, match="no image for linux/s390x"),
        loaded(layout.path, tmp_path, platform=oci.ImagePlatform(os="linux", architecture="s390x")),
    ):
        pass


def test_an_index_that_lies_about_the_platform_is_refused(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "image")
    layout.index(
        layout.image(BASE, architecture="arm64") | {"platform": {"os": "linux", "architecture": "amd64"}}
    )
    with pytest.raises(Refused) as caught, loaded(layout.path, tmp_path):
        pass
    assert caught.value.code == "wrong-platform"


def docker(tmp_path: Path, *, packed: bool = False, **change: Any) -> tuple[Path, str]:
    folder_ = tmp_path / "docker"
    folder_.mkdir()
    upper = entry(b"x", b"1") + END
    value = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [sha256(BASE), sha256(upper)]},
        "config": {"Cmd": ["/bin/program"]},
    }
    config = json.dumps(value).encode()
    name = hashlib.sha256(config).hexdigest()
    (folder_ / f"{name}.json").write_bytes(config)
    (folder_ / "aa").mkdir()
    (folder_ / "aa/layer.tar").write_bytes(gzip.compress(BASE) if packed else BASE)
    (folder_ / "shared.tar").write_bytes(upper)
    (folder_ / "bb").mkdir()
    (folder_ / "bb/layer.tar").symlink_to("../shared.tar")
    row = {
        "Config": f"{name}.json",
        "RepoTags": ["program:latest"],
        "Layers": ["aa/layer.tar", "bb/layer.tar"],
    }
    (folder_ / "manifest.json").write_text(json.dumps([row | change]))
    with tarfile.open(tmp_path / "docker.tar", "w") as out:
        for child in sorted(folder_.iterdir()):
            out.add(child, child.name)
    return tmp_path / "docker.tar", "sha256:" + name


@pytest.mark.parametrize("packed", [False, True])
def test_a_docker_archive(tmp_path: Path, *, packed: bool) -> None:
    path, digest = docker(tmp_path, packed=packed)
    for chosen in (None, digest):
        with loaded(path, tmp_path, digest=chosen) as found:
            assert found.digest == digest
            assert found.summary.names == ("program:latest",)
            assert {b"bin/program", b"x"} <= {one.path for one in found.entries}
    with pytest.raises(NotFound, match="no image"), loaded(path, tmp_path, digest=sha256(b"")):
        pass


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"Layers": ["bb/layer.tar", "aa/layer.tar"]}, "uncompressed digest .diff_id.: expected"),
        ({"Layers": ["aa/layer.tar"]}, "2 diff_ids for 1 layers"),
        ({"Layers": ["aa/layer.tar", "missing"]}, "the archive has no 'missing'"),
        (
            {"Layers": ["aa/layer.tar", "../../../../../../etc/passwd"]},
            "the archive has no '../../../../../../etc/passwd'",
        ),
        ({"Layers": ["aa/layer.tar", "aa"]}, "the archive has no 'aa'"),
        ({"Layers": ["aa/layer.tar", 1]}, "expected Config and Layers as names in the archive"),
        ({"Layers": None}, "expected Config and Layers as names in the archive"),
        ({"Config": None}, "expected Config and Layers as names in the archive"),
        ({"Config": "shared.tar"}, "not JSON"),
        ({"RepoTags": "x"}, "RepoTags: expected texts"),
    ],
)
def test_bad_docker_archives(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    path, _ = docker(tmp_path, **change)
    with pytest.raises((Malformed, Refused, NotFound), match=why), loaded(path, tmp_path):
        pass


def test_a_docker_config_under_another_ones_digest_is_refused(tmp_path: Path) -> None:
    path, _ = docker(tmp_path, Config="0" * 64 + ".json")
    with tarfile.open(path, "a") as out:
        out.add(next((tmp_path / "docker").glob("*.json")), "0" * 64 + ".json")
    with pytest.raises(Refused) as caught, loaded(path, tmp_path):
        pass
    assert caught.value.code == "wrong-digest"


def test_lying_layouts_are_refused(tmp_path: Path) -> None:
    def attempt(name: str, spoil: Any) -> StrongroomError:
        layout = Layout(tmp_path / name)
        spoil(layout)
        with pytest.raises((Malformed, Refused, NotFound)) as caught, loaded(layout.path, tmp_path):
            pass
        return caught.value

    def change(layout: Layout, descriptor: dict[str, Any], data: bytes) -> None:
        (layout.path / "blobs/sha256" / descriptor["digest"][7:]).write_bytes(data)

    def with_layer(**lie: Any) -> Any:
        def spoil(layout: Layout) -> None:
            row = layout.layer(BASE)
            layout.index(layout.manifest(layout.config([sha256(BASE)]), [row | lie]))

        return spoil

    def bad_diff(layout: Layout) -> None:
        layout.index(layout.manifest(layout.config([sha256(b"")]), [layout.layer(BASE)]))

    def fewer_diffs(layout: Layout) -> None:
        layout.index(layout.manifest(layout.config([]), [layout.layer(BASE)]))

    def spoiled_manifest(layout: Layout) -> None:
        described = layout.image(BASE)
        layout.index(described)
        change(layout, described, b"{" + b" " * (described["size"] - 1))

    def spoiled_config(layout: Layout) -> None:
        config = layout.config([sha256(BASE)])
        layout.index(layout.manifest(config, [layout.layer(BASE)]))
        change(layout, config, b"{" + b" " * (config["size"] - 1))

    def manifest_called_index(layout: Layout) -> None:
        layout.index(layout.image(BASE) | {"mediaType": OCI_INDEX})

    def config_called_manifest(layout: Layout) -> None:
        layout.index(layout.config([sha256(BASE)]) | {"mediaType": OCI_MANIFEST})

    def endless(layout: Layout) -> None:
        inner: dict[str, Any] = {"schemaVersion": 2, "manifests": []}
        described = layout.json(inner, OCI_INDEX)
        for _ in range(5):
            described = layout.json({"schemaVersion": 2, "manifests": [described]}, OCI_INDEX)
        layout.index(described)

    def blob_is_a_link(layout: Layout) -> None:
        described = layout.image(BASE)
        layout.index(described)
        place = layout.path / "blobs/sha256" / described["digest"][7:]
        place.unlink()
        (tmp_path / "elsewhere").write_bytes(b"secret of another folder" * 10)
        place.symlink_to(tmp_path / "elsewhere")

    def index_is_a_link(layout: Layout) -> None:
        layout.index(layout.image(BASE))
        (layout.path / "index.json").rename(tmp_path / "index.json")
        (layout.path / "index.json").symlink_to(tmp_path / "index.json")

    assert attempt("size", with_layer(size=5)).code == "wrong-size"
    assert attempt("digest", with_layer(digest=sha256(b"x"))).code == "missing-blob"
    assert attempt("diff", bad_diff).code == "wrong-digest"
    assert attempt("fewer", fewer_diffs).code == "mismatch"
    assert attempt("manifest", spoiled_manifest).code == "wrong-digest"
    assert attempt("config", spoiled_config).code == "wrong-digest"
    assert attempt("as index", manifest_called_index).code == "bad-media-type"
    assert attempt("as manifest", config_called_manifest).code == "bad-value"
    assert attempt("endless", endless).code == "too-deep"
    assert attempt("link", blob_is_a_link).code == "wrong-size"
    assert attempt("index", index_is_a_link).code == "missing-blob"


def test_a_layout_may_be_made_of_links(tmp_path: Path) -> None:
    """As build systems make them; what a link leads to is what the digest says."""
    plain = simple(tmp_path / "plain", BASE)
    linked = Layout(tmp_path / "linked")
    (linked.path / "index.json").write_bytes((plain.path / "index.json").read_bytes())
    for place in (plain.path / "blobs/sha256").iterdir():
        (linked.path / "blobs/sha256" / place.name).symlink_to(place)
    with loaded(plain.path, tmp_path) as one, loaded(linked.path, tmp_path) as other:
        assert (one.digest, listing(one.tree)) == (other.digest, listing(other.tree))


def test_a_changed_blob_is_refused(tmp_path: Path) -> None:
    layout = simple(tmp_path / "image", BASE)
    place = layout.path / "blobs/sha256" / sha256(BASE)[7:]
    data = bytearray(place.read_bytes())
    data[600] ^= 1
    place.write_bytes(data)
    with pytest.raises(Refused) as caught, loaded(layout.path, tmp_path):
        pass
    assert caught.value.code == "wrong-digest"


def test_total_size_over_layers_is_bounded(tmp_path: Path) -> None:
    layout = simple(tmp_path / "image", BASE, BASE[:-1024] + entry(b"y") + END)
    with (
        pytest.raises(Refused, match="more than"),
        loaded(layout.path, tmp_path, limits=ImageLimits(total_bytes=len(BASE) + 100)),
    ):
        pass


@pytest.mark.parametrize(
    ("user", "uid", "gid", "groups", "home"),
    [
        ("", 0, 0, (), "/root"),
        ("root", 0, 0, (), "/root"),
        ("ann", 1000, 100, (29, 50), "/home/ann"),
        ("1000", 1000, 100, (29, 50), "/home/ann"),
        ("ann:staff", 1000, 50, (), "/home/ann"),
        ("ann:7", 1000, 7, (), "/home/ann"),
        ("4242", 4242, 0, (), "/"),
        ("4242:audio", 4242, 29, (), "/"),
        ("65534:65534", 65534, 65534, (), "/"),
        ("ann:", 1000, 100, (29, 50), "/home/ann"),
    ],
)
def test_users(tmp_path: Path, user: str, uid: int, gid: int, groups: tuple[int, ...], home: str) -> None:
    layout = simple(tmp_path / "image", BASE, config={"User": user})
    with loaded(layout.path, tmp_path) as found:
        settings = found.settings
        assert (settings.uid, settings.gid, settings.groups) == (uid, gid, groups)
        assert settings.environment["HOME"] == home


@pytest.mark.parametrize(
    ("user", "why"),
    [
        ("bob", "its user 'bob' is not in its /etc/passwd"),
        ("ann:nobody", "its group 'nobody' is not in its /etc/group"),
        (":staff", "USER ':staff': expected USER or USER:GROUP"),
        ("4294967295", "id 4294967295"),
        ("ann:4294967295", "id 4294967295"),
        ("12345678901", "its user '12345678901' is not in its /etc/passwd"),
    ],
)
def test_unknown_users_are_refused(tmp_path: Path, user: str, why: str) -> None:
    layout = simple(tmp_path / "image", BASE, config={"User": user})
    with pytest.raises((Refused, Malformed), match=why), loaded(layout.path, tmp_path):
        pass


@pytest.mark.parametrize("user", ["2147483647", "4294967294", "ann:2147483647", "far"])
def test_users_that_a_room_has_no_number_for_are_refused(tmp_path: Path, user: str) -> None:
    accounts = entry(b"etc/passwd", b"ann:x:1000:100::/:/bin/sh\nfar:x:2147483646:2147483647::/:/bin/sh\n")
    layout = simple(tmp_path / "image", PROGRAM + accounts + END, config={"User": user})
    with pytest.raises(Refused, match="the last id that a room has") as caught, loaded(layout.path, tmp_path):
        pass
    assert caught.value.code == "bad-user"


def test_the_last_user_of_a_room_is_taken(tmp_path: Path) -> None:
    layout = simple(tmp_path / "image", BASE, config={"User": "2147483646:2147483646"})
    with loaded(layout.path, tmp_path) as found:
        assert (found.settings.uid, found.settings.gid) == (2147483646, 2147483646)


def test_a_number_is_an_id_even_when_a_user_is_called_so(tmp_path: Path) -> None:
    accounts = entry(b"etc/passwd", b"1000:x:0:0::/:/bin/sh\n")
    layout = simple(tmp_path / "image", PROGRAM + accounts + END, config={"User": "1000"})
    with loaded(layout.path, tmp_path) as found:
        assert found.settings.uid == 1000


def test_accounts_are_read_through_links_inside_the_image_only(tmp_path: Path) -> None:
    accounts = symlink(b"etc/passwd", b"/../../real") + entry(b"real", b"ann:x:7:8::/a:/b\n")
    layout = simple(tmp_path / "image", PROGRAM + accounts + END, config={"User": "ann"})
    with loaded(layout.path, tmp_path) as found:
        assert (found.settings.uid, found.settings.gid) == (7, 8)


@pytest.mark.parametrize(
    ("accounts", "why"),
    [
        (folder(b"etc/passwd/"), "/etc/passwd is not a regular file of at most"),
        (entry(b"etc/passwd", b"root:x:-1:0::/:/\n"), "/etc/passwd: 'root' has an id that is not a number"),
        (
            entry(b"etc/passwd", b"root:x:0:99999999999::/:/\n"),
            "/etc/passwd: 'root' has an id that is not a number",
        ),
        (entry(b"etc/passwd", b"x" * (1 << 20) + b"\n"), "/etc/passwd is not a regular file of at most"),
        (symlink(b"etc/passwd", b"passwd"), "'etc/passwd': too many symbolic links"),
        (b"", "its user 'root' is not in its /etc/passwd"),
    ],
)
def test_bad_account_files(tmp_path: Path, accounts: bytes, why: str) -> None:
    layout = simple(tmp_path / "image", PROGRAM + accounts + END, config={"User": "root"})
    with pytest.raises((Malformed, Refused), match=why), loaded(layout.path, tmp_path):
        pass


def test_working_directory_is_made_through_links_of_the_image(tmp_path: Path) -> None:
    body = PROGRAM + symlink(b"srv", b"var/srv") + END
    layout = simple(tmp_path / "image", body, config={"WorkingDir": "/srv/app/"})
    with loaded(layout.path, tmp_path) as found:
        assert found.settings.working_directory == "/srv/app"
        made = {one.path: one for one in found.entries}
        assert made[b"var/srv/app"].kind is EntryKind.DIRECTORY
        assert (made[b"var/srv/app"].mode, made[b"var/srv/app"].uid) == (0o755, 0)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("app", "WORKDIR 'app' is not absolute"),
        ("/a/../../b", "WORKDIR: '/a/../../b' climbs with '..'"),
        ("/bin/program/x", "'bin/program/x' must be a directory, but 'program' is a"),
        ("/loop/x", "'loop/x': too many symbolic links"),
    ],
)
def test_bad_working_directories(tmp_path: Path, text: str, why: str) -> None:
    body = PROGRAM + symlink(b"loop", b"loop") + END
    layout = simple(tmp_path / "image", body, config={"WorkingDir": text})
    with pytest.raises((Malformed, Refused), match=why), loaded(layout.path, tmp_path):
        pass


def test_mount_points_are_made_once_and_where_links_lead(tmp_path: Path) -> None:
    kept = simple(tmp_path / "kept", PROGRAM + folder(b"tmp/", mode=0o755, uid=4) + END)
    with loaded(kept.path, tmp_path) as found:
        made = {one.path: one for one in found.entries}
        assert (made[b"tmp"].mode, made[b"tmp"].uid) == (0o755, 4)
        assert (made[b"out"].mode, made[b"out"].uid, made[b"out"].mtime) == (0o755, 0, 0)
    links = (
        symlink(b"tmp", b"var/tmp")
        + symlink(b"run", b"/tmp")
        + symlink(b"data", b"/tmp/data")
        + symlink(b"out", b"../srv/out")
    )
    layout = simple(tmp_path / "links", PROGRAM + links + END)
    with loaded(layout.path, tmp_path) as found:
        made = {one.path: one for one in found.entries}
        assert {made[path].kind for path in (b"tmp", b"run", b"data", b"out")} == {EntryKind.SYMLINK}
        assert (made[b"var/tmp"].kind, made[b"var/tmp"].mode) == (EntryKind.DIRECTORY, 0o1777)
        assert (made[b"srv/out"].kind, made[b"srv/out"].mode) == (EntryKind.DIRECTORY, 0o755)
        assert b"var/tmp/data" not in made  # which the room makes in its own memory


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (entry(b"out"), "/out is where a room takes results from; your image has a file there"),
        (symlink(b"out", b"bin/program"), "your image has a file at /bin/program, where that leads"),
        (symlink(b"data", b"/bin/program/x"), "/data is where a room puts the datasets; your image has a file at /bin/program,"),
        (symlink(b"tmp", b"tmp"), "/tmp is a room's memory for temporary files; its link leads in a circle"),
        (symlink(b"proc", b".."), "or to the top of the image"),
        (symlink(b"data", b"/tmp"), "in your image it leads to /tmp, and /data to /tmp: one covers the other"),
        (symlink(b"out", b"data/x"), "in your image it leads to /data/x, and /data to /data"),
        (folder(b"tmp/") + symlink(b"tmp/a", b"/srv") + symlink(b"data", b"tmp/a"), "through a folder that the room covers"),
    ],
)  # fmt: skip
def test_what_cannot_be_mounted_over_is_refused_with_the_rooms_reason(
    tmp_path: Path, body: bytes, why: str
) -> None:
    layout = simple(tmp_path / "image", PROGRAM + body + END)
    with pytest.raises(Refused) as caught, loaded(layout.path, tmp_path):
        pass
    assert caught.value.code == "mount-point"
    assert why in caught.value.message
    assert caught.value.hint


def test_files_where_the_room_mounts_nothing_are_nobodys_business(tmp_path: Path) -> None:
    layout = simple(tmp_path / "image", PROGRAM + entry(b"sys") + symlink(b"run", b"run") + END)
    with loaded(layout.path, tmp_path) as found:
        assert found.summary.notes == ()


def test_nothing_to_run_is_refused(tmp_path: Path) -> None:
    layout = simple(tmp_path / "image", BASE, config={"Entrypoint": None})
    with pytest.raises(Refused) as caught, loaded(layout.path, tmp_path):
        pass
    assert caught.value.code == "nothing-to-run"


def test_the_images_own_environment_is_kept(tmp_path: Path) -> None:
    given = ["PATH=/p", "LD_PRELOAD=/x.so", "HOME=/h", "EMPTY="]
    layout = simple(tmp_path / "image", BASE, config={"Env": given, "Volumes": {"/v": {}}})
    with loaded(layout.path, tmp_path) as found:
        assert found.settings.environment == dict(one.split("=", 1) for one in given)
        assert found.summary.notes == ("Volumes has no effect in a room",)


def test_settings_fit_into_a_manifest(tmp_path: Path) -> None:
    layout = simple(tmp_path / "image", BASE, config={"User": "ann", "Env": ["A=ü"], "Cmd": ["x", ""]})
    with loaded(layout.path, tmp_path) as found:
        made = manifest_model.Manifest(
            raw=b"",
            kind="image",
            name="query",
            owner=sha256(b"owner"),
            cipher="none",
            data_bytes=4096,
            hash_offset=4096,
            disk_bytes=8192,
            root_hash=sha256(b"root"),
            salt=bytes(32),
            image=found.settings,
        )
        assert manifest_model.parse(manifest_model.encode(made)).image == found.settings


CONFIG = b'{"config": {"Entrypoint": ["/bin/sh"], "User": "1000"}}'


def rootfs(path: Path) -> Path:
    (path / "bin").mkdir(parents=True)
    (path / "bin/sh").write_bytes(b"#!")
    os.link(path / "bin/sh", path / "bin/ash")
    (path / "lib").symlink_to("usr/lib")
    (path / "bin/sh").chmod(0o4755)
    os.setxattr(path / "bin", "user.note", b"x")
    for place in (path / "bin/sh", path / "bin", path):
        os.utime(place, (1, 1))
    os.utime(path / "lib", (1, 1), follow_symlinks=False)
    return path


def test_a_root_file_system(tmp_path: Path) -> None:
    seen = set()
    for name in ("one", "two"):
        with loaded(rootfs(tmp_path / name), tmp_path, config=CONFIG) as found:
            made = {one.path: one for one in found.entries}
            assert made[b"bin/ash"].link_group == made[b"bin/sh"].link_group is not None
            assert made[b"bin/sh"].mode == 0o4755
            assert made[b"bin"].xattrs == {b"user.note": b"x"}
            assert made[b"lib"].target == b"usr/lib"
            assert (made[b"bin/sh"].uid, made[b"bin/sh"].mtime) == (os.getuid(), 1)
            assert found.settings.uid == 1000
            seen.add((found.digest, fingerprint(found)))
    assert len(seen) == 1
    (tmp_path / "one/bin/sh").write_bytes(b"#?")
    os.utime(tmp_path / "one/bin/sh", (1, 1))
    with loaded(tmp_path / "one", tmp_path, config=CONFIG) as found:
        assert found.digest not in {digest for digest, _ in seen}
    with loaded(tmp_path / "two", tmp_path, config=CONFIG.replace(b"1000", b"1001")) as found:
        assert found.digest not in {digest for digest, _ in seen}


def test_a_root_file_system_keeps_its_pipes_and_leaves_out_sockets(tmp_path: Path) -> None:
    root = rootfs(tmp_path / "root")
    os.mkfifo(root / "pipe", 0o640)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
        with loaded(root, tmp_path, config=CONFIG) as found:
            made = {one.path: one for one in found.entries}
            assert (made[b"pipe"].kind, made[b"pipe"].mode & 0o700) == (EntryKind.FIFO, 0o600)
            assert b"socket" not in made
            assert [note for note in found.summary.notes if "sockets" in note]
            named = found.digest
    (root / "socket").unlink()
    with loaded(root, tmp_path, config=CONFIG) as found:
        assert found.digest == named


def test_a_root_file_system_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    root = rootfs(tmp_path / "root")
    (root / "big").write_bytes(bytes(3 << 20))

    def touch(_done: int, _total: int) -> None:
        (root / "big").write_bytes(b"short")

    with (
        pytest.raises(Conflict, match="'big': changed while it was read"),
        loaded(root, tmp_path, config=CONFIG, progress=touch),
    ):
        pass


def test_what_is_no_image_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("hello")
    (tmp_path / "plain.tar").write_bytes(PROGRAM + END)
    layout = simple(tmp_path / "image", BASE)
    for path, more, why in (
        (tmp_path / "absent", {}, "no such file or folder"),
        (tmp_path / "empty", {}, "a root file system does not say what to run"),
        (tmp_path / "text", {}, "text: not an image archive: ends too early"),
        (tmp_path / "plain.tar", {}, "neither an OCI layout nor a `docker save` archive"),
        (
            tmp_path / "empty",
            {"config": CONFIG, "digest": sha256(b"")},
            "a root file system has no digest to choose by",
        ),
        (layout.path, {"config": CONFIG}, "an image brings its own configuration"),
    ):
        with pytest.raises((Misuse, Malformed, NotFound), match=why), loaded(path, tmp_path, **more):
            pass


@pytest.mark.parametrize("compression", ["", "+gzip"])
def test_progress_reaches_its_total(tmp_path: Path, compression: str) -> None:
    layout = Layout(tmp_path / "image")
    layout.index(layout.image(BASE, END, compression=compression))
    seen: list[tuple[int, int]] = []
    with loaded(layout.path, tmp_path, progress=lambda done, total: seen.append((done, total))):
        pass
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] > 0


def test_notes_tell_what_a_room_hides_and_what_is_missing(tmp_path: Path) -> None:
    body = PROGRAM + entry(b"data/seed", b"x") + END
    layout = simple(tmp_path / "image", body, config={"Entrypoint": ["program"], "Env": ["PATH=/sbin:/bin"]})
    with loaded(layout.path, tmp_path) as found:
        assert found.summary.notes == ("what the image has in /data is covered by the room's own",)
    layout = simple(tmp_path / "hidden", body, config={"Entrypoint": ["/data/seed"]})
    with loaded(layout.path, tmp_path) as found:
        assert found.summary.notes[1:] == (
            "the program '/data/seed' is where the room mounts its own: it will not be found",
        )
    layout = simple(
        tmp_path / "other", PROGRAM + END, config={"Entrypoint": ["program"], "Env": ["PATH=/sbin"]}
    )
    with loaded(layout.path, tmp_path) as found:
        assert found.summary.notes == ("the program 'program' is not in the image",)


def test_an_archive_may_be_named_by_a_link(tmp_path: Path) -> None:
    archive = simple(tmp_path / "image", BASE).archive(tmp_path / "image.tar")
    (tmp_path / "latest.tar").symlink_to(archive)
    with loaded(tmp_path / "latest.tar", tmp_path) as found:
        assert found.summary.kind == "OCI archive"
