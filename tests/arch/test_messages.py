"""What can be held mechanically of messages: values of options are not spoken of as files, and no inner word comes out."""

from __future__ import annotations

import ast
import re
from collections import Counter

import pytest

from strongroom.errors import Malformed, Refused, of_file
from tests.arch import sources

# Parsers of what somebody typed. What they refuse is the value of an option.
OF_VALUES = {"oci.parse_platform", "drafts.draft_contract"}
NAMING = {"options.value_of", "options.drafted"}
# Names of parts that users never meet.
INNER = ("vault",)
# Files whose bytes are judged elsewhere, by what says itself what it judges; measured, searched for; or named by the caller.
PASSED_ON = [
    "bases/inputs.py: certificate",
    "bases/inputs.py: key",
    "parties/predict.py: folder / 'rsdp'",
    "parties/predict.py: folder / 'table-loader'",
    "parties/predict.py: folder / 'tables'",
    "compare/paths.py: path",
    "images/signatures.py: path",
    "images/signatures.py: payload",
    "images/signatures.py: signature",
    "images/signatures.py: trusted_root",
    "node/scrape.py: path",
    "ledger/export.py: path",
    "parties/evidence.py: file",
]
# What a message says of a file, a folder, a program or a library that is missing.
ABSENT = re.compile(r"no such (file|folder)|: not there|does not exist|not installed")
RAISED = {"Malformed", "Misuse", "Refused", "NotFound", "Conflict", "Unavailable"}


def test_the_values_of_options_are_parsed_where_their_option_is_named():
    found, bare = set(), []
    for source in sources.product():
        if source.package != "cli":
            continue
        named = {
            id(inner)
            for node in source.nodes
            if isinstance(node, ast.With)
            and any(
                isinstance(one.context_expr, ast.Call) and sources.dotted(one.context_expr.func) in NAMING
                for one in node.items
            )
            for inner in ast.walk(node)
        }
        for node in source.nodes:
            if isinstance(node, ast.Call) and sources.dotted(node.func) in OF_VALUES:
                found.add(sources.dotted(node.func))
                if id(node) not in named:
                    bare.append(f"{source.name}:{node.lineno}")
    assert bare == [], (
        "parse it within `options.value_of(OPTION)`: its hint is about the option then, not about a file"
    )
    assert found == OF_VALUES


def test_no_message_has_a_word_of_ours_that_users_never_meet():
    found = [
        f"{source.name}:{text.lineno}: {text.value}"
        for source in sources.product()
        for node in source.nodes
        if isinstance(node, ast.Call) and sources.dotted(node.func).rpartition(".")[2] in RAISED
        for text in ast.walk(node)
        if isinstance(text, ast.Constant)
        and isinstance(text.value, str)
        and any(word in text.value.lower() for word in INNER)
    ]
    assert found == []


def test_what_is_not_there_is_not_found_whatever_it_is():
    """Files, programs and libraries: one exit code (5) for all of them, so that scripts need not know who looked."""
    found = []
    for source in sources.product():
        for node in source.nodes:
            if not isinstance(node, ast.Call) or not node.args:
                continue
            kind = sources.dotted(node.func).rpartition(".")[2]
            if kind in RAISED - {"NotFound"} and ABSENT.search(ast.unparse(node.args[0])):
                found.append(f"{source.name}:{node.lineno}: {kind}({ast.unparse(node.args[0])})")
    assert found == []


def test_what_does_not_parse_names_its_file_as_the_user_did():
    """Parsers do not know where bytes came from: whoever reads a file says it, in `files.parsed` or within `of_file`."""
    bare = []
    for source in sources.product():
        named = {
            id(inner)
            for node in source.nodes
            if isinstance(node, ast.With)
            and any("of_file(" in ast.unparse(one.context_expr) or "value_of(" in ast.unparse(one.context_expr) for one in node.items)
            for inner in ast.walk(node)
        }  # fmt: skip
        bare += [
            f"{source.name.removeprefix('strongroom/')}: {ast.unparse(node.args[0])}"
            for node in source.nodes
            if isinstance(node, ast.Call)
            and sources.dotted(node.func) in {"files.read", "files.read_text"}
            and node.args
            and id(node) not in named
        ]
    assert sorted(bare) == sorted(PASSED_ON)


def test_of_a_file_its_name_is_said_once(tmp_path):
    path = tmp_path / "alice.party.json"
    for said in ("party.name: bad", f"{path}: party.name: bad", "alice.party.json: party.name: bad"):
        for kind in (Malformed, Refused):
            with pytest.raises(kind) as caught, of_file(path):
                raise kind(said)
            assert caught.value.message == str(caught.value) == f"{path}: party.name: bad"
    with pytest.raises(Malformed) as caught, of_file(tmp_path / "outer"), of_file(path):
        raise Malformed("bad")
    assert caught.value.message == f"{path}: bad"


def test_only_one_place_asks_whether_it_is_the_right_file():
    places = [
        source.name for source in sources.product() if "the right file, and whole" in source.path.read_text()
    ]
    assert places == ["strongroom/cli/failures.py"]


def test_what_was_asked_wrongly_or_is_not_there_says_what_to_do_next():
    """`is the name right?` and `--help` are answers of last resort: who refuses knows better."""
    found = []
    for source in sources.product():
        found += [
            f"{source.name}:{node.lineno}: {ast.unparse(node)}"
            for node in source.nodes
            if isinstance(node, ast.Call)
            and sources.dotted(node.func).rpartition(".")[2] in {"Misuse", "NotFound"}
            and not any(keyword.arg == "hint" for keyword in node.keywords)
        ]
    assert found == []


# What the node says in the room's place: it sees the channel's other end (`node/relay.py`), and that a room was stopped.
HINTED_BY_THE_NODE = {
    "strongroom/agent/channel.py": 4,
    "strongroom/agent/init.py": 1,
    "strongroom/agent/program.py": 1,
}


def test_what_a_room_refuses_says_what_to_do_next():
    bare = Counter(
        source.name
        for source in sources.product()
        if source.package == "agent"
        for node in source.nodes
        if isinstance(node, ast.Call) and sources.dotted(node.func) in RAISED
        if not any(keyword.arg == "hint" for keyword in node.keywords)
    )
    assert bare == HINTED_BY_THE_NODE
