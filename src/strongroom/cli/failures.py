"""Errors to exit codes and sentences. `EXIT` has the codes of errors, `MEANING` says what every code means."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

from strongroom import errors, extras
from strongroom.cli.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strongroom.model import verdict as verdict_model

EXIT = (
    (errors.Malformed, 2),
    (errors.Misuse, 2),
    (errors.Refused, 3),
    (errors.Unavailable, 4),
    (errors.NotFound, 5),
    (errors.Conflict, 6),
)
# 7 is given in cli/evidence/measure_diff.py, 8 in cli/rooms/run.py. Not here: 128 and a signal's number, of a process that
# a signal ended (cli/interruption.py), as 141 where nobody reads what is printed.
MEANING = {
    0: "done",
    1: "a defect: please report it",
    2: "malformed input or misuse",
    3: "refused",
    4: "unavailable, try again",
    5: "not found",
    6: "conflict",
    7: "compared and different",
    8: "the program in the room failed",
    130: "interrupted",
}
# What to do next where the failure itself does not say.
_HINTS = (
    (errors.Malformed, "`--help` says what is expected"),
    (errors.Misuse, "`--help` says what is expected"),
    (
        errors.Refused,
        "get the genuine file from its owner again, or ask the parties; there is no way round a refusal",
    ),
    (errors.NotFound, "is the name right?"),
    (errors.Conflict, "look at the present state, and try again"),
    (errors.StrongroomError, "try again; if it stays so, look at the machine it is about"),
)
_LONGEST = 4096  # characters of a message on a terminal
# Of an error of the operating system: ours, its code, and its hint. By errno in _SYSTEM.
_FULL = (errors.Unavailable, "disk-full", "make room there")
_NO_FILE = (errors.Misuse, "not-a-file", "a file is expected where a folder is, or the other way round")
_SYSTEM: dict[int, tuple[type[errors.StrongroomError], str, str]] = {
    errno.ENOENT: (errors.NotFound, "no-such-file", "is the path right?"),
    errno.EISDIR: _NO_FILE,
    errno.ENOTDIR: _NO_FILE,
    errno.EEXIST: (errors.Misuse, "exists", "remove it, or name another"),
    errno.ENAMETOOLONG: (errors.Misuse, "bad-path", "choose a shorter name"),
    errno.ELOOP: (errors.Misuse, "bad-path", "the link leads to itself"),
    errno.EACCES: (errors.Unavailable, "no-permission", "look at the file's owner and mode"),
    errno.EPERM: (errors.Unavailable, "no-permission", "this needs rights that you do not have here"),
    errno.EROFS: (errors.Unavailable, "no-permission", "the file system is read-only"),
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
}
_OTHER = (errors.Unavailable, "system", "the operating system refused; its own words are above")


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Turn every failure below into a sentence on standard error and an exit code."""
    try:
        yield
    except errors.StrongroomError as failure:
        _leave(failure)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(141)
    except OSError as failure:
        _leave(_of_the_system(failure))
    except Exception as failure:  # noqa: BLE001 - the last line of defence against tracebacks
        if isinstance(failure, ModuleNotFoundError) and (absent := extras.missing(failure)) is not None:
            _leave(absent)
        print(f"defect: {type(failure).__name__}; please report it", file=sys.stderr)
        print("hint: set STRONGROOM_DEBUG=1 to see where", file=sys.stderr)
        if os.environ.get("STRONGROOM_DEBUG") == "1":
            traceback.print_exc()
        sys.exit(1)


def _leave(failure: errors.StrongroomError) -> NoReturn:
    _say(failure)
    sys.exit(next((code for kind, code in EXIT if isinstance(failure, kind)), 1))


def _hint(failure: BaseException) -> str:
    """What to do next: the failure's own word, or what holds for all of its kind."""
    from strongroom import files

    own = str(getattr(failure, "hint", ""))
    path = getattr(failure, "file", None)
    if not own and isinstance(failure, errors.Malformed) and path is not None:
        if failure.code == "bad-value" and ".format:" not in failure.message:
            return f"correct that value if you wrote {path}; else get it again from whoever made it"
        # Only where it is a file that does not parse: a bad value is no bad file.
        kind = files.kind(path)
        if kind == files.DISK:
            return f"{path} is {kind}: is its manifest meant ({path.with_suffix('.manifest.json')})?"
        if kind:
            return f"{path} is {kind}: is it the right file, and whole? `--help` says what is expected"
        return f"is {path} the right file, and whole? `--help` says what is expected"
    return own or next((hint for kind, hint in _HINTS if isinstance(failure, kind)), "")


def _of_the_system(failure: OSError) -> errors.StrongroomError:
    """The operating system said no: a missing file, a full disk. Its own words are the best sentence."""
    what = f"{os.fsdecode(failure.filename)}: " if isinstance(failure.filename, str | bytes) else ""
    kind, code, hint = _SYSTEM.get(failure.errno or 0, _OTHER)
    if not what and code == "disk-full":
        hint = "make room where this command writes: beside what it makes, and in ~/.cache/strongroom"
    return kind(f"{what}{failure.strerror or failure}", code=code, hint=hint)


def describe(failure: BaseException) -> dict[str, object]:
    """A failure as an object: code, message, hint, and the checks that did not hold."""
    return {
        "code": getattr(failure, "code", "error"),
        "message": getattr(failure, "message", str(failure)),
        "hint": _hint(failure),
        "checks": [check.to_json() for check in _failed_checks(failure)],
    }


def _failed_checks(failure: BaseException) -> tuple[verdict_model.Explained, ...]:
    failed = getattr(getattr(failure, "verdict", None), "failed", ())
    if not failed:
        return ()
    from strongroom.appraisal.wording.sentences import explain
    from strongroom.model.verdict import Check, Explained

    return tuple(
        explain(check) if isinstance(check, Check) else check
        for check in failed
        if isinstance(check, Check | Explained)
    )


def _say(failure: errors.StrongroomError) -> None:
    if "--json" in sys.argv:
        print(json.dumps({"error": describe(failure)}), file=sys.stderr)
        return
    # A message may quote what somebody else wrote.
    message = failure.message if len(failure.message) <= _LONGEST else failure.message[:_LONGEST] + "…"
    print(f"error [{printable(failure.code)}]: {printable(message)}", file=sys.stderr)
    for check in _failed_checks(failure):
        line = f"  {check.name}: expected {check.expected}, got {check.got}"
        print(printable(line), file=sys.stderr)
        if check.hint:
            print(f"    {printable(check.hint)}", file=sys.stderr)
    print(f"hint: {printable(_hint(failure))}", file=sys.stderr)
