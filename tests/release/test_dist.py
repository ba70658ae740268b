"""What `make dist` builds: the same bytes again, installed and started where there is nothing else. Minutes: for soak."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest
from tools import debian_root, images
from tools.release import __main__ as release
from tools.release import broker_image

import strongroom
from strongroom_testing import broker_process, brokers

pytestmark = [pytest.mark.root, pytest.mark.soak]
EPOCH = 1_700_000_000
CHROOT = debian_root.chroot()
# The root file system of an image, read-only, with its volume and what the kernel gives, in a process tree of its own.
_CONTAINER = """\
mount --bind "$R" "$R"
mount -o remount,bind,ro "$R"
mount --bind "$V" "$R/broker"
mount -t proc proc "$R/proc"
mount --rbind /dev "$R/dev"
exec "$@"
"""


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """The folder of a release, and of the same release made again."""
    first, second = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    release.build(first, epoch=EPOCH)
    before = os.umask(0o077)
    try:
        release.build(second, epoch=EPOCH)
    finally:
        os.umask(before)
    return first, second


def test_the_same_commit_gives_the_same_bytes(dist):
    first, second = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in dist)
    version = strongroom.__version__
    assert first.keys() == {
        f"strongroom-{version}-py3-none-any.whl",
        f"strongroom-{version}.tar.gz",
        f"strongroom_{version}_amd64.deb",
        f"strongroom-broker-{version}.oci.tar",
        "SHA256SUMS",
    }
    assert [name for name in first if first[name] != second[name]] == []
    checked = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=dist[0], check=False)
    assert checked.returncode == 0


def test_debians_checker_finds_no_error_in_the_package(dist):
    if shutil.which("lintian") is None:
        pytest.skip("lintian is not installed")
    (package,) = dist[0].glob("*.deb")
    done = subprocess.run(
        ["lintian", "--allow-root", "--fail-on", "error", package],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_package_is_installed_on_a_bare_debian_and_runs(dist, tmp_path):
    (package,) = dist[0].glob("*.deb")
    root = tmp_path / "root"
    debs = debian_root.fetch(
        ["python3", "dpkg", "libc6", "libgcc-s1", *debian_root.BASIC, "tar", "diffutils"],
        images.cache_folder() / "debs",
    )
    debian_root.unpack(debs, root)
    known = [
        subprocess.run(["dpkg-deb", "-f", deb], capture_output=True, text=True, check=True).stdout
        for deb in debs
    ]
    (root / "var/lib/dpkg/status").write_text(
        "".join(text.replace("\n", "\nStatus: install ok installed\n", 1) + "\n" for text in known)
    )
    shutil.copy(package, root / "package.deb")

    def inside(*words):
        line = [
            CHROOT,
            str(root),
            "/usr/bin/env",
            "-i",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME=/root",
            *words,
        ]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    done = inside("dpkg", "--install", "/package.deb")
    assert done.returncode == 0, done.stdout + done.stderr
    assert inside("strongroom", "--version").stdout == f"strongroom {strongroom.__version__}\n"
    assert list((root / "usr/lib/strongroom/strongroom").glob("__pycache__/*.pyc"))
    assert inside("strongroom", "base", "build", "--help").returncode == 0
    assert (root / "usr/share/man/man1/strongroom.1.gz").is_file()
    assert inside("bash", "-n", "/usr/share/bash-completion/completions/strongroom").returncode == 0
    done = inside("dpkg", "--remove", "strongroom")
    assert done.returncode == 0, done.stderr
    assert not (root / "usr/lib/strongroom").exists()


def test_the_image_starts_as_nobody_over_a_read_only_root_and_answers_a_challenge(dist, tmp_path):
    (archive,) = dist[0].glob("*.oci.tar")
    layout, root = tmp_path / "layout", tmp_path / "root"
    with tarfile.open(archive) as source:
        source.extractall(layout)  # noqa: S202 - our own
    seen = subprocess.run(
        ["skopeo", "inspect", "--config", f"oci:{layout}"], capture_output=True, check=False
    )
    assert seen.returncode == 0, seen.stderr
    settings = images.config(layout)["config"]
    assert settings["User"] == f"{broker_image.USER}:{broker_image.USER}"
    _unpack(layout, root)
    assert not [name for name in ("sh", "bash", "dash", "perl") if (root / "usr/bin" / name).exists()]

    volume = tmp_path / "volume"
    prepared = broker_process.prepare(volume)
    subprocess.run(["chown", "-R", settings["User"], volume], check=True)
    tmp_path.chmod(0o755)
    environment = [*settings["Env"], f"STRONGROOM_PASSPHRASE={brokers.PASSPHRASE.decode()}"]
    program = [*settings["Entrypoint"], *settings["Cmd"]]
    line = [
        *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "sh", "-ec", _CONTAINER, "sh"),
        *("env", "-i", *environment, CHROOT, f"--userspec={settings['User']}", "--groups=", str(root), *program),
    ]  # fmt: skip
    process = subprocess.Popen(
        line,
        env={**os.environ, "R": str(root), "V": str(volume)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout.readline(), process.stderr.read()
        with prepared.client() as client:
            assert prepared.challenge(client).nonce
        (broker,) = _below(process.pid, "strongroom")
        status = Path(f"/proc/{broker}/status").read_text()
        ids = "\t".join([str(broker_image.USER)] * 4)
        assert f"\nUid:\t{ids}\n" in status
        assert "\nCapEff:\t0000000000000000\n" in status
        mounted = Path(f"/proc/{broker}/mountinfo").read_text().splitlines()
        (of_root,) = [one.split() for one in mounted if one.split()[4] == "/"]
        assert "ro" in of_root[5].split(",")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        process.stdout.close()
        process.stderr.close()


def _unpack(layout, root):
    manifest = images._document(layout, images.digest(layout))
    root.mkdir()
    for layer in manifest["layers"]:
        with tarfile.open(layout / "blobs" / layer["digest"].replace(":", "/")) as source:
            source.extractall(root, numeric_owner=True)  # noqa: S202 - our own


def _below(parent, word):
    """The processes below a process that were started as this program."""
    tree = subprocess.run(
        ["ps", "-e", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 2) for line in tree.splitlines()]
    found, todo = [], [str(parent)]
    while todo:
        one = todo.pop()
        todo += [pid for pid, above, _ in rows if above == one]
        found += [int(pid) for pid, _, words in rows if pid == one and "python" in words and word in words]
    return found
