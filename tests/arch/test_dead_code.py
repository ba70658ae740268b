"""Nothing in the product is reached by tests alone: what is defined at the top of a file is named somewhere else in it.

Names are followed as imports bring them: `module.name`, `from module import name`, and a file's own use of it outside of
its definition. `__all__` is a use. A verb's `register` and a TEE's `verify` are reached by the name of their file.
"""

from __future__ import annotations

import ast

from strongroom.cli.main import VERBS
from strongroom.evidence import verify
from tests.arch import sources

BY_THE_FILES_NAME = {
    *(f"strongroom.cli.{file}.register" for file, _ in VERBS.values()),
    *(f"strongroom.evidence.{tee}.verify" for tee in verify.VERIFIERS),
    "strongroom.cli.entry.main",  # pyproject.toml
}
# What nobody in the product calls, and why it stays.
KEPT = {
    # Enrolment of machines by the TPM's credential protocol, which a manager will do; proved against a real TPM.
    *(
        f"strongroom.encoding.tpm2_credential.{name}"
        for name in (
            *("ek_template", "create_primary", "start_policy_session", "policy_secret"),
            *("activate_credential", "read_credential"),
        )
    ),
    *(f"strongroom.evidence.formats.tpm_credential.{name}" for name in ("parse_public", "make", "enrol")),
    "strongroom.encoding.tpm2.read_public",
    # The library's: the least to ask of claims where there is no policy; a root of one's own; whose cosignature it is.
    "strongroom.appraisal.default.default_policy",
    "strongroom.evidence.formats.dcap_pck.trusted_root",
    "strongroom.ledger.checkpoint.verify_cosignature",
    # Closed sets, which tests and tables hold others to.
    "strongroom.appraisal.standing.WORDS",
    "strongroom.model.room.run_files.OWN_NAMES",
    "strongroom.crypto.pki.leaf.EVIDENCE_OID",
    # A boot by firmware proves it, and with it `patched` and `INITRD_OPTION`, on which TDX's prediction stands.
    "strongroom.bases.measure.direct_boot.measure",
}


def defined() -> dict[str, str]:
    """Dotted names of all that stands at the top of a file, with its place."""
    out = {}
    for source in sources.product():
        for node in source.tree.body:
            names: list[str] = []
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names = [node.name]
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [
                    one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)
                ]
            out |= {
                f"{source.module}.{name}": f"{source.name}:{node.lineno}"
                for name in names
                if not name.startswith("__")
            }
    return out


def reached() -> set[str]:
    """Dotted names of all that some file of the product uses."""
    modules = {source.module for source in sources.product()}
    out: set[str] = set()
    for source in sources.product():
        for node in source.tree.body:
            match node:
                case ast.Assign(targets=[ast.Name(id="__all__")], value=ast.Tuple(elts=names)):
                    out |= {f"{source.module}.{ast.literal_eval(name)}" for name in names}
        known: dict[str, str] = {}
        for node in source.nodes:
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    known |= {alias.asname or alias.name: whole} if whole in modules else {}
                    out.add(whole)
        for node in source.nodes:
            if isinstance(node, ast.Attribute):
                module, _, name = sources.dotted(node).rpartition(".")
                out.add(f"{known.get(module, module)}.{name}")
        for statement in source.tree.body:
            own = getattr(statement, "name", None)
            out |= {
                f"{source.module}.{node.id}"
                for node in ast.walk(statement)
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id != own
            }
    return out


def test_nothing_is_reached_by_tests_alone():
    found = defined()
    assert len(found) > 1000
    alone = found.keys() - reached() - BY_THE_FILES_NAME - KEPT
    assert sorted(found[name] + " " + name for name in alone) == []


def test_what_is_kept_is_there_and_still_alone():
    assert KEPT - defined().keys() == set()
    assert KEPT & reached() == set()
