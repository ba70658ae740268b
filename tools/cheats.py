"""The demo's last acts: four cheats, each refused with the reason."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))
import images
from stage import ActFailedError, Stage, write_contract

from strongroom.encoding import fields
from strongroom.model import binding, evidence, messages

if TYPE_CHECKING:
    import subprocess

OTHER_SQL = "COPY (SELECT * FROM '/data/flights/flights.parquet') TO '/out/everything.csv';\n"


def cheats(stage: Stage) -> None:
    """Four cheats. Their rooms run two at a time, as two rooms may on two processors."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        tries = [
            pool.submit(one, stage) for one in (flipped_data, changed_base, other_program, swapped_program)
        ]
        data, changed, other, swapped = tries
        with stage.act(
            "Cheat: one byte of the sealed data flipped", "the operator changes the ciphertext"
        ) as say:
            refused = data.result()
            stage.strongroom("verify", "flipped/flights.disk", fails=3)
            say(refused)
        with stage.act(
            "Cheat: a base with one changed byte", "the operator boots a command line of its own"
        ) as say:
            say(changed.result())
        with stage.act(
            "Cheat: another program under the same contract", "Bob's other SQL copies all rows out"
        ) as say:
            say(other.result())
            say(swapped.result())
    with stage.act(
        "Cheat: old evidence replayed", "somebody sends the first run's evidence to Alice again"
    ) as say:
        say(replay(stage))


def flipped_data(stage: Stage) -> str:
    folder = stage.folder / "flipped"
    folder.mkdir()
    for name in ("flights.disk", "flights.manifest.json"):
        shutil.copy(stage.folder / name, folder)
    disk = folder / "flights.disk"
    flip(disk, disk.stat().st_size // 3)
    return reason(stage.strongroom(*stage.room("run-flipped", data=str(disk)), fails=8))


def changed_base(stage: Stage) -> str:
    changed = Path(shutil.copytree(stage.base, stage.folder / "changed-base"))
    flip(changed / "cmdline", 0)
    return reason(stage.strongroom(*stage.room("run-changed", base=changed, anyway=True), fails=3))


def other_program(stage: Stage) -> str:
    """Bob writes a contract for his other program; Alice has not signed it."""
    images.archive(images.duckdb(OTHER_SQL), stage.folder / "other.tar")
    stage.strongroom("convert", "other.tar", "--identity", "bob.identity", "--name", "other", "--out", ".")
    write_contract(stage, "other.json", "other.manifest.json")
    stage.strongroom("contract", "sign", "other.json", "--identity", "bob.identity", "--yes")
    return reason(
        stage.strongroom(
            *stage.room("run-other", contract="other.json", program="other.disk", anyway=True), fails=3
        )
    )


def swapped_program(stage: Stage) -> str:
    """The operator hands over the other program's disk under the signed program's name."""
    deadline = time.monotonic() + 60
    while not (stage.folder / "other.json").exists():
        if time.monotonic() > deadline:
            raise ActFailedError("the other program was never packed")
        time.sleep(0.1)
    shutil.copy(stage.folder / "other.disk", stage.folder / "swapped.disk")
    shutil.copy(stage.folder / "query.manifest.json", stage.folder / "swapped.manifest.json")
    return reason(stage.strongroom(*stage.room("run-swapped", program="swapped.disk"), fails=8))


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


def reason(done: subprocess.CompletedProcess[str]) -> str:
    """The line of a refusal that says which check failed."""
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    for at, line in enumerate(lines[:-1]):
        if line.startswith("outcome ") and not line.endswith("exited, status 0"):
            return f"refused: {line.split()[1].rstrip(',')}: {lines[at + 1]}; no output left"
    checks = [line for line in lines if ": expected " in line]
    return "refused: " + (checks or [line for line in lines if line.startswith("error")] or lines)[0]


def replay(stage: Stage) -> str:
    """Send the first run's evidence again, exactly as the room sent it."""
    run = stage.folder / "run"
    released = json.loads((run / "release-alice.json").read_text())
    bound = binding.read(fields.Fields(released["binding"], "binding"))
    request = messages.ReleaseRequest(
        nonce=bound.nonce, contract_digest=bound.contract_digest, agreement=(run / "agreement.json").read_bytes(),
        evidence=evidence.parse((run / "evidence-alice.json").read_bytes()), keys=bound.keys, role=bound.role, csr=None,
    ).encode()  # fmt: skip
    url = json.loads((stage.folder / "alice.party.json").read_text())["broker"]["url"]
    host, port = url.removeprefix("https://").rsplit(":", 1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((host, int(port)), 10) as plain, context.wrap_socket(plain) as tls:
        tls.sendall(b"POST /v1/releases HTTP/1.1\r\nHost: broker\r\nConnection: close\r\nContent-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n" % len(request) + request)  # fmt: skip
        answer = b""
        while chunk := tls.recv(65536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 403 " not in head.split(b"\r\n")[0]:
        raise ActFailedError(f"replayed evidence was not refused: {head[:200]!r}")
    failed = next(check for check in json.loads(body)["verdict"]["checks"] if not check["ok"])
    return f"refused: {failed['name']}: expected {failed['expected']}, got {failed['got']}"
