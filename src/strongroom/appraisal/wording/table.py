"""The sentences of every check, by its name; see `sentences`. Data's forms and meanings are in docs/verdicts.md.

Texts may be changed at any time. Codes (`unsigned`) may not: records hold them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.appraisal import profiles
from strongroom.appraisal.wording import fitness
from strongroom.appraisal.wording.form import Phrases, Wording, plain
from strongroom.model import check_names

if TYPE_CHECKING:
    from strongroom.model.verdict import Check, Data

BROKER = "docs/verdicts.md, The broker's own checks"
OWN = "docs/contracts.md, A broker serves its own party"
VERSIONS = "docs/contracts.md, Versions"
WITHDRAWING = "docs/brokers.md, Taking back"
TERMS = "docs/verdicts.md, The contract's terms"
EVIDENCE = "docs/verdicts.md, The evidence"
PLATFORM = "docs/verdicts.md, The platform"
DEVICES = "docs/verdicts.md, Attached devices"
RULES = "docs/policy.md, Rules"
ALLOWANCES = "docs/policy.md, Allowances"
NEVER = "docs/policy.md, What no policy can allow"
PROFILES = "docs/policy.md, Profiles"
ENDORSEMENTS = "docs/endorsements.md, In a broker"

_MISSING: Phrases = {None: "no such claim"}
_HARDWARE: Phrases = {
    "hardware": "hardware",
    "any": "hardware, or software standing in",
    "software": "software standing in for hardware",
}
_DEBUG: Phrases = {False: "debug off", True: "debug on"}
_ONE_DEVICE = "one device that is not as the parties agreed fails the room"
_DEVICE_CODES = {"debug-on": "debug on", "software": "software standing in for hardware"}
_UNUSED = "a nonce of this broker, unused and in time"


def _names(value: Data) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _still_to_sign(check: Check) -> str:
    asked = _names(check.expected.get("of")) if isinstance(check.expected, dict) else []
    signed = _names(check.got)
    missing = ", ".join(name for name in asked if name not in signed) or "more of the parties"
    return f"still to sign: {missing} (`strongroom contract sign`)"


def _version_hint(check: Check) -> str:
    known = check.expected.get("version") if isinstance(check.expected, dict) else 0
    first = check.got.get("from") if isinstance(check.got, dict) else 0
    if not isinstance(known, int) or not isinstance(first, int) or first <= known + 1:
        return "a later version was admitted, or another contract has that id and version: ask for the latest"
    span = str(first - 1) if first == known + 2 else f"{known + 1} to {first - 1}"
    return (
        f"bring the signed version {span}: `strongroom run … --earlier FILE`, or the broker's owner admits it "
        "(`strongroom broker admit`)"
    )


def _broken(check: Check) -> str:
    reasons = (f"{line}: {profiles.BROKEN[line]}" for line in _names(check.got) if line in profiles.BROKEN)
    return next(reasons, "the claims name no product line")


def _denied_line(check: Check) -> str:
    return "the parties deny this product line" if check.got else "the claims name no product line"


def _fact(check: Check) -> str:
    return "the claims have no such fact" if check.got is None else "the fact is not as the parties demand"


def _component(check: Check) -> str:
    """What to update, from a component's name: `committed.microcode` is the microcode."""
    if check.got is None:
        return "the claims have no such component"
    which, _, component = check.name.removeprefix(check_names.PLATFORM_TCB).partition(".")
    if which == "launch":
        return f"update {component}, and start the room again"
    return f"update {component or which}" + (", and commit it" if which == "committed" and component else "")


def _listed_machines(value: Data) -> str:
    if isinstance(value, dict) and "wide" in value:
        return f"{plain(value['wide'])}, which is no single one"
    return f"{plain(value.get('listed'))} listed" if isinstance(value, dict) else plain(value)


def _age(check: Check) -> str:
    return "this TEE states no time: its freshness is the nonce's" if check.got is None else "attest again"


def _devices(value: Data) -> str:
    """{"of": devices, "failed": how many of them, "first": {index: what is wrong with it}}."""
    if not isinstance(value, dict):
        return plain(value)
    if not value.get("failed"):
        return f"all {plain(value.get('of'))}"
    first = value.get("first")
    faults = first.items() if isinstance(first, dict) else ()
    faults_told = "; ".join(f"device {index}: {_device(fault)}" for index, fault in faults)
    return f"{plain(value['failed'])} of {plain(value.get('of'))}: {faults_told}"


def _device(fault: Data) -> str:
    if isinstance(fault, dict) and {"differ", "of", "register", "got", "expected"} <= fault.keys():
        counted = f"{plain(fault['differ'])} of {plain(fault['of'])} registers differ"
        compared = f"{plain(fault['got'])}, expected {plain(fault['expected'])}"
        return f"{counted}, {plain(fault['register'])} first: {compared}"
    return _DEVICE_CODES.get(fault, fault) if isinstance(fault, str) else plain(fault)


TABLE: dict[str, Wording] = {
    **fitness.TABLE,
    # What a broker asks before all else.
    check_names.OWN_SIGNATURE: Wording(
        expected={"": "a signature of {it}, this broker's own party"},
        got={None: "none that verifies"},
        hint="that party signs these exact bytes first (`strongroom contract sign`); a key that was rotated signs for nobody",
        source=OWN,
    ),
    check_names.OWN_ENTRY: Wording(
        expected={"": "as in this broker's own party file: {it}"},
        got={None: "no party with its key"},
        hint="make the contract from the party file that `strongroom broker init` or `rotate-keys` wrote last",
        source=OWN,
    ),
    check_names.OWN_DISK: Wording(
        expected={"disk": "a disk that this broker's party owns"},
        got={"disk": "a disk that this broker's party owns", None: "none: it has nothing to give"},
        hint="rooms ask the brokers of those who own the image or a dataset, and no others",
        source=OWN,
    ),
    # The broker's own checks.
    check_names.NONCE_FRESH: Wording(
        expected={"unused": _UNUSED},
        got={
            "unused": _UNUSED,
            "unknown": "a nonce that this broker did not make for this contract",
            "used": "a nonce that was used before",
            "": "a nonce that expired at {expired}",
        },
        hint="ask for a challenge and attest afresh; evidence is good for one release",
        source=BROKER,
    ),
    check_names.NONCE_CONTRACT: Wording(
        got={None: "no nonce"},
        hint="the challenge was for another contract; ask for one under this contract",
        source=BROKER,
    ),
    check_names.REQUEST_ROLE: Wording(
        expected={"": "a room of the contract in which the owner has a disk: {it}"},
        got={"": "{it}"},
        hint="a node starts each room as one of the contract's; this broker's owner has no disk in that one",
        source=BROKER,
    ),
    check_names.CONTRACT_WITHDRAWN: Wording(
        expected={"no": "a contract that its owner has not withdrawn here"},
        got={"no": "not withdrawn", "yes": "withdrawn by its owner, every version of it"},
        hint="nothing is released under it any more; the parties may sign a new contract, with another id",
        source=WITHDRAWING,
    ),
    check_names.CONTRACT_PAUSED: Wording(
        expected={"no": "a contract and a room that the owner has not paused here"},
        got={"no": "not paused", "yes": "paused by its owner"},
        hint="the broker's owner takes it back by `strongroom broker resume`; until then nothing is released or renewed",
        source=WITHDRAWING,
    ),
    check_names.CONTRACT_EARLIER: Wording(
        expected={"": "earlier versions of {id} with the same disk owners, each signed by {signer}"},
        got={"all": "those alone", "": "file {file}: {fault}"},
        hint="bring the signed files of the versions before this one, and nothing else",
        source=VERSIONS,
    ),
    check_names.CONTRACT_VERSION: Wording(
        expected={
            None: "version 1, as nothing of it is known here, or a later one with all before it",
            "": "version {version}, {digest}, or a later one with all between",
        },
        got={"": "version {version}, {digest}, with all from version {from} on"},
        hint=_version_hint,
        source=VERSIONS,
    ),
    check_names.CONTRACT_REPLACES: Wording(
        hint="each version replaces exactly the one before it, which is known here", source=VERSIONS
    ),
    check_names.RUN_UNIQUE: Wording(
        expected={None: "a room that got no keys before"},
        got={None: "a room that got no keys before", "": "{it}, released before"},
        hint="a room gets its keys once; start another room",
        source=BROKER,
    ),
    check_names.RUN_RELEASED: Wording(
        expected={"": "{it}, with its keys from this broker, and running"},
        got={
            None: "a run that no keys were released to under this contract, for that room",
            "ended": "a run whose last receipt is recorded",
            "": "{it}, running",
        },
        hint="a room renews what this broker released to it, by the same signing key; start another room",
        source=BROKER,
    ),
    check_names.CERTIFICATE_NAMES: Wording(
        expected={None: "no names, as no certificate is agreed", "": "names out of: {it}"},
        got={None: "no names"},
        hint="names come from the contract alone; ask for those or fewer",
        source=BROKER,
    ),
    check_names.CERTIFICATE_KEY: Wording(
        expected={"": "a request by the TLS key that the evidence is bound to, {it}"},
        hint="sign the request with the attested TLS key",
        source=BROKER,
    ),
    check_names.CERTIFICATE_KIND: Wording(
        expected={None: "no key, as no certificate is agreed", "": "a TLS key of the kind {it}"},
        got={"unknown": "a key of a kind that no certificate is issued for"},
        hint="the room makes the key that the contract says: run it by the base and the program of one version",
        source=BROKER,
    ),
    check_names.KEYS_PRESENT: Wording(
        expected={"all": "every disk of this owner known here, with its key"},
        got={"all": "all known", "": "not known: {missing}"},
        hint="the owner adds it: `strongroom broker add-key DIR MANIFEST [KEY.age]`",
        source=BROKER,
    ),
    check_names.ENDORSEMENTS_FOUND: Wording(
        expected={"current": "what the hardware's vendor says of it, current and signed"},
        got={None: "none needed", "": "{it}"},
        hint="the vendor has none for this machine, or what came is not sound",
        source=ENDORSEMENTS,
    ),
    check_names.ENDORSEMENTS_SIZE: Wording(
        expected={"": "at most {it} bytes of endorsements"},
        got={"": "{it} bytes"},
        hint="more than any vendor's come to: leave out what the room's verifiers do not read",
        source=ENDORSEMENTS,
    ),
    check_names.VERDICT_GATES: Wording(
        expected={"asked": "a check that was made before"},
        got={"not-asked": "none that decides"},
        hint="a defect of the caller: it asked for a verdict before it had checked anything",
        source=BROKER,
    ),
    check_names.VERDICT_LIFETIME: Wording(
        expected={"": "an end after {it}"},
        hint="the contract has ended, or the lifetime given is not positive; the parties may sign a version with a later end",
        source=TERMS,
    ),
    # The contract's terms.
    check_names.CONTRACT_APPROVALS: Wording(
        expected={"": "signatures of at least {threshold} of {of}"},
        got={None: "nobody's", "": "those of {it}"},
        hint=_still_to_sign,
        source=TERMS,
    ),
    check_names.CONTRACT_APPROVAL_BY: Wording(
        expected={
            "owner": "the signature of {name}, who owns a disk",
            "simulated": "the signature of {name}, since a platform is simulated, which every party signs",
        },
        got={"signed": "signed", "unsigned": "not signed, or the signature does not verify"},
        hint="{name} signs these exact bytes (`strongroom contract sign`)",
        source=TERMS,
    ),
    check_names.CONTRACT_VALIDITY: Wording(
        expected={"": "from {not_before} until before {not_after}"},
        hint="wait, or let the parties sign a version with other dates",
        source=TERMS,
    ),
    check_names.CONTRACT_RUNS: Wording(
        expected={"": "fewer than {it} runs so far"},
        got={"": "{it} runs so far"},
        hint="the permitted runs are used up; the parties may sign a version with more",
        source=TERMS,
    ),
    # The evidence.
    check_names.EVIDENCE_VERIFIED: Wording(
        expected={
            None: "evidence that verifies and is bound to this request",
            "": "{it} evidence that verifies and is bound to this request",
        },
        got={"not-judged": "not looked at, since a check before it failed", "": "verified"},
        hint="settle the failed checks above first",
        source=EVIDENCE,
    ),
    check_names.EVIDENCE: Wording(
        expected={None: "evidence that passes this check of its verifier"},
        got={None: "evidence that does not: whoever brought it was told why"},
        hint="the evidence does not prove what it must; attest again on a sound platform",
        source=EVIDENCE,
    ),
    check_names.BINDING_CONTRACT: Wording(
        hint="the evidence was made under another contract: start the room with the signed one",
        source=EVIDENCE,
    ),
    # The platform.
    check_names.PLATFORM_TEE: Wording(
        expected={None: "a platform with a reference in the contract"},
        hint="the contract names another kind of room, or none; an empty list accepts nothing",
        source=PLATFORM,
    ),
    check_names.PLATFORM_SIMULATED: Wording(
        expected=_HARDWARE,
        got=_HARDWARE,
        hint="only a platform with `simulated: true` accepts this root, and every party signs that",
        source=NEVER,
    ),
    check_names.PLATFORM_DEBUG: Wording(
        expected=_DEBUG,
        got=_DEBUG,
        hint="the host may look into a room in debug mode; no contract accepts that",
        source=NEVER,
    ),
    check_names.PLATFORM_MEMORY_GUARD: Wording(
        expected={"on": "memory guard on", "any": "memory guard on or off"},
        got={"on": "memory guard on", "off": "memory guard off"},
        hint="start the room with its memory guard on",
        source=PLATFORM,
    ),
    check_names.PLATFORM_ROOT: Wording(
        hint="the attestation key is certified by an authority that the contract does not name; the parties may sign a version that does",
        source=PLATFORM,
    ),
    check_names.PLATFORM_MACHINE: Wording(
        expected={"any": "any machine"},
        hint="genuine evidence, but of a machine that the contract does not list; the parties may sign a version that does",
        source=PLATFORM,
    ),
    check_names.PLATFORM_REFERENCE: Wording(
        expected={"": "at most {it} registers"},
        hint="the contract's reference names registers that no room has: make it with `strongroom measure`",
        source=PLATFORM,
    ),
    check_names.PLATFORM_REGISTER: Wording(
        expected={
            None: "a reference value in the contract",
            "contract": "the contract's digest",
            "any": "any value: the parties signed that they do not compare it",
        },
        hint=lambda check: (
            "the contract's reference does not name this register, so that no value is good"
            if check.expected is None
            else "the room's value is not the one that the parties signed for: compare with `strongroom measure diff`"
        ),
        source=PLATFORM,
    ),
    check_names.PLATFORM_CONTRACT: Wording(
        hint="the room was started under another contract, or never measured one: start it with the signed one",
        source=PLATFORM,
    ),
    # What the policy asks of the platform.
    check_names.PROFILE_MACHINES: Wording(
        expected={"single-machines": "a list of single machines"},
        got={"": _listed_machines},
        hint="against somebody with hands on the machine, name the machines whose place you trust",
        source=PROFILES,
    ),
    check_names.PROFILE_PRODUCT: Wording(
        expected={"not-broken": "a product line without a known key extraction or memory interposer"},
        got=_MISSING,
        hint=_broken,
        source=PROFILES,
    ),
    check_names.PROFILE_ALLOWANCES: Wording(
        expected={None: "nothing waived, and every register compared"},
        got={None: "nothing waived"},
        hint="the profile `strict` stands no such allowance",
        source=PROFILES,
    ),
    check_names.PLATFORM_STATUS: Wording(
        expected={None: "a status that is not there, as the policy accepts none"},
        got=_MISSING,
        hint="update the platform's firmware and microcode, or let the parties accept the status until a date",
        source=ALLOWANCES,
    ),
    check_names.PLATFORM_ADVISORY: Wording(
        expected={None: "no advisory", "": "accepted until {it}"},
        hint="read the advisory: update the platform, or let the parties accept it until a date",
        source=ALLOWANCES,
    ),
    check_names.PLATFORM_REVOCATION: Wording(
        got={"none-published": "none published", "not-asked": "not asked for"},
        hint="the verifier has no revocation lists for this evidence: fetch them; where the vendor publishes none, no policy can ask",
        source="RFC 5280, section 6.3",
    ),
    check_names.PLATFORM_VMPL: Wording(
        expected={"": "{policy}, and {strict} by the profile `strict`"},
        got=_MISSING,
        hint="the report was asked for from another privilege level of the guest: attest from the one that is demanded",
        source=profiles.SNP_REPORT,
    ),
    check_names.PLATFORM_AGE: Wording(
        expected={"": "at most {seconds} s old at {at}"},
        got={None: "no such claim", "": "made {it}"},
        hint=_age,
        source=ALLOWANCES,
    ),
    check_names.PLATFORM_DEFAULT: Wording(
        expected={"": "any value: the parties signed that they waive {waived}"},
        got=_MISSING,
        hint="demanded by default, where the parties may waive it by its name and sign that, or by the profile `strict`",
        source=lambda check: profiles.FACT_SOURCES.get(
            check.name.removeprefix(check_names.PLATFORM_DEFAULT), ALLOWANCES
        ),
    ),
    check_names.PLATFORM_FACT: Wording(got=_MISSING, hint=_fact, source=RULES),
    check_names.PLATFORM_COMPARED: Wording(
        expected={None: "every value compared with its reference"},
        got={"": "not compared: {it}"},
        hint="the verifier had no reference values of the vendor's: give them; without, it is no pass under any policy",
        source=NEVER,
    ),
    check_names.PLATFORM_TCB: Wording(
        expected={"": "at least {it}"}, got=_MISSING, hint=_component, source=RULES
    ),
    check_names.PLATFORM_PRODUCT: Wording(
        expected={"": "a product line, and none of {it}"}, got=_MISSING, hint=_denied_line, source=RULES
    ),
    # The policy's attached devices: each check asks one thing of all of them.
    check_names.DEVICES: Wording(
        expected={"": "{it} device(s)"},
        hint="every device of the room is attested and agreed on, and no other",
        source=DEVICES,
    ),
    check_names.DEVICES_DEBUG: Wording(expected=_DEBUG, got={"": _devices}, hint=_ONE_DEVICE, source=DEVICES),
    check_names.DEVICES_SIMULATED: Wording(
        expected=_HARDWARE, got={"": _devices}, hint=_ONE_DEVICE, source=DEVICES
    ),
    check_names.DEVICES_ROOT: Wording(got={"": _devices}, hint=_ONE_DEVICE, source=DEVICES),
    check_names.DEVICES_MACHINE: Wording(
        expected={"any": "any device"}, got={"": _devices}, hint=_ONE_DEVICE, source=DEVICES
    ),
    check_names.DEVICES_FACT: Wording(got={"": _devices}, hint=_ONE_DEVICE, source=DEVICES),
    check_names.DEVICES_REFERENCE: Wording(
        expected={
            None: "reference values of the device in the contract",
            "": "every register as in one of {references} reference(s) and {lists} list(s)",
        },
        got={"": _devices},
        hint=_ONE_DEVICE,
        source=DEVICES,
    ),
    check_names.DEVICES_COMPARED: Wording(
        expected={None: "every value compared with its reference"},
        got={"": _devices},
        hint=_ONE_DEVICE,
        source=DEVICES,
    ),
    # What `default_policy` asks of claims where there is neither contract nor policy.
    check_names.CLAIMS_DEBUG: Wording(
        expected=_DEBUG, got=_DEBUG, hint="the host may look in: never give secrets to it", source=NEVER
    ),
    check_names.CLAIMS_STATUS: Wording(
        expected={"not-revoked": "a status that is not Revoked"},
        got={None: "none given by this vendor"},
        hint="the vendor withdrew its word for this platform",
        source=ALLOWANCES,
    ),
    check_names.CLAIMS_SIMULATED: Wording(
        expected=_HARDWARE,
        got=_HARDWARE,
        hint="the root is not a pinned vendor's: software stands in for hardware, which proves nothing to others",
        source=NEVER,
    ),
    check_names.CLAIMS_SERVICE_TD: Wording(
        expected={None: "no service TD bound (all zero)"},
        hint="another trust domain may act on this one: judge it too",
        source="Intel TDX Module 1.5 ABI, TDREPORT",
    ),
    check_names.CLAIMS_SEPT_VE: Wording(
        expected={True: "SEPT_VE_DISABLE set"},
        got={True: "set", False: "not set"},
        hint="the host may inject faults for pages that it takes away",
        source=profiles.TDX_ATTRIBUTES,
    ),
}
