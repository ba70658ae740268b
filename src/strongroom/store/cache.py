"""Node hashes of the ledger in memory. They never change once committed, so they never go stale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from strongroom.errors import Unavailable
from strongroom.store import schema
from strongroom.store.statements import text

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping

_KEPT = 131_072
_RUN = 256
_READ = text(
    sa.select(schema.nodes.c.idx, schema.nodes.c.hash).where(
        schema.nodes.c.level == sa.bindparam("level"),
        schema.nodes.c.idx.between(sa.bindparam("first"), sa.bindparam("last")),
    )
)


class NodeCache:
    """Committed nodes. Shared by the writer and all readers."""

    __slots__ = ("_nodes",)

    def __init__(self) -> None:
        self._nodes: dict[tuple[int, int], bytes] = {}

    def get(self, level: int, index: int) -> bytes | None:
        """The node, when it is in memory."""
        return self._nodes.get((level, index))

    def add(self, nodes: Mapping[tuple[int, int], bytes]) -> None:
        """Remember committed nodes."""
        if len(self._nodes) > _KEPT:
            self._nodes = {}
        self._nodes.update(nodes)


def read_run(
    read: Callable[[str, Mapping[str, object]], sqlite3.Cursor], level: int, index: int
) -> dict[tuple[int, int], bytes]:
    """The node and its neighbours in the same tile, as a connection sees them."""
    first = index // _RUN * _RUN
    rows = read(_READ, {"level": level, "first": first, "last": first + _RUN - 1})
    nodes = {(level, at): value for at, value in rows}
    if (level, index) not in nodes:
        raise Unavailable(
            f"broker store: ledger node {level}/{index} is missing",
            code="store-corrupt",
            hint="the database is damaged; restore it from a backup",
        )
    return nodes
