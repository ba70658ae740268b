"""`base verify --rebuild`: anybody gets the same bytes from the recorded packages, or is told what differs."""

import json
import os
import shutil
from dataclasses import replace

import pytest

from strongroom.bases import build, cache, document, inputs, profile, rebuild
from strongroom.bases.formats import eif
from strongroom.bases.packages import debs
from strongroom.crypto import image_signer
from strongroom.encoding import canonical
from strongroom.errors import Malformed, Refused, Unavailable
from tests import verbs
from tests.unit.bases import enclave

SHARED = build.default_cache(dict(os.environ))
pytestmark = [pytest.mark.root, pytest.mark.skipif(shutil.which("apt-get") is None, reason="not a Debian")]


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def today():
    return build.sources(profile=profile.NITRO)


@pytest.fixture(scope="module")
def original(tmp_path_factory, today):
    out = tmp_path_factory.mktemp("base") / "nitro"
    build.build(today, SHARED, quiet, out=out)
    return out


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "nitro")


def verify(folder, *words):
    return verbs.run("base", "verify", folder, *words)


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place(bytes(content))] ^= 1
    path.write_bytes(content)


def test_an_honest_base_comes_out_the_same_and_a_changed_byte_is_found_where_it_is(folder):
    done = verify(folder, "--rebuild")
    assert (done.returncode, done.stderr.count("note")) == (0, 0), done.stderr
    assert "byte for byte" in done.stdout
    flip(folder / "initrd", lambda data: data.index(b"~Module signature appended~") - 99)
    flip(folder / "base.disk", lambda data: data.index(b"GNU C Library (Debian GLIBC"))
    flip(folder / "strongroom.eif", lambda data: data.rindex(b"GNU C Library (Debian GLIBC") + 1)
    done = verify(folder, "--rebuild", "--json")
    assert done.returncode == 3
    assert "rebuild-differs" in done.stderr
    assert "Traceback" not in done.stderr
    initrd, disk, image, *rest = json.loads(done.stdout)["differences"]
    assert initrd.startswith("initrd: lib/modules/6.12.")
    assert initrd.endswith(".ko")
    assert disk == "base.disk: lib/x86_64-linux-gnu/libc.so.6"
    assert image.startswith("strongroom.eif: ramdisk 2: base.disk: lib/x86_64-linux-gnu/libc.so.6")
    assert all(
        one.startswith("strongroom.eif: what lies around") for one in rest
    )  # the checksum stands as it was
    assert verify(folder).returncode in {2, 3}


def test_a_package_that_is_no_longer_offered_is_named(folder, tmp_path, monkeypatch):
    packages = canonical.loads((folder / "packages.json").read_bytes(), what="x", max_bytes=1 << 20)
    for one in packages:
        if one["name"] == "zlib1g":
            one |= {"version": "1:0.0.1-1", "digest": "sha256:" + "0" * 64}
    (folder / "packages.json").write_bytes(canonical.dumps(packages))
    monkeypatch.setattr(debs.Archives, "apt_for", lambda *_: rebuild.base_debs.base_apt.MACHINE)
    with pytest.raises(Unavailable) as caught:
        rebuild.rebuild(folder, SHARED, quiet)
    assert caught.value.code == "package-gone"
    assert "zlib1g 1:0.0.1-1" in caught.value.message
    assert "snapshot.debian.org/package/zlib1g" in caught.value.hint


def test_a_package_from_a_folder_counts_by_its_digest_and_is_told(today, tmp_path, monkeypatch):
    deb = next(one for one in today.debs if one.name == "zlib1g")
    held = debs.fetch([deb], SHARED / "debs", inputs.archives(SHARED))["zlib1g"]
    old = tmp_path / "old"
    old.mkdir()
    shutil.copy(held, old / "zlib1g_old.deb")
    monkeypatch.setattr(rebuild, "_download", lambda *_: False)
    assert rebuild._gather((deb,), tmp_path / "cache", old) == (f"zlib1g {deb.version}",)
    other = replace(deb, digest="sha256:" + "1" * 64)
    with pytest.raises(Unavailable):
        rebuild._gather((other,), tmp_path / "cache", old)
    assert not list((tmp_path / "cache").glob("debs/.*"))


def test_trouble_on_the_way_to_a_package_is_not_called_its_end(today, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise Unavailable(
            "apt-get -qq download: E: Failed to fetch http://x/ Could not resolve 'x'", code="no-packages"
        )

    monkeypatch.setattr(debs, "fetch", fail)
    with pytest.raises(Unavailable) as caught:
        rebuild._gather(today.debs[:1], tmp_path / "cache", None)
    assert caught.value.code == "no-packages"


@pytest.mark.parametrize(
    ("kind", "change", "raised", "code"),
    [
        ("source", {"digest": "sha256:" + "0" * 64}, Refused, "other-source"),
        ("wheel", {"version": "0.1"}, Refused, "other-wheel"),
        ("deb", {"name": "-oAPT::x=y"}, Malformed, "bad-packages"),
        ("deb", {"version": "1 --option"}, Malformed, "bad-packages"),
        ("deb", {"suite": "sid"}, Malformed, "bad-packages"),
        ("deb", {"name": "another-package"}, Malformed, "bad-packages"),
        ("builder", {"kind": "source"}, Malformed, "bad-packages"),
    ],
)
def test_a_record_that_is_not_of_here_or_of_no_base_is_refused(folder, kind, change, raised, code):
    packages = json.loads((folder / "packages.json").read_bytes())
    next(one for one in packages if one["kind"] == kind).update(change)
    (folder / "packages.json").write_bytes(canonical.dumps(packages))
    with pytest.raises(raised) as caught:
        rebuild.rebuild(folder, SHARED, quiet)
    assert caught.value.code == code


def test_another_builder_and_a_signature_are_told_and_do_not_count(today, tmp_path):
    signer = image_signer.load(*enclave.pems())
    given = replace(today, signer=signer, builder="sha256:" + "7" * 64)
    out = tmp_path / "signed"
    out.mkdir()
    with cache.locked(SHARED):
        made = build.assemble(given, SHARED, quiet)
    for name, content in made.items():
        (out / name).write_bytes(content)
    assert eif.parse(made[document.EIF]).signature is not None
    found = rebuild.rebuild(out, SHARED, quiet)
    assert found == rebuild.Rebuilt(differences=(), by_digest=(), other_builder=True, signed=True)
