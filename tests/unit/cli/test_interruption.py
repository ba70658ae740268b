"""What Ctrl-C and SIGTERM do to a command that can ask what it runs to end by itself."""

from __future__ import annotations

import os
import signal

import pytest

from strongroom.cli import interruption


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_first_signal_asks_and_the_second_one_unwinds(number):
    asked = []

    def work():
        with interruption.orderly(lambda: asked.append(1) or True):
            os.kill(os.getpid(), number)
            assert asked == [1]
            os.kill(os.getpid(), number)

    with pytest.raises((SystemExit, KeyboardInterrupt)) as caught:
        work()
    assert asked == [1]
    if number != signal.SIGINT:
        assert caught.value.code == 128 + number


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_where_nobody_can_be_asked_the_first_one_unwinds(number):
    with pytest.raises((SystemExit, KeyboardInterrupt)), interruption.orderly(lambda: False):
        os.kill(os.getpid(), number)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
