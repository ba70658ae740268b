"""Programs that want more rights than anybody has in a room, and what is said of them."""

from __future__ import annotations

import pytest

from strongroom.images.preflight import examine
from strongroom.images.preflight.examine import ImageLocation
from tests.unit.images.kit import ACCOUNTS, END, entry, folder, simple, symlink

PROGRAM = b"#!/bin/sh\n"
GOSU = "if [ $(id -u) = 0 ]; then exec gosu ann $0 $@; fi\nexec $@\n"
NGINX = b"events {}\n"


def told(tmp_path, *files: bytes, **config) -> list[tuple[str, str, str]]:
    """Severity, words and fix of what is said of the user."""
    tools = folder(b"bin/") + ACCOUNTS + entry(b"bin/sh", b"\x7fELF", mode=0o755)
    settings = {"Env": ["PATH=/bin"], "User": "", **config}
    layout = simple(tmp_path / "layout", tools + b"".join(files) + END, config=settings)
    report = examine.examine(
        ImageLocation(path=layout.path), scratch=tmp_path, platforms=("local",), memory_mib=512
    )
    return [
        (one.severity.value, one.what, one.fix)
        for one, _ in report.findings
        if one.check == "user" and one.severity.value != "fine"
    ]


def script(text: str, name: bytes = b"start") -> bytes:
    return entry(name, b"#!/bin/sh\n" + text.encode(), mode=0o755)


# Files, settings, and what is said: how severe it is, and words of it.
CASES = [
    ([], {"Entrypoint": ["gosu", "ann", "x"]}, ("blocks", "`gosu ann x` changes the user")),
    ([], {"Entrypoint": ["/sbin/su-exec", "ann", "x"], "User": "7"}, ("blocks", "nobody can change users")),
    ([], {"Entrypoint": ["tini", "--", "env", "A=b", "sudo", "x"]}, ("blocks", "`sudo x`")),
    ([], {"Entrypoint": ["sh", "-c", "exec runuser -u ann x"]}, ("blocks", "`runuser -u ann x`")),
    ([], {"Entrypoint": ["chpst", "-u", "ann", "x"]}, ("blocks", "`chpst -u ann x`")),
    ([], {"Entrypoint": ["chpst", "-m", "9", "x"]}, ("warns", "root, but without any capability")),
    ([], {"Entrypoint": ["start-stop-daemon", "--chuid", "ann"]}, ("blocks", "start-stop-daemon")),
    ([symlink(b"bin/become", b"gosu"), entry(b"bin/gosu", PROGRAM, mode=0o755)], {"Entrypoint": ["become", "x"]}, ("blocks", "`become x`")),
    ([script(GOSU)], {"Entrypoint": ["/start"], "Cmd": ["x"]}, ("blocks", "root has no capabilities")),
    ([script(GOSU)], {"Entrypoint": ["sh", "/start"], "Cmd": ["x"]}, ("blocks", "`gosu ann ... x`")),
    ([script(GOSU)], {"Entrypoint": ["sh", "./start"], "WorkingDir": "/"}, ("blocks", "gosu")),
    ([script(GOSU)], {"Entrypoint": ["/start"], "User": "7"}, None),
    ([script("exec gosu ann x")], {"Entrypoint": ["/start"], "User": "7"}, ("blocks", "gosu")),
    ([script("unknown && exec gosu ann x")], {"Entrypoint": ["/start"]}, ("warns", "where the script comes by it")),
    ([script("gosu ann x || true; exec y")], {"Entrypoint": ["/start"]}, ("warns", "gosu")),
    ([script('exec "$@"')], {"Entrypoint": ["/start"], "Cmd": ["gosu", "ann"]}, ("blocks", "gosu")),
    ([script('exec $0 "$@"')], {"Entrypoint": ["/start"], "Cmd": ["x"]}, ("warns", "root, but")),
    ([script('exec /two "$@"'), script(GOSU, b"two")], {"Entrypoint": ["/start"], "Cmd": ["x"]}, ("blocks", "gosu")),
    ([entry(b"start", b"#!/bin/env -S bash -e\ngosu ann; true\n", mode=0o755)], {"Entrypoint": ["/start"]}, ("blocks", "gosu")),
    ([entry(b"start", b"#!/bin/python3\n# exec gosu ann\n", mode=0o755)], {"Entrypoint": ["/start"]}, ("warns", "root, but")),
    ([script("set -e\nchown -R ann:users /srv; x")], {"Entrypoint": ["/start"]}, ("blocks", "gives files to another user")),
    ([script("set -e\nchown -R 0:0 /srv; x")], {"Entrypoint": ["/start"]}, ("warns", "root, but")),
    ([script("set -e\nchown $X /srv; chown --reference=/x /y; x")], {"Entrypoint": ["/start"]}, ("warns", "root, but")),
    # Servers that root starts.
    ([], {"Entrypoint": ["/usr/lib/postgresql/15/bin/postgres", "-D", "/x"]}, ("blocks", "postgres refuses to be run by root")),
    ([], {"Entrypoint": ["postgres", "--version"]}, ("warns", "root, but")),
    ([], {"Entrypoint": ["postgres"], "User": "7"}, None),
    ([script('exec "$@"')], {"Entrypoint": ["/start"], "Cmd": ["postgres"]}, ("blocks", "postgres refuses")),
    ([], {"Entrypoint": ["mariadbd"]}, ("blocks", "mariadbd refuses")),
    ([], {"Entrypoint": ["mysqld", "--user=root"]}, ("warns", "root, but")),
    ([], {"Entrypoint": ["memcached", "-u", "ann"]}, ("blocks", "memcached changes its user")),
    ([], {"Entrypoint": ["apt-get", "update"]}, ("blocks", "_apt")),
    ([], {"Entrypoint": ["nginx", "-g", "daemon off;"]}, ("blocks", "nginx starts its workers as another user")),
    ([entry(b"etc/nginx/nginx.conf", b"user  root;\n" + NGINX)], {"Entrypoint": ["nginx"]}, ("warns", "root, but")),
    ([entry(b"etc/nginx/nginx.conf", b"user www-data;\n" + NGINX)], {"Entrypoint": ["nginx"]}, ("blocks", "nginx")),
    ([entry(b"etc/nginx/nginx.conf", NGINX)], {"Entrypoint": ["nginx", "-g", "daemon off; user root;"]}, ("warns", "root, but")),
    ([entry(b"etc/nginx/nginx.conf", b"user root;\n")], {"Entrypoint": ["nginx", "-g", "user root;"]}, ("blocks", "nginx")),
    ([entry(b"own.conf", b"user root;\n")], {"Entrypoint": ["nginx", "-c", "/own.conf"]}, ("warns", "root, but")),
]  # fmt: skip


@pytest.mark.parametrize(("files", "config", "wanted"), CASES)
def test_what_takes_rights_that_nobody_has_is_told(tmp_path, files, config, wanted):
    found = told(tmp_path, *files, **config)
    if wanted is None:
        assert found == []
        return
    [(severity, what, fix)] = found
    assert severity == wanted[0]
    assert wanted[1] in what
    assert fix


@pytest.mark.parametrize(
    ("words", "account"),
    [
        (["gosu", "ann:users", "x"], "ann"),
        (["setpriv", "--reuid=ann", "x"], "ann"),
        (["start-stop-daemon", "--chuid=ann"], "ann"),
        (["postgres"], "postgres"),
        (["gosu", "root", "x"], "the one that it would change to"),
        (["gosu", "a b", "x"], "the one that it would change to"),
        (["su", "ann"], "the one that it would change to"),
    ],
)
def test_the_way_to_mend_it_names_the_account_where_it_is_plain(tmp_path, words, account):
    [(_, _, fix)] = told(tmp_path, Entrypoint=words)
    assert fix == f"set USER in the image, or `user:` in a compose file, to {account}"
