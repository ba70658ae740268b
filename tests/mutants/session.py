"""One warm pytest session: tests are collected once, then each mutant is tried in a fork of it.

The fork replaces the code of the mutated function wherever that function is referred to, and runs the tests that
reach it until one fails. What runs at import (constants, defaults, classes) cannot be replaced afterwards: such a
mutant is left to a process of its own (`alone`), which imports the mutated source.
"""

from __future__ import annotations

import functools
import gc
import importlib
import importlib.machinery
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from types import CodeType, FunctionType
from typing import TYPE_CHECKING

import pytest

from tests import judging, probes

if TYPE_CHECKING:
    from tests.mutants.mutate import Mutant

OPTIONS = [
    "-q",
    "-p",
    "no:randomly",
    "-p",
    "no:cacheprovider",
    "--no-header",
    "--tb=line",
    "-m",
    "not soak and not room",
    "--continue-on-collection-errors",  # a file that cannot be collected notices nothing
]
LONGEST_TEST = 3.0  # seconds of processor time: a test that takes longer is left out
LONGEST_LIST = 15.0  # seconds of tests for one mutant: the nearest are tried first
MOST_FILES = 6  # of tests for a mutant of what runs at import: collecting them takes the time
KILLER = 200  # the descriptor on which a fork says which test failed: pytest captures the others
MEMORY = 6 << 30  # bytes of address space: a mutant may have lost a bound


def order(mutant: Mutant, reach: dict) -> list[str]:
    """Ids of the tests that reach the mutant: those that enter the block it guards, then the quickest of its folder."""
    blocks = reach["blocks"].get(mutant.module, {})
    around = [block for block in blocks.values() if block["scope"] == mutant.scope]
    inner = {
        t
        for block in around
        if mutant.last_line < block["line"] <= mutant.last_line + 2
        for t in block["tests"]
    }
    holding = [block for block in around if block["line"] <= mutant.line <= block["end"]]
    if mutant.scope and holding:
        tests = set(max(holding, key=lambda block: block["line"])["tests"])
    else:
        tests = {t for block in blocks.values() for t in block["tests"]}
    few = inner if len(inner) <= max(20, len(tests) // 4) else set()
    _, package, *_, name = mutant.module.split(".")

    def nearness(index: int) -> tuple:
        test, seconds = reach["tests"][index]
        far = f"tests/unit/{package}/" not in test
        return (index not in few, far, round(seconds, 1), name.split("_")[0] not in test, seconds)

    out, spent = [], 0.0
    for index in sorted(tests | few, key=nearness):
        test, seconds = reach["tests"][index]
        if seconds <= LONGEST_TEST and spent + seconds <= LONGEST_LIST:
            out.append(test)
            spent += seconds + 0.005
    return out


def _functions(code: CodeType, inside: bool = False) -> list[CodeType]:
    """The outermost functions in a module's code, methods of its classes included."""
    out = []
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            is_class = "__qualname__" in constant.co_names and not constant.co_flags & 0x02
            out += _functions(constant, inside) if is_class else [constant]
    return out


def replace_code(mutant: Mutant, source: bytes) -> bool:
    """Put the mutated function in place of the original everywhere. False when this cannot be done."""
    path = str(judging.path(mutant.module))
    gc.unfreeze()  # what is frozen is not listed
    whole = compile(mutant.apply(source), path, "exec", dont_inherit=True)
    new = [code for code in _functions(whole) if code.co_qualname == mutant.scope]
    living = [
        one
        for one in gc.get_objects()
        if isinstance(one, FunctionType)
        and one.__code__.co_filename == path
        and one.__code__.co_qualname == mutant.scope
    ]
    if len(new) != 1 or not living or any(one.__code__.co_freevars != new[0].co_freevars for one in living):
        return False
    for one in living:
        one.__code__ = new[0]
    return True


def forget() -> None:
    """Empty what the product's functions keep: else a test asks what another has answered, and reaches nothing."""
    for name, module in list(sys.modules.items()):
        if name.startswith("strongroom."):
            for one in vars(module).values():
                if isinstance(one, functools._lru_cache_wrapper):
                    one.cache_clear()
                elif type(one).__name__ == "Memo":
                    one.clear()


def in_fork(work, limit: float, log: Path) -> int | None:
    """`work()`'s exit status, run in a fork within `limit` seconds of processor time; None when it took longer.

    Four times as long by the clock: a busy machine makes no mutant look caught, and one that waits for ever ends.
    """
    child = os.fork()
    if child == 0:
        status = 99
        try:
            os.setsid()
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(out, 1)
            os.dup2(out, 2)
            os.dup2(out, KILLER)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + 1, int(limit) + 2))
            status = work()
        except BaseException as broken:  # noqa: BLE001  whatever it is, the mutant was noticed
            os.write(KILLER, f"KILLER {type(broken).__name__}: {broken}\n".encode())
            status = 1
        finally:
            os._exit(status)
    deadline = time.monotonic() + 4 * limit
    try:
        while time.monotonic() < deadline:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                child = 0
                code = os.waitstatus_to_exitcode(status)
                return None if code in {-signal.SIGXCPU, -signal.SIGKILL} else code
            time.sleep(0.005)
        return None
    finally:
        if child:
            _end(child)


def _end(child: int) -> None:
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


class Failures:
    """Says which test failed, and stops the run there."""

    def __init__(self) -> None:
        self.failed = ""

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid
            os.write(KILLER, f"KILLER {report.nodeid}\n".encode())


class Steady:
    """Part of the plugins: the same examples each time, and the first that fails is enough."""

    def pytest_configure(self) -> None:
        import hypothesis

        steps = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
        hypothesis.settings.register_profile(
            "mutants", derandomize=True, database=None, deadline=None, phases=steps
        )
        hypothesis.settings.load_profile("mutants")


class Warm(Steady):
    """A pytest plugin: in place of running the collected tests it tries each mutant."""

    def __init__(self, mutants: list[Mutant], reach: dict, report) -> None:
        self.mutants, self.reach, self.report = mutants, reach, report

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session) -> bool:
        items = {item.nodeid: item for item in session.items}
        gc.freeze()
        for mutant in self.mutants:
            self._try(mutant, items, session)
        return True

    def _try(self, mutant: Mutant, items: dict, session) -> None:
        source = judging.path(mutant.module).read_bytes()
        seconds = dict(self.reach["tests"])
        chosen = [items[test] for test in order(mutant, self.reach) if test in items]
        expected = sum(seconds.get(item.nodeid, 1.0) for item in chosen)

        def work() -> int:
            if not replace_code(mutant, source):
                return 98
            forget()
            failures = Failures()
            session.config.pluginmanager.register(failures)
            for index, item in enumerate(chosen):
                following = chosen[index + 1] if index + 1 < len(chosen) else None
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if failures.failed:
                    return 1
            return 0

        self.report(mutant, work, len(chosen), 10 + 3 * expected)


class Reach(Steady):
    """A pytest plugin: runs the tests once, unchanged, and notes what each reaches and how long it takes."""

    def __init__(self, recorder: probes.Recorder, to: Path) -> None:
        self.recorder, self.to = recorder, to
        self.tests: list[tuple[str, float]] = []
        self.failed: set[str] = set()
        self.hits: dict[str, list[int]] = {}

    def pytest_collectreport(self, report) -> None:
        if report.failed:  # its tests would look as if they noticed nothing
            pytest.exit(f"{report.nodeid} could not be collected:\n{report.longrepr}", returncode=4)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item):
        forget()
        self.recorder.hits.clear()
        self.recorder.on = True
        started = time.process_time()  # a busy machine makes no test too long to be tried
        yield
        seconds = time.process_time() - started
        self.recorder.on = False
        if item.nodeid not in self.failed:
            for hit in self.recorder.hits:
                self.hits.setdefault(hit, []).append(len(self.tests))
            self.tests.append((item.nodeid, round(seconds, 3)))

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed or report.skipped:
            self.failed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        blocks: dict[str, dict] = {}
        for module in judging.MODULES:
            _, places = probes.instrument(module, judging.path(module).read_text(), blocks=True)
            blocks[module] = {
                probe: {
                    "scope": probe.split(":")[1],
                    "line": place.line,
                    "end": place.end,
                    "tests": self.hits.get(probe, []),
                }
                for probe, place in places.items()
                if ":block:" in probe
            }
        self.to.write_text(json.dumps({"tests": self.tests, "blocks": blocks}))


class Mutated(importlib.machinery.SourceFileLoader):
    """Imports one module from its mutated source, past the cache of compiled files."""

    mutant: Mutant

    def get_code(self, fullname: str) -> object:
        source = self.mutant.apply(Path(self.path).read_bytes())
        return compile(source, self.path, "exec", dont_inherit=True)


class MutatedFinder:
    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant

    def find_spec(self, fullname, path=None, target=None):
        if fullname != self.mutant.module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        spec.loader = Mutated(fullname, spec.origin)
        spec.loader.mutant = self.mutant
        return spec


class Only(Steady):
    """A pytest plugin: of what was collected, these tests, in this order."""

    def __init__(self, tests: list[str]) -> None:
        self.rank = {test: index for index, test in enumerate(tests)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self.rank), key=lambda i: self.rank[i.nodeid])


def alone(mutant: Mutant, reach: dict, report) -> None:
    """Try a mutant in a process that imports its source anew."""
    tests = order(mutant, reach)
    files = list(dict.fromkeys(test.split("::")[0] for test in tests))[:MOST_FILES]
    tests = [test for test in tests if test.split("::")[0] in files]

    def work() -> int:
        if any(name.startswith("strongroom.") for name in sys.modules):
            raise RuntimeError("the product is imported already")
        sys.meta_path.insert(0, MutatedFinder(mutant))
        importlib.import_module(mutant.module)  # one that does not even start is noticed by whatever uses it
        return int(pytest.main([*OPTIONS, "-x", *files], plugins=[Only(tests), Failures()]))

    report(mutant, work, len(tests), 30 + 3 * sum(dict(reach["tests"])[test] for test in tests))
