"""A real room with a network by streams: a stock Python web server answers through it, and reaches one host outside and nothing else."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.model import receipt
from strongroom.model.contracts import agreement, drafting
from strongroom.model.contracts import contract as contract_model
from strongroom.model.contracts.network_terms import Egress, Port
from tests.e2e import real_rooms
from tests.e2e.real_rooms import COMMAND, PASSPHRASE, strongroom

pytestmark = [pytest.mark.room, pytest.mark.root]

# The standard library's own server, and what it says of the world around it.
PROGRAM = r"""
import json, os, socket, http.server, urllib.request

class Answer(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        seen = look() if self.path == "/look" else {"path": self.path}
        body = json.dumps(seen).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if self.path == "/end":
            self.server.ends = True

def attempt(family, kind, address):
    with socket.socket(family, kind) as probe:
        probe.settimeout(3)
        try:
            probe.connect(address)
            probe.send(b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06secret\x07example\x00\x00\x01\x00\x01")
            return "got " + repr(probe.recv(100))
        except OSError as cause:
            return type(cause).__name__ + " " + str(cause.errno)

def look():
    with urllib.request.urlopen(f"http://api.example:{os.environ['OUTSIDE']}/outside", timeout=20) as answer:
        outside = answer.read().decode()
    resolved = {"by IPv6": socket.getaddrinfo("api.example", 80, socket.AF_INET6)[0][4][0]}
    with urllib.request.urlopen(f"http://[{resolved['by IPv6']}]:{os.environ['OUTSIDE']}/", timeout=20) as answer:
        answer.read()
    for name in ("other.example", "secret.api.example", "api.example"):
        try:
            resolved[name] = sorted({entry[4][0] for entry in socket.getaddrinfo(name, 80)})
        except OSError as cause:
            resolved[name] = type(cause).__name__
    places = [
        (socket.AF_INET, socket.SOCK_STREAM, ("192.0.2.1", 80)), (socket.AF_INET6, socket.SOCK_STREAM, ("2001:db8::1", 80)),
        (socket.AF_INET, socket.SOCK_STREAM, ("127.77.0.1", 80)), (socket.AF_INET, socket.SOCK_STREAM, ("127.77.0.2", 80)),
        (socket.AF_INET, socket.SOCK_STREAM, ("169.254.169.254", 80)), (socket.AF_INET, socket.SOCK_STREAM, ("10.0.2.2", 8000)),
        (socket.AF_INET, socket.SOCK_DGRAM, ("192.0.2.53", 53)), (socket.AF_INET6, socket.SOCK_DGRAM, ("2001:db8::53", 53)),
        (socket.AF_INET, socket.SOCK_DGRAM, ("127.77.0.1", 53)), (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.53", 53)),
    ]
    return {"outside": outside, "resolved": resolved, "refused": [attempt(*place) for place in places]}

server = http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Answer)
server.ends = False
server.timeout = 1
while not server.ends:
    server.handle_request()
"""
LIBRARIES = ("libm.so.6", "libz.so.1", "libexpat.so.1", "libc.so.6")
LEFT_OUT = (
    "test",
    "__pycache__",
    "idlelib",
    "tkinter",
    "lib2to3",
    "ensurepip",
    "distutils",
    "pydoc_data",
    "config-*",
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    reason = real_rooms.missing()
    if reason:
        pytest.skip(reason)
    root = tmp_path_factory.mktemp("network")
    made = real_rooms.prepare(root, rows=10)
    tree = root / "python"
    for folder in ("usr/bin", "lib64", "lib/x86_64-linux-gnu"):
        (tree / folder).mkdir(parents=True)
    shutil.copy(Path(sys.executable).resolve(), tree / "usr/bin/python3")
    shutil.copy("/lib64/ld-linux-x86-64.so.2", tree / "lib64")
    for name in LIBRARIES:
        shutil.copy(f"/lib/x86_64-linux-gnu/{name}", tree / "lib/x86_64-linux-gnu")
    shutil.copytree(
        "/usr/lib/python3.11", tree / "usr/lib/python3.11", ignore=shutil.ignore_patterns(*LEFT_OUT)
    )
    settings = {
        "Entrypoint": ["/usr/bin/python3", "-I", "-S", "-c"],
        "Cmd": [PROGRAM],
        "User": "1000:1000",
        "WorkingDir": "/",
    }
    (root / "python.json").write_text(
        json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": []},
                "config": settings,
            }
        )
    )
    strongroom(
        "convert",
        tree,
        "-i",
        root / "bob.identity",
        "--name",
        "python",
        "--config",
        root / "python.json",
        "--out",
        root,
    )
    yield made
    made.close()


def contract_with(world, outside, **changes) -> Path:
    """A contract of both whose room has these ports and hosts outside."""
    drafted = world.path("drafted.json")
    strongroom(
        "contract", "new", "serves", "--out", drafted,
        "--party", f"data-owner={world.path('alice.party.json')}", "--party", f"program-owner={world.path('bob.party.json')}",
        "--image", world.path("python.manifest.json"), "--base", world.path("base"), "--node", world.path("node.json"),
        "--dataset", f"flights={world.path('flights.manifest.json')}", "--simulated", "--without-memory-guard",
        "--memory-mib", 256, "--logs", "bob", "--wall-seconds", 240, "--env", f"OUTSIDE={outside}",
    )  # fmt: skip
    contract = agreement.read(drafted.read_bytes()).contract
    room = replace(contract.rooms[0], **changes)
    raw = drafting.encode(replace(contract, rooms=(room,), raw=b""))
    made = world.path("contract.json")
    made.write_bytes(agreement.draft(contract_model.parse(raw)).encode())
    for name in ("alice", "bob"):
        strongroom("contract", "sign", made, "-i", world.path(f"{name}.identity"), "--yes")
    return made


class Outside(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"from outside: " + self.headers["Host"].encode())

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def outside_server():
    """A web server of this machine at the port that the contract names, if that is free."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Outside) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@contextlib.contextmanager
def running(world, contract, *options):
    """`strongroom run` where the host's name stands for this machine."""
    hosts = world.path("hosts")
    hosts.write_text("127.0.0.1 localhost api.example other.example\n")
    folder = world.path("served")
    line = [
        *("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', hosts, *COMMAND, "run", contract),
        *("--node", world.path("node"), "--base", world.path("base"), "--out", folder, "--no-memory-guard"),
        *("--disk", world.path("python.disk"), "--disk", world.path("flights.disk"), *options),
    ]  # fmt: skip
    with (world.path("run.log")).open("w+") as log:
        process = subprocess.Popen(
            list(map(str, line)), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={**os.environ, "STRONGROOM_PASSPHRASE": PASSPHRASE},
        )  # fmt: skip
        try:
            yield process, folder
        finally:
            process.terminate()
            process.wait(60)
            log.seek(0)
            print(log.read())


def ask(port, path, process):
    """The answer of the room, once it is there."""
    while process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
                return json.loads(answer.read())
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"the run ended: {process.returncode}")


def test_a_web_server_in_a_room_answers_and_reaches_its_one_host_and_nothing_else(world):
    with outside_server() as port:
        contract = contract_with(
            world,
            port,
            ports=(Port(name="web", number=8080, open=True), Port(name="admin", number=8081, open=False)),
            egress=(Egress(host="api.example", port=port),),
        )
        with socket.create_server(("127.0.0.1", 0)) as free:
            here = free.getsockname()[1]
        with running(world, contract, "--publish", f"web={here}", "--egress-to-private") as (process, folder):
            seen = ask(here, "/look", process)
            assert ask(here, "/end", process) == {"path": "/end"}
            assert process.wait(120) == 0
    assert seen["outside"] == f"from outside: api.example:{port}"
    assert seen["resolved"] == {
        "other.example": "gaierror",
        "secret.api.example": "gaierror",
        "api.example": ["127.77.0.1"],
        "by IPv6": "fd7e:7374:726f:6e67::1",
    }
    refused = {"ConnectionRefusedError 111", "OSError 101"}
    assert set(seen["refused"]) <= refused, seen["refused"]
    made = receipt.parse_envelope((folder / "receipt.json").read_bytes())[1]
    (count,) = made.egress
    assert (count.host, count.port, count.connections) == ("api.example", port, 2)
    assert count.sent == count.received == 1024
    assert json.loads((folder / "status.json").read_bytes())["listening"] == {
        "port": {"web": f"127.0.0.1:{here}"}
    }
    log = world.identity("bob").age.open((folder / "log.age").read_bytes()).decode()
    assert log.startswith(
        f"[strongroom: network: reached at web on 8080, admin on 8081; reaches api.example:{port}; nothing else"
    )
