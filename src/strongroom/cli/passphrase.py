"""Where a passphrase comes from: a file descriptor, the environment, or a prompt. Never argv."""

from __future__ import annotations

import ctypes
import getpass
import os
import sys

from strongroom.errors import Misuse

ENVIRONMENT = "STRONGROOM_PASSPHRASE"
NEW = "STRONGROOM_NEW_PASSPHRASE"
MAX_BYTES = 4096


def read(
    fd: int | None,
    *,
    confirm: bool = False,
    what: str = "passphrase",
    variable: str = ENVIRONMENT,
    option: str = "",
) -> bytes:
    """The passphrase, without a trailing newline. option: the option that `fd` came from. Raises `Misuse` when there is no passphrase to be had."""
    option = option or ("--passphrase-fd" if variable == ENVIRONMENT else "--new-passphrase-fd")
    if fd is not None:
        try:
            with os.fdopen(os.dup(fd), "rb") as source:
                data = source.read(MAX_BYTES + 1).rstrip(b"\r\n")
        except (OSError, OverflowError) as cause:
            raise Misuse(
                f"{option}: file descriptor {fd}: {getattr(cause, 'strerror', None) or 'no such number'}",
                hint=f"open it for the command, as in `{option} 3 3<FILE`",
            ) from None
    elif variable in os.environ:
        data = os.environ[variable].encode()
    elif sys.stdin.isatty():
        data = getpass.getpass(f"{what}: ").encode()
        if confirm and getpass.getpass(f"{what}, once more: ").encode() != data:
            raise Misuse(
                f"{what}: the two that were typed differ",
                hint="run the command again, and type the same twice",
            )
    else:
        raise Misuse(
            f"{what}: nobody to ask, as standard input is no terminal",
            hint=f"give it by a file descriptor, as in `{option} 3 3<FILE`, or set {variable} in tests",
        )
    if not data or len(data) > MAX_BYTES:
        raise Misuse(
            f"{what}: expected 1 to {MAX_BYTES} bytes, got {'more' if data else 'none'}",
            hint=f"type a passphrase, or see what {option} or {variable} gives",
        )
    return data


def forget() -> None:
    """Wipe the passphrase from this process's environment, which /proc/PID/environ would show for as long as the process runs."""
    if ENVIRONMENT not in os.environ:
        return
    library = ctypes.CDLL(None)
    library.getenv.restype = ctypes.c_void_p
    where = library.getenv(ENVIRONMENT.encode())
    ctypes.memset(where, 0, len(os.fsencode(os.environ[ENVIRONMENT])))
    del os.environ[ENVIRONMENT]
