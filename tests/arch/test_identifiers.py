"""Digests and names have types of their own: one name, one thing, and no plain text in its place."""

import ast
from functools import cache

import pytest

from strongroom.model import identifiers
from tests.arch.sources import product

TYPES = {
    "contract_digest": "ContractDigest",
    "contract_id": "ContractId",
    "manifest_digest": "ManifestDigest",
    "evidence_digest": "EvidenceDigest",
    "run_id": "RunId",
    "keyid": "KeyId",
}
# A contract, a manifest, evidence: never their digests. In the command line's words alone they are what somebody typed.
NO_TEXTS = {"contract", "manifest", "evidence", "party"}
BELOW = {"crypto", "encoding"}  # which know no documents


@cache
def annotated():
    """(place, name, annotation) of every field and argument that says what it is."""
    out = []
    for source in product():
        if source.package in BELOW:
            continue
        for node in source.nodes:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                out.append((source, node.target.id, ast.unparse(node.annotation)))
            elif isinstance(node, ast.arg) and node.annotation is not None:
                out.append((source, node.arg, ast.unparse(node.annotation)))
    return out


@pytest.mark.parametrize("name", sorted(TYPES))
def test_what_is_called_by_an_identifier_s_name_has_its_type(name):
    assert hasattr(identifiers, TYPES[name])
    found = [(source.name, kind) for source, called, kind in annotated() if called == name]
    cli = [one for one in found if one[0].startswith("strongroom/cli")]
    strays = [one for one in found if one not in cli and one[1].removesuffix(" | None") != TYPES[name]]
    assert strays == []


def test_no_document_s_name_is_given_to_a_text():
    strays = [
        (source.name, called)
        for source, called, kind in annotated()
        if called in NO_TEXTS and source.package != "cli" and kind.removesuffix(" | None") == "str"
    ]
    assert strays == []
