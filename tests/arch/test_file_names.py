"""Every place where a name becomes a file's name or a path, listed with why no two of them can meet.

Names that parties choose (their own, those of contracts, disks, datasets) are of `fields.NAME`: lower case, no slash, no
dot at either end, so that no path, no hidden file and no second spelling can be written with one. What remains is that two
of them, or one and a fixed name, could be one file. A new place fails here until it is listed.
"""

from __future__ import annotations

import ast
import re

from tests.arch import sources

# Where names come from outside. `bases`, `images` and `fetch` name their files by digests and by their own fixed words.
PACKAGES = {
    "agent",
    "api",
    "authority",
    "broker",
    "cli",
    "dryrun",
    "files",
    "ledger",
    "model",
    "node",
    "parties",
    "seal",
    "store",
    "wiring",
}
NAMES = {"name", "party", "id", "owner", "contract_id", "dataset", "run", "run_id", "serial", "title"}
ENDING = re.compile(r"\.(?:age|der|disk|identity|json|key|lock|log|part|pem|tar)\b")

LISTED = {
    # Fixed words of our own, or of the kernel's.
    "agent/container.py": {
        *("{launch.scratch}/{name}", "{where}/{name}", "{folder}/{name}", "{dev}/{name}"),
        "{folder or '.'}/{name}",  # the program's own name, looked for on the image's PATH by its own user
        "{data}/{name}",  # datasets: their names are unique in a contract, and the folder holds nothing else
    },
    "agent/devices/tsm.py": {"{folder}/{name}"},
    "agent/disks/open.py": {"{blocks}/{name}/serial"},
    "agent/disks/nbd.py": {"{self._folder}/{name}"},
    "node/children.py": {"{folder}/{name}"},
    "node/doctor.py": {"{folder}/{name}", "/{folder}/{name}"},
    "files.py": {"base / 'strongroom' / name", ".{path.name}.{os.urandom(4).hex()}.part"},
    # Moved as they are, into a folder that is new.
    "node/run.py": {"aside / path.name"},
    "wiring/broker.py": {"directory / name"},
    # Serials are "image" and "data-N"; beside them are "out", "scratch" and "tls".
    "agent/room.py": {"{init.ROOM}/{serial}"},
    # Fixed words, and parties' names in a folder of their own.
    "agent/certificates/delivery.py": {
        *("{place}/{name}", "{self.folder}/{name}", "{self.folder}/.{name}", "{CURRENT}/{name}"),
        *("{CHAINS}/{party}.pem", "{ACME}/{party}.directory", "{ACME}/{party}.kid"),
        *("{ACME}/{party}.hmac-key", "{ACME}/{party}.broker.pem"),
    },
    # A kind's prefix or ending around one name: tests/unit/model/test_run_files.py, and for a disk's files below.
    "model/room/run_files.py": {
        *("{_EVIDENCE}{party}.json", "{_RELEASE}{party}.json", "{_LEDGER_PROOF}{party}.json"),
        "{MANIFESTS}/{serial}.json",
    },
    "parties/papers.py": {"{name}.party.json"},
    "parties/predict.py": {"folder / name"},
    # Beside these the names of the owner's own files: one that is there already is not written over.
    "parties/identity.py": {
        *("{name}.identity", "{old.name}.identity"),
        *("out / path.name", "out / locked.name"),
    },
    # Hidden while they are written; no name begins with a dot.
    "node/run_folder.py": {"folder / name", ".{self._target.name}.part"},
    "node/run_status.py": {".{self._file.name}.part"},
    "node/runs.py": {"folder / entry.name"},  # folders that are looked into
    "seal/newfile.py": {".{path.name}.{os.getpid()}.part"},
    # No files.
    "model/contracts/certificate_terms.py": {
        "spiffe://{contract_id}.strongroom/room/{room}/run/{run_id}",
        "spiffe://{trust_domain}/contract/{contract_id}/room/{room}/run/{run_id}",
    },
}
# What stands after a name in files of one folder: no ending of two is the end of another.
ENDINGS = (".disk", ".manifest.json", ".key.age", ".identity", ".party.json", ".rotation.json")


def places() -> dict[str, set[str]]:
    """By file: each text with a name in it that looks like a path or a file, and each name put below a folder."""
    out: dict[str, set[str]] = {}
    for source in sources.product():
        if source.package not in PACKAGES:
            continue
        for node in source.nodes:
            if isinstance(node, ast.JoinedStr):
                fixed = "".join(str(one.value) for one in node.values if isinstance(one, ast.Constant))
                named = {
                    last(one.value) for one in node.values if isinstance(one, ast.FormattedValue)
                } & NAMES
                if not named or " " in fixed or not (ENDING.search(fixed) or "/" in fixed):
                    continue
                text = ast.unparse(node).removeprefix("f")[1:-1]
            elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and last(node.right) in NAMES:
                text = ast.unparse(node)
            else:
                continue
            out.setdefault(source.name.removeprefix("strongroom/"), set()).add(text)
    return out


def last(node: ast.expr) -> str:
    return sources.dotted(node).rpartition(".")[2]


def test_every_name_that_becomes_a_file_is_listed():
    assert places() == LISTED


def test_no_ending_is_the_end_of_another():
    """So NAME with one of them is never another NAME with another."""
    assert not [(one, two) for one in ENDINGS for two in ENDINGS if one != two and one.endswith(two)]
