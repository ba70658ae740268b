"""Connections: what is read of them and when they end, whatever the other side sends, or does not."""

from __future__ import annotations

import asyncio
import re

import pytest

from strongroom.api.application import Application
from strongroom.api.broker.routes import Auth, RouteRow
from strongroom.api.budgets import Bodies, ConnectionBudgets, Shares
from strongroom.api.connection import HELD, Connection
from strongroom.api.http import HttpResponse
from strongroom_testing.http_calls import Pipe

ROWS = (
    RouteRow(name="say", method="POST", path="/say", auth=Auth.NONE, limit=10**6, why=""),
    RouteRow(name="tell", method="GET", path="/tell", auth=Auth.NONE, limit=0, why=""),
    RouteRow(name="stream", method="GET", path="/stream", auth=Auth.NONE, limit=0, why=""),
)


class Served:
    """A connection to an application that says back what it was sent."""

    def __init__(self, budgets, *, shares=None, gate=None):
        self.bodies, self.failures, self.streamed = Bodies(budgets), [], 0

        async def say(request):
            try:
                body = await self.bodies.read(request, 10**6)
                if gate is not None:
                    await gate.wait()
                return HttpResponse(body=body)
            except Exception as failure:
                self.failures.append(failure.code)
                raise
            finally:
                self.bodies.give_back(request)

        async def tell(request):
            return HttpResponse(body=request.path.encode() + b"?" + repr(request.queried()).encode())

        async def stream(_request):
            async def pieces():
                for _ in range(100):
                    self.streamed += 1
                    yield bytes(10)

            return HttpResponse(pieces=pieces(), length=1000)

        self.connected = set()
        self.pipe = Pipe("192.0.2.1")
        self.shares = shares or Shares(budgets.connections, budgets.share)
        app = Application(ROWS, {"say": say, "tell": tell, "stream": stream}, budgets=budgets)
        self.connection = self.pipe.connection = Connection(app, shares=self.shares, connected=self.connected)
        self.connection.connection_made(self.pipe)

    async def get(self, *pieces, seconds=0.05):
        """What is written after these bytes."""
        for piece in pieces:
            if not self.pipe.closed:
                self.connection.data_received(piece)
            await asyncio.sleep(0)
        await asyncio.sleep(seconds)
        written = bytes(self.pipe.written)
        self.pipe.written.clear()
        return written


def run(work, *, gate=False, **budgets):
    async def main():
        served = Served(ConnectionBudgets(**budgets), gate=asyncio.Event() if gate else None)
        await work(served)
        served.pipe.close()
        await asyncio.sleep(0)
        assert not served.connected
        assert served.shares.take(
            "192.0.2.1", ConnectionBudgets(**budgets).connections // ConnectionBudgets(**budgets).share
        )

    asyncio.run(main())


def statuses(written):
    return [int(one) for one in re.findall(rb"HTTP/1\.1 (\d+) ", written)]


SAY = b"POST /say HTTP/1.1\r\nHost: b\r\nContent-Length: 3\r\n\r\n"


def test_requests_one_after_the_other_share_a_connection():
    async def work(served):
        for pieces in ((SAY + b"abc",), (SAY, b"a", b"bc"), tuple(bytes([one]) for one in SAY + b"abc")):
            written = await served.get(*pieces)
            assert statuses(written) == [200]
            assert written.endswith(b"\r\n\r\nabc")
            assert b"connection: close" not in written
            assert not served.pipe.closed

    run(work)


def test_a_second_request_before_the_first_answer_is_not_read():
    async def work(served):
        written = await served.get(SAY + b"abc" + SAY + b"def")
        assert statuses(written) == [200]
        assert b"connection: close\r\n" in written
        assert written.endswith(b"abc")
        assert served.pipe.closed

    run(work)


@pytest.mark.parametrize(
    "junk",
    [
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"GET /tell HTTP/9.9\r\n\r\n",
        b"GET /tell\xff HTTP/1.1\r\nHost: b\r\n\r\n",
        b"GET /tell?\xff HTTP/1.1\r\nHost: b\r\n\r\n",
        b"GET /%ff HTTP/1.1\r\nHost: b\r\n\r\n",
        b"POST /say HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /say HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /tell HTTP/1.1\nHost b\n\n",
    ],
)
def test_what_is_no_http_is_told_so_once_and_closed(junk):
    async def work(served):
        written = await served.get(junk, b"GET /tell HTTP/1.1\r\nHost: b\r\n\r\n")
        assert statuses(written) == [400]
        assert b'"code":"not-http"' in written
        assert b"connection: close\r\n" in written
        assert served.pipe.closed

    run(work)


def test_a_body_that_stops_being_http_fails_its_request_and_holds_nothing():
    async def work(served):
        head = b"POST /say HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
        written = await served.get(head, b"zz\r\n")
        assert statuses(written) == [400]
        assert served.failures == ["not-http"]
        assert served.pipe.closed
        assert served.bodies._held.take("192.0.2.1", ConnectionBudgets().bodies // ConnectionBudgets().share)

    run(work)


def test_a_body_in_chunks_is_a_body():
    async def work(served):
        head = b"POST /say HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n"
        written = await served.get(
            head, b"1\r\na\r\n", b"2;x=y\r\nbc\r\n", b"0\r\nExpect: 100-continue\r\n\r\n"
        )
        assert statuses(written) == [200]
        assert written.endswith(b"\r\n\r\nabc")

    run(work)


def test_who_waits_to_be_told_to_send_a_body_is_told():
    async def work(served):
        waiting = SAY.replace(b"Host: b", b"Expect: 100-continue")
        assert await served.get(waiting) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert statuses(await served.get(b"abc")) == [200]
        assert statuses(await served.get(waiting + b"abc")) == [200]

    run(work)


def test_head_is_answered_without_a_body_and_old_clients_are_closed():
    async def work(served):
        written = await served.get(b"HEAD /tell?a=1&a=%32&b HTTP/1.1\r\nHost: b\r\n\r\n")
        assert written.endswith(b"\r\n\r\n")
        length = len(b"/tell?" + repr({"a": "2", "b": ""}).encode())
        assert b"content-length: %d\r\n" % length in written
        written = await served.get(b"GET /t%65ll HTTP/1.0\r\n\r\n")
        assert statuses(written) == [200]
        assert b"connection: close\r\n" in written
        assert served.pipe.closed

    run(work)


def test_an_upgrade_is_an_ordinary_request_and_the_last_one():
    async def work(served):
        written = await served.get(
            b"GET /tell HTTP/1.1\r\nHost: b\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nPRI"
        )
        assert statuses(written) == [200]
        assert served.pipe.closed

    run(work)


def test_rule_59_headers_without_end_are_cut_off_by_size_and_by_time():
    async def long(served):
        await served.get(b"GET /tell HTTP/1.1\r\n", *(b"X-%d: y\r\n" % one for one in range(100)))
        assert served.pipe.closed

    async def slow(served):
        assert await served.get(b"GET /tell HTTP/1.1\r\n", seconds=0.3) == b""
        assert served.pipe.closed

    async def silent(served):
        assert await served.get(seconds=0.3) == b""
        assert served.pipe.closed

    async def trailers(served):
        await served.get(b"POST /say HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
        await served.get(*(b"X-%d: y\r\n" % one for one in range(100)))
        assert served.pipe.closed
        assert served.failures == ["cut-off"]

    run(long, header_bytes=200)
    run(trailers, header_bytes=200)
    run(slow, header_seconds=0.1)
    run(silent, header_seconds=0.1)


def test_rule_59_silence_after_an_answer_ends_a_connection():
    async def work(served):
        assert statuses(await served.get(SAY + b"abc", seconds=0.02)) == [200]
        assert not served.pipe.closed
        await served.get(seconds=0.3)
        assert served.pipe.closed

    run(work, idle_seconds=0.1, header_seconds=60)


def test_rule_59_each_request_has_its_own_time():
    """Deadlines move with every request, though hardly any sets a timer."""

    async def work(served):
        for _ in range(6):
            assert statuses(await served.get(SAY + b"abc", seconds=0.1)) == [200]
        assert statuses(await served.get(SAY + b"ab", seconds=0.5)) == [408]
        assert served.failures == ["slow-body"]
        assert served.pipe.closed

    run(work, idle_seconds=0.3, header_seconds=0.3, body_seconds=0.3)


def test_rule_59_a_request_that_is_not_decided_in_its_time_is_ended_and_said_to_be():
    async def work(served):
        written = await served.get(SAY + b"abc", seconds=0.4)
        assert statuses(written) == [503]
        assert b"too-slow" in written
        assert b"retry-after: 5\r\n" in written
        assert served.pipe.closed

    run(work, gate=True, request_seconds=0.1)


def test_a_client_that_goes_away_fails_its_body_and_holds_nothing():
    async def work(served):
        await served.get(SAY + b"ab")
        served.pipe.close()
        await asyncio.sleep(0.02)
        assert served.failures == ["cut-off"]
        assert served.bodies._held.take("192.0.2.1", ConnectionBudgets().bodies // ConnectionBudgets().share)

    run(work)


def test_rule_59_no_more_is_read_ahead_than_is_taken():
    async def work(served):
        reading = []
        served.pipe.pause_reading = lambda: reading.append("pause")
        served.pipe.resume_reading = lambda: reading.append("resume")
        head = b"POST /say HTTP/1.1\r\nHost: b\r\nContent-Length: 500000\r\n\r\n"
        served.connection.data_received(head + bytes(HELD + 1))
        assert reading == ["pause"]
        await asyncio.sleep(0.01)
        assert reading == ["pause", "resume"]
        await served.get(bytes(1000))
        assert reading == ["pause", "resume"]

    run(work)


def test_an_answer_in_pieces_waits_for_who_reads_it():
    async def work(served):
        served.connection.pause_writing()
        assert await served.get(b"GET /stream HTTP/1.1\r\nHost: b\r\n\r\n") == b""
        assert served.streamed == 0
        served.connection.resume_writing()
        written = await served.get()
        assert len(written.partition(b"\r\n\r\n")[2]) == 1000
        assert not served.pipe.closed

    async def never(served):
        served.connection.pause_writing()
        await served.get(b"GET /stream HTTP/1.1\r\nHost: b\r\n\r\n", seconds=0.5)
        assert served.pipe.closed
        assert served.streamed == 0

    async def gone(served):
        write = served.pipe.write

        def once(data):
            write(data)
            served.connection.pause_writing()

        served.pipe.write = once
        await served.get(b"GET /stream HTTP/1.1\r\nHost: b\r\n\r\n", seconds=0.5)
        assert served.pipe.closed
        assert served.streamed == 2

    run(work)
    run(never, request_seconds=0.1, header_seconds=0.1)
    run(gone, request_seconds=0.1)


def test_a_server_that_ends_lets_what_is_under_way_end():
    async def idle(served):
        await served.get(SAY + b"abc")
        served.connection.finish()
        assert served.pipe.closed

    async def busy(served):
        await served.get(SAY + b"a")
        served.connection.finish()
        assert not served.pipe.closed
        written = await served.get(b"bc")
        assert statuses(written) == [200]
        assert b"connection: close\r\n" in written
        assert served.pipe.closed

    async def stuck(served):
        assert await served.get(SAY + b"abc") == b""
        served.connection.abort()
        assert await served.get() == b""
        assert served.pipe.closed

    run(idle)
    run(busy)
    run(stuck, gate=True)


def test_rule_59_an_address_with_connections_enough_is_cut_off():
    async def main():
        shares = Shares(4, 2)
        first = [Served(ConnectionBudgets(), shares=shares) for _ in range(3)]
        assert [one.pipe.closed for one in first] == [False, False, True]
        assert await first[2].get() == b""
        first[0].pipe.close()
        await asyncio.sleep(0)
        assert not Served(ConnectionBudgets(), shares=shares).pipe.closed

    asyncio.run(main())
