"""A pytest plugin: every `raise` and every `ok=…` of the judging modules is executed by a unit test.

It is there in `make test` (`--promises test`), and by `python -m pytest -p tests.refusals`; it fails when one is not,
and names it. Only unit tests count: a fuzz test reaches a
refusal by chance, and asserts no more than its kind. Tests in other processes are not seen.
"""

from __future__ import annotations

import pytest

from tests import judging, probes

# (module, the statement's first line): why no unit test can execute it.
UNREACHED: dict[tuple[str, str], str] = {
    (
        "strongroom.broker.release",
        "raise",
    ): "what the parties signed is too small for an acceptance too long to record",
    (
        "strongroom.crypto.pki.crl",
        'raise Malformed("revocation list: signed with another algorithm than it says")',
    ): "today's X.509 library refuses such a list before; another one need not",
    (
        "strongroom.model.room.agreed",
        'raise Malformed(f"manifest {image.name}: an image without settings")',
    ): "a manifest of the kind image without settings does not parse; the types do not know that",
}

_recorder = probes.Recorder()
probes.install(_recorder, blocks=False)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    _recorder.on = item.nodeid.startswith("tests/unit/")
    yield
    _recorder.on = False


def _missing() -> list[str]:
    out, excused = [], set()
    for module in judging.MODULES:
        _, places = probes.instrument(module, judging.path(module).read_text(), blocks=False)
        for probe, place in places.items():
            if ":raise:" in probe:
                wanting = [] if probe in _recorder.hits else ["never raised"]
            else:
                wanting = [
                    f"never {outcome}"
                    for outcome in (True, False)
                    if (probe, outcome) not in _recorder.outcomes
                ]
            if wanting and (module, place.text) in UNREACHED:
                excused.add((module, place.text))
            elif wanting:
                out.append(f"{module}:{place.line}: {' and '.join(wanting)}: {place.text}")
    out += [f"{module}: listed as unreached, but is not: {text}" for module, text in set(UNREACHED) - excused]
    return out


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """What a worker's tests executed, told to the process that started it."""
    told = getattr(node, "workeroutput", {}).get("refusals", ((), ()))
    _recorder.hits.update(told[0])
    _recorder.outcomes.update((probe, outcome) for probe, outcome in told[1])


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    config = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput["refusals"] = (list(_recorder.hits), [list(one) for one in _recorder.outcomes])
        return
    config.stash[_KEY] = missing = _missing() if exitstatus == 0 else []
    if missing:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    missing = config.stash.get(_KEY, [])
    if missing:
        terminalreporter.section("refusals of the judging modules that no unit test executes")
        for line in missing:
            terminalreporter.line(line)
        terminalreporter.line(f"{len(missing)} in all")


_KEY = pytest.StashKey[list[str]]()
