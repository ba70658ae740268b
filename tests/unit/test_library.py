"""`from strongroom import …`: the names, their types, and that each is what the command line calls."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import subprocess
import sys

import pytest

import strongroom
from strongroom import errors
from tests.arch import sources

STUB = sources.SRC / "strongroom" / "__init__.pyi"
# What each verb does, and the file of the command line that calls it.
VERBS = {
    "seal_files": "seal.py",
    "open_sealed": "open.py",
    "verify_disk": "evidence/verify.py",
    "convert_image": "images/convert.py",
    "draft_contract": "contract/commands.py",
    "review_contract": "contract/sign.py",
    "sign_contract": "contract/sign.py",
    "check_contract": "contract/check.py",
    "run_contract": "rooms/run.py",
    "export_proof": "ledger/proof.py",
    "verify_proof": "ledger/proof.py",
    "new_identity": "identity/commands.py",
    "save_agreement": "contract/commands.py",
    "merge_contracts": "contract/commands.py",
    "inspect_disk": "inspect.py",
    "preflight_image": "images/preflight.py",
    "try_image": "images/dryrun.py",
    "predict_room": "evidence/measure.py",
    "show_evidence": "evidence/commands.py",
    "judge_evidence": "evidence/commands.py",
    "forecast_evidence": "evidence/commands.py",
    "write_result": "evidence/commands.py",
    "ask_result": "evidence/result.py",
    "verify_result": "evidence/result.py",
    "fetch_endorsements": "evidence/endorsements.py",
    "export_endorsements": "evidence/endorsements.py",
    "import_endorsements": "evidence/endorsements.py",
    "connect": "rooms/connect.py",
    "sign_reference": "evidence/reference.py",
    "verify_reference": "evidence/reference.py",
}
POSITIONAL = 1  # what is worked on; all else is by name


def functions():
    named = {name: getattr(strongroom, name) for name in strongroom.__all__}
    return {name: value for name, value in named.items() if inspect.isfunction(value)}


def test_every_name_is_there_and_is_what_its_module_has():
    for name, module in strongroom._PLACES.items():
        assert getattr(strongroom, name) is getattr(importlib.import_module(module), name)
    with pytest.raises(AttributeError, match="nothing"):
        _ = strongroom.nothing
    assert set(strongroom.__all__) <= set(dir(strongroom))


def test_type_checkers_see_the_same_names_from_the_same_modules():
    tree = ast.parse(STUB.read_text())
    seen = {
        alias.asname: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    assert seen == strongroom._PLACES
    (listed,) = [node.value for node in tree.body if isinstance(node, ast.Assign)]
    assert ast.literal_eval(listed) == strongroom.__all__


def test_importing_it_imports_nothing_else():
    program = "import sys, strongroom, json; print(json.dumps([m for m in sys.modules if m.startswith('strongroom')]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["strongroom"]


def test_no_name_hides_a_package():
    """`from strongroom import seal` is the package, whatever was imported before."""
    packages = {source.package for source in sources.product()}
    assert set(strongroom._PLACES) & packages == set()


@pytest.mark.parametrize("name", sorted(VERBS))
def test_the_command_line_calls_it(name):
    """By the name of its module: a call of `….seal_files(` where `seal` is parsed, and nowhere a second way to do it."""
    (source,) = [one for one in sources.product() if one.name == f"strongroom/cli/{VERBS[name]}"]
    called = {called.rpartition(".")[2] for called, _ in sources.calls(source.tree)}
    assert name in called
    module = strongroom._PLACES[name]
    assert module in sources.imports(source.tree)


@pytest.mark.parametrize("name", sorted(functions()))
def test_it_is_typed_told_and_called_by_name(name):
    function = functions()[name]
    assert function.__doc__
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    assert kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD) <= POSITIONAL
    assert inspect.Parameter.VAR_KEYWORD not in kinds
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter


def test_what_fails_is_of_the_tree_of_errors():
    raised = {name for name in strongroom.__all__ if isinstance(getattr(strongroom, name), type) and issubclass(getattr(strongroom, name), Exception)}  # fmt: skip
    tree = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.StrongroomError)}  # fmt: skip
    assert raised <= tree
    assert "StrongroomError" in raised
