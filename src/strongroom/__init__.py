"""Strongroom: run one party's program over another party's data where neither, nor the operator, can look.

The library (docs/library.md): `from strongroom import seal_files, convert_image, draft_contract, sign_contract, run_contract, open_sealed,
export_proof, verify_proof, judge_evidence, predict_room`, and more, and the types that these take and return. Each is what the command line calls. A name is imported when it is first asked for:
`import strongroom` costs nothing. `__init__.pyi` has the same names for type checkers.
"""

__version__ = "0.1.0"

_NAMES = {
    "strongroom.bases.measure.predict": ("MachineShape", "Prediction"),
    "strongroom.dryrun.trial": ("TrialTerms", "TriedImage", "try_image"),
    "strongroom.errors": (
        *("Conflict", "Malformed", "Misuse", "NotFound"),
        *("PolicyDenied", "Refused", "StrongroomError", "Unavailable"),
    ),
    "strongroom.fetch.brokers": ("ask_result",),
    "strongroom.fetch.endorsements.fetch": (
        *("choose_vendors", "export_endorsements", "fetch_endorsements"),
        *("import_endorsements", "open_library"),
    ),
    "strongroom.fetch.endorsements.resolve": ("Fetcher",),
    "strongroom.fetch.images": ("convert_image", "preflight_image"),
    "strongroom.fetch.references": ("open_reader", "verify_reference"),
    "strongroom.images.convert": ("ConvertedImage",),
    "strongroom.ledger.export": ("export_proof", "load_proof", "verify_proof"),
    "strongroom.ledger.inspect": ("Judgement",),
    "strongroom.ledger.proofpack": ("ProofPack",),
    "strongroom.model.binding": ("Preset",),
    "strongroom.model.contracts.agreement": ("Agreement",),
    "strongroom.model.contracts.contract": ("Contract", "Disclosure", "Member", "Platform", "Role"),
    "strongroom.model.contracts.room_terms": ("Output",),
    "strongroom.model.identifiers": ("PartyName",),
    "strongroom.model.identity": ("Identity",),
    "strongroom.model.manifest": ("Manifest",),
    "strongroom.model.party": ("Party",),
    "strongroom.model.verification": ("Verification",),
    "strongroom.node.predict": ("predict_room",),
    "strongroom.node.run": ("FailedRun", "FinishedRun", "Watch", "run_contract"),
    "strongroom.parties.check": ("Outlook", "check_contract"),
    "strongroom.parties.draft": (
        *("Draft", "NodeDescription", "RoomDraft", "draft_contract"),
        *("hardware_platforms", "load_node", "local_platform"),
    ),
    "strongroom.parties.evidence": (
        *("JudgedEvidence", "PolicyFiles", "forecast_evidence"),
        *("judge_evidence", "show_evidence"),
    ),
    "strongroom.parties.identity": ("NewIdentity", "new_identity"),
    "strongroom.parties.open": ("open_sealed",),
    "strongroom.parties.papers": ("load_agreement", "load_party", "open_identity", "save_agreement"),
    "strongroom.parties.release": ("sign_reference",),
    "strongroom.parties.result": ("verify_result", "write_result"),
    "strongroom.parties.sign": ("Review", "merge_contracts", "review_contract", "sign_contract"),
    "strongroom.seal.dataset": ("SealedFiles", "inspect_disk", "seal_files", "verify_disk"),
    "strongroom.tunnel.connect": ("RoomConnection", "connect"),
}
_PLACES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = sorted((*_PLACES, "__version__"))  # noqa: PLE0605 - made of the table above, and held to __init__.pyi by a test


def __getattr__(name: str) -> object:
    """The library's names, imported when they are first asked for (PEP 562)."""
    module = _PLACES.get(name)
    if module is None:
        raise AttributeError(f"module 'strongroom' has no attribute {name!r}")
    import importlib  # noqa: PLC0415 - most who import this ask for no name

    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """All names, imported or not."""
    return sorted({*globals(), *_PLACES})
