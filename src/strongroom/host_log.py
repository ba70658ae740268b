"""What processes of a host do, written for whoever set `STRONGROOM_LOG`: requests, fetches, programs that are started, and how long it took.

Nothing is written, and nothing is computed, until `wiring.host_log` has set a teller. Values are names, numbers, paths and addresses; never a secret, and never the
content of a file: a value whose name says that it is a secret is left out, and so are bytes, and what a URL of whatever scheme has before its host and after its path. No room has this in its measured base, and nothing that judges imports it.
"""

from __future__ import annotations

import contextlib
import enum
import re
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Told = str | int | float | bool | None | list[str]
    Teller = Callable[["LogLevel", str, dict[str, Told]], None]

MAX_TEXT = 8192  # characters of one value: a machine's command line has thousands
SECRET = re.compile(
    r"pass(?:phrase|word|wd)?|secret|token|credential|authori[sz]ation|cookie|private|(?:^|_)keys?(?:$|_)|vault|nonce|seed|environment",
    re.IGNORECASE,
)
LEFT_OUT = "[left out]"
_URL = re.compile(r"://\S+")  # whatever its scheme: postgresql, redis, git+ssh
_MORE = re.compile(r"[?#]")
_HOST = re.compile(r"(?:[\w.-]{0,255}|\[[\w:.%]{2,64}\])(?::\d{1,5})?\W{0,8}")  # the rest is a sentence's


class LogLevel(enum.IntEnum):
    """How much is logged; each level has those above it."""

    DEBUG = 10
    INFO = 20
    WARNING = 30


_NOBODY = LogLevel.WARNING + 1
_teller: Teller | None = None
_least: int = _NOBODY


def tell_to(teller: Teller | None, *, least: LogLevel = LogLevel.WARNING) -> None:
    """From now on everything of that level or above goes to `teller`; None: nothing does."""
    global _teller, _least
    _teller, _least = teller, _NOBODY if teller is None else least


def wanted(level: LogLevel) -> bool:
    """Whether that level is logged: ask before a value is costly to make."""
    return level >= _least


def debug(event: str, /, **values: object) -> None:
    """What only who looks for a fault wants: each request, fetch and program."""
    _tell(LogLevel.DEBUG, event, values)


def info(event: str, /, **values: object) -> None:
    """What there are few of: verbs, rooms, their phases."""
    _tell(LogLevel.INFO, event, values)


def warning(event: str, /, **values: object) -> None:
    """What somebody should look at, though it went on."""
    _tell(LogLevel.WARNING, event, values)


@contextlib.contextmanager
def timed(level: LogLevel, event: str, /, **values: object) -> Iterator[dict[str, object]]:
    """Tell of what is done within, once it is over, with its milliseconds and the code of its failure. More values may be put in meanwhile."""
    if not wanted(level):
        yield {}
        return
    more: dict[str, object] = {}
    begun = time.monotonic()
    try:
        yield more
    except SystemExit as leaving:
        more["exit"] = leaving.code or 0  # a verb that is done leaves so, too
        raise
    except BaseException as failure:
        more["failed"] = getattr(failure, "code", None) or type(failure).__name__
        raise
    finally:
        _tell(
            level,
            event,
            {**values, **more, "milliseconds": round((time.monotonic() - begun) * 1000, 1)},
        )


def _tell(level: LogLevel, event: str, values: dict[str, object]) -> None:
    if _teller is None or level < _least:
        return
    # Nobody reads, or the disk is full: no work fails for that.
    with contextlib.suppress(OSError, ValueError):
        _teller(level, event, {name: _plain(name, value) for name, value in values.items()})


def _plain(name: str, value: object) -> Told:
    if SECRET.search(name):
        return LEFT_OUT
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return f"[{len(value)} bytes]"
    if isinstance(value, list | tuple):
        return [_text(item) for item in value]
    return _text(value)


def _text(value: object) -> str:
    """One line. Of a URL: where and which path, without who asks (user:password@) and what else is said (?…, which may hold a signature)."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"[{len(value)} bytes]"
    whole = str(value)
    text = whole[:MAX_TEXT]  # cut first: what is long is a stranger's
    cut = len(text) < len(whole)

    def bare(match: re.Match[str]) -> str:
        # Of a URL that the cut goes through nobody knows whether an "@" was to come.
        return f"://{LEFT_OUT}" if cut and match.end() == len(text) else _bare(match[0])

    line = _URL.sub(bare, text)
    if not line.isprintable():
        line = line.encode("unicode_escape", "backslashreplace").decode()
    return line[:MAX_TEXT] + "…" if cut or len(line) > MAX_TEXT else line


def _bare(url: str) -> str:
    """Of `://…`, the places and their paths; there may be another URL in a path."""
    shown = _MORE.split(url, maxsplit=1)[0]
    places = "://".join(_place(piece) for piece in shown.split("://")[1:])
    return f"://{places}" + (f"{url[len(shown)]}…" if len(shown) < len(url) else "")


def _place(piece: str) -> str:
    """Host, port and path. A password may have the "@" and "/" that it should have written otherwise: what then stands where a host should is left out."""
    if "@" in piece.partition("/")[0]:
        piece = piece.rpartition("@")[2]
    return piece if _HOST.fullmatch(piece.partition("/")[0]) else LEFT_OUT
