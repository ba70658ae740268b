"""Errors to exit codes and sentences. The only place that knows exit codes.

0 done · 1 unexpected, reported as a defect · 2 malformed input or misuse · 3 refused ·
4 unavailable, try again · 5 not found · 6 conflict · 8 the program in a room failed (cli/run.py)
130 interrupted
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from typing import TYPE_CHECKING

from strongroom import errors
from strongroom.cli.printable import printable
from strongroom.model import verdict as verdict_model

if TYPE_CHECKING:
    from collections.abc import Iterator

EXIT = (
    (errors.Malformed, 2),
    (errors.Misuse, 2),
    (errors.Refused, 3),
    (errors.Unavailable, 4),
    (errors.NotFound, 5),
    (errors.Conflict, 6),
)


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Turn every failure below into a sentence on standard error and an exit code."""
    try:
        yield
    except errors.StrongroomError as failure:
        _say(failure)
        sys.exit(next((code for kind, code in EXIT if isinstance(failure, kind)), 1))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(141)
    except OSError as failure:
        # The operating system said no: a missing file, a full disk. Its own words are the best.
        what = f"{failure.filename}: " if failure.filename else ""
        print(f"error: {what}{failure.strerror or failure}", file=sys.stderr)
        if isinstance(failure, IsADirectoryError | NotADirectoryError | FileExistsError):
            sys.exit(2)
        sys.exit(5 if isinstance(failure, FileNotFoundError) else 4)
    except Exception as failure:  # noqa: BLE001 - the last line of defence against tracebacks
        print(f"defect: {type(failure).__name__}; please report it", file=sys.stderr)
        print("hint: set STRONGROOM_DEBUG=1 to see where", file=sys.stderr)
        if os.environ.get("STRONGROOM_DEBUG") == "1":
            traceback.print_exc()
        sys.exit(1)


def describe(failure: BaseException) -> dict[str, object]:
    """A failure as an object: code, message, hint, and the checks that did not hold."""
    return {
        "code": getattr(failure, "code", "error"),
        "message": getattr(failure, "message", str(failure)),
        "hint": getattr(failure, "hint", ""),
        "checks": [check.to_json() for check in _failed_checks(failure)],
    }


def _failed_checks(failure: BaseException) -> tuple[verdict_model.Check, ...]:
    failed = getattr(getattr(failure, "verdict", None), "failed", ())
    return tuple(check for check in failed if isinstance(check, verdict_model.Check))


def _say(failure: errors.StrongroomError) -> None:
    if "--json" in sys.argv:
        print(json.dumps({"error": describe(failure)}), file=sys.stderr)
        return
    # A message may quote what somebody else wrote.
    print(f"error [{printable(failure.code)}]: {printable(failure.message)}", file=sys.stderr)
    for check in _failed_checks(failure):
        told = f"  {check.name}: expected {check.expected}, got {check.got}"
        print(printable(told), file=sys.stderr)
        if check.hint:
            print(f"    {printable(check.hint)}", file=sys.stderr)
    if failure.hint:
        print(f"hint: {printable(failure.hint)}", file=sys.stderr)
