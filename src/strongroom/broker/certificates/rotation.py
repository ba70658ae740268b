"""The broker's file as its authority's roots change: a next one is made, becomes the current one, and the one before is let go.

Each step is a new file, no key of the broker changes but the roots', and contracts keep the root that they name (`authority.roots`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from strongroom.authority.roots import RootState
from strongroom.broker import settings as settings_model
from strongroom.errors import Conflict, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from strongroom.broker.settings import RootKey, SealedRoot, Settings
    from strongroom.crypto.aead import AtRest


def prepare(
    settings: Settings,
    at_rest: AtRest,
    *,
    now: datetime,
    random: Callable[[int], bytes],
    key: RootKey | None = None,
) -> Settings:
    """With a fresh next root, which contracts may name from then on. key: its key; None for one that is made here.

    Raises `Conflict` where there is a next root.
    """
    if settings.root(RootState.NEXT) is not None:
        raise Conflict(
            "authority: there is a next root already",
            code="next-root",
            hint="make it the current one: `strongroom broker rotate-root DIR --switch`",
        )
    root = settings_model.make_root(
        at_rest, RootState.NEXT, name=settings.party.name, now=now, random=random, key=key
    )
    return replace(settings, roots=(*settings.roots, root))


def switch(settings: Settings) -> Settings:
    """The next root is the current one, which the party's file names, and the one until now is the previous one.

    Raises `NotFound` without a next one, and `Conflict` while there is another previous one.
    """
    after = settings.root(RootState.NEXT)
    if after is None:
        raise NotFound(
            "authority: there is no next root",
            code="no-root",
            hint="make one first, and give out its digest: `strongroom broker rotate-root DIR --prepare`",
        )
    if settings.root(RootState.PREVIOUS) is not None:
        raise Conflict(
            "authority: contracts may still name the root before the current one",
            code="previous-root",
            hint="once they have ended: `strongroom broker rotate-root DIR --retire`",
        )
    address = replace(settings.address, authority=after.digest)

    def moved(root: SealedRoot) -> SealedRoot:
        state = RootState.CURRENT if root is after else RootState.PREVIOUS
        return replace(root, state=state)

    return replace(
        settings,
        party=replace(settings.party, broker=address),
        roots=tuple(sorted(map(moved, settings.roots), key=lambda root: root.state.value)),
    )


def retire(settings: Settings) -> Settings:
    """Without the previous root, whose key is gone with it. Raises `NotFound` where there is none."""
    if settings.root(RootState.PREVIOUS) is None:
        raise NotFound("authority: there is no previous root", code="no-root", hint="nothing is left to do")
    return replace(
        settings, roots=tuple(root for root in settings.roots if root.state is not RootState.PREVIOUS)
    )
