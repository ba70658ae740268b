"""What the tests of fetching share: a library over the fake vendors, and pieces of evidence."""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta

from strongroom.fetch.endorsements.disk_cache import Shelf
from strongroom.fetch.endorsements.library import Library
from strongroom.fetch.endorsements.resolve import Fetcher
from strongroom.fetch.endorsements.rollback import Marks
from strongroom.fetch.http.client import Client
from strongroom.model.binding import Preset
from strongroom_testing.vendors.fake_amd import FakeAmd
from strongroom_testing.vendors.fake_intel import FakeIntel

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
BOUND = Preset(values={"report_data": b"\x07" * 64})


@functools.lru_cache(maxsize=8)
def chip(line="Milan", vlek=False):
    return FakeAmd(now=NOW, line=line, vlek=vlek)


@functools.lru_cache(maxsize=8)
def intel(processor=False):
    return FakeIntel(now=NOW, processor=processor)


def library(folder, *, waits=None, roots=None, **options):
    """A library in `folder`; `waits` collects what the client would have slept."""
    client = options.pop("client", None) or Client(
        read_seconds=2, total_seconds=5, sleep=(waits if waits is not None else []).append
    )
    trusted = {chip().root, intel().root_digest, intel(True).root_digest} if roots is None else roots
    return Library(
        shelf=Shelf(folder=folder / "kept"),
        marks=Marks(folder=folder / "kept"),
        client=client,
        roots=frozenset(trusted),
        **options,
    )


def fetcher(folder, services, **options):
    settings = {name: options.pop(name) for name in ("update", "refresh") if name in options}
    vendors = options.pop("vendors", None) or services.vendors
    return Fetcher(library=library(folder, **options), vendors=vendors, **settings)
