"""The command line parses what was typed, calls and prints. What decides or does something is a function below it, which others call too.

Held by what its files import and call: nothing that starts programs, opens connections, draws random numbers, locks or makes temporary files, no
cryptography, no layer of a sealed disk, no store, no file that it reads or writes, no document that it parses. What is about a terminal, the value
of an option, or a type that is spoken of is listed with why.
"""

from __future__ import annotations

import ast

from tests.arch import sources

DOES = {
    *("subprocess", "multiprocessing", "threading", "asyncio"),
    *("socket", "ssl", "http", "urllib", "httpx"),
    *("secrets", "random", "fcntl", "mmap", "tempfile", "shutil", "ctypes", "struct", "hashlib", "hmac"),
    *("sqlite3", "sqlalchemy", "cryptography"),
}
# What use cases stand on: layers of a sealed disk, what signs, opens, stores, judges, serves and runs in rooms, and small files.
BELOW = (
    *(
        "strongroom.crypto.",
        "strongroom.seal.",
        "strongroom.store.",
        "strongroom.authority.",
        "strongroom.files.",
    ),
    *("strongroom.broker.", "strongroom.api.", "strongroom.agent.", "strongroom.evidence."),
)
SPOKEN_TO = {"strongroom.seal.dataset", "strongroom.seal.tree"}
OPENS = {"open", "os.open", "os.fdopen", "os.write", "os.sendfile", "os.rename", "os.link", "os.fork"}
METHODS = {
    *(
        ".write_bytes",
        ".write_text",
        ".read_bytes",
        ".read_text",
        ".unlink",
        ".rename",
        ".symlink_to",
        ".touch",
        ".rmdir",
        ".mkdir",
        ".iterdir",
    ),
    *(".open_broker", ".loads", ".parse", ".parsed"),
}
LISTED = {
    # A terminal's width and a file descriptor that the user opened, a passphrase that leaves the environment, standard output at once.
    "printable.py": {"shutil"},
    "passphrase.py": {"ctypes", "os.fdopen"},
    "broker/request_lines.py": {"os.write", "strongroom.broker.request_log"},  # the events that it prints
    # What kind of file it is that does not parse, to say so; and a standard output that nobody reads.
    "failures.py": {"os.open", "strongroom.files"},
    # Values of options: a name in a registry, and log-ins from a file descriptor.
    "images/registry_options.py": {"os.fdopen", ".parse"},
    "evidence/reference.py": {".parse"},
}


def does() -> dict[str, set[str]]:
    """By file of the command line: what it imports or calls to do something itself."""
    out: dict[str, set[str]] = {}
    for source in sources.product():
        if source.package != "cli":
            continue
        imported = sources.imports(source.tree)
        found = {name.partition(".")[0] for name in imported} & DOES
        modules = {
            ".".join(name.split(".")[:3])
            for name in imported
            if f"{name}.".startswith(BELOW) and name.count(".") > 1
        }
        modules |= {name for name in imported if name == "strongroom.files"}
        found |= modules - SPOKEN_TO
        called = {name for name, _ in sources.calls(source.tree)}
        found |= called & OPENS
        found |= {
            f".{node.func.attr}"
            for node in source.nodes
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        } & METHODS
        if found:
            out[source.name.removeprefix("strongroom/cli/")] = found
    return out


def test_the_command_line_speaks_and_does_nothing_itself():
    assert does() == LISTED


def test_what_does_something_is_seen():
    """What the test above stands on: below the command line the same is found, of every kind."""
    kinds = {
        name
        for source in sources.product()
        if source.package != "cli"
        for name, _ in sources.calls(source.tree)
    }
    assert {"os.fdopen", "files.write", "files.parsed", "canonical.loads", "broker.open_broker"} <= kinds
    assert {"subprocess", "secrets", "tempfile"} <= DOES
    assert any(name.startswith(BELOW) for name in ("strongroom.seal.erofs", "strongroom.crypto.aead"))


def test_help_of_evidence_and_images_loads_nothing_that_judges_or_builds():
    """What `--help` of a verb costs is what stands at the top of its file: a verifier there takes three times as long."""
    light = ("strongroom.cli", "strongroom.encoding", "strongroom.errors", "strongroom.files")
    heavy = [
        f"{source.name}:{node.lineno}: {module}"
        for source in sources.product()
        if source.name.startswith(("strongroom/cli/evidence/", "strongroom/cli/images/"))
        for node in source.tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("strongroom")
        for module in ([f"strongroom.{name.name}" for name in node.names] if node.module == "strongroom" else [node.module or ""])
        if not f"{module}.".startswith(tuple(f"{name}." for name in light))
    ]  # fmt: skip
    assert heavy == []
