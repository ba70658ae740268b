"""Sets up where `strongroom.host_log` writes: lines on standard error, by structlog, as `STRONGROOM_LOG` says.

STRONGROOM_LOG=debug, info or warning; for people on a terminal, as JSON elsewhere. `,json` or `,text` after it says which.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TextIO

from strongroom import host_log
from strongroom.errors import Misuse
from strongroom.host_log import LogLevel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from strongroom.host_log import Teller, Told

VARIABLE = "STRONGROOM_LOG"
LEVELS = {level.name.lower(): level for level in LogLevel}
FORMS = ("json", "text")
OURS = frozenset(
    {"event", "exc_info", "exception", "level", "method_name", "process", "self", "stack", "timestamp"}
)
"""What lines, or structlog, mean something else by: a value of such a name is shown as `NAME_`."""


def set_up(environment: Mapping[str, str], stream: TextIO) -> None:
    """Tell of everything that the environment asks for, on `stream`. Raises `Misuse` for a setting that is none, and imports structlog if it is one."""
    setting = environment.get(VARIABLE, "")
    if not setting:
        return
    level, *forms = (word.strip() for word in setting.lower().split(","))
    if level not in LEVELS or len(forms) > 1 or not set(forms) <= set(FORMS):
        raise Misuse(
            f"{VARIABLE}: expected {', '.join(LEVELS)}, with ,json or ,text after it, got {setting[:40]!r}",
            code="bad-log",
            hint=f"for example {VARIABLE}=debug, or {VARIABLE}=info,json",
        )
    terminal = stream.isatty()
    as_json = forms == ["json"] if forms else not terminal
    host_log.tell_to(_teller(stream, as_json=as_json, colours=terminal), least=LEVELS[level])


def _teller(stream: TextIO, *, as_json: bool, colours: bool) -> Teller:
    import structlog  # noqa: PLC0415 - 40 ms, for those who asked for it

    logger = structlog.wrap_logger(
        structlog.PrintLogger(file=stream),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(sort_keys=True)
            if as_json
            else structlog.dev.ConsoleRenderer(colors=colours),
        ],
        wrapper_class=structlog.BoundLogger,
        context_class=dict,
    )

    def tell(level: LogLevel, event: str, values: dict[str, Told]) -> None:
        named = {f"{name}_" if name in OURS else name: value for name, value in values.items()}
        getattr(logger, level.name.lower())(event, process=os.getpid(), **named)

    return tell
