"""A bad value of an option is said of that option, in its words, with what to type; never of a file that is sound."""

from __future__ import annotations

import json
import shutil

import pytest
from typer.testing import CliRunner

from strongroom import files
from strongroom.cli import failures, options
from strongroom.cli.main import application
from strongroom.errors import Malformed, Misuse, StrongroomError

CATCH_ALL = "the right file, and whole?"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two parties, a disk of each, a broker of alice's, a base and a node, as `contract new` wants them."""
    folder = tmp_path_factory.mktemp("values")
    (folder / "root/bin").mkdir(parents=True)
    shutil.copy("/bin/true", folder / "root/bin/p")
    (folder / "data").mkdir()
    (folder / "data/rows").write_text("a")
    (folder / "config.json").write_text(json.dumps({"config": {"Entrypoint": ["/bin/p"]}}))
    digest = "sha256:" + "1" * 64
    (folder / "node.json").write_text(json.dumps({"root": digest, "machine": digest}))
    (folder / "base.json").write_text(json.dumps({"reference": {"machine": "q35"}}))
    for line in (
        "identity new alice", "identity new bob", "seal data -i alice.identity --name flights",
        "convert root --config config.json -i bob.identity --name query",
        "broker init broker -i alice.identity --listen 127.0.0.1:9",
    ):  # fmt: skip
        done = typed(folder, line)
        assert done.exit_code == 0, (line, done.exception)
    return folder


def typed(folder, line):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("STRONGROOM_PASSPHRASE", "correct horse")
        words = [word.replace("~", " ") for word in line.split()]
        return CliRunner().invoke(application(words[:1]), words)


DRAFT = (
    "contract new {} --out c.json --party data-owner=alice.party.json --party program-owner=bob.party.json --image query.manifest.json"
    " --dataset flights.manifest.json --base base.json --node node.json --simulated "
)
F = DRAFT.format("f")
BARE = (
    "contract new f --out c.json --party data-owner=alice.party.json --party program-owner=bob.party.json --image query.manifest.json"
    " --dataset flights.manifest.json --simulated "
)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("identity new A~B", "identity name"),
        ("node init x --name A~B", "--name"),
        ("broker init b2 -i alice.identity --listen nowhere", "--listen"),
        ("seal data -i alice.identity --name A~B --out y", "--name"),
        ("convert root --config config.json -i bob.identity --name A~B --out y", "--name"),
        ("convert root --config config.json -i bob.identity --name q --out y --platform linux", "--platform"),
        ("preflight root --config config.json --architecture foo", "--architecture"),
        ("preflight root --config config.json --platform sgx", "--platform"),
        ("scrape 1 --canary-hex zz", "--canary-hex"),
        (DRAFT.format("F~X"), "the contract's name"),
        (F + "--output /etc=bob", "--output"),
        (F + "--output bob", "--output: expected PATH=PARTY"),
        (F + "--output /out=carol", "--party"),
        (F + "--output /out=bob --output /out/a=bob", "--output"),
        (F + "--output /out=bob --output /out=bob", "--output"),
        (F + "--logs carol", "--logs"),
        (F + "--runs 0", "--runs"),
        (F + "--wall-seconds 0", "--wall-seconds"),
        (F + "--memory-mib 5", "--memory-mib"),
        (F + "--threshold 5", "--threshold"),
        (F + "--env A~B=c", "--env"),
        (F + "--env A", "--env"),
        (F + "--certificate-name a~b", "--certificate-name"),
        (F + "--machine x=1", "--machine"),
        (F + "--party foo=bob.party.json", "--party"),
        (F + "--party bob.party.json", "--party: expected ROLE=FILE"),
        (F + "--party recipient=bob.party.json", "--party"),
        (F + "--dataset X~Y=flights.manifest.json", "--dataset"),
        (F + "--dataset flights.manifest.json", "--dataset"),
        (BARE, "--base and --node, or --reference"),
        (BARE + "--base base.json", "--node"),
        (BARE + "--node node.json", "--base"),
    ],
)
def test_a_bad_value_is_said_of_its_option(place, line, named):
    done = typed(place, line)
    assert isinstance(done.exception, StrongroomError), (done.exit_code, done.output, done.exception)
    told = failures.describe(done.exception)
    assert named in f"{told['message']} {told['hint']}"
    assert told["hint"]
    assert CATCH_ALL not in str(told["hint"])
    assert not (place / "c.json").exists()


def test_the_hint_about_a_file_names_the_one_that_does_not_parse_and_is_never_given_without_one(tmp_path):
    assert CATCH_ALL not in str(failures.describe(Malformed("odd"))["hint"])
    path = tmp_path / "sound"
    path.write_text("x")

    def odd(_data):
        raise Malformed("odd")

    with pytest.raises(Malformed, match=f"{path}: odd") as of_it:
        files.parsed(path, odd, max_bytes=10)
    assert failures.describe(of_it.value)["hint"].startswith(f"is {path} the right file")
    files.parsed(path, bytes, max_bytes=10)
    assert CATCH_ALL not in str(failures.describe(Malformed("odd"))["hint"])
    with pytest.raises(Misuse, match="--when: odd") as caught, options.value_of("--when"):
        raise Malformed("odd")
    assert CATCH_ALL not in str(failures.describe(caught.value)["hint"])


def test_a_file_with_one_bad_value_is_not_asked_whether_it_is_the_right_one(tmp_path):
    path = tmp_path / "bob.party.json"
    path.write_text("x")

    def told(message, **more):
        def odd(_data):
            raise Malformed(message, **more)

        with pytest.raises(Malformed) as caught:
            files.parsed(path, odd, max_bytes=10)
        return str(failures.describe(caught.value)["hint"])

    bad = told("party.recipient: expected age1, got null", code="bad-value")
    assert bad == f"correct that value if you wrote {path}; else get it again from whoever made it"
    assert CATCH_ALL in told("party.format: expected 'strongroom-party/1', got null", code="bad-value")
    assert CATCH_ALL in told("party: key 'format' is missing", code="missing-key")
    assert told("party.recipient: bad", code="bad-value", hint="own") == "own"


def test_what_no_option_stands_for_stays_what_it_is():
    with pytest.raises(Malformed, match="canonical"), options.drafted():
        raise Malformed("contract: not canonical")
