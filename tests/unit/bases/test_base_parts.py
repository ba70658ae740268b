"""What goes into a base: module imports, wheels, packages' files, and the cache between builds."""

import base64
import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from strongroom.bases import build, cache, inputs
from strongroom.bases import files as base_files
from strongroom.bases.files import File
from strongroom.bases.packages import apt, debs, modules
from strongroom.bases.packages import wheels as base_wheels
from strongroom.bases.packages.debs import Deb
from strongroom.bases.profile import LOCAL, PROFILES, SNP
from strongroom.errors import Malformed, Misuse, NotFound, Unavailable

LIBRARY = {
    "agent/__init__.py": "",
    "agent/main.py": "import one\nfrom . import part\ndef late():\n    from two.deep import name\n",
    "agent/part.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import never\nelse:\n    import always\n",
    "one.py": "try:\n    import _fast\nexcept ImportError:\n    pass\nimport unittest.mock\n",
    "lib-dynload/_fast.cpython-311-x86_64-linux-gnu.so": "",
    "two/__init__.py": "import three",
    "two/deep.py": "",
    "three.py": "",
    "never.py": "",
    "always.py": "",
    "unittest/__init__.py": "",
    "unittest/mock.py": "",
    "unused.py": "",
    "runpy.py": "",
}


def test_reachable_modules_are_taken_and_no_others():
    files = {path: File(content=text.encode()) for path, text in LIBRARY.items()}
    scans: dict[str, list[str]] = {}
    found = modules.reachable(files, ["agent.main"], scans)
    assert sorted(found) == [
        "agent/__init__.py",
        "agent/main.py",
        "agent/part.py",
        "always.py",
        "lib-dynload/_fast.cpython-311-x86_64-linux-gnu.so",
        "one.py",
        "runpy.py",
        "three.py",
        "two/__init__.py",
        "two/deep.py",
    ]
    assert modules.reachable(files, ["agent.main"], dict(scans)) == found


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("os.py", "os"),
        ("a/b.py", "a.b"),
        ("a/__init__.py", "a"),
        ("lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so", "_ssl"),
        ("pyrage/pyrage.abi3.so", "pyrage.pyrage"),
        ("a/data.txt", None),
    ],
)
def test_paths_have_module_names(path, name):
    assert modules.module_name(path) == name


def test_a_module_that_does_not_parse_is_refused():
    with pytest.raises(Malformed, match="invalid syntax"):
        modules.reachable({"bad.py": File(content=b"def")}, ["bad"], {})


def test_stored_files_come_back_and_damage_is_noticed(tmp_path):
    files = {"a/b": File(content=b"one", executable=True), "c": File(content=b"")}
    base_files.store(tmp_path / "kept", files, newest=7)
    assert base_files.load(tmp_path / "kept") == (files, 7)
    assert base_files.load(tmp_path / "missing") is None
    blob = tmp_path / "kept" / hashlib.sha256(b"one").hexdigest()
    blob.write_bytes(b"two")
    assert base_files.load(tmp_path / "kept") is None
    base_files.store(tmp_path / "kept", files, newest=7)
    assert base_files.load(tmp_path / "kept") == (files, 7)
    (tmp_path / "kept" / "index.json").write_bytes(b"{}")
    assert base_files.load(tmp_path / "kept") is None


def test_a_store_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(base_files.canonical, "dumps", fail)
    with pytest.raises(OSError, match="space"):
        base_files.store(tmp_path / "kept", {"a": File(content=b"")}, newest=0)
    assert list(tmp_path.iterdir()) == []


def test_links_lead_to_files_and_not_in_circles():
    regular = {"lib/a.so.1.2": (0, b"a"), "bin/x": (0o111, b"x")}
    links = {
        "lib/a.so.1": "lib/a.so.1.2",
        "lib/a.so": "lib/a.so.1",
        "round": "trip",
        "trip": "round",
        "lost": "nowhere",
    }
    found = base_files.follow(regular, links, lambda path: path != "lib/a.so.1.2")
    assert found == {
        "lib/a.so.1": File(content=b"a"),
        "lib/a.so": File(content=b"a"),
        "bin/x": File(content=b"x", executable=True),
    }


def deb(path, members) -> Deb:
    """A real package with these members as (name, type, content or target)."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.mtime, info.mode = kind, 1234, 0o755
            if kind == tarfile.SYMTYPE:
                info.linkname = content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    control = io.BytesIO()
    with tarfile.open(fileobj=control, mode="w:xz") as archive:
        text = b"Package: p\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n"
        info = tarfile.TarInfo("./control")
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text))
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": control.getvalue(),
        "data.tar.xz": data.getvalue(),
    }
    whole = b"!<arch>\n"
    for name, content in members.items():
        whole += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        whole += content + b"\n" * (len(content) % 2)
    path.write_bytes(whole)
    digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    return Deb(name="p", version="1", digest=digest, size=path.stat().st_size)


def test_a_package_is_unpacked_without_leaving_its_tree(tmp_path):
    path = tmp_path / "p.deb"
    package = deb(
        path,
        [
            ("./lib/a.so.1", tarfile.REGTYPE, b"a"),
            ("./lib/a.so", tarfile.SYMTYPE, "a.so.1"),
            ("./lib64/ld.so", tarfile.SYMTYPE, "/lib/a.so.1"),
            ("./lib/out", tarfile.SYMTYPE, "../../../etc/passwd"),
            ("../lib/escape", tarfile.REGTYPE, b"e"),
            ("./doc", tarfile.REGTYPE, b"d"),
        ],
    )
    regular, links, newest = debs.unpack(path, package, lambda name: name.startswith("lib"))
    assert regular == {"lib/a.so.1": (0o111, b"a")}
    assert links == {"lib/a.so": "lib/a.so.1", "lib64/ld.so": "lib/a.so.1", "lib/out": "etc/passwd"}
    assert newest == 1234


def test_a_package_of_another_digest_is_refused(tmp_path):
    path = tmp_path / "p.deb"
    package = deb(path, [("./lib/a", tarfile.REGTYPE, b"a")])
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(Malformed) as caught:
        debs.unpack(path, package, lambda _: True)
    assert caught.value.code == "bad-package"


def test_what_is_no_package_is_refused(tmp_path):
    path = tmp_path / "p.deb"
    path.write_bytes(b"nothing of the kind")
    package = Deb(
        name="p", version="1", digest="sha256:" + hashlib.sha256(path.read_bytes()).hexdigest(), size=1
    )
    with pytest.raises(Malformed, match="empty file"):
        debs.unpack(path, package, lambda _: True)


ARCHIVES = debs.Archives(lists=Path("/nonexistent"))


def answering(monkeypatch, kernels, answer):
    """An apt that knows `kernels` and answers `answer(words)` to a question for addresses; what it was asked."""
    asked = []

    def run(_, program, *words, folder=None):
        asked.extend(words)
        if program == "apt-cache":
            return "".join(f"{name} - Linux\n" for name in kernels)
        return answer(words)

    monkeypatch.setattr(apt.Apt, "run", run)
    monkeypatch.setattr(apt, "own", lambda *_, **__: apt.Apt(options=("own",)))
    return asked


@pytest.mark.parametrize("answer", ["", "'uri' libc6_1_amd64.deb 5 MD5Sum:00\n", "nonsense\n"])
def test_an_answer_of_apt_that_is_not_understood_is_no_base(monkeypatch, answer):
    answering(monkeypatch, ["linux-image-6.1.0-9-cloud-amd64"], lambda _: answer)
    with pytest.raises(Unavailable) as caught:
        debs.candidates(LOCAL, ARCHIVES)
    assert "apt-get update" in caught.value.hint


def offer(words):
    names = [one.partition(":")[0] for one in words if ":amd64" in one]
    return "".join(f"'https://x/{n}' {n}_1%3a2+b_amd64.deb 5 SHA256:{'0' * 64}\n" for n in names)


def test_the_newest_kernel_is_taken_by_number(monkeypatch):
    known = [f"linux-image-6.1.0-{n}-cloud-amd64" for n in (9, 56, 12)]
    asked = answering(monkeypatch, [*known, "linux-image-6.1.0-99-cloud-amd64-dbg"], offer)
    found = debs.candidates(LOCAL, ARCHIVES)
    assert "linux-image-6.1.0-56-cloud-amd64:amd64" in asked
    assert [one.name for one in found] == sorted(one.name for one in found)
    assert {one.version for one in found} == {"1:2+b"}
    assert {one.suite for one in found} == {"bookworm"}


def test_every_profile_has_its_kernel_and_only_the_uki_the_stub(monkeypatch):
    known = [f"linux-image-6.12.{n}-cloud-amd64" for n in ("9+deb12", "90+deb12", "90+deb12.1", "88+deb12")]
    for profile in PROFILES.values():
        answering(monkeypatch, [*known, "linux-image-6.1.0-9-cloud-amd64"], offer)
        found = {one.name: one for one in debs.candidates(profile, ARCHIVES)}
        kernel = [one for name, one in found.items() if name.startswith("linux-image")]
        if profile is LOCAL:
            assert [(one.name, one.suite) for one in kernel] == [
                ("linux-image-6.1.0-9-cloud-amd64", "bookworm")
            ]
        else:
            wanted = ("linux-image-6.12.90+deb12.1-cloud-amd64", "bookworm-backports")
            assert [(one.name, one.suite) for one in kernel] == [wanted]
        assert (debs.STUB in found) == (profile.name == "uki")


def test_wheels_are_those_of_the_record():
    wheels = {wheel.name: wheel for wheel in base_wheels.collect()}
    names = {"cffi", "cryptography", "h2", "hpack", "hyperframe", "pyopenssl", "pyrage", "typing_extensions"}
    assert set(wheels) == names
    assert [path for path in wheels["cffi"].files if not path.startswith("_cffi_backend.")] == []
    assert any(path.endswith("_rust.abi3.so") for path in wheels["cryptography"].files)
    assert not [
        path for wheel in wheels.values() for path in wheel.files if not path.endswith((".py", ".so"))
    ]


def fake_wheel(folder, monkeypatch, content: bytes, recorded: bytes):
    (folder / "thing").mkdir()
    (folder / "thing" / "__init__.py").write_bytes(content)
    info = folder / "thing-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
    digest = base64.urlsafe_b64encode(hashlib.sha256(recorded).digest()).rstrip(b"=").decode()
    (info / "RECORD").write_text(f"thing/__init__.py,sha256={digest},1\nthing-1.0.dist-info/RECORD,,\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(base_wheels, "WHEELS", {"thing": "thing/"})


def test_a_wheel_as_recorded_is_taken(tmp_path, monkeypatch):
    fake_wheel(tmp_path, monkeypatch, b"a = 1\n", b"a = 1\n")
    (wheel,) = base_wheels.collect()
    assert (wheel.name, wheel.version) == ("thing", "1.0")
    assert wheel.files == {"thing/__init__.py": File(content=b"a = 1\n")}


def test_an_altered_wheel_is_refused(tmp_path, monkeypatch):
    fake_wheel(tmp_path, monkeypatch, b"a = 2\n", b"a = 1\n")
    with pytest.raises(Malformed) as caught:
        base_wheels.collect()
    assert caught.value.code == "altered-wheel"


def test_a_missing_wheel_is_named(monkeypatch):
    monkeypatch.setattr(base_wheels, "WHEELS", {"no-such-wheel": "x/"})
    with pytest.raises(NotFound, match="no-such-wheel"):
        base_wheels.collect()


def test_another_python_is_refused(monkeypatch):
    monkeypatch.setattr(base_wheels, "PYTHON", (3, 99))
    with pytest.raises(Misuse, match=r"needs Python 3.99, the base's own, and this is"):
        base_wheels.collect()


def test_the_cache_follows_the_environment():
    assert str(build.default_cache({"XDG_CACHE_HOME": "/c", "HOME": "/h"})) == "/c/strongroom"
    assert str(build.default_cache({"XDG_CACHE_HOME": "relative", "HOME": "/h"})) == "/h/.cache/strongroom"


def test_the_key_follows_everything_that_decides():
    one = build.Sources(debs=(), wheels=(), agent={"a": File(content=b"1")}, firmware=b"f", debug=False)

    def changed(**fields):
        values = {"debs": (), "wheels": (), "agent": one.agent, "firmware": b"f", "debug": False}
        return build.Sources(**(values | fields)).key

    assert changed() == one.key
    others = [
        changed(agent={"a": File(content=b"2")}),
        changed(firmware=b"g"),
        changed(debug=True),
        changed(profile=SNP),
        changed(builder="sha256:" + "1" * 64),
        changed(debs=(Deb(name="p", version="1", digest="sha256:" + "0" * 64, size=1),)),
        changed(wheels=(base_wheels.Wheel(name="w", version="1", digest="sha256:" + "0" * 64, files={}),)),
    ]
    assert len({one.key, *others}) == len(others) + 1


def test_a_source_without_an_agent_is_refused(tmp_path):
    for name in build.AGENT_MODULES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    with pytest.raises(Misuse, match="there is no agent"):
        inputs.agent(tmp_path)


def test_the_cache_keeps_what_was_used_last(tmp_path):
    for index in range(9):
        for kind in ("base", "unpacked"):
            folder = tmp_path / kind / f"{index:064x}"
            folder.mkdir(parents=True)
            os.utime(folder, (index, index))
    (tmp_path / "base" / "current").symlink_to(f"{0:064x}")
    cache.prune(tmp_path, tmp_path / "base" / f"{0:064x}")
    left = {
        kind: sorted(int(path.name, 16) for path in (tmp_path / kind).glob("0*"))
        for kind in ("base", "unpacked")
    }
    assert left == {"base": [0, 6, 7, 8], "unpacked": [3, 4, 5, 6, 7, 8]}
    assert (tmp_path / "base" / "current").is_dir()
