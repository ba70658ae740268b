"""How pages are played (tests/e2e/played_pages.py): what is not as the page says is found."""

from __future__ import annotations

import subprocess

from tests.e2e import played_pages
from tests.pages import reading


def test_a_page_that_lies_is_found(tmp_path):
    """What the tests above stand on: a status, a line and a command that are not what the page says."""
    commands = [
        reading.Typed(where="here:1", command="x=1", status=0, prints=()),
        reading.Typed(where="here:2", command='echo "$x"; exit_with() { return "$1"; }; exit_with 3', status=3, prints=("1",)),
    ]  # fmt: skip
    told = tmp_path / "told"
    told.mkdir()
    text = played_pages.script(commands, told)
    subprocess.run(["bash"], input=text, text=True, cwd=tmp_path, check=False)
    assert (told / "1.status").read_text() == "3\n"
    said = (told / "1.out").read_text()
    assert not played_pages.unseen(("1",), said)
    assert played_pages.unseen(("2",), said) == "2"
    assert played_pages.unseen(("b", "a"), "a\nb\n") == "a"
    assert not played_pages.unseen(("b … e", "…", "f"), "a\nb c d e\nf\n")
