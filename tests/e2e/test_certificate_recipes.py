"""Recipes by which real programs read a rotated certificate: the delivery of a contract, played on this machine.

Each is written as its contract would say it. That replaced files alone change nothing is shown of each too: it is why a room
tells the program and then looks.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.agent import owners
from strongroom.agent.certificates import taken
from strongroom.agent.certificates.delivery import CertificateFolder
from strongroom.agent.certificates.taken import Taken
from strongroom.model.contracts.certificate_terms import Delivery, Signal
from strongroom.streams.poll import Poll
from tests.unit.agent import tls_material

pytestmark = pytest.mark.root
POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"))), Path("/none"))


@pytest.fixture
def tmp_path():
    """A folder that programs' own users get to: pytest's are its own user's, and it sees to that again whenever it starts."""
    with tempfile.TemporaryDirectory(prefix="strongroom-recipe-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where the program finds its first certificate: /run/strongroom/tls of a room."""
    monkeypatch.setattr(owners, "FIRST", 0)
    (tmp_path / "tls").mkdir(mode=0o755)
    made = CertificateFolder(str(tmp_path / "tls"), Delivery(uid=0, gid=0))
    made.write(tls_material.generation("alice"))
    return made


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def running(tmp_path, *command, **named):
    """A program in the foreground, as a room would run it; its log is shown where the test fails."""
    log = tmp_path / "log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, **named
        )
        try:
            yield process
        finally:
            print(log.read_text(errors="replace")[-4000:])
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def connect():
    plain = socket.socket()
    plain.setblocking(False)
    return plain


def look(port, certificate, seconds=20.0):
    return taken.wait_for(Poll(), connect, port, certificate, seconds=seconds)


def rotate(place, port, tell):
    """Files alone change nothing; with `tell` the program serves what lies there. Twice: the second time is another generation."""
    assert look(port, first_of(place)) is Taken.NEW
    for _ in range(2):
        fresh = tls_material.generation("alice")
        place.write(fresh)
        assert look(port, fresh.leaf, seconds=1.0) is Taken.OLD
        tell()
        assert look(port, fresh.leaf) is Taken.NEW


def first_of(place):
    """The leaf that lies there (DER)."""
    leaf, end, _ = (Path(place.folder) / "certificate.pem").read_text().partition("-----END CERTIFICATE-----")
    return ssl.PEM_cert_to_DER_cert(leaf + end)


def sent(process, name):
    """The signal that the contract says, to the program itself."""
    return lambda: process.send_signal(signal.Signals[f"SIG{Signal(name).value}"])


def test_nginx_by_hup(place, tmp_path):
    port = free_port()
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"""daemon off; pid {tmp_path}/pid; error_log stderr; user root;
        events {{}}
        http {{
          access_log off; client_body_temp_path {tmp_path}/b; proxy_temp_path {tmp_path}/p;
          fastcgi_temp_path {tmp_path}/f; uwsgi_temp_path {tmp_path}/u; scgi_temp_path {tmp_path}/s;
          server {{
            listen 127.0.0.1:{port} ssl;
            ssl_certificate {place.folder}/certificate.pem; ssl_certificate_key {place.folder}/key.pem;
            return 200;
          }}
        }}"""
    )
    with running(tmp_path, shutil.which("nginx") or "/usr/sbin/nginx", "-c", str(config)) as process:
        rotate(place, port, sent(process, "HUP"))


def test_stunnel_by_hup(place, tmp_path):
    port = free_port()
    config = tmp_path / "stunnel.conf"
    config.write_text(
        f"foreground = yes\npid = {tmp_path}/pid\n[web]\naccept = 127.0.0.1:{port}\nconnect = 127.0.0.1:9\n"
        f"cert = {place.folder}/certificate.pem\nkey = {place.folder}/key.pem\n"
    )
    with running(tmp_path, "/usr/bin/stunnel4", str(config)) as process:
        rotate(place, port, sent(process, "HUP"))


def test_haproxy_by_usr2(place, tmp_path):
    """In its master-worker mode, the master being the program: it reads all of its configuration again. Key and chain are in one file."""
    port = free_port()
    config = tmp_path / "haproxy.cfg"
    config.write_text(
        "defaults\n  mode http\n  timeout client 5s\n  timeout server 5s\n  timeout connect 5s\n"
        f"frontend web\n  bind 127.0.0.1:{port} ssl crt {place.folder}/combined.pem\n  http-request return status 200\n"
    )
    with running(tmp_path, "/usr/sbin/haproxy", "-W", "-f", str(config)) as process:
        rotate(place, port, sent(process, "USR2"))


def test_redis_by_one_command(place, tmp_path):
    """Both files in one CONFIG SET: one after the other, key and certificate do not fit for a moment, and it refuses."""
    port = free_port()
    files = ("tls-cert-file", f"{place.folder}/certificate.pem", "tls-key-file", f"{place.folder}/key.pem")
    options = [f"--{word}" if number % 2 == 0 else word for number, word in enumerate(files)]
    server = (
        "/usr/bin/redis-server",
        "--port",
        "0",
        "--tls-port",
        str(port),
        "--save",
        "",
        "--dir",
        str(tmp_path),
    )
    trust = ("--tls-ca-cert-file", f"{place.folder}/ca.pem", "--tls-auth-clients", "no")
    command = ("/usr/bin/redis-cli", "--tls", "--insecure", "-p", str(port), "CONFIG", "SET", *files)

    def tell():
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        assert answer.stdout.strip() == "OK", answer.stdout

    with running(tmp_path, *server, *options, *trust):
        rotate(place, port, tell)


@pytest.fixture
def database(place, tmp_path):
    """A PostgreSQL server of its own user's, whose key is that user's: it takes no other."""
    import pwd

    user = pwd.getpwnam("postgres")
    place.delivery = replace(place.delivery, uid=user.pw_uid, gid=user.pw_gid)
    place.write(tls_material.generation("alice"))
    data, port = tmp_path / "data", free_port()
    data.mkdir(mode=0o700)
    os.chown(data, user.pw_uid, user.pw_gid)
    own = {"user": user.pw_uid, "group": user.pw_gid, "cwd": "/"}
    subprocess.run([POSTGRES / "initdb", "-D", data, "-A", "trust"], check=True, capture_output=True, **own)
    settings = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "ssl": "on",
        "ssl_cert_file": f"{place.folder}/certificate.pem",
        "ssl_key_file": f"{place.folder}/key.pem",
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    with running(tmp_path, str(POSTGRES / "postgres"), "-D", str(data), *options, **own) as process:
        yield process, port


def shown(port):
    """The certificate that PostgreSQL shows: its TLS begins after a word of its own protocol."""
    deadline = time.monotonic() + 20
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
                plain.sendall(bytes.fromhex("0000000804d2162f"))
                assert plain.recv(1) == b"S"
                with context.wrap_socket(plain) as secured:
                    return secured.getpeercert(binary_form=True)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def shows(port, certificate, seconds=20.0):
    deadline = time.monotonic() + seconds
    while shown(port) != certificate:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_postgresql_by_hup(place, database):
    process, port = database
    assert shown(port) == first_of(place)
    for _ in range(2):
        fresh = tls_material.generation("alice")
        place.write(fresh)
        assert not shows(port, fresh.leaf, seconds=0.5)
        sent(process, "HUP")()
        assert shows(port, fresh.leaf)


def test_postgresql_keeps_the_old_one_where_the_key_is_somebody_elses(place, database, tmp_path):
    """What the check is for: nothing fails, and only its log says so. At its own port the room's check speaks no TLS."""
    process, port = database
    before = first_of(place)
    assert shown(port) == before
    place.delivery = replace(place.delivery, uid=33, gid=33)
    fresh = tls_material.generation("alice")
    place.write(fresh)
    sent(process, "HUP")()
    assert not shows(port, fresh.leaf, seconds=2.0)
    assert shown(port) == before
    assert (
        b"could not" in (tmp_path / "log").read_bytes() or b"private key" in (tmp_path / "log").read_bytes()
    )
    assert look(port, fresh.leaf, seconds=1.0) is Taken.UNREACHABLE


def test_postgresql_lets_a_room_in_by_its_certificate_and_no_other(place, database, tmp_path):
    """The run is named in the server's own map, and the owner's authority vouches for it: both have to be so."""
    process, port = database
    data = tmp_path / "data"
    (data / "pg_hba.conf").write_text(
        "hostssl all web 127.0.0.1/32 cert clientcert=verify-full map=rooms\nhost all postgres 127.0.0.1/32 trust\n"
    )
    (data / "pg_ident.conf").write_text(f"rooms {tls_material.RUN} web\n")
    authority = tmp_path / "authority.pem"
    shutil.copy(Path(place.folder) / "ca.pem", authority)
    authority.chmod(0o644)
    with (data / "postgresql.conf").open("a") as settings:
        settings.write(f"ssl_ca_file = '{authority}'\n")
    assert shown(port)
    sent(process, "HUP")()
    server = (
        f"hostaddr=127.0.0.1 host={tls_material.NAME} port={port} dbname=postgres sslrootcert={authority}"
    )

    def asked(query, user, *more):
        line = " ".join((server, f"user={user}", *more))
        return subprocess.run(
            [POSTGRES / "psql", "-X", "-A", "-t", "-c", query, line], capture_output=True, text=True, check=False, timeout=60
        )  # fmt: skip

    deadline = time.monotonic() + 20
    while asked("CREATE ROLE web LOGIN", "postgres").returncode and time.monotonic() < deadline:
        time.sleep(0.1)

    def comes(name, generation):
        """What a room with that certificate is answered: the certificate that the server saw, or why not."""
        folder = tmp_path / name
        folder.mkdir()
        client = CertificateFolder(str(folder), Delivery(uid=0, gid=0))
        client.write(generation)
        return asked(
            "SELECT client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()", "web", "sslmode=verify-full",
            f"sslcert={folder}/certificate.pem", f"sslkey={folder}/key.pem",
        )  # fmt: skip

    room = comes("room", tls_material.generation("alice"))
    assert (room.returncode, tls_material.RUN in room.stdout) == (0, True), room.stderr
    other_run = comes("run", tls_material.generation("alice", run="run-" + "1" * 32))
    assert other_run.returncode
    assert "certificate authentication failed" in other_run.stderr
    other_authority = comes("authority", tls_material.generation("mallory"))
    assert other_authority.returncode
    nobody = asked("SELECT 1", "web", "sslmode=verify-full")
    assert nobody.returncode
    assert "valid client certificate" in nobody.stderr
