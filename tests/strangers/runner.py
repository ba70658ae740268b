"""Runs the commands of each member of a folder of strangers' files, and compares what comes with its right answer.

    <folder>/{wrong,right}/<name>/command.txt and the files that it names

`wrong` holds what a version answered wrongly once, `right` what it must go on answering right. A member's commands run
in a copy of its folder, with this tree's `strongroom` and `python` first on the PATH and nothing of anybody's home.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests import verbs
from tests.strangers.expectations import NOT_YET, RIGHT, WRONG

DEFAULT = Path(__file__).parents[3] / "shared" / "strangers"
KNOWN = {"wrong": WRONG, "right": RIGHT}
_SECONDS = 60
_OURS = re.compile(
    r"strongroom(?: [\w./-]+)+", re.ASCII
)  # one command, and nothing that only a shell would read
# The members' commands import modules by the names of the version at which they were written: where these are today.
_MOVED = """
import importlib, importlib.abc, importlib.util, sys
MOVED = {
    "strongroom.appraisal.reference_corim": "strongroom.appraisal.reference.corim",
    "strongroom.cli.evidence_files": "strongroom.parties.evidence",
    "strongroom.evidence.eventlog_efi": "strongroom.evidence.formats.eventlog_efi",
    "strongroom.evidence.recognise": "strongroom.evidence.wrappings.recognise",
    "strongroom.evidence.snp_report": "strongroom.evidence.formats.snp_report",
    "strongroom.evidence.tpm_quote": "strongroom.evidence.formats.tpm_quote",
}
NAMES = {"strongroom.parties.evidence": {"endorsements": "load_endorsements"}}

class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_loader(name, self) if name in MOVED else None

    def create_module(self, spec):
        module = importlib.import_module(MOVED[spec.name])
        for old, new in NAMES.get(MOVED[spec.name], {}).items():
            setattr(module, old, getattr(module, new))
        return module

    def exec_module(self, module):
        pass

sys.meta_path.insert(0, Finder())
"""


@dataclass(frozen=True, kw_only=True)
class Result:
    """A member compared with its right answer: `faults` in words, none when it is right."""

    name: str
    right: str
    got: str
    faults: tuple[str, ...] = ()
    awaited: bool = False

    @property
    def state(self) -> str:
        """`ok` or `NO`, as the table says it; `not yet` for a wrong answer that is listed as such."""
        if self.awaited:
            return "NO" if not self.faults else "not yet"
        return "NO" if self.faults else "ok"


def folder() -> Path:
    """The folder that the environment names, or the one beside the project."""
    return Path(os.environ.get("STRONGROOM_STRANGERS") or DEFAULT)


def members(root: Path) -> list[Path]:
    """The members' folders, in order."""
    return sorted(path for group in KNOWN for path in (root / group).glob("*") if path.is_dir())


def run(path: Path) -> Result:
    """One member."""
    name = path.name
    expected = KNOWN[path.parent.name].get(name)
    if expected is None:
        return Result(name=name, right="-", got="-", faults=("has no expectation: write it",))
    code, output = _outcome(path)
    faults = tuple(expected.faults(code, output))
    lines = [line for line in output.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("blocks", "error", "local", "kind", "OK", "NO"))]
    return Result(
        name=name,
        right=expected.right,
        got=" ".join(f"exit {code}: {(told or lines or ['nothing'])[0]}".split())[:70],
        faults=faults,
        awaited=name in NOT_YET,
    )


def _outcome(path: Path) -> tuple[int, str]:
    """The exit code, and everything printed. A command that does not end is a failure like another."""
    with tempfile.TemporaryDirectory() as scratch:
        place, home = Path(scratch, "member"), Path(scratch, "home")
        home.mkdir()
        _copy(path, place)
        (home / "sitecustomize.py").write_text(_MOVED)
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(home),
            "PYTHONPATH": str(home),
            "LANG": "C.UTF-8",
        }
        command = (place / "command.txt").read_text()
        try:
            if _OURS.fullmatch(command.strip()):
                ours = verbs.run(*command.split()[1:], cwd=place, env=environment, timeout=_SECONDS)
                return ours.returncode, ours.stderr + ours.stdout
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=place,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return -1, f"error: not done after {_SECONDS} s"
    return done.returncode, done.stdout.decode(errors="replace")


def _copy(source: Path, target: Path) -> None:
    """A copy that can be written and removed, whatever the rights of the folder are."""
    target.mkdir()
    for path in source.iterdir():
        if path.is_dir():
            _copy(path, target / path.name)
        else:
            shutil.copyfile(path, target / path.name)
