"""Preflight: each finding on an image that deserves it, and none on one that does not."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from strongroom.errors import Misuse
from strongroom.images.compose import document
from strongroom.images.preflight import examine, libraries
from strongroom.images.preflight.examine import PLATFORMS, ImageLocation, PreflightReport
from tests.unit.images.elf_kit import cache, loader, program
from tests.unit.images.kit import ACCOUNTS, END, Layout, entry, folder, pax, simple, symlink

LOADER = b"/lib64/ld-linux-x86-64.so.2"
LIBC = (
    folder(b"lib64/")
    + entry(b"lib64/ld-linux-x86-64.so.2", loader(b"/lib64", b"/usr/lib64"), mode=0o755)
    + entry(b"lib64/libc.so.6", program(), mode=0o644)
)
GOOD = program(interpreter=LOADER, needed=(b"libc.so.6",))
BIN = folder(b"bin/")
SHELL = entry(b"bin/sh", GOOD, mode=0o755)


def look(
    tmp_path: Path,
    *tarballs: bytes,
    platforms: tuple[str, ...] = ("local",),
    memory_mib: int = 512,
    **config: Any,
) -> PreflightReport:
    """The report of an image of these layers; `config` are its settings, by default of user 1000 with a PATH."""
    settings = {"User": "1000:100", "Entrypoint": ["/bin/program"], "Env": ["PATH=/bin"], **config}
    layout = simple(tmp_path / "layout", *(one + END for one in tarballs), config=settings)
    return examine.examine(
        ImageLocation(path=layout.path), scratch=tmp_path, platforms=platforms, memory_mib=memory_mib
    )


def bad(report: PreflightReport) -> dict[str, str]:
    """check → severity, of what is not fine."""
    return {one.check: one.severity.value for one, _ in report.findings if one.severity.value != "fine"}


def image(*more: bytes, program_file: bytes = GOOD, mode: int = 0o755) -> bytes:
    return BIN + ACCOUNTS + LIBC + entry(b"bin/program", program_file, mode=mode) + b"".join(more)


def test_a_sound_image_has_nothing_but_fine(tmp_path):
    report = look(tmp_path, image(), platforms=PLATFORMS)
    assert bad(report) == {}
    assert report.will_run
    assert all(report.runs_on(one) for one in PLATFORMS)
    told = json.loads(json.dumps(report.to_json()))
    assert told["platforms"] == dict.fromkeys(PLATFORMS, True)
    assert {one["check"] for one in told["findings"]} == {"program", "user", "memory"}


@pytest.mark.parametrize(
    ("files", "config", "check"),
    [
        (image(), {"Entrypoint": ["/bin/other"]}, "program"),
        (image(), {"Entrypoint": ["other"]}, "program"),
        (image(), {"Entrypoint": ["/bin"]}, "program"),
        (image(), {"Entrypoint": ["./program"], "WorkingDir": "/data"}, "program"),
        (image(), {"Entrypoint": ["/bin/sh", "-c", "exec x"]}, "shell"),
        (image(mode=0o644), {}, "program-mode"),
        (image(mode=0o744), {}, "program-mode"),
        (image(folder(b"private/", mode=0o700), entry(b"private/p", GOOD, mode=0o755)), {"Entrypoint": ["/private/p"]}, "program-mode"),
        (image(program_file=b"echo hello\n"), {}, "program-format"),
        (image(program_file=b"\x7fELF\2\1\1"), {}, "program-format"),
        (image(program_file=b"#!/bin/absent -x\n"), {}, "interpreter"),
        (image(program_file=b"#!bin/sh\n"), {}, "interpreter"),
        (image(program_file=b"#!\n"), {}, "interpreter"),
        (image(SHELL, program_file=b"#!/bin/sh\r\necho\r\n"), {}, "interpreter"),
        (image(program_file=b"#!/bin/program\n"), {}, "interpreter"),
        (image(entry(b"bin/env", GOOD, mode=0o755), program_file=b"#!/bin/env python3\n"), {}, "program"),
        (image(entry(b"bin/env", GOOD, mode=0o755), program_file=b"#!/bin/env -S ruby -w\n"), {}, "program"),
        (image(program_file=program(interpreter=b"/lib/ld-musl-x86_64.so.1")), {}, "loader"),
        (image(program_file=program(interpreter=LOADER, needed=(b"libgone.so",))), {}, "libraries"),
        (image(program_file=program(machine=183)), {}, "architecture"),
        (image(program_file=program(level=4)), {}, "cpu-level"),
        (image(), {"WorkingDir": "/data/x"}, "working-directory"),
        (image(entry(b"bin/systemd", GOOD, mode=0o755), symlink(b"bin/init", b"systemd")), {"Entrypoint": ["/bin/init"]}, "start-up"),
        (image(entry(b"bin/dockerd", GOOD, mode=0o755)), {"Entrypoint": ["dockerd"]}, "start-up"),
        (image(SHELL, program_file=b"#!/bin/sh\nexec gosu ann /bin/x\n"), {"User": ""}, "user"),
    ],
)  # fmt: skip
def test_what_blocks(tmp_path, files, config, check):
    report = look(tmp_path, files, **config)
    assert bad(report).get(check) == "blocks", report.findings
    assert not report.will_run
    assert all(one.fix for one, _ in report.findings if one.severity.value != "fine")


@pytest.mark.parametrize(
    ("files", "config", "check"),
    [
        (image(), {"User": ""}, "user"),
        (image(entry(b"bin/su", GOOD, mode=0o4755)), {}, "set-uid"),
        (image(pax({b"SCHILY.xattr.security.capability": bytes(20)}), entry(b"bin/ping", GOOD, mode=0o755)), {}, "set-uid"),
        (image(), {"Env": ["PATH=/bin", "LD_PRELOAD=/x.so"]}, "environment"),
        (image(), {"Env": ["PATH=/bin", "PYTHONPATH=/x"]}, "environment"),
        (image(), {"Env": ["PATH=/bin", "GCONV_PATH=/x"]}, "environment"),
        (image(), {"Env": ["PATH=/bin", "HTTP_PROXY=http://p"]}, "environment"),
        (image(), {"Env": ["PATH=/bin", "NVIDIA_VISIBLE_DEVICES=all"]}, "gpu"),
        (image(), {"ExposedPorts": {"80/tcp": {}}}, "ports"),
        (image(), {"Volumes": {"/data": {}}}, "volumes"),
        (image(), {"WorkingDir": "/data"}, "working-directory"),
        (image(folder(b"data/"), entry(b"data/x")), {}, "mount-points"),
        (image(entry(b"bin/bad", program(interpreter=b"/gone"), mode=0o755)), {}, "other-programs"),
        (image(), {"Cmd": ["/etc/absent.conf"]}, "argument"),
        (image(SHELL), {"Entrypoint": ["/bin/sh", "-c", "exec absent --x"]}, "shell"),
        (image(SHELL), {"Entrypoint": ["sh"]}, "standard-input"),
        (image(entry(b"bin/supervisord", GOOD, mode=0o755)), {"Entrypoint": ["supervisord"]}, "processes"),
        (image(entry(b"bin/java", GOOD, mode=0o755)), {"Entrypoint": ["java", "-jar", "/bin/program"]}, "memory"),
    ],
)  # fmt: skip
def test_what_warns(tmp_path, files, config, check):
    report = look(tmp_path, files, memory_mib=256, **config)
    assert bad(report) == {check: "warns"}, report.findings
    assert report.will_run
    assert all(one.fix for one, _ in report.findings if one.severity.value != "fine")


def test_harmless_variables_and_settings_are_fine(tmp_path):
    env = ["PATH=/bin", "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1", "LANG=C.UTF-8"]
    assert (
        bad(look(tmp_path, image(), Env=env, Healthcheck={"Test": ["CMD", "x"]}, StopSignal="SIGINT")) == {}
    )


def test_libraries_are_searched_as_the_loader_does(tmp_path):
    deep = program(interpreter=LOADER, needed=(b"libown.so",), runpath=b"$ORIGIN/../own")
    middle = program(needed=(b"libfar.so",))
    files = (
        folder(b"opt/") + folder(b"opt/app/") + folder(b"opt/app/bin/") + entry(b"opt/app/bin/run", deep, mode=0o755)
        + folder(b"opt/app/own/") + entry(b"opt/app/own/libown.so", middle)
        + symlink(b"bin/run", b"../opt/app/bin/run") + folder(b"far/") + entry(b"far/libfar.so", program())
    )  # fmt: skip
    run = {"Entrypoint": ["/bin/run"]}
    assert bad(look(tmp_path / "a", image(files), **run)) == {"libraries": "blocks"}
    assert bad(look(tmp_path / "b", image(files), **run, Env=["PATH=/bin", "LD_LIBRARY_PATH=/far"])) == {
        "environment": "warns"
    }
    conf = entry(b"etc/ld.so.conf", b"/far\n")
    for name, made, found in (
        ("c", cache(b"/far/libfar.so"), True),
        ("d", cache(b"/far/libfar.so", old=True), True),
        ("e", cache(b"/gone/libfar.so", b"/far/libfar.so"), True),
        ("f", cache(b"/far/libfar.so", flags=3), False),
        ("g", cache(b"/far/libfar.so", ability=1 << 62), False),
        ("h", cache(b"/far/libother.so"), False),
        ("i", cache(b"/far/libfar.so")[:40], False),
        ("j", cache(b"/far/libfar.so")[:60], False),
        ("k", b"", False),
    ):
        files_ = image(files, conf, entry(b"etc/ld.so.cache", made))
        assert bad(look(tmp_path / name, files_, **run)) == ({} if found else {"libraries": "blocks"}), name
    whole = image(files, entry(b"etc/ld.so.cache", cache(b"/far/libfar.so")))
    arm = entry(b"far/libfar.so", program(machine=183))
    assert bad(look(tmp_path / "arm", whole, arm, **run)) == {"libraries": "blocks"}


def test_a_loaders_own_folders_are_read_from_the_loader(tmp_path):
    debian = loader(b"/lib/x86_64-linux-gnu", b"/usr/lib/x86_64-linux-gnu", b"/lib", b"/usr/lib")
    dirs = folder(b"lib/") + folder(b"lib/x86_64-linux-gnu/") + folder(b"store/")

    def made(name: str, its: bytes, where: bytes) -> dict[str, str]:
        libc = entry(where + b"/libc.so.6", program(), mode=0o644)
        files = (
            BIN + ACCOUNTS + folder(b"lib64/") + dirs + entry(LOADER[1:], its, mode=0o755)
            + entry(b"bin/program", GOOD, mode=0o755) + libc
        )  # fmt: skip
        return bad(look(tmp_path / name, files))

    assert made("debian", debian, b"lib/x86_64-linux-gnu") == {}
    assert made("debian-lib64", debian, b"lib64") == {"libraries": "blocks"}
    assert made("fedora", loader(b"/lib64", b"/usr/lib64"), b"lib64") == {}
    assert made("fedora-lib", loader(b"/lib64", b"/usr/lib64"), b"lib") == {"libraries": "blocks"}
    assert made("store", loader(b"/store"), b"store") == {}
    # A loader that says nothing, or two things: neither yes nor no.
    assert made("silent", program(), b"lib64") == {"libraries": "warns"}
    assert made("silent-lost", program(), b"store") == {"libraries": "blocks"}
    assert made("two", debian + loader(b"/lib64"), b"lib64") == {"libraries": "warns"}


# Where the C library lies, whether the loader is one since glibc 2.33, the platform, and whether it is found.
ABILITIES = [
    (b"lib/glibc-hwcaps/x86-64-v2", True, "local", True),
    (b"lib/glibc-hwcaps/x86-64-v3", True, "local", True),
    (b"lib/glibc-hwcaps/x86-64-v4", True, "local", False),
    (b"lib/glibc-hwcaps/x86-64-v4", True, "snp", True),
    (b"lib/glibc-hwcaps/x86-64-v5", True, "snp", False),
    (b"lib/glibc-hwcaps/x86-64", True, "snp", False),
    (b"lib/glibc-hwcaps/x86-64-v2", False, "local", False),
    (b"opt/glibc-hwcaps/x86-64-v3", True, "local", True),
    (b"opt/glibc-hwcaps/x86-64-v4", True, "local", False),
]


@pytest.mark.parametrize(("where", "new", "platform", "found"), ABILITIES)
def test_folders_for_processors_are_searched_as_far_as_the_rooms_goes(tmp_path, where, new, platform, found):
    its = entry(LOADER[1:], loader(b"/lib", abilities=new), mode=0o755)
    files = (
        BIN
        + ACCOUNTS
        + its
        + entry(b"bin/program", GOOD, mode=0o755)
        + entry(where + b"/libc.so.6", program())
    )
    report = look(tmp_path, files, platforms=(platform,), Env=["PATH=/bin", "LD_LIBRARY_PATH=/opt"])
    assert report.will_run is found
    assert ("libraries" in bad(report)) is not found


def test_of_two_libraries_the_one_for_the_better_processor_is_loaded(tmp_path):
    """And with it what that one needs: nothing is known of the other's."""
    files = BIN + ACCOUNTS + entry(LOADER[1:], loader(b"/lib", abilities=True), mode=0o755)
    files += entry(b"bin/program", GOOD, mode=0o755)
    wants = {level: program(needed=(b"lib%s.so" % level,)) for level in (b"v4", b"v3", b"plain")}
    files += entry(b"lib/libc.so.6", wants[b"plain"])
    for level in (b"v4", b"v3"):
        files += entry(b"lib/glibc-hwcaps/x86-64-" + level + b"/libc.so.6", wants[level])
    for platform, level in (("local", b"v3"), ("snp", b"v4")):
        there = entry(b"lib/lib" + level + b".so", program())
        assert bad(look(tmp_path / f"{platform}-there", files + there, platforms=(platform,))) == {}
        report = look(tmp_path / platform, files, platforms=(platform,))
        assert bad(report) == {"libraries": "blocks"}
        assert f"lib{level.decode()}.so" in str(report.findings)


def test_ldconfigs_cache_names_libraries_for_processors(tmp_path):
    """Its entries for folders of `glibc-hwcaps` count as far as the processor goes; those of older kinds do not."""
    files = BIN + ACCOUNTS + entry(LOADER[1:], loader(b"/lib", abilities=True), mode=0o755)
    files += entry(b"bin/program", GOOD, mode=0o755)
    place = b"/far/glibc-hwcaps/x86-64-v3/libc.so.6"
    for name, made, found in (
        ("v3", cache(place, ability=1 << 62 | 2 << 32 | 1), True),
        ("v4", cache(place.replace(b"v3", b"v4"), ability=1 << 62 | 3 << 32), False),
        ("both", cache(place.replace(b"v3", b"v4"), place, ability=1 << 62), True),
        ("old", cache(place, ability=1 << 48), False),
        ("plain", cache(place), True),
    ):
        libc = entry(place[1:], program()) + entry(place[1:].replace(b"v3", b"v4"), b"no library")
        got = bad(look(tmp_path / name, files + libc + entry(b"etc/ld.so.cache", made), platforms=("local",)))
        assert got == ({} if found else {"libraries": "blocks"}), name


def test_a_library_that_needs_more_than_the_processor_starts_nothing(tmp_path):
    for name, new, wanted in (("new", True, {"cpu-level": "blocks"}), ("old", False, {})):
        its = entry(LOADER[1:], loader(b"/lib", abilities=new), mode=0o755)
        files = BIN + ACCOUNTS + its + entry(b"bin/program", GOOD, mode=0o755)
        files += entry(b"lib/libc.so.6", program(level=4))
        assert bad(look(tmp_path / name, files, platforms=("local",))) == wanted
        assert bad(look(tmp_path / f"{name}-tee", files, platforms=("snp",))) == {}


def test_this_machines_own_loader_tells_its_folders(tmp_path):
    """Debian's, which does not search /lib64: what was made up above holds for a loader as it is shipped."""
    real = Path("/lib64/ld-linux-x86-64.so.2").read_bytes()
    libc = entry(b"lib64/libc.so.6", program())
    files = BIN + ACCOUNTS + folder(b"lib64/") + folder(b"lib/") + entry(LOADER[1:], real, mode=0o755)
    files += entry(b"bin/program", GOOD, mode=0o755)
    assert bad(look(tmp_path / "a", files + libc)) == {"libraries": "blocks"}
    assert bad(look(tmp_path / "b", files + symlink(b"lib/libc.so.6", b"/lib64/libc.so.6") + libc)) == {}


@pytest.mark.parametrize("part", [b"/", b"/a"])
def test_rule_59_a_loader_made_to_be_looked_through_for_ever_is_read_once(tmp_path, monkeypatch, part):
    # At every slash, and for every program anew, this took hours.
    made = loader() + part * ((7 << 20) // len(part))
    many = b"".join(entry(b"usr/bin/p%d" % at, GOOD, mode=0o755) for at in range(50))
    files = folder(b"lib64/") + entry(LOADER[1:], made, mode=0o755) + many
    read = []
    glibc = libraries.Libraries._glibc
    monkeypatch.setattr(
        libraries.Libraries, "_glibc", lambda self, name: read.append(name) or glibc(self, name)
    )
    report = look(tmp_path, files + entry(b"bin/program", GOOD, mode=0o755), Env=["PATH=/bin:/usr/bin"])
    assert bad(report)["libraries"] == "blocks"  # there is no libc
    assert read == [LOADER] * 2  # in the image as it was built, too, for whether a mount hides the libc


def test_rule_59_folders_that_libraries_add_to_each_others_are_bounded_together(tmp_path, monkeypatch):
    def wanting(name: bytes, at: int, **more: bytes) -> bytes:
        made = program(needed=(name,), runpath=b":".join(b"/%d-%d" % (at, one) for one in range(10)), **more)
        tag = made.rindex(struct.pack("<Q", 29))  # RPATH, which counts for what is below too
        return made[:tag] + struct.pack("<Q", 15) + made[tag + 8 :]

    chain = b"".join(entry(b"lib64/l%d.so" % at, wanting(b"l%d.so" % (at + 1), at)) for at in range(20))
    files = image(chain, program_file=wanting(b"l0.so", 99, interpreter=LOADER))
    assert bad(look(tmp_path / "few", files)) == {"libraries": "blocks"}  # the last one is not there
    monkeypatch.setattr(libraries, "_MAX_LOOKS", 500)
    assert bad(look(tmp_path / "many", files)) == {"libraries": "warns"}


def test_the_level_of_the_processor_depends_on_the_platform(tmp_path):
    report = look(tmp_path, image(program_file=program(level=4)), platforms=PLATFORMS)
    assert [report.runs_on(one) for one in PLATFORMS] == [False, True, True, True, True]
    assert not report.will_run
    assert bad(look(tmp_path / "x", image(program_file=program(level=3)))) == {}


def test_an_enclave_holds_the_image_in_memory(tmp_path):
    big = entry(b"big", bytes(20 << 20))
    layout = simple(tmp_path / "layout", image(big) + END, config={"User": "1000", "Env": ["PATH=/bin"]})
    report = examine.examine(
        ImageLocation(path=layout.path), scratch=tmp_path, platforms=("snp", "nitro"), memory_mib=128
    )
    assert [report.runs_on(one) for one in ("snp", "nitro")] == [True, False]


def test_what_convert_refuses_is_a_finding(tmp_path):
    for name, config in {"user": {"User": "nobody-here"}, "nothing": {"Entrypoint": []}}.items():
        report = look(tmp_path / name, image(), **config)
        assert not report.will_run
        assert list(bad(report).values()) == ["blocks"]
    device = entry(b"bin/null", flag=b"3")
    assert bad(look(tmp_path / "device", image(device))) == {"convert-device-node": "blocks"}
    made = Layout(tmp_path / "arm")
    arm = made.image(image() + END, architecture="arm64") | {
        "platform": {"os": "linux", "architecture": "arm64"}
    }
    report = examine.examine(ImageLocation(path=made.index(arm).path), scratch=tmp_path, memory_mib=512)
    assert bad(report) == {"convert-no-image": "blocks"}


def test_an_unknown_platform_is_misuse(tmp_path):
    with pytest.raises(Misuse, match="platform 'sgx'"):
        look(tmp_path, image(), platforms=("sgx",))


def test_a_compose_files_settings_are_those_looked_at(tmp_path):
    text = "services: {a: {image: x, user: '5', command: [/etc/absent], environment: {LD_PRELOAD: x}}}"
    service = document.parse(text.encode(), what="f")
    layout = simple(tmp_path / "layout", image() + END, config={"Env": ["PATH=/bin"]})
    report = examine.examine(
        ImageLocation(path=layout.path),
        scratch=tmp_path,
        platforms=("local",),
        memory_mib=512,
        changes=service.run,
        before=service.findings,
    )
    assert bad(report) == {"image": "blocks", "environment": "warns", "argument": "warns"}


APP = entry(b"data/app", GOOD, mode=0o755)


@pytest.mark.parametrize(
    ("files", "config", "check"),
    [
        # The program itself: by its path, by PATH, through links of files and of folders, from the working directory.
        (image(APP), {"Entrypoint": ["/data/app"]}, "program"),
        (image(APP), {"Entrypoint": ["app"], "Env": ["PATH=/data:/bin"]}, "program"),
        (image(APP, symlink(b"bin/app", b"../data/app")), {"Entrypoint": ["/bin/app"]}, "program"),
        (image(APP, symlink(b"opt", b"/data")), {"Entrypoint": ["/opt/app"]}, "program"),
        (image(APP, symlink(b"work", b"data")), {"Entrypoint": ["./app"], "WorkingDir": "/work"}, "program"),
        *((image(entry(place + b"/app", GOOD, mode=0o755)), {"Entrypoint": ["/" + place.decode() + "/app"]}, "program")
          for place in (b"tmp", b"out", b"dev", b"dev/shm", b"proc/x", b"run/strongroom/tls", b"data/flights", b"tmp/a/b")),
        # Where a mount point leads, it covers what is there.
        (image(symlink(b"data", b"/srv/data"), entry(b"srv/data/app", GOOD, mode=0o755)), {"Entrypoint": ["/srv/data/app"]}, "program"),
        (image(symlink(b"tmp", b"var/tmp"), entry(b"var/tmp/app", GOOD, mode=0o755)), {"Entrypoint": ["/var/tmp/app"]}, "program"),
        # Through a shell.
        (image(APP, SHELL), {"Entrypoint": ["/bin/sh", "-c", "/data/app --all"]}, "program"),
        (image(APP, SHELL), {"Entrypoint": ["/bin/sh", "-c", "exec /data/app"]}, "program"),
        (image(SHELL, entry(b"tmp/run.sh", b"echo")), {"Entrypoint": ["/bin/sh", "/tmp/run.sh"]}, "argument"),
        # Its interpreter, env's too, and one behind another.
        (image(entry(b"tmp/sh", GOOD, mode=0o755), program_file=b"#!/tmp/sh\n"), {}, "interpreter"),
        (image(entry(b"bin/env", GOOD, mode=0o755), entry(b"tmp/py", GOOD, mode=0o755), program_file=b"#!/bin/env py\n"), {"Env": ["PATH=/tmp:/bin"]}, "interpreter"),
        (image(entry(b"bin/env", GOOD, mode=0o755), entry(b"tmp/py", GOOD, mode=0o755), program_file=b"#!/bin/env -S A=b py -u\n"), {"Env": ["PATH=/tmp:/bin"]}, "interpreter"),
        (image(entry(b"bin/two", b"#!/tmp/sh\n", mode=0o755), entry(b"tmp/sh", GOOD, mode=0o755), program_file=b"#!/bin/two\n"), {}, "interpreter"),
        (image(entry(b"bin/env", GOOD, mode=0o755), entry(b"bin/py", GOOD, mode=0o755), program_file=b"#!/bin/env py -u\n"), {}, "program"),
        # Its loader and its libraries.
        (image(entry(b"tmp/ld.so", program(), mode=0o755), program_file=program(interpreter=b"/tmp/ld.so")), {}, "loader"),
        (image(entry(b"data/libx.so", program()), program_file=program(interpreter=LOADER, needed=(b"libx.so",), runpath=b"/data")), {}, "libraries"),
        (image(entry(b"tmp/libx.so", program()), program_file=program(interpreter=LOADER, needed=(b"libx.so",), runpath=b"$ORIGIN/../tmp")), {}, "libraries"),
        (image(entry(b"data/libx.so", program()), symlink(b"lib64/libx.so", b"/data/libx.so"), program_file=program(interpreter=LOADER, needed=(b"libx.so",))), {}, "libraries"),
        # Its working directory: not in the room's own, or not for this user.
        (image(folder(b"tmp/w/")), {"WorkingDir": "/tmp/w"}, "working-directory"),
        (image(folder(b"work/", mode=0o700)), {"WorkingDir": "/work"}, "working-directory"),
    ],
)  # fmt: skip
def test_what_the_room_hides_blocks(tmp_path, files, config, check):
    report = look(tmp_path, files, **config)
    assert bad(report).get(check) == "blocks", report.findings
    assert not report.will_run


@pytest.mark.parametrize(
    ("files", "config"),
    [
        (image(APP, SHELL), {"Entrypoint": ["/bin/sh", "-c", "/data/app || /bin/program"]}),
        (image(entry(b"tmp/program", GOOD, mode=0o755)), {"Entrypoint": ["program"], "Env": ["PATH=/tmp:/bin"]}),
        (image(entry(b"usr/bin/x", b"#!/gone\n", mode=0o755), entry(b"bin/x", GOOD, mode=0o755)), {"Entrypoint": ["x"], "Env": ["PATH=/usr/bin:/bin"]}),
        (image(entry(b"usr/bin/x", GOOD, mode=0o700), entry(b"bin/x", GOOD, mode=0o755)), {"Entrypoint": ["x"], "Env": ["PATH=/usr/bin:/bin"]}),
        (image(), {"Entrypoint": ["program"], "Env": ["PATH=../bin"], "WorkingDir": "/etc"}),
        (image(entry(b"sys/app", GOOD, mode=0o755)), {"Entrypoint": ["/sys/app"]}),
        (image(entry(b"run/app", GOOD, mode=0o755)), {"Entrypoint": ["/run/app"]}),
        (image(entry(b"database/app", GOOD, mode=0o755)), {"Entrypoint": ["./app"], "WorkingDir": "/database"}),
        (image(symlink(b"tmp", b"var/tmp"), symlink(b"run", b"/tmp")), {}),
        (image(symlink(b"data", b"/srv/data"), symlink(b"out", b"srv/out"), symlink(b"dev", b"srv/dev")), {}),
        (image(), {"WorkingDir": "/out"}),
        (image(), {"WorkingDir": "/tmp"}),
        (image(), {"WorkingDir": "/out/result"}),
    ],
)  # fmt: skip
def test_what_the_room_does_not_hide_runs(tmp_path, files, config):
    report = look(tmp_path, files, **config)
    assert "blocks" not in bad(report).values(), report.findings
    assert report.will_run


def test_a_place_for_certificates_that_cannot_be_made_is_told(tmp_path):
    report = look(tmp_path, image(entry(b"run")))
    assert bad(report) == {"mount-points": "warns"}
    assert "no contract with certificate names" in report.findings[0][0].what


@pytest.mark.parametrize(
    ("variant", "severities"),
    [
        ("", {}),
        ("v1", {"local": "fine"}),
        ("v3", {"local": "fine", "snp": "fine"}),
        ("v4", {"local": "warns", "snp": "fine"}),
    ],
)
def test_an_image_for_a_level_of_processors_is_told(tmp_path, variant, severities):
    more = {"variant": variant} if variant else {}
    layout = simple(
        tmp_path / "layout",
        image() + END,
        config={"User": "1000:100", "Entrypoint": ["/bin/program"], "Env": ["PATH=/bin"]},
        **more,
    )
    report = examine.examine(
        ImageLocation(path=layout.path), scratch=tmp_path, platforms=("local", "snp"), memory_mib=512
    )
    assert report.will_run
    found = {
        platform: one.severity.value
        for one, platforms in report.findings
        if one.check == "cpu-level" and one.where == "image"
        for platform in platforms
    }
    assert {platform: found[platform] for platform in severities} == severities
    assert bool(found) is bool(severities)


def test_what_is_left_out_is_told(tmp_path):
    labelled = pax({b"SCHILY.xattr.com.apple.provenance": b"x"}) + entry(b"app.txt", b"x")
    device = entry(b"dev/console", flag=b"3")
    report = look(tmp_path, image(labelled, device))
    assert bad(report) == {}
    told = [one.what for one, _ in report.findings if one.check == "left-out"]
    assert len(told) == 2
    assert "com.apple.provenance" in told[0]
    assert "/dev" in told[1]


def more_programs(*names: bytes) -> tuple[bytes, ...]:
    return (SHELL, *(entry(b"bin/" + name, GOOD, mode=0o755) for name in names))


STARTERS = more_programs(b"python3", b"node", b"java", b"Rscript", b"tini", b"dumb-init", b"env", b"timeout", b"nice", b"setsid", b"busybox")  # fmt: skip
HIDDEN = (
    folder(b"data/"),
    entry(b"data/app", GOOD, mode=0o755),
    folder(b"tmp/"),
    entry(b"tmp/run.sh", b"#!/bin/sh\n", mode=0o755),
)


@pytest.mark.parametrize(
    ("words", "folder_of_work", "check"),
    [
        ("python3 -u /data/app", "/", "argument"),
        ("python3 -W ignore -Xutf8 /data/app", "/", "argument"),
        ("python3 app", "/data", "argument"),
        ("python3 data/app", "/", "argument"),
        ("node --max-old-space-size=4096 -r ts-node /data/app", "/", "argument"),
        ("java -Xmx1g -cp /x -jar /data/app", "/", "argument"),
        ("Rscript --vanilla /data/app", "/", "argument"),
        ("sh -e /tmp/run.sh", "/", "argument"),
        ("busybox sh /tmp/run.sh", "/", "argument"),
        ("tini -- /data/app", "/", "program"),
        ("tini -g -e 143 -- python3 /data/app", "/", "argument"),
        ("dumb-init -r 15:2 /tmp/run.sh", "/", "program"),
        ("env -u HOME A=1 /data/app", "/", "program"),
        ("timeout -k 5 10 /data/app", "/", "program"),
        ("nice -n 5 setsid -w /data/app", "/", "program"),
        ("tini absent", "/", "program"),
    ],
)
def test_what_a_program_starts_in_turn_and_a_room_hides_blocks(tmp_path, words, folder_of_work, check):
    report = look(tmp_path, image(*STARTERS, *HIDDEN), Entrypoint=words.split(), WorkingDir=folder_of_work)
    assert [one.check for one, _ in report.findings if one.severity.value == "blocks"] == [check]
    assert not report.will_run


@pytest.mark.parametrize(
    ("text", "check"),
    [
        (["-c", "python3 /data/app"], "argument"),
        (["-ec", "/data/app"], "program"),
        (["-euo", "pipefail", "-c", "exec tini -- /data/app"], "program"),
    ],
)
def test_what_a_shell_is_to_start_and_a_room_hides_blocks(tmp_path, text, check):
    report = look(tmp_path, image(*STARTERS, *HIDDEN), Entrypoint=["sh", *text])
    assert [one.check for one, _ in report.findings if one.severity.value == "blocks"] == [check]


@pytest.mark.parametrize(
    "words",
    [
        ["python3", "-m", "app", "/data/app"],
        ["python3", "/bin/program", "--in", "/data/app"],
        ["python3", "-c", "pass", "/data/app"],
        ["python3", "--unknown", "/data/app"],
        ["tini", "--unknown", "/data/app"],
        ["tini", "--", "python3", "-m", "app", "/data/app"],
        ["env", "PATH=/data", "app"],
        ["java", "-cp", "/bin/program", "Main", "-jar", "/data/app"],
        ["sh", "-c", "test -e /data/app || exec python3 /data/app"],
        ["sh", "-c"],
        ["sh", "--unknown", "/data/app"],
        ["sh", "-c", "echo 'unfinished"],
        ["program", "/data/app"],
    ],
)
def test_a_dataset_that_a_program_is_told_of_is_no_program(tmp_path, words):
    assert look(tmp_path, image(*STARTERS, *HIDDEN), Entrypoint=words).will_run


def test_a_starter_gives_the_shell_what_is_no_program(tmp_path):
    report = look(
        tmp_path, image(*STARTERS, entry(b"start", b"echo\n", mode=0o755)), Entrypoint=["tini", "/start"]
    )
    assert report.will_run
    assert bad(report) == {"program-format": "warns"}


@pytest.mark.parametrize(
    ("loader", "told"),
    [
        (entry(b"lib64/ld-linux-x86-64.so.2", program(), mode=0o644), "may not be executed by user 1000"),
        (folder(b"lib64/ld-linux-x86-64.so.2/"), "is a directory"),
        (entry(b"lib64/ld-linux-x86-64.so.2", program(machine=183), mode=0o755), "is for arm64"),
        (entry(b"lib64/ld-linux-x86-64.so.2", b"text", mode=0o755), "is no ELF file"),
    ],
)
def test_a_loader_that_the_kernel_cannot_start_blocks(tmp_path, loader, told):
    libraries = folder(b"lib64/") + loader + entry(b"lib64/libc.so.6", program())
    report = look(tmp_path, BIN + ACCOUNTS + libraries + entry(b"bin/program", GOOD, mode=0o755))
    [found] = [one for one, _ in report.findings if one.check == "loader"]
    assert found.severity.value == "blocks"
    assert told in found.what


@pytest.mark.parametrize(
    "library",
    [
        folder(b"opt/") + entry(b"opt/libx.so", program(), mode=0o600),
        folder(b"opt/", mode=0o700) + entry(b"opt/libx.so", program()),
    ],
)
def test_a_library_that_the_user_may_not_read_is_not_found(tmp_path, library):
    needs = program(interpreter=LOADER, needed=(b"libx.so",), runpath=b"/opt")
    report = look(tmp_path, image(library, program_file=needs))
    assert bad(report) == {"libraries": "blocks"}


def test_a_script_that_its_interpreter_may_not_read_blocks(tmp_path):
    report = look(tmp_path, image(SHELL, program_file=b"#!/bin/sh\n", mode=0o711))
    assert bad(report) == {"program-mode": "blocks"}
    mine = entry(b"bin/program", b"#!/bin/sh\n", mode=0o700, uid=1000)
    assert look(tmp_path / "mine", BIN + ACCOUNTS + LIBC + SHELL + mine).will_run
