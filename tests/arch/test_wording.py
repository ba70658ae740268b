"""Every check has its words and its source, its data are no sentences, and what sources name is there to be read."""

from __future__ import annotations

import ast
import re
from functools import cache

from strongroom.appraisal.wording import sentences as wording
from strongroom.appraisal.wording import table as wording_table
from strongroom.model.verdict import Check
from tests.arch import sources

DOCS = sources.ROOT / "docs"
CODE = re.compile(r"[a-z0-9]+(?:[-.][a-z0-9]+)*")
# Who publishes the specifications that evidence is judged by.
PUBLISHERS = (
    "AMD ",
    "AWS ",
    "Arm ",
    "Azure, ",
    "DMTF ",
    "Intel ",
    "NVIDIA ",
    "RFC ",
    "TCG ",
    "UEFI ",
    "google/",
)
# What makes a check, and which argument is its name: the constructors of `Check`, and `_each(devices, name, expected, …)`.
MAKERS = {"Check.judged": 0, "Check.equal": 0, "Check.passed": 0, "Check.failed": 0, "_each": 1}
NAMES = "strongroom/model/check_names.py"
# Asked of claims where there is no contract: never recorded.
UNRECORDED = {"debug", "status", "simulated", "mr_service_td", "td_attributes.sept_ve_disable"}


def constants(tree: ast.Module) -> dict[str, str]:
    """The module's own texts by name."""
    out = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            text = text_of(node.value, out, hole=None)
            if text is not None:
                out[node.targets[0].id] = text
    return out


@cache
def check_names() -> dict[str, str]:
    """The names of checks, as the product writes them: `check_names.OWN_DISK`."""
    (tree,) = (source.tree for source in sources.product() if source.name == NAMES)
    return {f"check_names.{name}": text for name, text in constants(tree).items()}


def text_of(node: ast.expr, known: dict[str, str], *, hole: str | None = "x") -> str | None:
    """What a text is, with `hole` for whatever is only known at run time; None: no text that can be known."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.Name | ast.Attribute):
        return known.get(sources.dotted(node))
    if isinstance(node, ast.JoinedStr):
        parts = [
            text_of(part.value, known, hole=hole) or hole
            if isinstance(part, ast.FormattedValue)
            else text_of(part, known, hole=hole)
            for part in node.values
        ]
        return None if None in parts else "".join(part for part in parts if part)
    return None


def made() -> list[tuple[str, ast.Call, dict[str, str]]]:
    """Every call in the product that makes a check, with its place; not those inside of a maker."""
    out = []
    for source in sources.product():
        known = constants(source.tree) | check_names()
        inner = {
            id(node)
            for maker in source.nodes
            if isinstance(maker, ast.FunctionDef) and maker.name in MAKERS
            for node in ast.walk(maker)
        }
        out += [
            (f"{source.name}:{node.lineno}", node, known)
            for node in source.nodes
            if isinstance(node, ast.Call) and sources.dotted(node.func) in MAKERS and id(node) not in inner
        ]
    return out


def named(call: ast.Call, known: dict[str, str]) -> str | None:
    """The check's name. What stands in front of it (a device's place) is left out."""
    given = call.args[MAKERS[sources.dotted(call.func)]]
    if isinstance(given, ast.JoinedStr) and isinstance(given.values[0], ast.FormattedValue):
        given = (
            ast.JoinedStr(values=given.values[1:]) if text_of(given.values[0].value, known) is None else given
        )
    return text_of(given, known)


def data(call: ast.Call) -> list[ast.expr]:
    """What is expected, and what was got."""
    at = MAKERS[sources.dotted(call.func)]
    given = [one.value for one in call.keywords if one.arg in {"expected", "got"}]
    return given + call.args[at + 1 : at + 3]


def test_every_check_has_words_a_hint_and_a_source():
    names = {place: named(call, known) for place, call, known in made()}
    assert len(names) > 40, "the checks were not found"
    told = {name for name in names.values() if name is not None}
    unread = {place for place, name in names.items() if name is None}
    assert unread == set(), "name a check by a text where it is made, so that its words can be looked up"
    wordless = {name for name in told if wording.find(name) is None}
    assert wordless == set(), (
        "appraisal/wording/table.py has no words for these checks: add an entry by name, with phrases for its data, a "
        "hint and a source, and its data's form to docs/verdicts.md"
    )
    assert {"nonce.fresh", "platform.devices.fact.x", "platform.reference.x", "keys.present"} <= told
    silent = [
        name for name in told if not wording.explain(Check(name=name, expected=None, got=None, ok=False)).hint
    ]
    assert silent == []


def test_a_check_is_built_by_a_constructor_that_says_what_it_means():
    direct = [
        f"{source.name}:{line}"
        for source in sources.product()
        for name, line in sources.calls(source.tree)
        if name in {"Check", "verdict.Check"} or name.endswith(".verdict.Check")
        if source.name != "strongroom/model/verdict.py"
    ]
    assert direct == [], "build a check by Check.judged, Check.equal, Check.passed or Check.failed"


def test_a_checks_name_is_written_once():
    """In `model/check_names.py`. Those of `default_policy` are names of claims as well."""
    names = {text for text in check_names().values() if text not in UNRECORDED | {"evidence."}}
    again = [
        f"{source.name}:{node.lineno}: {node.value}"
        for source in sources.product()
        if source.name != NAMES
        for node in source.nodes
        if isinstance(node, ast.Constant) and node.value in names
    ]
    assert again == []
    assert len(set(check_names().values())) == len(check_names())


def test_the_data_of_checks_are_no_sentences():
    sentences = [
        f"{place}: {node.value!r}"
        for place, call, _ in made()
        for given in data(call)
        for node in ast.walk(given)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value
        if CODE.fullmatch(node.value.replace("_", "-")) is None
    ]
    assert sentences == [], (
        "records keep a check's data for ever: use a digest, a number, a time, a name or a code (like-this) here, and "
        "write its sentence in appraisal/wording/table.py"
    )


def test_codes_have_words():
    """A code that stands alone as expected or got is told in words, not shown as it is."""
    bare = []
    for place, call, known in made():
        name = named(call, known)
        found = None if name is None else wording.find(name)
        if found is None:
            continue
        entry, _ = found
        phrases = entry.expected.keys() | entry.got.keys()
        bare += [
            f"{place}: {name}: {one.value!r}"
            for value in data(call)
            for one in [value, *((value.body, value.orelse) if isinstance(value, ast.IfExp) else ())]
            if isinstance(one, ast.Constant) and isinstance(one.value, str) and one.value not in phrases
        ]
    assert [one for one in bare if "platform.devices" not in one] == []


def cited() -> dict[str, str]:
    """Every text that is given as a source, by its place."""
    out = {}
    by_module = {source.module.rpartition(".")[2]: constants(source.tree) for source in sources.product()}
    for source in sources.product():
        known = constants(source.tree)
        for node in source.nodes:
            if not isinstance(node, ast.Call) or source.name.startswith("strongroom/evidence/roots"):
                continue
            for one in node.keywords:
                if one.arg != "source":
                    continue
                text = text_of(one.value, known, hole=None)
                if isinstance(one.value, ast.Attribute):
                    module, _, name = sources.dotted(one.value).rpartition(".")
                    text = by_module.get(module, {}).get(name)
                if text is not None:
                    out[f"{source.name}:{node.lineno}"] = text
    return out


def fault(source: str) -> str:
    """What is wrong with a source; nothing where it is public, or a page with that heading."""
    page, _, heading = source.partition(", ")
    if not page.startswith("docs/"):
        return "" if source.startswith(PUBLISHERS) else "no public specification, and no page under docs/"
    path = sources.ROOT / page
    if not path.is_file():
        return "no such page"
    headings = {line.lstrip("#").strip() for line in path.read_text().splitlines() if line.startswith("#")}
    return "" if heading in headings else "no such heading"


def test_every_source_is_public_or_a_page_here():
    table = {
        name: wording.explain(
            Check(name=f"{name}x" if name.endswith(".") else name, expected=None, got=None, ok=False)
        )
        for name in wording_table.TABLE
    }
    found = {**cited(), **{name: told.source for name, told in table.items()}}
    assert len(found) > 100, "the sources were not found"
    assert {place: (text, why) for place, text in found.items() if (why := fault(text))} == {}


def test_a_source_that_is_not_there_is_found():
    assert fault("docs/verdicts.md, The platform") == ""
    assert fault("docs/verdicts.md, No such heading")
    assert fault("docs/nothing.md, The platform")
    assert fault("design 5.4")
    assert fault("model/binding.py")


def test_nothing_cites_documents_that_are_not_here():
    pattern = re.compile(r"\bRULES \d|\bdesign,? (?:section )?\d|\bDESIGN\.md", re.ASCII)
    here = [
        *(sources.SRC).rglob("*.py"), *DOCS.rglob("*.md"), *(sources.ROOT / "tests").rglob("*.py"),
        sources.ROOT / "README.md",
    ]  # fmt: skip
    citing = [
        f"{path.relative_to(sources.ROOT)}: {line.strip()}"
        for path in here
        if path.name != "test_wording.py"
        for line in path.read_text().splitlines()
        if pattern.search(line)
    ]
    assert citing == []


def test_the_page_of_verdicts_has_every_recorded_check_and_no_other():
    page = (DOCS / "verdicts.md").read_text()
    listed = set(re.findall(r"`([a-z_]+(?:\.[a-z_]+)*\.?)[A-Z]*`", page))
    for family in re.findall(r"`platform\.devices\.root`, (.*?) \|", page):
        listed |= {f"platform.devices{name}" for name in re.findall(r"`(\.[a-z]+\.?)", family)}
    recorded = wording_table.TABLE.keys() - UNRECORDED
    assert recorded - listed == set()
    checks = {
        name for name in listed if name.startswith(("own.", "nonce.", "platform.", "contract.", "evidence."))
    }
    assert checks - recorded == set()


def test_every_rule_that_a_test_names_is_in_the_list_and_its_test_is_there():
    page = (DOCS / "rules.md").read_text()
    listed = {int(number) for number in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    assert listed == set(range(1, 61))
    written = {
        name
        for path in (sources.ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_rule_\d\d_\w+)\(", path.read_text())
    }
    assert {int(name[10:12]) for name in written} <= listed
    for number, test in re.findall(r"^\| (\d+) \|.*`(test_rule_\w+)` \|$", page, re.MULTILINE):
        assert int(test[10:12]) == int(number)
        assert test in written
    untested = set(re.findall(r"^\| (\d+) \|.*no test of that number", page, re.MULTILINE))
    assert {int(number) for number in untested} == listed - {int(name[10:12]) for name in written}
