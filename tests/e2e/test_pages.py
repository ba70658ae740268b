"""The commands of README.md and docs, typed from the pages themselves, with real rooms and a real broker.

The tutorial is played first. A page that says so (`BEGINS`) begins in a copy of the folder that the tutorial leaves.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.e2e import played_pages, real_rooms
from tests.pages import reading

pytestmark = [
    pytest.mark.room,
    pytest.mark.root,  # for the memory guard, and for `try`
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(real_rooms.missing()), reason=real_rooms.missing() or "a room can run"),
]
TUTORIAL = reading.DOCS / "tutorial.md"
BEGINS = "<!-- begins in the folder that the tutorial leaves -->"
PLAYED = [
    page
    for page in reading.pages()
    if page != TUTORIAL and any(block.kind == "console" for block in reading.blocks(page))
]


@pytest.fixture(scope="module")
def tutorial():
    """The folder that the tutorial leaves; on a disk, as sealed disks take space."""
    root = Path(tempfile.mkdtemp(prefix="strongroom-tutorial-"))
    played_pages.play(TUTORIAL, root)
    yield root / "tutorial"
    shutil.rmtree(root)


def test_the_tutorial_goes_as_written(tutorial):
    assert (tutorial / "out-0/totals.txt").read_text()


@pytest.mark.parametrize("page", PLAYED, ids=lambda page: str(page.relative_to(reading.ROOT)))
def test_a_page_goes_as_written(page, request):
    root = Path(tempfile.mkdtemp(prefix="strongroom-page-"))
    try:
        if BEGINS in page.read_text():
            left = request.getfixturevalue("tutorial")
            subprocess.run(["cp", "-a", f"{left}/.", root], check=True)
        played_pages.play(page, root)
    finally:
        shutil.rmtree(root)
