"""USER of an image to numbers, looked up in the image's own /etc/passwd and /etc/group.

The forms and the order are those of Docker and runc: USER, UID, USER:GROUP, UID:GID, …; nothing
means root. Digits are always an id, never a name (CVE-2016-3697). Supplementary groups are those
that list the user's name, and count only when no group is given. What is unknown is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.errors import Malformed, Refused
from strongroom.model.manifest import MAX_USER
from strongroom.seal.tree import EntryKind, show

if TYPE_CHECKING:
    from strongroom.images.layers import Tree
    from strongroom.images.limits import ImageLimits

_ID = re.compile(rb"[0-9]{1,10}")
_MAX_ID = (1 << 32) - 2
_MAX_GROUPS = 256


@dataclass(frozen=True, kw_only=True)
class Account:
    """Who the program runs as. `home` is "/" when the image does not say."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def look_up(user: str, tree: Tree, limits: ImageLimits) -> Account:
    """Resolve an image's USER. Raises `Refused` for unknown names, `Malformed` for a bad file."""
    name, colon, group = user.encode().partition(b":")
    if not name and colon:
        raise Malformed(
            f"image: USER {user[:60]!r}: expected USER or USER:GROUP",
            code="bad-user",
            hint="rebuild the image with a USER that names one",
        )
    people = _records(tree, b"etc/passwd", 7, limits)
    uid = _number(name or b"0")
    person = next(
        (row for row in people if (row[0] == name if uid is None else _number(row[2]) == uid)), None
    )
    if uid is None:
        if person is None:
            raise _unknown("user", name)
        uid = _number(person[2])
    own = _number(person[3]) if person else 0
    if uid is None or own is None:
        raise Malformed(
            f"image: /etc/passwd: {user[:60] or 'user 0'!r} has an id that is not a number",
            code="bad-accounts",
            hint="mend that line in the image, or use a numeric id in USER",
        )
    groups: tuple[int, ...] = ()
    rows = _records(tree, b"etc/group", 4, limits)
    if group:
        gid = _group(group, rows)
    else:
        gid = own
        groups = _supplementary(person[0], rows) if person else ()
    for kind, number in (("user", uid), *(("group", number) for number in (gid, *groups))):
        if number > MAX_USER:
            raise Refused(
                f"image: its {kind} {number} is above {MAX_USER}, the last id that a room has",
                code="bad-user",
                hint="give the image a USER with smaller numbers",
            )
    home = person[5].decode("utf-8", "surrogateescape") if person else "/"
    usable = home.startswith("/") and len(home) <= 4096 and home.isprintable()
    return Account(uid=uid, gid=gid, groups=groups, home=home if usable else "/")


def _group(group: bytes, rows: list[list[bytes]]) -> int:
    gid = _number(group)
    if gid is not None:
        return gid
    row = next((row for row in rows if row[0] == group), None)
    gid = _number(row[2]) if row else None
    if gid is None:
        raise _unknown("group", group)
    return gid


def _supplementary(name: bytes, rows: list[list[bytes]]) -> tuple[int, ...]:
    gids = {gid for row in rows if name in row[3].split(b",") and (gid := _number(row[2])) is not None}
    if len(gids) > _MAX_GROUPS:
        raise Malformed(
            f"image: user {show(name)} is in {len(gids)} groups, expected at most {_MAX_GROUPS}",
            code="too-large",
            hint="take the user out of groups that the program does not need (/etc/group)",
        )
    return tuple(sorted(gids))


def _number(text: bytes) -> int | None:
    if _ID.fullmatch(text) is None:
        return None
    value = int(text)
    if value > _MAX_ID:
        raise Malformed(
            f"image: id {value}: expected at most {_MAX_ID}",
            code="bad-user",
            hint="give the image a USER with smaller numbers",
        )
    return value


def _unknown(kind: str, name: bytes) -> Refused:
    return Refused(
        f"image: its {kind} {show(name)} is not in its /etc/{'passwd' if kind == 'user' else 'group'}",
        code="unknown-user",
        hint=f"add the {kind} to the image, or use a numeric id in USER",
    )


def _records(tree: Tree, path: bytes, columns: int, limits: ImageLimits) -> list[list[bytes]]:
    node = tree.find(path)
    if node is None:
        return []
    if node.kind is not EntryKind.FILE or node.open is None or node.size > limits.account_file_bytes:
        raise Malformed(
            f"image: /{path.decode()} is not a regular file of at most {limits.account_file_bytes} bytes",
            code="bad-accounts",
            hint="rebuild the image with a plain one",
        )
    with node.open() as source:
        data = source.read(limits.account_file_bytes)
    rows = [line.split(b":") for line in data.split(b"\n") if line.strip() and not line.startswith(b"#")]
    return [row for row in rows if len(row) >= columns]
