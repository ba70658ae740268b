"""Whatever strangers write into the files that verbs show: no escape sequence, no mark that turns the reading, no line of its own."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import sys
import unicodedata

import pytest

from strongroom.cli import main, meter
from strongroom.cli.printable import printable, printable_json
from strongroom.encoding import canonical, dsse
from strongroom_testing import packs
from tests import effort
from tests.unit.images import kit

PLANTED = "PLANTED LINE"
EVIL = f"x\n{PLANTED}\r\x1b[2K\u202e\x9b31m\u2028\u200f\x7f\U000e0041"
UNSAFE = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A good file of each kind that a stranger hands around."""
    with packs.world(tmp_path_factory.mktemp("files")) as world:
        return {
            "contract": world.agreement.encode(),
            "proof": world.pack().encode(),
            "party": world.anchors[0].encode(),
            "image": world.owners["bob"].manifest,
            "dataset": world.owners["alice"].manifest,
            "evidence": world.pack().releases[0].evidence.encode(),
        }


@pytest.fixture
def show(monkeypatch, capsys):
    def call(*words):
        monkeypatch.setattr(sys, "argv", ["strongroom", *map(str, words)])
        monkeypatch.setenv("STRONGROOM_PASSPHRASE", "x")
        with contextlib.suppress(SystemExit):
            main.main()
        told = capsys.readouterr()
        return told.out + told.err

    return call


def check(told):
    assert "defect" not in told
    assert not any(line.startswith(PLANTED) for line in told.splitlines()), told
    unsafe = {one for one in told if one != "\n" and unicodedata.category(one) in UNSAFE}
    assert not unsafe, (unsafe, told)


VERBS = {
    "contract-show": ("contract", ("contract", "show")),
    "contract-verify": ("contract", ("contract", "verify")),
    "contract-check": ("contract", ("contract", "check")),
    "measure-diff": ("contract", ("measure", "diff", "{contract}")),
    "contract-diff": ("contract", ("contract", "diff", "{contract}")),
    "proof-verify": ("proof", ("proof", "verify")),
    "identity-show": ("party", ("identity", "show")),
    "inspect-image": ("image", ("inspect",)),
    "inspect-dataset": ("dataset", ("inspect",)),
    "evidence-show": ("evidence", ("evidence", "show")),
    "contract-show-json": ("contract", ("contract", "show", "--json")),
    "contract-check-json": ("contract", ("contract", "check", "--json")),
    "inspect-json": ("image", ("inspect", "--json")),
    "evidence-show-json": ("evidence", ("evidence", "show", "--json")),
}


def places(value, at=()):
    """Where in a document a text stands, and what to plant there: a path stays one, to get past its parser."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*at, key))
    elif isinstance(value, list):
        for index, item in enumerate(value[:3]):
            yield from places(item, (*at, index))
    elif isinstance(value, str):
        yield at, f"/{EVIL}" if value.startswith("/") else EVIL


def planted(document, at, text):
    out = copy.deepcopy(document)
    inner = out
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = text
    return out


def variants(data):
    """The file with each of its texts in turn replaced by what a stranger would like to be read."""
    whole = json.loads(data)
    for at, text in places(whole):
        yield canonical.dumps(planted(whole, at, text))
    if "payload" in whole:
        envelope = dsse.parse(data, payload_type=whole["payloadType"], max_payload=1 << 22)
        inside = json.loads(envelope.payload)
        for at, text in places(inside):
            payload = canonical.dumps(planted(inside, at, text))
            yield dsse.Envelope(
                payload_type=envelope.payload_type, payload=payload, signatures=envelope.signatures
            ).encode()


@pytest.mark.parametrize("verb", VERBS)
def test_what_strangers_write_makes_no_line_and_moves_no_cursor(show, good, tmp_path, verb):
    kind, words = VERBS[verb]
    for name, data in good.items():
        (tmp_path / name).write_bytes(data)
    spoilt = tmp_path / "spoilt"
    words = [word.format(**{name: tmp_path / name for name in good}) for word in words]
    for data in effort.some(list(variants(good[kind]))):
        spoilt.write_bytes(data)
        check(show(*words, spoilt))


# What a stranger's configuration of an image says.
CONFIGS = [
    {"Entrypoint": [f"/bin/{EVIL}"]}, {"Cmd": [EVIL, EVIL]}, {"WorkingDir": f"/{EVIL}"}, {"User": EVIL},
    {"Env": [f"{EVIL}={EVIL}"]}, {"Env": [f"LD_PRELOAD={EVIL}"]}, {"Volumes": {f"/{EVIL}": {}}},
    {"ExposedPorts": {EVIL: {}}}, {"Entrypoint": ["/bin/sh", "-c", EVIL]},
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(CONFIGS)))
def test_what_an_image_says_of_itself_makes_no_line(show, tmp_path, number):
    config = {"config": CONFIGS[number], "architecture": "amd64", "os": "linux", "os.version": EVIL}
    made = kit.Layout(tmp_path / "it")
    entries = kit.PROGRAM + kit.entry(
        b"bin/" + "\x9b\u202e".encode() + b"\n" + PLANTED.encode(), b"#!/none\n", mode=0o755
    )
    described = made.image(entries + kit.END, **config)
    made.index({**described, "annotations": {"org.opencontainers.image.ref.name": EVIL}})
    check(show("preflight", tmp_path / "it"))
    show("identity", "new", "bob", "--out", tmp_path)
    words = ("convert", tmp_path / "it", "-i", tmp_path / "bob.identity", "--name", "q", "--out", tmp_path)
    check(show(*words))


@pytest.mark.parametrize(
    "name", ["a{b}.disk", "{task.__class__}", "[link=https://example.org]x[/link]", "[/]", EVIL]
)
def test_a_files_name_is_no_format_and_no_markup(monkeypatch, name):
    """`rich` reads a column's text as both: a disk with a brace in its name ended as a defect."""
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", stream)
    with meter.meter(f"verifying {name}") as progress:
        progress(1, 1)
    # Lines are as narrow as the terminal; what is shown of the name is the name.
    assert printable(name)[:8] in stream.getvalue().replace("\n", "")
    assert "\x1b]8" not in stream.getvalue()


def test_json_stays_the_same_and_harmless():
    document = json.dumps({EVIL: [EVIL, "\u00e4"]}, ensure_ascii=False)
    shown = printable_json(document)
    assert json.loads(shown) == json.loads(document)
    assert "\u00e4" in shown
    assert not {one for one in shown if unicodedata.category(one) in UNSAFE}


def test_a_message_that_quotes_a_stranger_is_short(show, tmp_path):
    """A key of a million letters that comes twice was printed whole."""
    key = json.dumps("k" * 1_000_000)
    (tmp_path / "twice").write_text(f"{{{key}:1,{key}:2}}")
    for words in (("proof", "verify"), ("contract", "show"), ("evidence", "show")):
        assert len(show(*words, tmp_path / "twice")) < 10_000
