"""Services in rooms, played end to end: `make demo STORY=service`. One Compose file, two stock programs, two rooms and a tunnel between.

What runs are Debian's nginx and a Flask application (`services`). Certificates live for a minute here, so that they can be seen to
change; in earnest it would be hours.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import services
from cryptography import x509
from stage import STRONGROOM, ActFailedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from stage import Stage

NAME = "salaries.example.org"
SALARIES = (41_000, 52_000, 38_500)
COMPOSE = """\
name: salaries
services:
  app:
    image: app@{app_digest}
    environment: {{SALARIES: "{salaries}"}}
    expose: ["8000"]
    mem_limit: 512m
    x-strongroom:
      image: {app}
  web:
    image: web@{web_digest}
    depends_on: [app]
    ports: ["{port}:8443"]
    mem_limit: 512m
    restart: on-failure
    x-strongroom:
      image: {web}
      open: [8443]
      certificate:
        names: [{name}]
        lifetime_seconds: 60
        delivery: {{folder: /etc/nginx/tls, signal: HUP, check: 8443}}
"""


@dataclass
class Site:
    """Where the service is reached, and what was seen of it. ca: a file with the owner's root."""

    port: int
    trusted: ssl.SSLContext
    served: int = 0
    failed: list[str] = field(default_factory=list)
    serials: list[int] = field(default_factory=list)

    def fetch(self, path: str) -> bytes:
        """One request over a connection of its own, whose certificate is verified: by the owner's root, for the contract's name."""
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=10) as plain,
            self.trusted.wrap_socket(plain, server_hostname=NAME) as link,
        ):
            serial = x509.load_der_x509_certificate(link.getpeercert(binary_form=True) or b"").serial_number
            if serial not in self.serials:
                self.serials.append(serial)
            link.sendall(f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: link.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise OSError(head.split(b"\r\n", 1)[0].decode())
        return body

    def customers(self, stop: threading.Event) -> None:
        """Ask again and again, and remember what failed."""
        while not stop.is_set():
            try:
                self.fetch("/health")
                self.served += 1
            except (OSError, ssl.SSLError) as failure:
                self.failed.append(str(failure))
            stop.wait(0.05)


def play(stage: Stage) -> None:
    """All acts."""
    write_file(stage)
    site = bring_up(stage)
    verify(stage)
    rotate(stage, site)
    kill(stage, site)
    pause(stage, site)


def write_file(stage: Stage) -> None:
    with stage.act("One file", "the owner: two stock images, and what Compose cannot say") as say:
        layouts = {name: services.build(name) for name in services.ALL}
        digests = {
            name: json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
            for name, layout in layouts.items()
        }
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        text = COMPOSE.format(
            app=layouts["app"], web=layouts["web"], app_digest=digests["app"], web_digest=digests["web"],
            salaries=" ".join(map(str, SALARIES)), port=port, name=NAME,
        )  # fmt: skip
        (stage.folder / "compose.yaml").write_text(text)
        say(f"compose.yaml: {len(text.splitlines())} lines, of which 8 are not Compose's own")


def bring_up(stage: Stage) -> Site:
    with stage.act("strongroom up", "the owner: identity, broker, base, contract, two rooms") as say:
        began = time.monotonic()
        stage.strongroom("up", "-d")
        web = service(stage, "web")
        trusted = ssl.create_default_context(cadata=owners_root(stage, web))
        site = Site(port=int(web["published"]["8443"].rpartition(":")[2]), trusted=trusted)
        answer = json.loads(until(lambda: site.fetch("/mean"), 60))
        seconds = time.monotonic() - began
        if abs(answer["mean"] - sum(SALARIES) / len(SALARIES)) > 0.01:
            raise ActFailedError(f"the application answered {answer}")
        say(
            f"nginx in one room, Flask in another; the first right answer ({answer['mean']:.2f}) after {seconds:.0f} s"
        )
    return site


def service(stage: Stage, name: str) -> dict[str, Any]:
    """What `ps` says of a service."""
    rows = json.loads(stage.strongroom("ps", "--json").stdout)
    return next(row for row in rows if row["name"] == name)


def owners_root(stage: Stage, web: dict[str, Any]) -> str:
    """The root of the owner's authority (PEM), as the room got it, held against the digest in the owner's party file."""
    party = json.loads((stage.folder / ".strongroom" / "owner.party.json").read_text())
    release = json.loads((Path(web["folder"]) / "release-owner.json").read_text())
    root = base64.b64decode(release["certificates"][-1])
    if f"sha256:{hashlib.sha256(root).hexdigest()}" != party["broker"]["authority"]:
        raise ActFailedError("the room's certificates end in another root than the owner's")
    return ssl.DER_cert_to_PEM_cert(root)


def verify(stage: Stage) -> None:
    with stage.act(
        "Anybody verifies it", "somebody outside, who has the contract and the owner's party file"
    ) as say:
        web = service(stage, "web")
        folder = stage.folder / ".strongroom"
        contract = max((folder / "contracts").glob("*.json"))
        done = stage.strongroom(
            "connect", "web:8443", "--contract", contract, "--at", f"unix:{folder / 'sockets' / 'web:8443'}",
            "--trust", folder / "owner.party.json", "--verify", "--json",
        )  # fmt: skip
        steps = json.loads(done.stdout)["verification"]["steps"]
        held = [step for step in steps if step["status"] in ("verified", "simulated")]
        if len(held) != len(steps) or web["state"] != "running":
            raise ActFailedError(f"{len(steps) - len(held)} steps did not hold")
        say(f"{len(steps)} steps held over a tunnel that ends in the room; SIMULATED, as each of them says")


def rotate(stage: Stage, site: Site) -> None:
    with stage.act(
        "Its certificate changes, twice", "customers, who ask all the time and verify each certificate"
    ) as say:
        stop = threading.Event()
        customers = threading.Thread(target=site.customers, args=(stop,), daemon=True)
        customers.start()
        deadline = time.monotonic() + 150
        while len(site.serials) < 3 and time.monotonic() < deadline:
            time.sleep(0.5)
        stop.set()
        customers.join()
        if len(site.serials) < 3 or site.failed:
            raise ActFailedError(
                f"{len(site.serials)} certificates were seen, {len(site.failed)} of {site.served + len(site.failed)} requests failed: {site.failed[:2]}"
            )
        age = service(stage, "web")["phase"]
        say(f"three certificates, {site.served} requests, none failed (the room says: {age})")


def kill(stage: Stage, site: Site) -> None:
    with stage.act("kill -9 of nginx's room", "the machine's operator") as say:
        status = json.loads((stage.folder / ".strongroom" / "status.json").read_text())
        pid = next(room["pid"] for room in status["rooms"] if room["name"] == "web")
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        until_gone(site)
        until(lambda: site.fetch("/mean"), 120)
        say(f"another room proved itself and answers after {time.monotonic() - began:.0f} s")


def pause(stage: Stage, site: Site) -> None:
    with stage.act("The owner pauses it", "the owner: no key, no certificate, no room") as say:
        began = time.monotonic()
        stage.strongroom("pause")
        until_gone(site)
        say(f"nothing answers {time.monotonic() - began:.1f} s after the command began")
        stage.strongroom("down")


def end(stage: Stage) -> None:
    """Leave nothing running, whatever went before."""
    if (stage.folder / ".strongroom").exists():
        subprocess.run(
            [STRONGROOM, "down"], cwd=stage.folder, env=stage.environment(), capture_output=True, check=False
        )


def until_gone(site: Site) -> None:
    """Wait until nothing answers any more."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            site.fetch("/health")
        except OSError:
            return
        time.sleep(0.1)
    raise ActFailedError("it still answers after 30 s")


def until(act: Callable[[], bytes], seconds: float) -> bytes:
    """What `act` returns, tried again while it fails."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return act()
        except OSError as failure:
            if time.monotonic() > deadline:
                raise ActFailedError(f"after {seconds:.0f} s: {failure}") from None
            time.sleep(0.5)
