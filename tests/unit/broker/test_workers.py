"""The threads in which requests are verified: what they raise, whom they do not serve, and when they end."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import pytest

from strongroom.broker.workers import Threads, Workers
from strongroom.errors import Refused


def alive(name):
    return [one for one in threading.enumerate() if one.name.startswith(name)]


def gone(name):
    for _ in range(200):
        gc.collect()
        if not alive(name):
            return True
        time.sleep(0.02)
    return False


def test_a_work_that_raises_tells_who_waits_and_the_thread_serves_on():
    def fails():
        raise Refused("no", code="not-now")

    async def main():
        threads = Threads(1, "raising")
        with pytest.raises(Refused) as caught:
            await threads.run(fails)
        assert caught.value.code == "not-now"
        assert await threads.run(lambda: 7) == 7
        assert len(alive("raising")) == 1

    asyncio.run(main())


def test_as_many_works_run_at_once_as_there_are_threads():
    async def main():
        threads, meet = Threads(2, "meeting"), threading.Barrier(2)
        await asyncio.wait_for(asyncio.gather(*(threads.run(lambda: meet.wait(60)) for _ in range(2))), 30)

    asyncio.run(main())


def test_who_has_withdrawn_is_not_served_and_who_is_served_may_withdraw():
    async def main():
        threads, go, served = Threads(1, "withdrawn"), threading.Event(), []
        first = asyncio.ensure_future(threads.run(lambda: go.wait(60)))
        second = asyncio.ensure_future(threads.run(lambda: served.append(2)))
        await asyncio.sleep(0.05)
        first.cancel()
        second.cancel()
        await asyncio.sleep(0)
        go.set()
        assert await threads.run(lambda: 3) == 3
        assert served == []

    asyncio.run(main())


def test_a_loop_that_is_gone_does_not_end_a_thread():
    threads, go = Threads(1, "orphaned"), threading.Event()

    async def leaves():
        asyncio.ensure_future(threads.run(lambda: go.wait(60)))  # noqa: RUF006 - left behind
        await asyncio.sleep(0.05)

    asyncio.run(leaves())
    go.set()
    assert asyncio.run(threads.run(lambda: 5)) == 5


def test_threads_end_with_whoever_had_them():
    async def main(workers):
        assert await workers.run(lambda: 1) == 1

    workers = Workers()
    before = set(alive("verifier"))  # of other tests: they may end meanwhile
    asyncio.run(main(workers))
    assert len(set(alive("verifier")) - before) == 2
    threads = Threads(3, "dropped")
    asyncio.run(threads.run(int))
    assert len(alive("dropped")) == 3
    del threads
    assert gone("dropped")


def test_workers_are_busy_while_a_prompt_request_is_verified_and_not_for_patient_ones():
    async def main():
        workers, go = Workers(rest=lambda _: None), threading.Event()
        assert not workers.busy
        patient = asyncio.ensure_future(workers.run(lambda: go.wait(60), patient=True))
        await asyncio.sleep(0)
        assert not workers.busy
        prompt = asyncio.ensure_future(workers.run(lambda: go.wait(60)))
        await asyncio.sleep(0)
        assert workers.busy
        go.set()
        await asyncio.gather(patient, prompt)
        assert not workers.busy

    asyncio.run(main())
