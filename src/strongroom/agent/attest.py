"""Attestation, from the room's side: one broker at a time, challenge to disk keys.

1 a connection to the broker, its TLS key pinned by the contract
2 a challenge: the nonce, and the broker's time, which is the only wall time that a room knows
3 evidence for the binding of nonce, contract, the room's keys and this broker
4 the release: keys sealed to the room's KEM key under this binding, opened here
5 exactly the keys of this party's encrypted disks, no more, no fewer
6 the proof that this very release is in the broker's ledger: keys that nobody recorded do not count
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from strongroom.agent import http
from strongroom.crypto import digest, hpke, sign
from strongroom.crypto.pki import csr
from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed, PolicyDenied, Refused, Unavailable
from strongroom.ledger import proof as ledger_proof
from strongroom.model import messages, record, verdict
from strongroom.model.binding import Binding, RoomKeys
from strongroom.model.room import run_files

if TYPE_CHECKING:
    from strongroom.agent.channel import Channel
    from strongroom.model.contracts.contract import Contract
    from strongroom.model.contracts.room_terms import RoomTerms
    from strongroom.model.endorsements import Endorsements
    from strongroom.model.evidence import Evidence
    from strongroom.model.identifiers import ManifestDigest, PartyName, RunId
    from strongroom.model.room.channel import Start

CONNECT_SECONDS = 20.0
ANSWER_SECONDS = 60.0
RECEIPT_SECONDS = (
    CONNECT_SECONDS + ANSWER_SECONDS
)  # a broker's part in one try to post a receipt, at the longest
_MAX_ERROR = 1024 * 1024
_NO_BROKER = "who owns an encrypted disk needs a broker: make the contract with the party file that `broker init` wrote"


class Attester(Protocol):
    """What a TEE offers: see `agent/devices`."""

    def evidence(self, binding: Binding, start: Start) -> Evidence:
        """Evidence for `binding`."""
        ...

    @property
    def brought(self) -> Endorsements:
        """What the host handed out with the last evidence, to vouch for it (a VLEK's certificate); `NONE` for most. Nothing of it is believed here."""
        ...


@dataclass(frozen=True, kw_only=True)
class Keys:
    """The room's own private keys, made in the room and never written anywhere."""

    signing: sign.SigningKey = field(repr=False)
    tls: csr.RoomTlsKey = field(repr=False)
    kem: hpke.KemPrivateKey = field(repr=False)
    public: RoomKeys


@dataclass(frozen=True, kw_only=True)
class AcmeFiles:
    """What an ACME client in the room takes: its external account, and the certificate (DER) by which it knows the broker."""

    account: messages.ExternalAccount
    broker: bytes


@dataclass(frozen=True, kw_only=True)
class Released:
    """One broker's answer. `moment` is the broker's time, asked for at the monotonic second `asked` and heard at `heard`."""

    party: PartyName
    binding: Binding
    evidence: Evidence
    answer: messages.ReleaseAnswer
    disk_keys: dict[ManifestDigest, bytes] = field(repr=False)
    moment: datetime
    asked: float
    heard: float
    account: AcmeFiles | None = None

    def time(self, monotonic: float) -> datetime:
        """The broker's time at that monotonic second."""
        return self.moment + timedelta(seconds=monotonic - self.heard)

    @property
    def verdict_end(self) -> float:
        """The monotonic second at which the verdict ends. Raises `Malformed`."""
        expires = fields.Fields(dict(self.answer.verdict), "verdict").time("expires")
        return self.heard + (expires - self.moment).total_seconds()

    def record(self) -> bytes:
        """The public part, as the run's folder keeps it."""
        return canonical.dumps(
            {
                "binding": self.binding.to_json(),
                "verdict": self.answer.verdict,
                "certificates": [fields.format_data(certificate) for certificate in self.answer.certificates],
                "ledger": self.answer.ledger.to_json(),
                "endorsements": self.answer.endorsements.to_json(),
            }
        )


def make_keys(kind: str = csr.P256) -> Keys:
    """Fresh keys from the kernel's generator. kind: of the TLS key, as the contract says."""
    signing, tls, kem = sign.generate(), csr.generate(kind), hpke.generate()
    public = RoomKeys(signing=signing.public.raw, tls=tls.public, kem=kem.public)
    return Keys(signing=signing, tls=tls, kem=kem, public=public)


def with_new_tls_key(keys: Keys, kind: str) -> Keys:
    """The same keys with another for TLS, for the next certificate. The run is the same: its name comes of the signing key."""
    tls = csr.generate(kind)
    return replace(keys, tls=tls, public=replace(keys.public, tls=tls.public))


def attest(
    channel: Channel,
    attester: Attester,
    start: Start,
    contract: Contract,
    room: RoomTerms,
    keys: Keys,
    party: PartyName,
    expected: set[ManifestDigest] | None,
) -> Released:
    """Attest as `room` of `contract` to the broker of `party`, who owns the encrypted disks with the manifests `expected`.

    expected None: again, of a run that has its keys: no keys come, and nothing is handed to the node.
    Raises `PolicyDenied` with every check, `Refused`, `Unavailable`, `Malformed`.
    """
    address = contract.party(party).broker
    if address is None:
        raise Malformed(f"contract: {party} has no broker", hint=_NO_BROKER)
    with contextlib.closing(
        http.BrokerConnection(channel, party, address, timeout=CONNECT_SECONDS)
    ) as connection:  # 1
        asked = time.monotonic()
        challenge = messages.parse_challenge(  # 2
            _post(
                connection,
                party,
                "/v1/challenges",
                messages.encode_challenge_request(contract.digest),
                max_answer=4096,
            )
        )
        heard = time.monotonic()
        binding = Binding(  # 3
            nonce=challenge.nonce,
            contract_digest=contract.digest,
            keys=keys.public,
            role=room.name,
            audience=address.pin,
        )
        evidence = attester.evidence(binding, start)
        if expected is not None:
            channel.send_file(run_files.evidence(party), evidence.encode())
        request = messages.ReleaseRequest(
            nonce=challenge.nonce,
            contract_digest=contract.digest,
            agreement=start.agreement,
            evidence=evidence,
            keys=keys.public,
            role=room.name,
            csr=None if room.certificate is None else keys.tls.request(room.certificate.names),
            endorsements=attester.brought,
            earlier=start.earlier,
        )
        path = "/v1/renewals" if expected is None else "/v1/releases"
        data = _post(connection, party, path, request.encode(), max_answer=messages.MAX_ANSWER)
    answer = messages.parse_release_answer(data)
    account: AcmeFiles | None = None
    if answer.account:
        plain = keys.kem.open(answer.account, info=messages.account_info(binding))
        account = AcmeFiles(account=messages.parse_external_account(plain), broker=connection.certificate)
    disk_keys: dict[ManifestDigest, bytes] = {}
    if expected is not None:
        sealed = keys.kem.open(answer.sealed, info=messages.release_info(binding))  # 4
        disk_keys = messages.parse_disk_keys(sealed)
    if expected is not None and set(disk_keys) != expected:  # 5
        raise Refused(
            f"release by {party}: expected {len(expected)} disk keys, got {len(disk_keys)} that are not exactly those",
            code="wrong-keys",
            hint="each encrypted disk of the contract needs its key at its owner's broker (`strongroom broker add-key`)",
        )
    kind = record.RecordKind.RENEWAL if expected is None else record.RecordKind.RELEASE
    entry = proven(answer.ledger, contract, party, kind, run_id=keys.public.run_id)  # 6
    about = {
        "binding": fields.format_data(binding.digest()),
        "evidence": evidence.digest,
        "endorsements": digest.sha256(answer.endorsements.encode()),
    }
    if any(entry.body.get(name) != value for name, value in about.items()):
        raise _wrong_proof(party)
    return Released(
        party=party,
        binding=binding,
        evidence=evidence,
        answer=answer,
        disk_keys=disk_keys,
        moment=challenge.time,
        asked=asked,
        heard=heard,
        account=account,
    )


def proven(
    proof: messages.LedgerProof,
    contract: Contract,
    party: PartyName,
    kind: record.RecordKind,
    *,
    run_id: RunId,
) -> record.Record:
    """The entry that the broker of `party` proves: of that kind, about that run. Raises `Refused` or `Malformed`."""
    broker = contract.party(party).broker
    if broker is None:
        raise Refused(f"{party} has no broker", code="no-broker", hint=_NO_BROKER)
    entry, _ = ledger_proof.verify(proof, sign.VerifyingKey(broker.ledger_key))
    if (entry.kind, entry.broker, entry.contract_digest, entry.run_id) != (
        kind,
        party,
        contract.digest,
        run_id,
    ):
        raise _wrong_proof(party)
    return entry


def _wrong_proof(party: PartyName) -> Refused:
    return Refused(
        f"the broker of {party} proves another entry than this",
        code="wrong-proof",
        hint="its ledger does not hold what it answers; keep the run's folder, and ask its owner",
    )


def post_receipt(
    channel: Channel, contract: Contract, party: PartyName, envelope: bytes
) -> messages.LedgerProof:
    """Post a signed receipt to the broker of `party`. Raises as `attest` does."""
    address = contract.party(party).broker
    if address is None:
        raise Malformed(f"contract: {party} has no broker", hint=_NO_BROKER)
    # Outputs may have filled the room by now: an answer is bounded, and so is an error's.
    proof = messages.MAX_PROOF
    with contextlib.closing(
        http.BrokerConnection(channel, party, address, timeout=CONNECT_SECONDS)
    ) as connection:
        data = _post(connection, party, "/v1/receipts", envelope, max_answer=proof, max_error=proof)
    return messages.parse_ledger_proof(data)


def _post(
    connection: http.BrokerConnection,
    party: PartyName,
    path: str,
    body: bytes,
    *,
    max_answer: int,
    max_error: int = _MAX_ERROR,
) -> bytes:
    answer = connection.post(path, body, max_answer=max(max_answer, max_error), timeout=ANSWER_SECONDS)
    if answer.status == http.OK:
        return answer.body
    raise read_error(answer.status, answer.body, party)


def read_error(status: int, body: bytes, party: PartyName) -> Refused | Unavailable:
    """The error that an answer other than 200 tells of: {"error": {"code", "message", "hint"}, "verdict", "words"}."""
    who = f"the broker of {party}"
    try:
        top = fields.Fields(canonical.loads(body, what="error", max_bytes=_MAX_ERROR), "error")
        error = messages.read_error(top)
        checks: tuple[verdict.Check, ...] = ()
        if "verdict" in top.names():
            denial = messages.read_denial(top)
            checks = tuple(
                replace(check, words=denial.words.get(check.name))
                for check in verdict.read_checks(fields.Fields(denial.verdict, "verdict"))
            )
    except Malformed:
        return Unavailable(
            f"{who} answered with status {status} and no explanation",
            code="broker-error",
            hint="is it a broker, of this version, at that address? What `broker serve` printed may say why",
        )
    message = f"{who}: {error.message}"
    if checks:
        return PolicyDenied(message, verdict=checks, hint=error.hint)
    if status >= 500 or status == 429:
        return Unavailable(message, code=error.code or "unavailable", hint=error.hint)
    return Refused(message, code=error.code or "refused", hint=error.hint)
