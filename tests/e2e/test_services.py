"""Two stock services in rooms of one file: a browser reaches them through the tunnel, and they heal whatever is killed."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from strongroom_testing import ports
from tests import verbs
from tests.e2e import real_rooms

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium")
SECONDS = 300
HEALS = 180  # seconds in which an answer has to come again: two rooms boot anew, on a loaded machine
FILE = """\
name: salaries
services:
  app:
    image: app@{app_digest}
    expose: ["8000"]
    restart: always
    mem_limit: 512m
    x-strongroom: {{image: {app}}}
  web:
    image: web@{web_digest}
    depends_on: [app]
    ports: ["{port}:8443"]
    restart: always
    mem_limit: 512m
    x-strongroom:
      image: {web}
      open: [8443]
      certificate:
        names: [salaries.example.org]
        delivery: {{folder: /etc/nginx/tls, signal: HUP, check: 8443}}
"""

pytestmark = [
    pytest.mark.soak,
    pytest.mark.room,
    pytest.mark.root,  # for the memory guard
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(real_rooms.missing()), reason=real_rooms.missing() or "a room can run"),
]


def typed(*words, place):
    done = verbs.run(*words, cwd=place, timeout=900)
    assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """(The project's folder, the published port), while both rooms run."""
    place, port = tmp_path_factory.mktemp("salaries"), ports.free()
    told = {"port": port}
    for name in ("app", "web"):
        built = subprocess.run(
            [sys.executable, str(ROOT / "tools/services.py"), name],
            capture_output=True,
            text=True,
            check=True,
        )
        told[name] = built.stdout.strip()
        index = json.loads((Path(told[name]) / "index.json").read_text())
        told[f"{name}_digest"] = index["manifests"][0]["digest"]
    (place / "compose.yaml").write_text(FILE.format(**told))
    try:
        typed("up", "-d", place=place)
        yield place, port
    finally:
        verbs.run("down", cwd=place, timeout=300)


def curl(port, path="/mean"):
    """What the service answers; nothing where it does not. That its certificate is the owner's is for other tests."""
    done = subprocess.run(
        ["curl", "-sk", "--max-time", "10", f"https://127.0.0.1:{port}{path}"],
        capture_output=True,
        check=False,
    )
    return done.stdout


def answers(port, seconds):
    """Whether the application answers through nginx within so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(ValueError):
            if "mean" in json.loads(curl(port)):
                return True
        time.sleep(0.5)
    return False


def test_a_real_browser_reaches_two_stock_services_through_the_tunnel(site, tmp_path):
    place, port = site
    assert answers(port, 60)
    assert CHROMIUM, "the set-up installs chromium"
    release = json.loads(Path(newest(place, "web"), "release-owner.json").read_text())
    leaf = x509.load_der_x509_certificate(base64.b64decode(release["certificates"][0]))
    spki = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pin = base64.b64encode(hashlib.sha256(spki).digest()).decode()
    connected = subprocess.Popen(
        [sys.executable, "-m", "strongroom.cli.main", "connect", "web:8443", "--json"],
        cwd=place, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        said = json.loads(connected.stdout.readline())
        assert said["verification"]["status"] == "simulated"
        seen = subprocess.run(
            [
                *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"),
                f"--host-resolver-rules=MAP salaries.example.org {said['address']}",
                f"--ignore-certificate-errors-spki-list={pin}",  # this very key, and no other
                *("--dump-dom", "https://salaries.example.org/"),
            ],
            capture_output=True, text=True, timeout=300, check=True,
        )  # fmt: skip
        assert "The mean of 3 salaries is 43833.33" in seen.stdout
    finally:
        connected.terminate()
        connected.wait(30)


def newest(place, name):
    """The folder of the run that goes on."""
    status = json.loads((place / ".strongroom/status.json").read_text())
    return place / ".strongroom" / next(room["run"] for room in status["rooms"] if room["name"] == name)


def victims(place):
    """Process ids by what they are: each room's node, each room's machine, the broker."""
    status = json.loads((place / ".strongroom/status.json").read_text())
    found = {("broker", "process"): status["broker"]["pid"]}
    for room in status["rooms"]:
        found[room["name"], "node"] = room["pid"]
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                line = (entry / "cmdline").read_bytes()
                if int(parent) == room["pid"] and b"qemu" in line:
                    found[room["name"], "machine"] = int(entry.name)
    return {what: pid for what, pid in found.items() if pid}


def test_kills_at_random_for_five_minutes_heal_by_themselves(site):
    place, port = site
    assert answers(port, 60)
    dice = random.Random(1)  # noqa: S311 - the same kills each time
    ends, killed, served = time.monotonic() + SECONDS, [], [0]
    stop = threading.Event()

    def customers():
        while not stop.wait(0.2):
            served[0] += bool(curl(port))

    watching = threading.Thread(target=customers)
    watching.start()
    try:
        while time.monotonic() < ends:
            what, pid = dice.choice(sorted(victims(place).items()))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            killed.append(what)
            time.sleep(dice.uniform(0.5, 5))
            assert answers(port, HEALS), f"after {killed}: {typed('ps', place=place)}"
    finally:
        stop.set()
        watching.join()
    assert len(killed) >= 3, killed
    assert served[0] > 0
    print(f"{len(killed)} kills, {served[0]} answers")
