"""Real shells on a terminal of their own, with keys typed into them."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# In place of the program a function tells which words it was given.
STUB = {
    "bash": 'strongroom() { printf "<%s>" "$@"; echo "[told]"; }',
    "zsh": 'strongroom() { printf "<%s>" "$@"; echo "[told]"; }',
    "fish": 'function strongroom; printf "<%s>" $argv; echo "[told]"; end',
}
START = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
# Nothing but the completion of ours, no colours, no suggestions of what was typed before.
SETTINGS = {
    "bash": "bind 'set completion-ignore-case off' 'set bell-style none' 'set enable-bracketed-paste off'",
    "zsh": "autoload -Uz compinit && compinit -D -u; unsetopt BEEP PROMPT_SP; setopt NO_LIST_AMBIGUOUS; PS1='$ '",
    "fish": "set -g fish_autosuggestion_enabled 0; function fish_prompt; echo '$ '; end",
}
_SECONDS = 60.0


class Shell:
    """One interactive shell."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._seen = b""

    def does(self, line: str) -> None:
        """Run a line of the shell's own, to its end."""
        self._type(f"{line}; echo '[do''ne]'\r")
        self._until(rb"\[done\]")

    def words(self, keys: str) -> list[str]:
        """What the program is given after `keys`, a tabulator completing, and Enter."""
        self._type(f"strongroom {keys}\r")
        found = self._until(rb"((?:<[^<>\r\n]*>)+)\[told\]")
        return re.findall(r"<([^<>]*)>", found[1].decode())

    def _type(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def _until(self, pattern: bytes) -> re.Match[bytes]:
        while (found := re.search(pattern, self._seen)) is None:
            ready, _, _ = select.select([self._terminal], [], [], _SECONDS)
            assert ready, f"nothing more after {self._seen[-2000:]!r}"
            self._seen += os.read(self._terminal, 65536)
        self._seen = self._seen[found.end() :]
        return found


@contextlib.contextmanager
def shell(name: str, script: Path) -> Iterator[Shell]:
    """The shell in the script's folder, the script sourced."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(script.parent), "TERM": "dumb", "LC_ALL": "C.UTF-8"}
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(script.parent)
        os.execvpe(START[name][0], START[name], environment)  # noqa: S606 - as typed, without a shell
    try:
        made = Shell(terminal)
        for line in (SETTINGS[name], f"source ./{script.name}", STUB[name]):
            made.does(line)
        yield made
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(terminal)
