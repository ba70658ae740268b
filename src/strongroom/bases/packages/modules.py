"""The base's Python modules: which ones the agent can reach, and their compilation.

The agent's packages and those from wheels are taken whole, with their source's imports followed through the
standard library, those inside functions included. What C and Rust code imports by name cannot be seen
that way and is listed. The modules are compiled by the base's own interpreter into legacy `.pyc` files that name no
time and no source, so that nothing in the room ever looks for either.
"""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.bases.files import File, write_tree
from strongroom.errors import Malformed, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

LIBRARY = "usr/lib/python3.11"
INTERPRETER = "usr/bin/python3.11"
LOADER = "lib64/ld-linux-x86-64.so.2"
LIBRARIES = "lib/x86_64-linux-gnu"
_DYNAMIC = "lib-dynload/"
_SUFFIXES = (".cpython-311-x86_64-linux-gnu.so", ".abi3.so", ".so", ".py")

# Imported by name from C or Rust, or by the interpreter's start.
UNSEEN = (
    "_hashlib",
    "_strptime",
    "abc",
    "codecs",
    "collections.abc",
    "copyreg",
    "datetime",
    "encodings.aliases",
    "encodings.ascii",
    "encodings.idna",
    "encodings.latin_1",
    "encodings.utf_8",
    "importlib.machinery",
    "importlib.util",
    "io",
    "ipaddress",
    "linecache",
    "os",
    "runpy",
    "site",
    "traceback",
    "warnings",
)
# Reached only from code that the agent does not run: tools, other systems, tests. `dataclasses` has a stand-in
# (`agent/value_classes`).
NEVER = frozenset(
    (
        "dataclasses",
        *(
            "asyncio",
            "concurrent",
            "multiprocessing",
            "subprocess",
            "webbrowser",
            "http",
            "xml",
            "xmlrpc",
        ),
        *(
            "test",
            "unittest",
            "doctest",
            "pdb",
            "bdb",
            "cmd",
            "code",
            "codeop",
            "pydoc",
            "trace",
            "tracemalloc",
        ),
        *("tkinter", "idlelib", "lib2to3", "turtledemo", "distutils", "ensurepip", "venv", "setuptools"),
        *(
            "curses",
            "readline",
            "rlcompleter",
            "sqlite3",
            "dbm",
            "argparse",
            "gettext",
            "optparse",
        ),
    )
)

_COMPILE = """
import json, py_compile, sys
mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
for source, target, name in json.load(sys.stdin):
    py_compile.compile(source, cfile=target, dfile=name, doraise=True, invalidation_mode=mode, optimize=0)
"""
_IMPORT = """
import importlib, json, sys
from strongroom.agent import value_classes
sys.modules["dataclasses"] = value_classes
for name in json.load(sys.stdin):
    importlib.import_module(name)
"""


def module_name(path: str) -> str | None:
    """The module that a path below the library stands for, or None."""
    for suffix in _SUFFIXES:
        if path.endswith(suffix):
            return (
                path.removeprefix(_DYNAMIC)[: -len(suffix) or None]
                .removesuffix("/__init__")
                .replace("/", ".")
            )
    return None


def reachable(
    library: Mapping[str, File], roots: Iterable[str], scans: dict[str, list[str]]
) -> dict[str, File]:
    """The files of `library` (by path below it) that `roots` need. `scans` remembers imports by content and name."""
    paths = {name: path for path in sorted(library) if (name := module_name(path)) is not None}
    reached: set[str] = set()
    todo = [*roots, *UNSEEN]
    while todo:
        name = todo.pop()
        if name in reached or name not in paths or name.partition(".")[0] in NEVER:
            continue
        reached.add(name)
        if "." in name:
            todo.append(name.rpartition(".")[0])
        path = paths[name]
        if path.endswith(".py"):
            todo += _imports(name, path, library[path].content, scans)
    return {paths[name]: library[paths[name]] for name in sorted(reached)}


def compile_all(runtime: Mapping[str, File], modules: Mapping[str, File], cache: Path) -> dict[str, File]:
    """The modules, `.py` replaced by `.pyc`; compiled by the interpreter in `runtime`. `cache` keeps results by content."""
    cache.mkdir(parents=True, exist_ok=True)
    interpreter = hashlib.sha256(runtime[INTERPRETER].content).hexdigest()
    out: dict[str, File] = {}
    missing: dict[str, tuple[str, bytes]] = {}
    for path, file in modules.items():
        if not path.endswith(".py"):
            out[path] = file
            continue
        identity = b"\x00".join((interpreter.encode(), path.encode(), file.content))
        compiled = cache / (hashlib.sha256(identity).hexdigest() + ".pyc")
        missing[path] = (compiled.name, file.content)
    todo = {path: work for path, work in missing.items() if not (cache / work[0]).is_file()}
    if todo:
        with (
            _laid_out(runtime, cache) as (folder, command),
            tempfile.TemporaryDirectory(dir=cache, prefix=".new-") as text,
        ):
            jobs = []
            for name, content in todo.values():
                source = folder / "source" / name
                source.parent.mkdir(exist_ok=True)
                source.write_bytes(content)
            jobs = [
                (str(folder / "source" / name), f"{text}/{name}", f"/{LIBRARY}/{path}")
                for path, (name, _) in todo.items()
            ]
            _run([*command, "-c", _COMPILE], jobs)
            for name, _ in todo.values():
                (Path(text) / name).replace(cache / name)
    for path, (name, _) in missing.items():
        out[path + "c"] = File(content=(cache / name).read_bytes())
    return out


def check_imports(tree: Mapping[str, File], names: Iterable[str], cache: Path) -> None:
    """Import `names` with the finished tree's interpreter. Raises `Unavailable` when one of them lacks something."""
    with _laid_out(tree, cache) as (_, command):
        _run([*command, "-c", _IMPORT], list(names))


def _imports(name: str, path: str, source: bytes, scans: dict[str, list[str]]) -> list[str]:
    key = hashlib.sha256(b"\x00".join((name.encode(), path.encode(), source))).hexdigest()
    if key not in scans:
        package = name if path.endswith("/__init__.py") else name.rpartition(".")[0]
        try:
            scans[key] = sorted(set(_scan(ast.parse(source), package)))
        except SyntaxError as cause:
            raise Malformed(f"{path}: {cause}", code="bad-module") from None
    return scans[key]


def _scan(node: ast.AST, package: str) -> Iterator[str]:
    """The names that a statement, or anything inside it, imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        parts = package.split(".")
        parent = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
        module = ".".join(part for part in (parent, node.module) if part)
        yield module
        yield from (f"{module}.{alias.name}" for alias in node.names)
    else:
        inside: Iterable[ast.AST] = ast.iter_child_nodes(node)
        if isinstance(node, ast.If) and _type_checking(node.test):
            inside = node.orelse
        for child in inside:
            yield from _scan(child, package)


def _type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


class _laid_out:  # noqa: N801 - used as a function: `with _laid_out(files) as (folder, command)`
    """A runnable copy of a tree. The command needs no privileges: the tree's own loader finds the tree's libraries."""

    def __init__(self, files: Mapping[str, File], cache: Path) -> None:
        self._files = files
        self._folder = tempfile.TemporaryDirectory(dir=cache, prefix=".run-")

    def __enter__(self) -> tuple[Path, list[str]]:
        folder = Path(self._folder.name).resolve()
        write_tree(folder, self._files)
        loader = [str(folder / LOADER), "--library-path", str(folder / LIBRARIES)]
        return folder, [*loader, str(folder / INTERPRETER), "-I", "-S", "-B"]

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


def _run(command: list[str], work: object) -> None:
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "PYTHONNODEBUGRANGES": "1", "PYTHONHASHSEED": "0"}
    completed = subprocess.run(
        command,
        input=json.dumps(work),
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=300,
    )
    if completed.returncode:
        last = (completed.stderr.strip().splitlines() or ["no message"])[-1]
        raise Unavailable(
            f"the base's Python ended with {completed.returncode}: {last}",
            code="base-incomplete",
            hint="a module that the agent imports is not in the base; see UNSEEN and NEVER in bases/packages/modules.py",
        )
