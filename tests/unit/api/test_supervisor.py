"""A worker that does not last: replaced after longer and longer pauses, and not for ever."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import time
from types import SimpleNamespace

import pytest

from strongroom.api import supervisor
from strongroom.errors import Unavailable


def watch(monkeypatch, tmp_path, serve, *, kill=None):
    """Run a supervisor of one worker; return the error that it ended with, and the times at which workers began."""
    monkeypatch.setattr(supervisor, "PAUSE", 0.05)
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE", 0.4)
    monkeypatch.setattr(supervisor, "MOST", 5)
    log = tmp_path / "starts"
    log.touch()

    def work(listening, ready):
        with log.open("a") as target:
            target.write(f"{time.monotonic()}\n")
        serve(listening, ready)

    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    sockets = supervisor.bind_all("127.0.0.1", 0, 1)
    try:
        with pytest.raises(Unavailable) as caught:
            supervisor.Supervisor(work, sockets).run(lambda: None)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
        for one in sockets:
            one.close()
    return caught.value, [float(line) for line in log.read_text().split()]


def test_workers_that_do_not_last_are_replaced_ever_later_and_then_no_more(monkeypatch, tmp_path):
    def serve(_listening, ready):
        ready()
        os._exit(1)

    cause, starts = watch(monkeypatch, tmp_path, serve)
    assert (cause.code, cause.message.split(":")[0]) == ("worker-failed", "broker")
    assert "5 workers in a row" in cause.message
    assert cause.hint
    pauses = [after - before for before, after in itertools.pairwise(starts)]
    assert len(starts) == 5
    for pause, least in zip(pauses, (0.05, 0.1, 0.2, 0.4), strict=True):
        assert pause >= least


def test_a_worker_that_lasted_is_replaced_at_once_and_the_count_begins_anew(monkeypatch, tmp_path):
    fork = multiprocessing.get_context("fork")
    spent, later = fork.Value("i", 0), fork.Value("d", 0.0)
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + later.value, sleep=time.sleep)
    monkeypatch.setattr(supervisor, "time", clock)
    monkeypatch.setattr(supervisor, "LASTING", 3600.0)

    def serve(_listening, ready):
        ready()
        with spent.get_lock():
            at, spent.value = spent.value, spent.value + 1
        if at == 3:  # this one lasts
            later.value = 3600.0

    _, starts = watch(monkeypatch, tmp_path, serve)
    assert len(starts) == 3 + 1 + 5


def test_a_signal_to_stop_is_heard_during_a_pause(monkeypatch):
    monkeypatch.setattr(supervisor, "PAUSE", 600.0)
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE", 600.0)
    fork = multiprocessing.get_context("fork")
    pausing = fork.Event()
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda left: pausing.set() or time.sleep(left))
    monkeypatch.setattr(supervisor, "time", clock)
    sockets = supervisor.bind_all("127.0.0.1", 0, 1)

    def serve(_listening, ready):
        ready()

    def run():
        supervisor.Supervisor(serve, sockets).run(lambda: None)

    process = fork.Process(target=run)
    process.start()
    assert pausing.wait(60)
    process.terminate()
    process.join(60)
    assert process.exitcode == 0
    for one in sockets:
        one.close()
