"""Strongroom's own way to ask apt: nothing of the machine's counts, nothing unsigned does, no lists is a failure."""

import hashlib
import shutil

import pytest

from strongroom.bases.packages import apt as base_apt
from strongroom.errors import NotFound, Unavailable

needs_apt = pytest.mark.skipif(shutil.which("apt-get") is None, reason="not a Debian")


def repository(folder):
    """An archive of Debian's layout that nobody signed."""
    lists = folder / "dists" / "bookworm-backports"
    (lists / "main" / "binary-amd64").mkdir(parents=True)
    (lists / "main" / "binary-amd64" / "Packages").write_bytes(b"")
    empty = hashlib.sha256(b"").hexdigest()
    (lists / "Release").write_text(
        "Origin: Debian\nSuite: bookworm-backports\nCodename: bookworm-backports\nComponents: main\n"
        f"Architectures: amd64\nDate: Sat, 28 Nov 2026 10:00:00 UTC\nSHA256:\n {empty} 0 main/binary-amd64/Packages\n"
    )
    return f"file:{folder}"


def mirrored(monkeypatch, address):
    monkeypatch.setattr(base_apt, "_mirrors", lambda: (address, address))


@needs_apt
def test_lists_without_a_signature_of_debians_are_refused(tmp_path, monkeypatch):
    mirrored(monkeypatch, repository(tmp_path / "mirror"))
    for _ in range(2):  # and having been refused once changes nothing
        with pytest.raises(Unavailable) as caught:
            base_apt.own(tmp_path / "a folder", ["bookworm-backports"])
        assert "is not signed" in caught.value.message
    assert not (tmp_path / "a folder" / "bookworm-backports" / "fetched").exists()


@needs_apt
def test_lists_that_are_there_serve_on_when_the_mirror_is_gone(tmp_path, monkeypatch):
    mirrored(monkeypatch, f"file:{tmp_path}/nowhere")
    home = tmp_path / "apt" / "bookworm-backports"
    with pytest.raises(Unavailable, match="E: The repository"):
        base_apt.own(tmp_path / "apt", ["bookworm-backports"])
    (home / "fetched").touch()
    asked = []
    monkeypatch.setattr(base_apt.Apt, "run", lambda _, *words, **__: asked.append(words))
    base_apt.own(tmp_path / "apt", ["bookworm-backports"])
    assert asked == []  # a day has not passed
    import os

    os.utime(home / "fetched", (1, 1))

    def fail(*_, **__):
        raise Unavailable("no", code="no-packages")

    monkeypatch.setattr(base_apt.Apt, "run", fail)
    base_apt.own(tmp_path / "apt", ["bookworm-backports"])
    assert (home / "fetched").stat().st_mtime == 1


@needs_apt
def test_nothing_of_the_machine_decides(tmp_path, monkeypatch):
    mirrored(monkeypatch, "http://mirror.example/debian")
    monkeypatch.setattr(base_apt.Apt, "run", lambda *_, **__: "")
    apt = base_apt.own(tmp_path, ["bookworm-backports", "bookworm-backports"])
    monkeypatch.undo()
    said = apt.run("apt-config", "dump")
    for line in (
        'Dir::Etc::sourcelist "/dev/null";',
        'Dir::Etc::trustedparts "/dev/null";',
        'Dir::Etc::preferencesparts "/dev/null";',
        'APT::Get::AllowUnauthenticated "false";',
        f'Dir::State::lists "{tmp_path}/bookworm-backports/lists";',
    ):
        assert line.lower() in said.lower(), line
    assert "Post-Invoke" not in said
    text = (tmp_path / "bookworm-backports" / "parts" / "debian.sources").read_text()
    assert text == (
        "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm-backports\n"
        f"Components: main\nArchitectures: amd64\nSigned-By: {base_apt.KEYRING}\n"
    )


def test_mirrors_are_those_that_the_machine_uses_for_debian(monkeypatch):
    lines = [
        "Debian|bookworm|main|http://near.example/debian/",
        "Other|bookworm|main|http://other.example/",
        "Debian|bookworm-security|main|http://near.example/security/",
        "Debian|bookworm|contrib|http://far.example/",
        "Debian|bookworm|main|http://second.example/",
    ]
    monkeypatch.setattr(base_apt.Apt, "run", lambda *_, **__: "\n".join(lines))
    assert base_apt._mirrors() == ("http://near.example/debian/", "http://near.example/security/")
    monkeypatch.setattr(base_apt.Apt, "run", lambda *_, **__: "Debian|bookworm|main|http://a b\nSigned-By: x")
    assert base_apt._mirrors() == (base_apt.MIRROR, base_apt.SECURITY)


def test_without_debians_keys_nothing_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(base_apt, "KEYRING", tmp_path / "none.gpg")
    with pytest.raises(NotFound) as caught:
        base_apt.own(tmp_path, ["bookworm-backports"])
    assert "debian-archive-keyring" in caught.value.hint
