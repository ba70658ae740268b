"""What somebody outside verifies of a room at the other end of a tunnel: its evidence, judged again here, and all that leads to it.

Steps, in this order (the names recur in the document):
  1 contract               the contract that was given: signed by those who had to, and by nobody else
    parties.<name>         with whom the reader knows; without --trust nobody can tell
  2 manifest.<name> …      the releases, judged as a proof pack's are (`ledger.inspect`, 4 to 10)
  3 brokers.complete       every broker of that room has released, once
  4 records                the ledgers' records as rooms believe them: the role, the run, and a verdict that has not ended
  5 tunnel.statement       the attested key signed this very TLS connection (`handshake`)

Not verified: what the program does with what it is sent, and that it is the only run of this contract (`run` names the one that is meant).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from strongroom.errors import Malformed, PolicyDenied, Refused
from strongroom.ledger import releases
from strongroom.ledger.proofpack import PackedRelease
from strongroom.model import manifest as manifest_model
from strongroom.model import signatures, tunnel
from strongroom.model.tunnel import Wants
from strongroom.model.verification import StepStatus, Verification, VerificationStep, of_check, step
from strongroom.tunnel import records

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from strongroom.encoding import dsse
    from strongroom.model.contracts.agreement import Agreement
    from strongroom.model.identifiers import RoomName
    from strongroom.model.party import Party
    from strongroom.tunnel.records import ProvenRoom

NOT_VERIFIED = "room-not-verified"


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """What a room showed, as `ledger.releases` judges it."""

    agreement: Agreement
    room: RoomName
    manifests: tuple[tuple[dsse.Envelope, manifest_model.Manifest], ...]
    releases: tuple[PackedRelease, ...]
    renewed: bool = True


class RoomVerifier:
    """Judges what rooms in one role show. `document` is what was verified last.

    trust: parties by files that the reader got by a way of their own. command: what to type to do it again.
    """

    def __init__(
        self,
        agreement: Agreement,
        *,
        subject: str,
        trust: Sequence[Party],
        command: str,
        now: Callable[[], datetime],
    ) -> None:
        keys = [member.party.signing_key for member in agreement.contract.members]
        self._keys = keys
        self._agreement = replace(agreement, envelope=signatures.own_form(agreement.envelope, keys))
        self._subject = subject
        self._trust = trust
        self._command = command
        self._now = now
        self._seen = b""
        self._steps: tuple[VerificationStep, ...] = ()
        self._signed: VerificationStep | None = None

    @property
    def document(self) -> Verification:
        """What was verified so far."""
        signed = () if self._signed is None else (self._signed,)
        return Verification(subject=self._subject, steps=(*self._steps, *signed), command=self._command)

    def judge(self, data: bytes, role: RoomName) -> ProvenRoom:
        """As a handshake asks. A proof that was judged before is not judged again, but its time is looked at each time."""
        self._signed = None
        if data != self._seen:
            self._seen = b""
            self._steps = self._judged(data, role)
            self._require()
            self._seen = data
        shown = tunnel.parse_proof(data, wants=Wants.EVIDENCE)
        try:
            attested = records.verify(
                shown.encode(Wants.RECORDS), self._agreement.contract, role, now=self._now()
            )
        except (Refused, Malformed) as cause:
            self._seen = b""
            self._add("records", StepStatus.REFUSED, cause.message, hint=cause.hint)
            raise self._denied(code=NOT_VERIFIED) from None
        self._add("records", StepStatus.VERIFIED, f"{attested.run_id} as {role}, until {attested.expires}")
        return attested

    def signed(self, attested: ProvenRoom) -> None:
        """The handshake is done."""
        self._signed = step(
            "tunnel.statement",
            StepStatus.VERIFIED,
            expected="the attested key's signature over this TLS 1.3 connection",
            got=f"signed by {attested.run_id}",
        )

    def refused(self, cause: Refused | Malformed) -> PolicyDenied:
        """The error for a handshake that failed otherwise than in `judge`: with the document."""
        if isinstance(cause, PolicyDenied):
            return cause
        self._signed = step(
            "tunnel.statement",
            StepStatus.REFUSED,
            expected="the attested key's signature over this TLS 1.3 connection",
            got=cause.message,
            hint=cause.hint,
        )
        return self._denied(code=cause.code)

    def _judged(self, data: bytes, role: RoomName) -> tuple[VerificationStep, ...]:
        proof = tunnel.parse_proof(data, wants=Wants.EVIDENCE)
        shown = _Shown(
            agreement=self._agreement,
            room=role,
            manifests=tuple(
                (signatures.own_form(envelope, self._keys), manifest)
                for envelope, manifest in map(manifest_model.parse_envelope, proof.manifests)
            ),
            releases=tuple(
                PackedRelease(
                    party=release.party,
                    binding=release.binding,
                    evidence=release.evidence,
                    endorsements=release.endorsements,
                    certificates=release.certificates,
                    ledger=release.ledger,
                )
                for release in proof.releases
                if release.evidence is not None and release.endorsements is not None
            ),
        )
        checks = [releases.approved(shown), releases.only_parties(shown)]
        steps = [of_check(check) for check in checks]
        steps += self._parties(shown)
        steps += [of_check(check) for check in (*releases.manifests(shown), releases.only_manifests(shown))]
        for release in shown.releases:
            checks, simulated = releases.release(shown, release)
            steps += [
                of_check(check, simulated=simulated and check.name.startswith("verdict.")) for check in checks
            ]
        steps.append(of_check(releases.one_room(shown)))
        owners = sorted(self._agreement.contract.key_owners(role))
        parties = sorted(release.party for release in shown.releases)
        steps.append(
            step(
                "brokers.complete",
                StepStatus.VERIFIED if owners == parties else StepStatus.REFUSED,
                expected=f"a release of {', '.join(owners) or 'nobody'}, each once",
                got=f"releases of {', '.join(parties) or 'nobody'}",
            )
        )
        return tuple(steps)

    def _parties(self, shown: _Shown) -> list[VerificationStep]:
        if self._trust:
            return [of_check(check) for check in releases.parties(shown, self._trust, ())]
        return [
            step(
                "parties",
                StepStatus.CANNOT_TELL,
                expected="parties that you know",
                got=f"the contract as you gave it, {shown.agreement.contract.digest}",
                hint="give --trust PARTY_FILE, or compare that digest with what you signed or were told",
            )
        ]

    def _add(self, name: str, status: StepStatus, got: str, *, hint: str = "") -> None:
        kept = tuple(each for each in self._steps if each.name != name)
        added = step(
            name, status, expected="records of this role, of one run, that hold now", got=got, hint=hint
        )
        self._steps = (*kept, added)

    def _require(self) -> None:
        if self.document.failed:
            raise self._denied(code=NOT_VERIFIED)

    def _denied(self, *, code: str) -> PolicyDenied:
        document = self.document
        names = ", ".join(each.name for each in document.failed)
        failure = PolicyDenied(
            f"{self._subject}: not verified: {names}",
            verdict=document,
            hint="nothing was sent to it; do what is said with each step that failed",
        )
        failure.code = code
        return failure
