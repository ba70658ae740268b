"""swtpm: how it is started, and the numbers of its control channel (swtpm_ioctls(3))."""

from __future__ import annotations

from strongroom.errors import NotFound

PROGRAM = "swtpm"
RETRY_HINT = "type the same again; if it stays so, `strongroom node doctor` tells whether the software TPM works on this machine"
CMD_INIT = 2
CMD_SHUTDOWN = 3
CMD_HASH_START = 6
CMD_HASH_DATA = 7
CMD_HASH_END = 8
CMD_SET_DATAFD = 16


def arguments(state: int, control: int) -> list[str]:
    """The command line of a swtpm with its state in one file descriptor and its control in another."""
    return [
        PROGRAM,
        "socket",
        "--tpm2",
        "--tpmstate",
        f"backend-uri=file:///dev/fd/{state}",
        "--ctrl",
        f"type=unixio,clientfd={control}",
    ]


def missing() -> NotFound:
    """The error for a machine without swtpm."""
    return NotFound(
        f"{PROGRAM} is not installed", code="no-swtpm", hint="apt-get install swtpm (Debian, Ubuntu)"
    )
