"""One good case of every TEE and generation, and the bytes of it that nothing signs and nothing decides on.

`IRRELEVANT` is the list that docs/unsigned-bytes.md tells in words: by case and part, which places may be changed without
refusal, why, and which facts may then be missing. Everything else of a case is refused whatever one byte of it becomes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strongroom.evidence import verify
from strongroom.model.endorsements import NONE, Endorsements
from strongroom.model.evidence import Evidence
from strongroom_testing.vendors import (
    fake_amd,
    fake_aws,
    fake_azure,
    fake_cca,
    fake_google,
    fake_intel,
    fake_nvidia,
    fake_tpm,
)
from tests import effort, samples
from tests.unit.evidence.nitro_evidence import BOUND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from strongroom.model.binding import Bound
    from strongroom.model.claims import Claims

NOW = samples.NOW


@dataclass(frozen=True, kw_only=True)
class Case:
    """Evidence that verifies, with all that it is verified with."""

    evidence: Evidence
    roots: frozenset[str]
    endorsements: Endorsements = NONE
    binding: Bound = BOUND
    parts: tuple[str, ...] = field(default=())

    def verify(self, name: str = "", data: bytes = b"") -> Claims:
        """Its claims, with one part replaced."""
        evidence, endorsements = self.evidence, self.endorsements
        if name in evidence.parts:
            evidence = Evidence(tee=evidence.tee, parts={**evidence.parts, name: data})
        elif name:
            endorsements = Endorsements(parts={**endorsements.parts, name: data})
        return verify.verify(evidence, endorsements, binding=self.binding, roots=self.roots, now=NOW)

    def part(self, name: str) -> bytes:
        return {**self.endorsements.parts, **self.evidence.parts}[name]

    def names(self) -> tuple[str, ...]:
        """The parts whose bytes are changed: `parts`, or all of them."""
        return self.parts or (*self.evidence.parts, *self.endorsements.parts)


def _intel(tee: str, version: int) -> Case:
    one = fake_intel.FakeIntel(now=NOW)
    return Case(
        evidence=one.evidence(BOUND, tee=tee, version=version),
        endorsements=one.endorsements(tee=tee),
        roots=frozenset({one.root_digest}),
    )


def _amd(line: str, *, vlek: bool = False, parts: tuple[str, ...] = ()) -> Case:
    one = fake_amd.FakeAmd(now=NOW, line=line, vlek=vlek)
    return Case(
        evidence=one.evidence(BOUND),
        endorsements=one.endorsements(),
        roots=frozenset({one.root}),
        parts=parts,
    )


def _tpm(algorithm: str) -> Case:
    one = fake_tpm.FakeTpm(now=NOW, algorithm=algorithm)
    return Case(evidence=one.evidence(BOUND), roots=frozenset({one.root}))


def _azure(kind: str) -> Case:
    one = fake_azure.FakeAzure.over(kind, now=NOW)
    evidence = one.evidence(BOUND)
    return Case(
        evidence=evidence,
        endorsements=one.endorsements(),
        roots=frozenset({one.root}),
        parts=tuple(evidence.parts),  # its endorsements are those of the hardware's own case
    )


def _gcp(algorithm: str) -> Case:
    one = fake_google.FakeGoogle(now=NOW, algorithm=algorithm)
    return Case(evidence=one.evidence(BOUND), roots=frozenset({one.root}))


TD_EVENTS = [
    fake_google.variable(fake_google._GLOBAL, "SecureBoot", b"\x01", pcr=1),
    fake_google.variable(fake_google._SECURITY, "db", b"good", pcr=1),
    fake_google.said(1, 4, bytes(4)),
    (2, 0x80000003, b"shim", b"where shim was loaded"),
    *fake_google.uki(".linux", fake_google.KERNEL, pcr=3),
]


def _ccel() -> Case:
    one = fake_intel.FakeIntel(now=NOW)
    values = fake_google.replay(TD_EVENTS, "sha384")
    body = {f"rtmr{index}": values[index + 1] for index in range(3)}
    quote = one.evidence(BOUND, tee="tdx", version=4, body=body).parts["quote"]
    log = fake_google.encode_log(TD_EVENTS, ("sha384",)) + b"\xff" * 64
    return Case(
        evidence=Evidence(tee="tdx", parts={"quote": quote, "ccel": log}),
        endorsements=one.endorsements(tee="tdx"),
        roots=frozenset({one.root_digest}),
        parts=("ccel",),
    )


def _gcp_shielded() -> Case:
    google, amd = fake_google.FakeGoogle(now=NOW), fake_amd.FakeAmd(now=NOW)
    report = amd.evidence(BOUND).parts["report"]
    return Case(
        evidence=Evidence(tee="gcp", parts={**google.evidence(BOUND).parts, "snp-report": report}),
        endorsements=amd.endorsements(),
        roots=frozenset({google.root, amd.root}),
        parts=("snp-report",),
    )


def _nitro() -> Case:
    one = fake_aws.FakeAws(now=NOW)
    return Case(evidence=one.evidence(BOUND), roots=frozenset({one.root}))


def _cca() -> Case:
    one = fake_cca.FakeCca()
    return Case(evidence=one.evidence(BOUND), endorsements=one.endorsements(), roots=frozenset({one.root}))


def _nvgpu() -> Case:
    one = fake_nvidia.FakeGpu(now=NOW)
    evidence = one.evidence(BOUND)
    return Case(evidence=evidence, endorsements=one.endorsements(evidence), roots=frozenset({one.root}))


CASES: dict[str, Callable[[], Case]] = {
    "sgx-v3": lambda: _intel("sgx", 3),
    "tdx-v4": lambda: _intel("tdx", 4),
    "tdx-v5": lambda: _intel("tdx", 5),
    "tdx-ccel": _ccel,
    "snp-milan": lambda: _amd("Milan"),
    "snp-genoa": lambda: _amd("Genoa"),
    "snp-turin": lambda: _amd("Turin"),
    "snp-vlek": lambda: _amd("Milan", vlek=True),
    "nitro": _nitro,
    "tpm-ecdsa": lambda: _tpm("ecdsa"),
    "tpm-rsa": lambda: _tpm("rsa"),
    "azure-snp": lambda: _azure("snp"),
    "azure-tdx": lambda: _azure("tdx"),
    "gcp-ecdsa": lambda: _gcp("secp256r1"),
    "gcp-rsa": lambda: _gcp("rsa"),
    "gcp-snp": _gcp_shielded,
    "cca": _cca,
    "nvgpu": _nvgpu,
}


@dataclass(frozen=True)
class Irrelevant:
    """Places of a part that nothing signs, and why.

    lost: facts that may be missing once such a byte is changed. told: facts that may be told otherwise: what they say is
    the evidence's own word, which nothing signs, or a list that may be shorter or longer. All else that is claimed is
    what the good case claims.
    """

    places: frozenset[int]
    why: str
    lost: frozenset[str] = frozenset()
    told: frozenset[str] = frozenset()


FROM_LOG = frozenset(
    {
        "firmware_version",
        "gce_technology",
        "kernel_cmdline",
        "secure_boot",
        "secure_boot_db",
        "secure_boot_dbx",
        "secure_boot_kek",
        "secure_boot_pk",
        "uki.cmdline",
        "uki.linux",
    }
)
LISTED = frozenset({"boot_applications", "event_log"})
HCL_VERSION = Irrelevant(
    frozenset({4}), "the HCL report's version, 1 or 2: both are read alike", told=frozenset({"hcl.version"})
)
TD_REPORT = Irrelevant(
    frozenset({*range(32, 32 + 128), *range(32 + 192, 32 + 1024)}),
    "of the TDREPORT all but its report data: the TD quote says the same, signed, for every machine to check",
)
LOG_REASONS = {
    "header": "a log's header: no register measures it",
    "type": "an event's type: no register measures it",
    "digest": "digests of banks other than the quoted one",
    "data": "an event's description: it counts where the measured digest is that of it, and is told no more where not",
    "length": "the length of an event's description: it may take in padding, or whole events of a register that `event_log` then names no more",
}


def irrelevant(name: str, part: str, case: Case) -> tuple[Irrelevant, ...]:
    """What may be changed in a part of a case without refusal."""
    if part in ("event-log", "ccel") and not name.startswith("tpm"):
        places = log_places(case.part(part), 0x0C if part == "ccel" else 0x0B)
        return tuple(
            Irrelevant(frozenset(found), LOG_REASONS[kind], FROM_LOG, LISTED)
            for kind, found in places.items()
        )
    if part == "hcl-report":
        return (HCL_VERSION, TD_REPORT) if name == "azure-tdx" else (HCL_VERSION,)
    return ()


def log_places(log: bytes, bank: int) -> dict[str, set[int]]:
    """Where in a crypto-agile log the bytes stand that no register of `bank` measures, by what they are."""
    found: dict[str, set[int]] = {name: set() for name in LOG_REASONS}
    (size,) = struct.unpack_from("<I", log, 28)
    found["header"] = set(range(32 + size))
    at = 32 + size
    while at < len(log) and log[at : at + 4] != b"\xff" * 4:
        found["type"] |= set(range(at + 4, at + 8))
        (count,) = struct.unpack_from("<I", log, at + 8)
        at += 12
        for _ in range(count):
            (algorithm,) = struct.unpack_from("<H", log, at)
            width = {4: 20, 0xB: 32, 0xC: 48}[algorithm]
            if algorithm != bank:
                found["digest"] |= set(range(at + 2, at + 2 + width))
            at += 2 + width
        (length,) = struct.unpack_from("<I", log, at)
        found["length"] |= set(range(at, at + 4))
        found["data"] |= set(range(at + 4, at + 4 + length))
        at += 4 + length
    return found


def flips(good: bytes, *, every: bool) -> Iterator[tuple[int, bytes]]:
    """`good` with one byte changed: each byte once, or to each other value.

    Once: of a letter the case, which text formats (PEM, hexadecimal, names) may not tell apart; else one bit, which
    bit going round with the place.
    """
    for place in effort.some(range(len(good))):
        byte = good[place]
        letter = 0x41 <= byte & 0xDF <= 0x5A
        values = range(256) if every else (byte ^ (0x20 if letter else 1 << place % 8),)
        for value in values:
            if value != byte:
                yield place, good[:place] + bytes([value]) + good[place + 1 :]
