"""Values of options: what does not parse is said of the option that somebody typed, never of a file."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from strongroom.encoding.fields import NAMES
from strongroom.errors import Malformed, Misuse

if TYPE_CHECKING:
    from collections.abc import Iterator

# Places of a drafted contract, the options that they come from, and what these take.
_DRAFTED = (
    ("id", "the contract's name", NAMES),
    ("parties: name", "--party", "each party once: two of the files say the same name"),
    ("parties: signing_key", "--party", "each party once: two of the files are of one key"),
    ("parties", "--party", "ROLE=FILE, with the file that the party hands around"),
    ("rooms[0].name", "--room", NAMES),
    ("rooms[0].image.environment", "--env", "NAME=VALUE, with a name of letters, digits and _"),
    ("rooms[0].image.arguments", "--argument", "one text for each, without NUL"),
    ("rooms[0].datasets: name", "--dataset", "each dataset once; NAME=FILE gives one another name"),
    ("rooms[0].datasets", "--dataset", f"NAME=FILE, with a name of {NAMES}"),
    ("rooms[0].outputs: path", "--output", "each path once"),
    ("rooms[0].outputs: /out", "--output", "either /out alone, or paths below it, like /out/table"),
    ("rooms[0].outputs", "--output", "PATH=PARTY[,PARTY], where PATH is /out or /out/NAME"),
    ("rooms[0].logs", "--logs", "the name of a party, once for each"),
    ("rooms[0].certificate", "--certificate-name", "a DNS name of two labels or more, like room.flights.example"),
    ("limits.runs", "--runs", "at least 1"),
    ("rooms[0].wall_seconds", "--wall-seconds", "from 1 to 30 days of seconds"),
    ("rooms[0].memory_mib", "--memory-mib", "at least 256"),
    ("limits", "--days", "a number of days from now"),
    ("receipts", "--receipt-wait", "from 0 to 86400 seconds"),
    ("approvals.parties: the owner", "--party", "every owner of a disk approves"),
    ("approvals", "--threshold", "at most as many as there are parties; 0 means all"),
    ("platforms: empty", "--base and --node, or --reference", "what rooms are accepted: give both for local rooms, or what `strongroom measure … --reference` printed"),
    ("platforms[", "--base, --node, --reference or --machine", "local rooms take --base and --node, both; others --reference, and --machine or --any-machine"),
)  # fmt: skip
_NOBODY = re.compile(r"no party is called (?P<name>'[^']*')")


@contextlib.contextmanager
def value_of(option: str, *, takes: str = "") -> Iterator[None]:
    """Within, what does not parse is the value of `option`. takes: what it should be, where the cause does not say."""
    try:
        yield
    except Malformed as cause:
        hint = cause.hint or (f"it takes {takes}" if takes else "`--help` says what it takes")
        raise Misuse(f"{option}: {cause.message}", code=cause.code, hint=hint) from None


@contextlib.contextmanager
def drafted() -> Iterator[None]:
    """Within, a drafted contract is parsed: what does not hold is said of the option that it came from."""
    try:
        yield
    except Malformed as cause:
        if cause.file is not None:  # of a file that the contract names, not of the contract
            raise
        if nobody := _NOBODY.search(cause.message):
            raise Misuse(
                f"--output, --logs: no --party is called {nobody['name']}",
                code=cause.code,
                hint="give the file of that party: --party recipient=FILE",
            ) from None
        place = cause.message.removeprefix("contract").lstrip(".")
        for start, option, takes in _DRAFTED:
            if place.startswith(start):
                said = cause.message.partition(": ")[2] if start[-1:] != "[" else place
                raise Misuse(f"{option}: {said}", code=cause.code, hint=f"it takes {takes}") from None
        raise
