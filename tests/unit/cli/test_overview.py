"""`strongroom --help` imports no verb, and shows what all of them say."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer.testing

from strongroom.cli import main


@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_the_overview_is_what_the_verbs_themselves_say(columns):
    shown = [
        typer.testing.CliRunner().invoke(app, ["--help"], env={"COLUMNS": columns}).output
        for app in (main.overview(), main.application())
    ]
    assert shown[0] == shown[1]
    assert "endorsements" in shown[0]


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_who_asks_for_no_verb_waits_for_none(word):
    code = (
        "import sys\nfrom strongroom.cli import main\n"
        f"sys.argv = ['strongroom', {word!r}]\n"
        "try:\n    main.main()\nfinally:\n"
        "    print([name for name in sys.modules if name.startswith('strongroom.')], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    imported = done.stderr.split("'")[1::2]
    assert {name for name in imported if not name.startswith("strongroom.cli")} == {
        "strongroom.errors",
        "strongroom.extras",
    }
    assert not {f"strongroom.cli.{file}" for file, _ in main.VERBS.values()} & set(imported)


def test_a_word_that_is_no_verb_is_told_to_be_none():
    told = typer.testing.CliRunner().invoke(main.overview(), ["sael"])
    assert told.exit_code == 2
    assert "No such command 'sael'" in told.output


def test_no_verbs_words_need_what_its_work_needs():
    # Each `VERB --help`, each completion and each mistyped option waits for what stands at the head of these files.
    code = "import sys\nfrom strongroom.cli import main\nmain.application()\nprint(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split("'")[1::2])
    ours = {name for name in imported if name.startswith("strongroom.")}
    beside = {name.split(".")[1] for name in ours}
    assert beside == {"cli", "encoding", "errors", "extras"}
    heavy = {"asyncio", "cryptography", "http", "rich", "secrets", "socket", "sqlalchemy", "sqlite3", "ssl"}
    assert not heavy & imported


def test_who_does_not_open_a_brokers_database_does_not_wait_for_it(tmp_path):
    code = (
        "import sys\nfrom strongroom.cli import main\n"
        f"sys.argv = ['strongroom', 'broker', 'serve', {str(tmp_path)!r}, '--passphrase-fd', '0']\n"
        "try:\n    main.main()\nfinally:\n    print('sqlalchemy' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input="secret\n", capture_output=True, text=True, check=False
    )
    assert (done.returncode, "not a broker's folder" in done.stderr) == (5, True)
    assert done.stdout == "False\n"
