"""The design, held by tests: who may make what, who may import what, how large a file may grow."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from strongroom import errors
from strongroom.evidence import roots, verify
from tests.arch import sources

ROOT = sources.ROOT
CLOCKS = {
    "datetime.now",
    "datetime.utcnow",
    "datetime.today",
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "date.today",
    "time.time",
    "time.time_ns",
    "time.monotonic",
    "time.monotonic_ns",
    "time.perf_counter",
}
MAY_READ_THE_CLOCK = {
    *("cli", "host_log", "wiring", "node", "agent", "api", "console", "fetch", "project", "tunnel"),
}
JUDGEMENT = {"evidence", "appraisal", "model", "encoding"}
MAX_LINES = 500
MAX_FILES = 20  # side by side in one folder
MAX_TYPE_IGNORES = 8


def makers(*names: str) -> set[str]:
    """Packages of the files that call one of `names`, however they imported it."""
    return {
        source.package
        for source in sources.product()
        for called, _ in sources.calls(source.tree)
        if called.rsplit(".", 1)[-1] in names
    }


def importers(*roots: str) -> set[str]:
    """Packages of the files that import one of the distributions `roots`."""
    return {
        source.package
        for source in sources.product()
        for name in sources.imports(source.tree)
        if name.split(".")[0] in roots
    }


def test_only_evidence_makes_claims():
    assert makers("Claims") == {"evidence"}


def test_only_appraisal_makes_verdicts():
    assert makers("Accepted", "Denied") == {"appraisal"}


def test_only_crypto_imports_cryptography():
    assert importers("cryptography", "pyrage") == {"crypto"}


# Who verifies signatures that are not evidence's: each of a format of its own, in one place.
SIGNATURES = {
    "strongroom/model/signatures.py": "DSSE: contracts, manifests, receipts, rotations, reference files",
    "strongroom/ledger/checkpoint.py": "C2SP signed notes, whose key ids are binding",
    "strongroom/tunnel/handshake.py": "statements of rooms: one signature, the attested key",
    "strongroom/appraisal/ear_token.py": "JWS and COSE_Sign1: one signature, the reader's key",
    "strongroom/appraisal/reference/corim.py": "COSE_Sign1: one signature, any of the reader's keys",
    "strongroom/images/signatures.py": "cosign's forms: any of the keys that somebody pinned",
    "strongroom/images/keyless.py": "Sigstore's bundles, by its own library",
    "strongroom/fetch/endorsements/intel.py": "Intel's statements, by the chain that comes with each",
}
# What is called so and is about no signature: TLS settings, and a reader of files that asks `release_file`.
OTHER_VERIFY = {
    "cause.verify_message",
    "context.verify_flags",
    "context.verify_mode",
    "self.verify",
    "reader.verify",
}


def test_each_signed_format_has_one_verifier():
    """Who else asks "is this signed by" asks them (decision 45)."""
    places = set()
    for source in sources.product():
        if source.package in {"crypto", "evidence"}:
            continue
        modules = {
            alias.asname or alias.name
            for node in source.nodes
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        for node in source.nodes:
            if not isinstance(node, ast.Attribute) or not re.fullmatch(r"verify(_[a-z]+)?", node.attr):
                continue
            on_module = isinstance(node.value, ast.Name) and node.value.id in modules
            if not on_module and ast.unparse(node) not in OTHER_VERIFY:
                places.add(source.name)
    assert places == SIGNATURES.keys()


def test_web_frameworks_stay_in_the_api():
    assert importers("pydantic", "fastapi", "starlette", "httptools", "uvloop") <= {"api", "console"}


def test_the_product_does_not_import_its_fakes_or_tests():
    assert importers("strongroom_testing", "tests", "pytest", "hypothesis") == set()


def test_time_is_an_argument():
    read = [
        f"{source.name}:{line}: {called}"
        for source in sources.product()
        if source.package not in MAY_READ_THE_CLOCK
        for called, line in sources.calls(source.tree)
        if called in CLOCKS
    ]
    assert read == []


def test_judgement_makes_no_random_choice_and_opens_nothing():
    forbidden = {"random", "secrets", "socket", "subprocess", "os", "pathlib", "io", "tempfile", "urllib"}
    found = [
        f"{source.name}: {name}"
        for source in sources.product()
        if source.package in JUDGEMENT
        for name in sources.imports(source.tree)
        if name.split(".")[0] in forbidden
    ]
    opened = [
        f"{source.name}:{line}"
        for source in sources.product()
        if source.package in JUDGEMENT
        for called, line in sources.calls(source.tree)
        if called in {"open", "print", "input", "eval", "exec"}
    ]
    assert found + opened == []


SEVERAL_FILES = ("azure_", "dcap_", "eventlog_", "gcp_", "nvgpu_", "snp_", "tpm_")
# Clouds whose virtual TPM comes with a report of the hardware, which that TEE's own file verifies.
STANDS_ON = {"azure": {"snp", "tdx"}, "gcp": {"snp", "tdx"}}


def scheme(name: str) -> str:
    """A shared scheme may fill several files: `dcap_quote` is part of `dcap`, `nvgpu_spdm` of `nvgpu`."""
    return name.split("_", maxsplit=1)[0] if name.startswith(SEVERAL_FILES) else name


def test_inside_evidence_imports_go_one_way():
    """A TEE's file stands on shared formats, a cloud's on its hardware's too; a format on its own scheme alone."""
    seen = set()
    for source in sources.product():
        if source.package != "evidence" or source.module == "strongroom.evidence":
            continue
        inner = {
            tuple(imported.split(".")[2:])
            for imported in sources.imports(source.tree)
            if imported.startswith("strongroom.evidence.")
        }
        folder, *rest = source.module.split(".")[2:]
        if folder == "formats" and rest:
            own = scheme(rest[0])
            siblings = {scheme(one[1]) for one in inner if one[0] == "formats" and one[1:]} - {own}
            assert siblings <= ({"eventlog"} if own == "ccel" else set()), source.name
            assert {one[0] for one in inner} <= {"formats", "memo", "roots"}, source.name
        elif folder in verify.VERIFIERS:
            allowed = {"formats", "memo", "roots", "load"} | STANDS_ON.get(folder, set())
            assert {one[0] for one in inner} <= allowed, f"{source.name}: a TEE's file stands alone"
        else:
            continue
        seen.add(source.name)
    assert len(seen) > 2 * len(verify.VERIFIERS)


def test_no_folder_holds_more_than_twenty_files():
    folders = Counter(source.path.parent for source in sources.product())
    assert {str(folder): files for folder, files in folders.items() if files > MAX_FILES} == {}


def test_no_two_classes_of_the_product_have_one_name():
    """Names with an underscore are of one file alone."""
    places: dict[str, list[str]] = {}
    for source in sources.product():
        for node in source.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(source.name)
    assert len(places) > 400
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_files_stay_short():
    long = {
        source.name: lines
        for source in sources.product()
        if (lines := len(source.path.read_text().splitlines())) > MAX_LINES
    }
    assert long == {}


def test_files_are_named_for_what_they_hold():
    vague = {"utils", "util", "helpers", "helper", "common", "misc", "lib"}
    assert [one.name for one in sources.product() if set(one.module.split(".")) & vague] == []


# Who stands in for each TEE's vendor in tests, where the fake is not named for the TEE itself.
FAKES = {
    "gcp": "fake_google",
    "nitro": "fake_aws",
    "nvgpu": "fake_nvidia",
    "sgx": "fake_intel",
    "snp": "fake_amd",
    "tdx": "fake_intel",
}
# TEEs in which rooms run: the agent makes their evidence.
ROOMS = {"azure", "gcp", "nitro", "snp", "tdx", "tpm"}


@pytest.mark.parametrize("tee", sorted(verify.VERIFIERS))
def test_each_tee_is_whole(tee):
    """A verifier comes with its page, its fake, its tests, its recorded cases and its row of pinned roots."""
    tests = ROOT / "tests"
    wanted = [
        ROOT / f"src/strongroom/evidence/{tee}.py",
        ROOT / f"src/strongroom_testing/vendors/{FAKES.get(tee, f'fake_{tee}')}.py",
        ROOT / f"docs/tee/{tee}.md",
    ]
    if tee in ROOMS:
        wanted.append(ROOT / f"src/strongroom/agent/devices/{tee}.py")
    if tee == "tpm":
        wanted += [
            tests / f"unit/evidence/test_{tee}_verify.py",
            tests / "fuzz/test_evidence_fuzz.py",
            tests / f"vectors/{tee}",
        ]
    else:
        wanted += [
            tests / f"unit/evidence/test_{tee}.py",
            tests / f"fuzz/test_{tee}_fuzz.py",
            tests / f"vectors/adapters/{tee}.py",
        ]
    missing = [str(place.relative_to(ROOT)) for place in wanted if not place.exists()]
    assert missing == []
    assert tee in roots.PINS


def test_no_page_or_fake_is_without_its_verifier():
    pages = {path.stem for path in (ROOT / "docs" / "tee").glob("*.md")}
    fakes = {path.stem for path in (ROOT / "src/strongroom_testing/vendors").glob("fake_*.py")}
    tees = set(verify.VERIFIERS)
    assert pages == tees
    assert fakes >= {FAKES.get(tee, f"fake_{tee}") for tee in tees}


@pytest.mark.parametrize("tee", sorted(verify.VERIFIERS))
def test_each_verifier_numbers_its_checks(tee):
    """The checks in the docstring recur as comments, in their order; what is not checked is named."""
    text = (ROOT / f"src/strongroom/evidence/{tee}.py").read_text()
    module = ast.parse(text)
    docstring = ast.get_docstring(module) or ""
    told = re.findall(r"^  (\d+) (\S+)", docstring, re.MULTILINE)
    done = re.findall(r"^    # (\d+) (\S+)$", text, re.MULTILINE)
    assert [number for number, _ in told] == [str(index) for index in range(1, len(told) + 1)]
    assert [(number, name.removesuffix(".*")) for number, name in told] == done
    assert "Not checked here" in docstring


def test_the_page_of_each_tee_names_every_check():
    for tee in verify.VERIFIERS:
        text = (ROOT / f"src/strongroom/evidence/{tee}.py").read_text()
        page = (ROOT / f"docs/tee/{tee}.md").read_text()
        names = set(re.findall(r'EvidenceRefused\(\s*f?"([a-z0-9.-]+?)(?:[-{].*?)?"', text))
        assert names, tee
        for name in names:
            assert name in page, f"docs/tee/{tee}.md does not tell of the check {name}"


def test_public_names_of_evidence_and_appraisal_say_what_they_do():
    silent = []
    for source in sources.product():
        if source.package not in {"evidence", "appraisal"}:
            continue
        if ast.get_docstring(source.tree) is None:
            silent.append(source.name)
        for node in source.nodes:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            if ast.get_docstring(node) is None:
                silent.append(f"{source.name}: {node.name}")
    assert silent == []


def test_errors_are_few_and_drawn():
    tree = [
        one
        for one in vars(errors).values()
        if isinstance(one, type) and issubclass(one, errors.StrongroomError)
    ]
    assert len(tree) <= 12
    assert errors.__doc__
    codes = [one.default_code for one in tree]
    assert len(set(codes)) == len(codes)
    for one in tree:
        assert one.__name__ in errors.__doc__


def test_errors_are_defined_in_one_file():
    # The guardian's own signal to itself that a traced thread has ended; it never leaves `node`.
    inner = {"strongroom/node/guard/remote.py: Died"}
    strays = [
        f"{source.name}: {node.name}"
        for source in sources.product()
        if source.module != "strongroom.errors"
        for node in source.nodes
        if isinstance(node, ast.ClassDef)
        for base in node.bases
        if sources.dotted(base).endswith(("Error", "Exception", "Malformed", "Refused"))
    ]
    assert set(strays) <= inner


def test_every_rule_of_judging_evidence_is_a_named_test():
    """Rules 1 to 25 are about evidence, binding and replay; each is owed at least one test that has its number."""
    named = {
        int(found)
        for path in (ROOT / "tests").rglob("test_*.py")
        for found in re.findall(r"^def test_rule_([0-9]{2})_", path.read_text(), re.MULTILINE)
    }
    assert set(range(1, 26)) - named == set()


def test_nothing_is_left_for_later():
    found = [
        f"{source.name}:{number}"
        for source in sources.product()
        for number, line in enumerate(source.path.read_text().splitlines(), 1)
        if re.search(r"\b(TODO|FIXME|XXX|NotImplementedError)\b", line)
    ]
    assert found == []


def test_types_are_seldom_overruled():
    ignored = [
        source.name
        for source in sources.product()
        for line in source.path.read_text().splitlines()
        if re.search(r"#\s*type:\s*ignore", line)
    ]
    assert len(ignored) <= MAX_TYPE_IGNORES, ignored


def test_layers_hold():
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
