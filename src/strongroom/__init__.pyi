# The library's names for type checkers: those of `__init__.py`, with where each is.

from strongroom.bases.measure.predict import MachineShape as MachineShape
from strongroom.bases.measure.predict import Prediction as Prediction
from strongroom.dryrun.trial import TrialTerms as TrialTerms
from strongroom.dryrun.trial import TriedImage as TriedImage
from strongroom.dryrun.trial import try_image as try_image
from strongroom.errors import Conflict as Conflict
from strongroom.errors import Malformed as Malformed
from strongroom.errors import Misuse as Misuse
from strongroom.errors import NotFound as NotFound
from strongroom.errors import PolicyDenied as PolicyDenied
from strongroom.errors import Refused as Refused
from strongroom.errors import StrongroomError as StrongroomError
from strongroom.errors import Unavailable as Unavailable
from strongroom.fetch.brokers import ask_result as ask_result
from strongroom.fetch.endorsements.fetch import choose_vendors as choose_vendors
from strongroom.fetch.endorsements.fetch import export_endorsements as export_endorsements
from strongroom.fetch.endorsements.fetch import fetch_endorsements as fetch_endorsements
from strongroom.fetch.endorsements.fetch import import_endorsements as import_endorsements
from strongroom.fetch.endorsements.fetch import open_library as open_library
from strongroom.fetch.endorsements.resolve import Fetcher as Fetcher
from strongroom.fetch.images import convert_image as convert_image
from strongroom.fetch.images import preflight_image as preflight_image
from strongroom.fetch.references import open_reader as open_reader
from strongroom.fetch.references import verify_reference as verify_reference
from strongroom.images.convert import ConvertedImage as ConvertedImage
from strongroom.ledger.export import export_proof as export_proof
from strongroom.ledger.export import load_proof as load_proof
from strongroom.ledger.export import verify_proof as verify_proof
from strongroom.ledger.inspect import Judgement as Judgement
from strongroom.ledger.proofpack import ProofPack as ProofPack
from strongroom.model.binding import Preset as Preset
from strongroom.model.contracts.agreement import Agreement as Agreement
from strongroom.model.contracts.contract import Contract as Contract
from strongroom.model.contracts.contract import Disclosure as Disclosure
from strongroom.model.contracts.contract import Member as Member
from strongroom.model.contracts.contract import Platform as Platform
from strongroom.model.contracts.contract import Role as Role
from strongroom.model.contracts.room_terms import Output as Output
from strongroom.model.identifiers import PartyName as PartyName
from strongroom.model.identity import Identity as Identity
from strongroom.model.manifest import Manifest as Manifest
from strongroom.model.party import Party as Party
from strongroom.model.verification import Verification as Verification
from strongroom.node.predict import predict_room as predict_room
from strongroom.node.run import FailedRun as FailedRun
from strongroom.node.run import FinishedRun as FinishedRun
from strongroom.node.run import Watch as Watch
from strongroom.node.run import run_contract as run_contract
from strongroom.parties.check import Outlook as Outlook
from strongroom.parties.check import check_contract as check_contract
from strongroom.parties.draft import Draft as Draft
from strongroom.parties.draft import NodeDescription as NodeDescription
from strongroom.parties.draft import RoomDraft as RoomDraft
from strongroom.parties.draft import draft_contract as draft_contract
from strongroom.parties.draft import hardware_platforms as hardware_platforms
from strongroom.parties.draft import load_node as load_node
from strongroom.parties.draft import local_platform as local_platform
from strongroom.parties.evidence import JudgedEvidence as JudgedEvidence
from strongroom.parties.evidence import PolicyFiles as PolicyFiles
from strongroom.parties.evidence import forecast_evidence as forecast_evidence
from strongroom.parties.evidence import judge_evidence as judge_evidence
from strongroom.parties.evidence import show_evidence as show_evidence
from strongroom.parties.identity import NewIdentity as NewIdentity
from strongroom.parties.identity import new_identity as new_identity
from strongroom.parties.open import open_sealed as open_sealed
from strongroom.parties.papers import load_agreement as load_agreement
from strongroom.parties.papers import load_party as load_party
from strongroom.parties.papers import open_identity as open_identity
from strongroom.parties.papers import save_agreement as save_agreement
from strongroom.parties.release import sign_reference as sign_reference
from strongroom.parties.result import verify_result as verify_result
from strongroom.parties.result import write_result as write_result
from strongroom.parties.sign import Review as Review
from strongroom.parties.sign import merge_contracts as merge_contracts
from strongroom.parties.sign import review_contract as review_contract
from strongroom.parties.sign import sign_contract as sign_contract
from strongroom.seal.dataset import SealedFiles as SealedFiles
from strongroom.seal.dataset import inspect_disk as inspect_disk
from strongroom.seal.dataset import seal_files as seal_files
from strongroom.seal.dataset import verify_disk as verify_disk
from strongroom.tunnel.connect import RoomConnection as RoomConnection
from strongroom.tunnel.connect import connect as connect

__version__: str

__all__ = [
    "Agreement",
    "Conflict",
    "Contract",
    "ConvertedImage",
    "Disclosure",
    "Draft",
    "FailedRun",
    "Fetcher",
    "FinishedRun",
    "Identity",
    "JudgedEvidence",
    "Judgement",
    "MachineShape",
    "Malformed",
    "Manifest",
    "Member",
    "Misuse",
    "NewIdentity",
    "NodeDescription",
    "NotFound",
    "Outlook",
    "Output",
    "Party",
    "PartyName",
    "Platform",
    "PolicyDenied",
    "PolicyFiles",
    "Prediction",
    "Preset",
    "ProofPack",
    "Refused",
    "Review",
    "Role",
    "RoomConnection",
    "RoomDraft",
    "SealedFiles",
    "StrongroomError",
    "TrialTerms",
    "TriedImage",
    "Unavailable",
    "Verification",
    "Watch",
    "__version__",
    "ask_result",
    "check_contract",
    "choose_vendors",
    "connect",
    "convert_image",
    "draft_contract",
    "export_endorsements",
    "export_proof",
    "fetch_endorsements",
    "forecast_evidence",
    "hardware_platforms",
    "import_endorsements",
    "inspect_disk",
    "judge_evidence",
    "load_agreement",
    "load_node",
    "load_party",
    "load_proof",
    "local_platform",
    "merge_contracts",
    "new_identity",
    "open_identity",
    "open_library",
    "open_reader",
    "open_sealed",
    "predict_room",
    "preflight_image",
    "review_contract",
    "run_contract",
    "save_agreement",
    "seal_files",
    "show_evidence",
    "sign_contract",
    "sign_reference",
    "try_image",
    "verify_disk",
    "verify_proof",
    "verify_reference",
    "verify_result",
    "write_result",
]
