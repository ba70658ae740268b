"""A stock nginx in a real room: its certificate is renewed twice while clients connect, and none of them is refused."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from dataclasses import replace

import pytest

from strongroom.encoding import fields
from strongroom.model.contracts import agreement, drafting
from strongroom.model.contracts import contract as contract_model
from strongroom.model.contracts.certificate_terms import CertificateTerms, Delivery, Signal
from strongroom.model.contracts.network_terms import Port
from strongroom.model.contracts.room_terms import Restart, ServiceTerms
from tests.e2e import real_rooms
from tests.e2e.real_rooms import COMMAND, PASSPHRASE, strongroom

pytestmark = [pytest.mark.room, pytest.mark.root]
NGINX = "/usr/sbin/nginx"
NAME = "web.flights.example"
CONFIG = """
daemon off; pid /tmp/pid; error_log stderr notice; worker_processes 1;
events { worker_connections 64; }
http {
  access_log off; client_body_temp_path /tmp/b; proxy_temp_path /tmp/p;
  fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;
  server {
    listen 8443 ssl;
    ssl_certificate /run/strongroom/tls/certificate.pem;
    ssl_certificate_key /run/strongroom/tls/key.pem;
    location / { return 200 "from the room\\n"; }
  }
}
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    reason = real_rooms.missing()
    if reason:
        pytest.skip(reason)
    root = tmp_path_factory.mktemp("certificates")
    made = real_rooms.prepare(root, rows=10)
    tree = root / "nginx"
    libraries = [
        word
        for line in subprocess.check_output(["ldd", NGINX], text=True).splitlines()
        for word in line.split()
        if word.startswith("/")
    ]
    for path in (NGINX, *libraries):
        inside = tree / path.lstrip("/")
        inside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, inside)
    (tree / "nginx.conf").write_text(CONFIG)
    settings = {
        "Entrypoint": [NGINX, "-e", "stderr", "-c", "/nginx.conf"],
        "User": "1000:1000",
        "WorkingDir": "/",
    }
    image = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": []},
        "config": settings,
    }
    (root / "nginx.json").write_text(json.dumps(image))
    strongroom(
        "convert", tree, "-i", root / "bob.identity", "--name", "nginx", "--config", root / "nginx.json", "--out", root
    )  # fmt: skip
    yield made
    made.close()


def contract_of_nginx(world):
    """A service whose certificate lives for a minute, the shortest that a contract may say."""
    drafted = world.path("drafted.json")
    strongroom(
        "contract", "new", "flights", "--out", drafted,
        "--party", f"data-owner={world.path('alice.party.json')}", "--party", f"program-owner={world.path('bob.party.json')}",
        "--image", world.path("nginx.manifest.json"), "--base", world.path("base"), "--node", world.path("node.json"),
        "--dataset", f"flights={world.path('flights.manifest.json')}", "--simulated", "--without-memory-guard",
        "--memory-mib", 256, "--logs", "bob",
    )  # fmt: skip
    contract = agreement.read(drafted.read_bytes()).contract
    room = replace(
        contract.rooms[0],
        wall_seconds=0,
        service=ServiceTerms(renewal_seconds=3600, restart=Restart.NEVER),
        ports=(Port(name="web", number=8443, open=True),),
        certificate=CertificateTerms(
            names=(NAME,),
            lifetime_seconds=60,
            delivery=Delivery(uid=1000, gid=1000, signal=Signal.HUP, check=8443),
        ),
    )
    raw = drafting.encode(replace(contract, rooms=(room,), raw=b""))
    made = world.path("contract.json")
    made.write_bytes(agreement.draft(contract_model.parse(raw)).encode())
    for name in ("alice", "bob"):
        strongroom("contract", "sign", made, "-i", world.path(f"{name}.identity"), "--yes")
    return made


@contextlib.contextmanager
def running(world, contract, port):
    folder = world.path("served")
    line = [
        *(
            *COMMAND,
            "run",
            contract,
            "--node",
            world.path("node"),
            "--base",
            world.path("base"),
            "--out",
            folder,
        ),
        *("--disk", world.path("nginx.disk"), "--disk", world.path("flights.disk"), "--no-memory-guard"),
        *("--publish", f"web={port}"),
    ]
    with (world.path("run.log")).open("w+") as log:
        process = subprocess.Popen(
            list(map(str, line)), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={**os.environ, "STRONGROOM_PASSPHRASE": PASSPHRASE},
        )  # fmt: skip
        try:
            yield process, folder
        finally:
            process.terminate()
            process.wait(120)
            log.seek(0)
            print(log.read())


def root_of(folder):
    """The root that the contract names, as the run's folder has it (PEM)."""
    release = json.loads((folder / "release-alice.json").read_bytes())
    der = fields.Fields({"der": release["certificates"][-1]}, "release").data("der", max_bytes=1 << 16)
    return ssl.DER_cert_to_PEM_cert(der)


def ask(port, context):
    """The certificate that a client verified, and its answer."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname=NAME) as secured,
    ):
        secured.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: secured.recv(4096), b""))
        assert answer.endswith(b"from the room\n")
        return secured.getpeercert(binary_form=True)


def first(port, folder, process):
    """Whom to believe, once the room serves."""
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        try:
            context = ssl.create_default_context(cadata=root_of(folder))
            ask(port, context)
        except (OSError, KeyError, ValueError):
            time.sleep(0.2)
        else:
            return context
    raise AssertionError(f"no answer: {process.poll()}")


def test_certificates_rotate_twice_under_load_and_no_client_notices(world):
    contract = contract_of_nginx(world)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    seen, failures, stop = [], [], threading.Event()
    with running(world, contract, port) as (process, folder):
        context = first(port, folder, process)

        def client():
            while not stop.is_set():
                try:
                    seen.append(ask(port, context))
                except BaseException as cause:  # noqa: BLE001 - counted
                    failures.append(cause)

        threads = [threading.Thread(target=client) for _ in range(2)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 240
        while not failures and process.poll() is None and time.monotonic() < deadline:
            said = world.path("run.log").read_text()
            if len(set(seen)) >= 3 and said.count("certificate-taken") >= 2:
                break
            time.sleep(0.2)
        stop.set()
        for thread in threads:
            thread.join(60)
        assert failures == []
        assert len(set(seen)) >= 3
        assert said.count("certificate-taken") >= 2
        assert "certificate-kept-old" not in said
        process.terminate()
        process.wait(120)
    log = world.identity("bob").age.open((folder / "log.age").read_bytes()).decode()
    assert (
        log.count("a new certificate lies in /run/strongroom/tls, and the program serves it at port 8443")
        >= 2
    )
