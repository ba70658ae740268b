"""NVIDIA GPUs (Hopper, Blackwell and later) and NVSwitches (LS10): signed measurements → Claims of a device.

Specs: DMTF DSP0274 1.1 (SPDM); NVIDIA attestation SDK and nvtrust (opaque fields, FWID, chain); RFC 5280;
TCG DICE Attestation Architecture (FWID). A device stands beside a CPU's evidence: see `attached.py`.

Checked here, in this order (numbers recur at the code; a failure is named in EvidenceRefused.check):
  1 parts        exactly report and certificates, nothing over its size; endorsements: none, or an OCSP answer about
                 each certificate between the device's own and the root
  2 chain.*      the device's certificate leads over its identity and NVIDIA's authorities to one of `roots`,
                 and names its chip; where there are OCSP answers, each is its issuer's, in date,
                 and says that the certificate is good
  3 signature    ECDSA P-384 over request and response by the certificate's key; r and s in range
  4 binding      the nonce in the signed request is the one of `binding`
  5 fwid         the firmware in the certificate is the firmware that the report names, where it names one

Not checked here: measurements, driver and firmware versions. Those are policy (strongroom/appraisal): the parties'
own reference values, since NVIDIA's (RIM) are not read: facts.rim says "not compared", and facts.ocsp does where no
answers were given. Not checked anywhere: see NOT_CHECKED below.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from strongroom.crypto.pki import ocsp, x509
from strongroom.errors import EvidenceRefused, Refused
from strongroom.evidence import roots as pinned
from strongroom.evidence.formats import nvgpu_dice, nvgpu_spdm
from strongroom.model.claims import Claims

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.crypto import public_key
    from strongroom.evidence.formats.nvgpu_spdm import GpuReport
    from strongroom.model.binding import Bound
    from strongroom.model.endorsements import Endorsements
    from strongroom.model.evidence import Evidence

TEE = "nvgpu"
PARTS = {
    "certificates": x509.MAX_PATH * x509.MAX_CERTIFICATE,
    "report": nvgpu_spdm.MAX_REPORT,
}
NOT_COMPARED = "not compared"
GOOD = "good"
OCSP = "ocsp-"
"""With its place in `certificates`, the endorsement that is an OCSP answer about that certificate."""

NOT_CHECKED = (
    "measurements against NVIDIA's reference values (RIM): not compared here, so that firmware and driver may be any",
    "developer mode: it shows in the measurements alone, which were not compared here",
    "that the device sits in this machine: the nonce shows that it answered for this binding and no more",
)
NOT_ASKED = "revocation: NVIDIA tells it by OCSP, and no answers were given"

_SPDM = "DMTF DSP0274 1.1, section 10.11"
_NVIDIA = "NVIDIA attestation SDK"
_OCSP = "RFC 6960, section 3.2"
# By how NVIDIA's names of chips begin. A name is no gate: who certified the device is, and a name that is not known becomes a fact as it is.
_FAMILIES = {"GH": "Hopper", "GB": "Blackwell", "LS": "NVSwitch"}
UNKNOWN = "unknown"
UNKNOWN_NAME = (
    "which family of devices this is: NVIDIA certified it under a name that this version does not know"
)
_MIN_PATH = 3  # device, chip identity, root at least
_NAME = re.compile(r"[A-Z][A-Za-z0-9_-]{1,31}")
_FWID_FIELD = 20
_VBIOS_FIELD = 6
_TEXTS = {
    3: "driver_version",
    15: "chip_sku",
    16: "chip_sku_mod",
    17: "project",
    18: "project_sku",
    19: "project_sku_mod",
}
_HEXES = {
    4: "gpu_info",
    12: "measurement_counts",
    13: "cpr_info",
    14: "board_id",
    20: "fwid",
    22: "switch_pdis",
    23: "disabled_ports",
    24: "position_id",
    25: "lock_status",
    26: "gpu_pdis",
    32: "gpu_link_connections",
    33: "system_enable_status",
    34: "opaque_version",
    35: "chip_info",
    36: "feature_flag",
}
_SWITCHES = {11: "nvdec0", 21: "protected_pcie"}
_STATES = {b"\x55": "disabled", b"\xaa": "enabled"}
_CHAIN_CHECKS = {
    "untrusted-root": "chain.root",
    "expired": "chain.validity",
    "not-yet-valid": "chain.validity",
}


def verify(
    evidence: Evidence,
    endorsements: Endorsements,
    *,
    binding: Bound,
    roots: frozenset[str],
    now: datetime,
) -> Claims:
    """Claims of a device. Raises `EvidenceRefused`, or `Malformed` when a part does not parse."""
    # 1 parts
    _check_parts(evidence, endorsements)
    report = nvgpu_spdm.parse(evidence.parts["report"])
    # 2 chain
    path = _chain(evidence.parts["certificates"], roots, now)
    model = _model(path.leaf)
    status = _status(path, endorsements, roots, now)
    # 3 signature
    _check_signature(report, path.leaf.key)
    # 4 binding
    expected = binding.value("nonce")
    if report.nonce != expected:
        raise EvidenceRefused(
            "binding",
            expected=expected.hex(),
            got=report.nonce.hex(),
            hint="the device answered another binding: evidence of another machine or of an earlier time",
            source="docs/verdicts.md, What evidence is bound to",
        )
    # 5 fwid
    dice = _check_fwid(report, path.leaf)
    return _claims(report, path, model, dice, status)


def _check_parts(evidence: Evidence, endorsements: Endorsements) -> None:
    if evidence.parts.keys() != PARTS.keys() or not all(name.startswith(OCSP) for name in endorsements.parts):
        raise EvidenceRefused(
            "parts",
            expected=", ".join(PARTS) + ", and no endorsements but OCSP answers",
            got=", ".join(sorted((*evidence.parts, *endorsements.parts)))[:400] or "nothing",
            hint="give exactly these parts, each under its name",
        )


def _chain(certificates: bytes, roots: frozenset[str], now: datetime) -> x509.Path:
    """The device's certificate first, the root last."""
    leaf, *issuers = x509.split(certificates)
    try:
        path = x509.verify_path(leaf, b"".join(issuers), roots=roots, purpose=None, now=now)
        if len(path.certificates) < _MIN_PATH:
            raise Refused("no chip identity between device and root", code="bad-chain")
        return path
    except Refused as cause:
        raise EvidenceRefused(
            _CHAIN_CHECKS.get(cause.code, "chain.path"),
            expected="a device's certificate, in date, that leads to one of " + ", ".join(sorted(roots)[:4]),
            got=cause.message,
            source="RFC 5280, section 6",
        ) from None


def _status(path: x509.Path, endorsements: Endorsements, roots: frozenset[str], now: datetime) -> str:
    """What the issuers say of the certificates below the root. The device issued its own, of which nobody keeps a list."""
    asked = {f"{OCSP}{place}": place for place in range(1, len(path.certificates) - 1)}
    if not endorsements.parts:
        return NOT_COMPARED
    if endorsements.parts.keys() != asked.keys():
        raise EvidenceRefused(
            "chain.revocation",
            expected=", ".join(asked),
            got=", ".join(sorted(endorsements.parts))[:400],
            hint="an OCSP answer about each certificate between the device's own and the root, or none at all",
            source=_OCSP,
        )
    for name, place in asked.items():
        try:
            answer = ocsp.parse(endorsements.parts[name])
            above = path.certificates[place + 1 :]
            ocsp.check_good(answer, path.certificates[place], above, roots=roots, now=now)
        except Refused as cause:
            raise EvidenceRefused(
                "chain.revocation",
                expected=f"an answer of its issuer's, in date, that {path.certificates[place].subject} is good",
                got=cause.message,
                hint="ask the issuer anew; a certificate that was taken back, or is on hold, does not count",
                source=_OCSP,
            ) from None
    return GOOD


def _model(leaf: x509.Certificate) -> str:
    """The chip that the certificate is for: the first word of its common name."""
    for part in leaf.subject.split(","):
        if part.startswith("CN=") and _NAME.fullmatch(name := part[3:].split(" ")[0]):
            return name
    raise EvidenceRefused(
        "chain.model",
        expected="a certificate whose common name begins with that of a chip, such as GH100 or GB20X",
        got=leaf.subject,
        hint="the certificate is no device's",
        source=_NVIDIA,
    )


def _check_signature(report: GpuReport, key: public_key.PublicKey) -> None:
    try:
        if key.kind != "secp384r1":
            raise Refused(f"the key is {key.kind}", code="wrong-key")
        key.verify_ecdsa(report.signature, report.signed)
    except Refused as cause:
        raise EvidenceRefused(
            "signature",
            expected="an ECDSA P-384 signature over request and response by the device's key",
            got=cause.message,
            source=_SPDM,
        ) from None


def _check_fwid(report: GpuReport, leaf: x509.Certificate) -> nvgpu_dice.Dice:
    """What the device's certificate says. Reports of older drivers name no firmware; then nothing can differ."""
    values = [value for oid in nvgpu_dice.OIDS if (value := leaf.extension(oid)) is not None]
    dice = nvgpu_dice.parse(values[-1]) if values else nvgpu_dice.NONE
    named = report.opaque.get(_FWID_FIELD)
    if named is not None and named != dice.fwid:
        raise EvidenceRefused(
            "fwid",
            expected=f"the certificate's firmware, {dice.fwid.hex() or 'none'}",
            got=named.hex() or "nothing",
            hint="the report is of other firmware than the one that the key was certified for",
            source=f"{_NVIDIA}; TCG DICE Attestation Architecture",
        )
    return dice


def _claims(report: GpuReport, path: x509.Path, model: str, dice: nvgpu_dice.Dice, status: str) -> Claims:
    root = path.root.spki_digest
    identity = path.certificates[1]
    family = _FAMILIES.get(model[:2], UNKNOWN)
    not_checked = (
        *NOT_CHECKED,
        *(() if status == GOOD else (NOT_ASKED,)),
        *((UNKNOWN_NAME,) if family == UNKNOWN else ()),
    )
    facts: dict[str, str | int | bool] = {
        "model": model,
        "family": family,
        "rim": NOT_COMPARED,
        "ocsp": status,
        "debug_mode": NOT_COMPARED,
        "measurements": len(report.measurements),
        "certified_fwid": dice.fwid.hex(),
        "certified_flags": dice.flags.hex(),
        "fwid_reported": _FWID_FIELD in report.opaque,
        "nonce": report.nonce.hex(),
        "responder_nonce": report.responder_nonce.hex(),
        "device_subject": path.leaf.subject,
        "identity_subject": identity.subject,
        "root_subject": path.root.subject,
    }
    for number, value in report.opaque.items():
        name, shown = _shown(number, value)
        facts[name] = shown
    return Claims(
        tee=TEE,
        simulated=not pinned.is_hardware(TEE, root),
        root=root,
        # The key of the chip itself; the device's own key changes with its firmware.
        machine=identity.spki_digest,
        contract_digest=None,
        registers={f"m{index}": value.hex() for index, value in report.measurements.items()},
        # Blackwell's certificates have a flag for it. Otherwise it shows in measurements alone.
        debug=dice.debug,
        memory_guard=False,
        facts=facts,
        not_checked=not_checked,
    )


def _shown(number: int, value: bytes) -> tuple[str, str]:
    """A field's name, and its value for people. A field that is not known is shown in hexadecimal."""
    if number in _TEXTS:
        text = value.rstrip(b"\0")
        shown = text.decode("ascii") if text.isascii() else ""
        return _TEXTS[number], shown if shown.isprintable() and text.isascii() else value.hex()
    if number in _SWITCHES:
        return _SWITCHES[number], _STATES.get(value, value.hex())
    if number == _VBIOS_FIELD:
        return "vbios_version", _vbios(value)
    return _HEXES.get(number, f"opaque_{number}"), value.hex()


def _vbios(value: bytes) -> str:
    """A GPU gives 8 bytes, "96.00.AF.00.01" as 00 AF 00 96 and 01 00 00 00; a switch gives that text."""
    if len(value) == 8:
        return ".".join(f"{byte:02X}" for byte in (value[3], value[2], value[1], value[0], value[4]))
    text = value.rstrip(b"\0")
    return text.decode("ascii") if text.isascii() and text.decode("ascii").isprintable() else value.hex()
