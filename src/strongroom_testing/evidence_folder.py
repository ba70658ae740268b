"""A folder of evidence files for the command line: a TDX platform of a fake Intel, an SNP guest of a fake AMD.

`python -m strongroom_testing.evidence_folder DIR` writes them as of `NOW`, bound to 64 bytes of 0xab. Of the quote
also in hexadecimal, base64, PEM, gzip and other programs' JSON; endorsements of then, and newer ones, by which the
platform is behind; policies that accept both platforms; a signed file of reference values with its signer.
"""

from __future__ import annotations

import base64
import gzip
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strongroom.appraisal import intoto
from strongroom.appraisal.reference import values
from strongroom.encoding import pem
from strongroom.evidence import verify
from strongroom.model import identity
from strongroom.model.binding import Preset
from strongroom_testing.vendors import fake_intel
from strongroom_testing.vendors.fake_amd import FakeAmd
from strongroom_testing.vendors.fake_intel import FakeIntel

if TYPE_CHECKING:
    from strongroom.model.claims import Claims
    from strongroom.model.endorsements import Endorsements

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(days=20)
REPORT_DATA = b"\xab" * 64
BINDING = Preset(values={"report_data": REPORT_DATA})


def newer(intel: FakeIntel, *, at: datetime = LATER) -> Endorsements:
    """Collateral of `at`, by which the platform's microcode and quoting enclave are out of date."""
    intel.now = at
    current = intel.endorsements()
    components = bytes([fake_intel.COMPONENTS[0] + 1]) + fake_intel.COMPONENTS[1:]
    best = fake_intel.level(components, fake_intel.PCE_SVN, fake_intel.TEE_TCB_SVN, "UpToDate")
    best["tcb"]["sgxtcbcomponents"][0] |= {"category": "BIOS", "type": "Early Microcode Update"}
    old = fake_intel.level(
        fake_intel.COMPONENTS, fake_intel.PCE_SVN, fake_intel.TEE_TCB_SVN, "OutOfDate", "INTEL-SA-09999"
    )
    levels = [fake_intel.svn_level(fake_intel.QE_SVN + 1, "UpToDate")]
    levels.append(fake_intel.svn_level(fake_intel.QE_SVN - 1, "OutOfDate"))
    made = intel.endorsements(tcb={"tcbLevels": [best, old]}, identity={"tcbLevels": levels})
    if current.parts.keys() != made.parts.keys():
        raise AssertionError("collateral of other parts")
    return made


def platform(claims: Claims, **policy: object) -> dict[str, object]:
    """A platform, as policy files have it, that accepts these claims."""
    contract = "" if claims.contract_digest is None else claims.contract_digest.removeprefix("sha256:")
    return {
        "tee": claims.tee,
        "simulated": True,
        "roots": [claims.root],
        "machines": [claims.machine],
        "references": [
            {name: value for name, value in claims.registers.items() if not contract or contract not in value}
        ],
        "policy": policy,
    }


def write(folder: Path) -> None:
    """Write the files."""
    folder.mkdir(parents=True, exist_ok=True)
    intel, amd = FakeIntel(now=NOW), FakeAmd(now=NOW, line="Genoa")
    quote, report = intel.evidence(BINDING), amd.evidence(BINDING)
    claims = {}
    for evidence, endorsements, root in (
        (quote, intel.endorsements(), intel.root_digest),
        (report, amd.endorsements(), amd.root),
    ):
        claims[evidence.tee] = verify.verify(
            evidence, endorsements, binding=BINDING, roots=frozenset({root}), now=NOW
        )
        (folder / f"{evidence.tee}.endorsements.json").write_bytes(endorsements.encode())
        (folder / f"{evidence.tee}.evidence.json").write_bytes(evidence.encode())
    _wrapped(folder, quote.parts["quote"])
    (folder / "report.bin").write_bytes(report.parts["report"])
    other = intel.evidence(Preset(values={"report_data": b"\xcd" * 64}))
    (folder / "other.bin").write_bytes(other.parts["quote"])
    waived = ["td_attributes.sept_ve_disable"]
    platforms = [
        platform(claims["tdx"], waived=waived),
        platform(claims["snp"], waived=["policy.migrate_ma"]),
    ]
    _policy(folder / "policy.json", platforms)
    fields = ", ".join(f'{key} = "{value}"' for key, value in claims["tdx"].registers.items())
    (folder / "policy.toml").write_text(
        f'format = "strongroom-policy/1"\nname = "test"\n[[platforms]]\ntee = "tdx"\nsimulated = true\n'
        f'roots = ["{claims["tdx"].root}"]\nmachines = ["any"]\nreferences = [{{ {fields} }}]\n'
        f'[platforms.policy]\nwaived = ["{waived[0]}"]\n[platforms.policy.tcb]\n"qe.svn" = {fake_intel.QE_SVN}\n'
    )
    _policy(folder / "minimum.json", [platform(claims["snp"], tcb={"committed.snp": 255})])
    bare = platform(claims["tdx"], waived=waived)
    _references(folder, claims["tdx"])
    _policy(folder / "bare.json", [{**bare, "references": []}])
    (folder / "newer.endorsements.json").write_bytes(newer(intel).encode())


def _policy(path: Path, platforms: list[dict[str, object]]) -> None:
    path.write_text(json.dumps({"format": "strongroom-policy/1", "name": "test", "platforms": platforms}))


def _references(folder: Path, claims: Claims) -> None:
    maker = identity.generate("maker")
    (folder / "maker.party.json").write_bytes(maker.party().encode())
    (folder / "stranger.party.json").write_bytes(identity.generate("stranger").party().encode())
    told: dict[str, Any] = {
        "name": "guest-7",
        "issued": NOW - timedelta(days=1),
        "expires": NOW + timedelta(days=90),
    }
    platform = values.Reference(
        **told, profile="it", tee=claims.tee, references=(dict(claims.registers),), tcb={"qe.svn": 1}
    )
    made = values.ReferenceRelease(
        **told,
        version=1,
        subjects=(intoto.InTotoSubject(name="it/bzImage", digest="sha256:" + "1" * 64),),
        platforms=(platform,),
    )
    (folder / "guest.reference.json").write_bytes(
        made.statement().sign(maker.signing, keyid=maker.party().keyid)
    )


def _wrapped(folder: Path, quote: bytes) -> None:
    text = base64.b64encode(quote).decode()
    files: dict[str, bytes] = {
        "quote.bin": quote,
        "quote.hex": b"0x" + quote.hex().encode() + b"\n",
        "quote.b64": text.encode(),
        "quote.b64url": base64.urlsafe_b64encode(quote).rstrip(b"="),
        "quote.pem": pem.encode(quote, b"TDX QUOTE"),
        "quote.gz": gzip.compress(quote),
        "trustee.json": json.dumps({"tee": "tdx", "evidence": {"quote": text, "cc_eventlog": None}}).encode(),
        "string.json": json.dumps({"evidence": json.dumps({"quote": quote.hex()})}).encode(),
        "numbers.json": json.dumps({"quote": list(quote)}).encode(),
        "nothing.json": json.dumps({"quote": "not really"}).encode(),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("expected one argument: the folder to write")
    write(Path(sys.argv[1]))
