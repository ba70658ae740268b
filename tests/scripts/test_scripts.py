"""Runs the transcripts beside this file.

A transcript is a list of lines: a command; `! command` for one that must fail; `!N command` for one that
must leave with N; then any of `stdout TEXT`, `stderr TEXT` (must be found), `no-stdout TEXT`,
`no-stderr TEXT` (must not), `exists FILE`, `missing FILE`, `mode FILE 600`. `flip FILE OFFSET` changes
one byte. `# …` is for the reader; one that begins with "# Needs root." is for root alone. Each runs in a folder of its own, with the passphrase in the environment.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests import verbs

HERE = Path(__file__).parent


@pytest.mark.parametrize("script", sorted(HERE.glob("*.txt")), ids=lambda path: path.stem)
def test_transcript(script, tmp_path):
    if script.read_text().startswith("# Needs root.") and os.geteuid() != 0:
        pytest.skip("needs root")
    environment = {
        **os.environ,
        "STRONGROOM_PASSPHRASE": verbs.PASSPHRASE,
        "COLUMNS": "200",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    last = subprocess.CompletedProcess([], 0, "", "")
    for number, line in enumerate(script.read_text().splitlines(), 1):
        words = shlex.split(line, comments=True)
        if not words:
            continue
        where = f"{script.name}:{number}: {line}"
        match words:
            case ["stdout", text]:
                assert text in last.stdout, f"{where}\n{last.stdout}"
            case ["stderr", text]:
                assert text in last.stderr, f"{where}\n{last.stderr}"
            case ["no-stdout", text]:
                assert text not in last.stdout, where
            case ["no-stderr", text]:
                assert text not in last.stderr, where
            case ["exists", name]:
                assert (tmp_path / name).exists(), where
            case ["missing", name]:
                assert not (tmp_path / name).exists(), where
            case ["mode", name, mode]:
                assert f"{(tmp_path / name).stat().st_mode & 0o777:o}" == mode, where
            case ["write", name, text]:
                (tmp_path / name).write_text(text)
            case ["flip", name, offset]:
                data = bytearray((tmp_path / name).read_bytes())
                data[int(offset)] ^= 1
                (tmp_path / name).write_bytes(data)
            case _:
                wanted = re.fullmatch(r"!(\d*)", words[0])
                command = words[1:] if wanted else words
                last = (
                    verbs.run(*command[1:], cwd=tmp_path, env=environment, timeout=120)
                    if command[0] == "strongroom"
                    else subprocess.run(
                        command,
                        cwd=tmp_path,
                        env=environment,
                        capture_output=True,
                        text=True,
                        timeout=120,
                        stdin=subprocess.DEVNULL,
                        check=False,
                    )
                )
                told = f"{where}\nexit {last.returncode}\n{last.stdout}{last.stderr}"
                assert "Traceback" not in last.stderr, told
                if wanted and wanted[1]:
                    assert last.returncode == int(wanted[1]), told
                else:
                    assert (last.returncode != 0) == bool(wanted), told
