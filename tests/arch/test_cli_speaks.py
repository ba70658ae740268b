"""The command line parses, calls and prints. What decides or does something is a function below it, which others call too.

Held by what its files import and call: nothing that starts programs, opens connections, draws random numbers, locks or makes temporary files, no
cryptography, no layer of a sealed disk, no file of its own writing. What is about a terminal, or shared with what serves, is listed with why.
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
# Layers of a sealed disk and what signs, opens and stores; `seal.dataset` is the use case.
BELOW = ("strongroom.crypto.", "strongroom.seal.", "strongroom.store.", "strongroom.authority.")
SPOKEN_TO = {"strongroom.seal.dataset", "strongroom.seal.tree"}
OPENS = {"open", "os.open", "os.fdopen", "os.write", "os.sendfile", "os.rename", "os.link", "os.fork"}
WRITES = {".write_bytes", ".write_text", ".unlink", ".rename", ".symlink_to", ".touch", ".rmdir"}
LISTED = {
    # A terminal's width and a file descriptor that the user opened, a passphrase that leaves the environment, standard output at once.
    "printable.py": {"shutil"},
    "passphrase.py": {"ctypes", "os.fdopen"},
    "images/registry_options.py": {"os.fdopen"},
    "broker/request_lines.py": {"os.write"},
    "failures.py": {"os.open"},
}


def does() -> dict[str, set[str]]:
    """By file of the command line: what it imports or calls to do something itself."""
    out: dict[str, set[str]] = {}
    for source in sources.product():
        if source.package != "cli":
            continue
        imported = sources.imports(source.tree)
        found = {name.partition(".")[0] for name in imported} & DOES
        modules = {".".join(name.split(".")[:3]) for name in imported if name.startswith(BELOW)}
        found |= modules - SPOKEN_TO
        called = {name for name, _ in sources.calls(source.tree)}
        found |= called & OPENS
        found |= {
            f".{node.func.attr}"
            for node in ast.walk(source.tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        } & WRITES
        if found:
            out[source.name.removeprefix("strongroom/cli/")] = found
    return out


def test_the_command_line_speaks_and_does_nothing_itself():
    assert does() == LISTED


def test_what_does_something_is_seen():
    """What the test above stands on."""
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
