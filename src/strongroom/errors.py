"""Every exception that Strongroom raises on purpose.

The whole tree::

    StrongroomError             never raised itself; has `code` and `hint`
    ├── Malformed               bytes that do not parse             HTTP 400, exit 2
    ├── Misuse                  a call that cannot be carried out   HTTP 400, exit 2
    ├── Refused                 understood, and the answer is no    HTTP 403, exit 3
    │   ├── EvidenceRefused     a numbered evidence check failed; says which
    │   └── PolicyDenied        a verdict was reached, and it is Denied
    ├── NotFound                no such thing                       HTTP 404, exit 5
    ├── Conflict                the state has moved on              HTTP 409, exit 6
    └── Unavailable             try again; never an acceptance      HTTP 503, exit 4

The mapping to HTTP lives in `api`, the mapping to exit codes in `cli`.
A specific reason is a stable `code` string, not a class of its own.
Messages read "doing x: cause", in lower case, and never hold a secret.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class StrongroomError(Exception):
    """The root of the tree. `code` is stable; `hint` says what to do next. `file`: what did not parse or was refused, if it is one."""

    default_code = "error"

    def __init__(self, message: str, *, code: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.hint = hint
        self.file: Path | None = None

    def __str__(self) -> str:
        return self.message


class Malformed(StrongroomError):
    """Bytes that are not what their format demands. The only error of a parser."""

    default_code = "malformed"


class Misuse(StrongroomError):
    """A request that makes no sense as made: a missing file, an option at odds with another."""

    default_code = "misuse"


class Refused(StrongroomError):
    """The request was understood and the answer is no."""

    default_code = "refused"


class EvidenceRefused(Refused):
    """Evidence failed one check of its verifier: `check` is that check's stable name."""

    default_code = "evidence-refused"

    def __init__(self, check: str, *, expected: str, got: str, hint: str = "", source: str = "") -> None:
        super().__init__(
            f"evidence check {check}: expected {expected}, got {got}",
            code=self.default_code,
            hint=hint or "the evidence does not prove what it must; attest again on a sound platform",
        )
        self.check = check
        self.expected = expected
        self.got = got
        self.source = source


class PolicyDenied(Refused):
    """A verdict was reached and it is `Denied`; `verdict` holds every check."""

    default_code = "denied"

    def __init__(self, message: str, *, verdict: object, hint: str = "") -> None:
        super().__init__(message, code=self.default_code, hint=hint)
        self.verdict = verdict


class NotFound(StrongroomError):
    """The named thing does not exist here."""

    default_code = "not-found"


class Conflict(StrongroomError):
    """What was asked is at odds with what is already recorded."""

    default_code = "conflict"


class Unavailable(StrongroomError):
    """Something needed is not there right now. Never counts as an acceptance."""

    default_code = "unavailable"


@contextlib.contextmanager
def of_file(path: Path) -> Iterator[None]:
    """Within, what does not parse or is refused is that file: what is said of it names the file as the user did.

    Parsers say what of a document is wrong, and do not know where it came from.
    """
    try:
        yield
    except (Malformed, Refused) as failure:
        if failure.file is None:
            failure.file = path
            # Some say the file's name themselves, without its folder.
            said = failure.message.removeprefix(f"{path}").removeprefix(path.name).removeprefix(":").strip()
            failure.message = f"{path}: {said}"
        raise
