"""AWS Nitro enclaves by `nitro-cli`: the command lines as pure functions, and what it answers.

Specs: AWS Nitro Enclaves User Guide, nitro-cli run-enclave, terminate-enclave (aws-nitro-enclaves-cli 1.4).
An enclave has no disks and no ports: the agent connects by vsock to this node for its channel and, by NBD, for the
sealed disks (`nbd`). `--debug-mode` is never given: it would zero the PCRs and show the console.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.errors import Malformed, Misuse

if TYPE_CHECKING:
    from pathlib import Path

CLI = "nitro-cli"
EIF = "strongroom.eif"
# An enclave holds its image in memory beside what runs.
OVERHEAD_MIB = 512
FIRST_CID, LAST_CID = 16, 0xFFFF
_ENCLAVE = re.compile(r"i-[0-9a-f]{8,32}-enc[0-9a-f]{8,32}", re.ASCII)
_MAX_ANSWER = 64 * 1024
_LOOK = "`nitro-cli describe-enclaves` and its log may say why; `strongroom node doctor --backend nitro` tells of every need"


@dataclass(frozen=True, kw_only=True)
class Enclave:
    """What to start. eif: the enclave image file. memory_mib: the contract's. cid: the enclave's vsock address."""

    name: str
    eif: Path
    memory_mib: int
    cid: int
    processors: int = 2


def run_arguments(enclave: Enclave) -> list[str]:
    """The command line that starts it. Raises `Misuse`."""
    if not FIRST_CID <= enclave.cid <= LAST_CID:
        raise Misuse(
            f"vsock address {enclave.cid}: expected {FIRST_CID} to {LAST_CID}",
            code="bad-cid",
            hint="name one of those; another is the host's own",
        )
    return [
        *(CLI, "run-enclave"),
        *("--enclave-name", enclave.name),
        *("--cpu-count", str(enclave.processors)),
        *("--memory", str(enclave.memory_mib + OVERHEAD_MIB)),
        *("--eif-path", str(enclave.eif)),
        *("--enclave-cid", str(enclave.cid)),
    ]


def terminate_arguments(enclave: str) -> list[str]:
    """The command line that ends the enclave of that identifier."""
    return [CLI, "terminate-enclave", "--enclave-id", enclave]


def parse_started(answer: str, cid: int) -> str:
    """The enclave's identifier out of what `run-enclave` printed: lines of talk, then an object. Raises `Malformed`.

    Other members are let be: later versions have more of them.
    """
    if len(answer) > _MAX_ANSWER:
        raise Malformed("nitro-cli: its answer is too long", code="too-large", hint=_LOOK)
    try:
        reply = json.loads(answer[answer.find("{") : answer.rfind("}") + 1])
    except ValueError:
        last = (answer.strip().splitlines() or ["nothing"])[-1]
        raise Malformed(
            f"nitro-cli: it started no enclave: {last[:200]!r}", code="not-json", hint=_LOOK
        ) from None
    if not isinstance(reply, dict):
        raise Malformed("nitro-cli: its answer is not an object", code="not-object", hint=_LOOK)
    enclave = reply.get("EnclaveID")
    if not isinstance(enclave, str) or _ENCLAVE.fullmatch(enclave) is None or reply.get("EnclaveCID") != cid:
        raise Malformed(
            "nitro-cli: its answer names no enclave at the address asked for", code="bad-value", hint=_LOOK
        )
    return enclave
