"""What builds keep: taken away whole, and nothing else with it; and what a rebuild says that differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from strongroom.bases import cache, rebuild
from strongroom.errors import Refused


def test_clean_takes_what_builds_made_and_leaves_the_rest(tmp_path):
    for name in (*cache.FOLDERS, "layouts"):
        (tmp_path / name / "within").mkdir(parents=True)
    for name in (cache.SCANS, "other.json"):
        (tmp_path / name).write_text("{}")
    cache.clean(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layouts", "other.json"]
    cache.clean(tmp_path)
    cache.clean(tmp_path / "never-made")


@pytest.mark.parametrize(("count", "more"), [(1, ""), (3, r" \(and 2 more\)")])
def test_a_rebuild_that_differs_is_refused(count, more):
    rebuilt = rebuild.Rebuilt(
        differences=tuple(f"part {number}" for number in range(count)),
        by_digest=(),
        other_builder=False,
        signed=False,
    )
    with pytest.raises(Refused, match=f"^base: built again, it is not the same: part 0{more}$") as caught:
        rebuilt.require(Path("base"))
    assert caught.value.code == "rebuild-differs"


def test_a_rebuild_that_is_the_same_holds():
    rebuild.Rebuilt(differences=(), by_digest=(), other_builder=True, signed=True).require(Path("base"))
