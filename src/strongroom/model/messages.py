"""What the agent and a broker say to each other, as bytes of strict JSON.

Both sides use this file, so that there is one reading of every message. The HTTP layer only carries
the bytes. Sizes are bounded before anything is decoded.

A release request is of three parts, so that a broker reads no more of it than its sender has shown to be worth
reading: a head (one line of JSON: nonce, contract, the agreement's length), the agreement, and the rest as JSON.

POST /v1/challenges   {"contract": digest}                    → Challenge
POST /v1/releases     head LF agreement rest (ReleaseRequest) → ReleaseAnswer (200) | DenialAnswer (403)
POST /v1/renewals     as a release, of a run that has its keys → ReleaseAnswer without keys | DenialAnswer
POST /v1/receipts     receipt in its DSSE envelope            → LedgerProof
POST /v1/standings    {"agreement": data, "room": name, "earlier": [data]}  → Standing
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from strongroom.encoding import canonical, fields, framed, unexpected
from strongroom.errors import Malformed
from strongroom.model import binding as binding_model
from strongroom.model import endorsements as endorsements_model
from strongroom.model import evidence as evidence_model
from strongroom.model import record
from strongroom.model.contracts import agreement as agreement_model
from strongroom.model.identifiers import ContractDigest, ManifestDigest, RoomName
from strongroom.model.verdict import Check, Words, read_checks, read_words

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


NONCE_BYTES = 32
WATCH_BYTES = 32
MAX_HEAD = 256
MAX_AGREEMENT = 192 * 1024  # the largest contract in base64, with the signatures of all its parties
MAX_REQUEST = 512 * 1024
MAX_ANSWER = 4 * 1024 * 1024
MAX_PROOF = 256 * 1024  # an entry in base64, its path, a checkpoint with witnesses
MAX_ENDORSED = (
    2 * 1024 * 1024
)  # bytes of endorsements: they go out again with the answer, which must have room
KEYS_LABEL = "strongroom/release/1"
ACCOUNT_LABEL = "strongroom/external-account/1"
MAX_ACCOUNT = 16 * 1024


@dataclass(frozen=True, kw_only=True)
class Challenge:
    """A single-use nonce. `time` is the broker's clock, `expires` when the nonce stops counting."""

    nonce: bytes
    time: datetime
    expires: datetime

    def encode(self) -> bytes:
        """JSON bytes."""
        return canonical.dumps(
            {
                "nonce": fields.format_data(self.nonce),
                "time": fields.format_time(self.time),
                "expires": fields.format_time(self.expires),
            }
        )


def parse_challenge(data: bytes) -> Challenge:
    """Parse a challenge. Raises `Malformed`."""
    top = _top(data, "challenge", 4096)
    challenge = Challenge(
        nonce=top.data("nonce", max_bytes=NONCE_BYTES, exactly=NONCE_BYTES),
        time=top.time("time"),
        expires=top.time("expires"),
    )
    top.done()
    return challenge


def encode_challenge_request(contract_digest: ContractDigest) -> bytes:
    """JSON bytes that ask for a challenge under the contract of that digest."""
    return canonical.dumps({"contract": contract_digest})


def parse_challenge_request(data: bytes) -> ContractDigest:
    """The contract digest of a challenge request. Raises `Malformed`."""
    top = _top(data, "challenge request", 4096)
    contract_digest = ContractDigest(top.digest("contract"))
    top.done()
    return contract_digest


@dataclass(frozen=True, kw_only=True)
class ReleaseRequest:
    """Evidence for a contract. `csr` is a PKCS#10 request (DER) by the TLS key, or None for no certificate.

    contract_digest: that which the nonce was asked for. The agreement is carried as its exact envelope bytes. evidence: of the processor, with that of its attached
    devices. endorsements: what the vendors say of both, as far as the room has it (its host may have handed out a
    certificate with the report, or fetched more): they count by their vendors' signatures alone.
    earlier: envelopes of the contract's earlier versions, lowest first, for a broker that does not know them yet.
    """

    nonce: bytes
    contract_digest: ContractDigest
    agreement: bytes
    evidence: evidence_model.Evidence
    keys: binding_model.RoomKeys
    role: str
    csr: bytes | None
    endorsements: endorsements_model.Endorsements = endorsements_model.NONE
    earlier: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        """The request's bytes."""
        head = {
            "nonce": fields.format_data(self.nonce),
            "contract": self.contract_digest,
            "agreement": len(self.agreement),
        }
        rest = {
            "evidence": self.evidence.to_json(),
            "endorsements": self.endorsements.to_json(),
            "keys": {
                "signing": fields.format_data(self.keys.signing),
                "tls": fields.format_data(self.keys.tls),
                "kem": fields.format_data(self.keys.kem),
            },
            "earlier": [fields.format_data(envelope) for envelope in self.earlier],
            "role": self.role,
            "csr": None if self.csr is None else fields.format_data(self.csr),
        }
        return canonical.dumps(head) + b"\n" + self.agreement + canonical.dumps(rest)


@dataclass(frozen=True, kw_only=True)
class ReleaseHead:
    """The first line of a release request. agreement: the length of what follows it, in bytes."""

    nonce: bytes
    contract_digest: ContractDigest
    agreement: int


def parse_release_head(line: bytes) -> ReleaseHead:
    """Parse the first line of a release request, without its end. Raises `Malformed`."""
    top = _top(line, "release head", MAX_HEAD)
    head = ReleaseHead(
        nonce=top.data("nonce", max_bytes=NONCE_BYTES, exactly=NONCE_BYTES),
        contract_digest=ContractDigest(top.digest("contract")),
        agreement=top.integer("agreement", low=1, high=MAX_AGREEMENT),
    )
    top.done()
    return head


@dataclass(frozen=True, kw_only=True)
class StandingRequest:
    """A question how a room of a contract stands: its agreement's exact bytes, the room's name, envelopes of earlier versions."""

    agreement: bytes
    room: RoomName
    earlier: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        """JSON bytes."""
        return canonical.dumps(
            {
                "agreement": fields.format_data(self.agreement),
                "room": self.room,
                "earlier": [fields.format_data(envelope) for envelope in self.earlier],
            }
        )


def parse_standing_request(data: bytes) -> StandingRequest:
    """Parse such a question. Raises `Malformed`."""
    top = _top(data, "standing request", MAX_REQUEST)
    request = StandingRequest(
        agreement=top.data("agreement", max_bytes=MAX_AGREEMENT),
        room=RoomName(top.name("room")),
        earlier=agreement_model.read_earlier(top),
    )
    top.done()
    return request


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What a broker would hold against any room under a contract, by its own clock. It promises nothing."""

    checks: tuple[Check, ...]
    time: datetime

    def encode(self) -> bytes:
        """JSON bytes."""
        return canonical.dumps(
            {"checks": [check.to_json() for check in self.checks], "time": fields.format_time(self.time)}
        )


def parse_standing(data: bytes) -> Standing:
    """Parse the answer. Raises `Malformed`."""
    top = _top(data, "standing", MAX_PROOF)
    standing = Standing(checks=read_checks(top), time=top.time("time"))
    top.done()
    return standing


@dataclass(frozen=True, kw_only=True)
class SplitRequest:
    """A release request, cut into its parts; of them the head alone is parsed."""

    head: ReleaseHead
    agreement: bytes
    rest: bytes


def split_release_request(data: bytes, *, head: ReleaseHead | None = None) -> SplitRequest:
    """Cut a release request into its parts. head: that of `data`, where it was parsed before. Raises `Malformed`."""
    if len(data) > MAX_REQUEST:
        raise Malformed(
            f"release request: {len(data)} bytes, at most {MAX_REQUEST} allowed", code="too-large"
        )
    end = data.find(b"\n", 0, MAX_HEAD + 1)
    if end < 0:
        raise Malformed(
            f"release request: expected a first line of at most {MAX_HEAD} bytes, got no line end within them",
            code="no-head",
        )
    head = head or parse_release_head(data[:end])
    start = end + 1
    if len(data) < start + head.agreement:
        left = len(data) - start
        raise Malformed(
            f"release request: its head announces an agreement of {head.agreement} bytes, {left} follow",
            code="cut",
        )
    return SplitRequest(
        head=head,
        agreement=data[start : start + head.agreement],
        rest=data[start + head.agreement :],
    )


def parse_release_request(split: SplitRequest) -> ReleaseRequest:
    """Parse the rest of a release request; the agreement stays bytes. Raises `Malformed`."""
    top = _top(split.rest, "release request", MAX_REQUEST)
    keys = top.object("keys")
    room = binding_model.RoomKeys(
        signing=keys.data("signing", max_bytes=32, exactly=32),
        tls=keys.data("tls", max_bytes=1024),
        kem=keys.data("kem", max_bytes=1216, exactly=1216),
    )
    keys.done()
    request = ReleaseRequest(
        nonce=split.head.nonce,
        contract_digest=split.head.contract_digest,
        agreement=split.agreement,
        evidence=evidence_model.read(top.object("evidence")),
        endorsements=endorsements_model.read(top.object("endorsements")),
        keys=room,
        role=top.name("role"),
        csr=top.data_or_null("csr", max_bytes=16 * 1024),
        earlier=agreement_model.read_earlier(top),
    )
    top.done()
    return request


@dataclass(frozen=True, kw_only=True)
class LedgerProof:
    """One ledger entry with its inclusion proof.

    entry: the leaf's exact bytes. index: its place. hashes: the RFC 6962 audit path, 32 bytes each,
    leaf to root. checkpoint: the signed note (C2SP tlog-checkpoint) whose tree it leads to.
    """

    entry: bytes
    index: int
    hashes: tuple[bytes, ...]
    checkpoint: str

    def to_json(self) -> dict[str, object]:
        """The object form."""
        return {
            "entry": fields.format_data(self.entry),
            "index": self.index,
            "hashes": [fields.format_data(digest) for digest in self.hashes],
            "checkpoint": self.checkpoint,
        }

    def encode(self) -> bytes:
        """JSON bytes."""
        return canonical.dumps(self.to_json())


def read_ledger_proof(source: fields.Fields) -> LedgerProof:
    """Read the object form. Raises `Malformed`."""
    hashes = source.datas("hashes", max_items=64, max_bytes=32, exactly=32)
    proof = LedgerProof(
        entry=source.data("entry", max_bytes=MAX_ANSWER),
        index=source.integer("index", low=0, high=canonical.MAX_INTEGER),
        hashes=hashes,
        checkpoint=source.text("checkpoint", max_length=64 * 1024),
    )
    source.done()
    return proof


def parse_ledger_proof(data: bytes) -> LedgerProof:
    """Parse a ledger proof. Raises `Malformed`."""
    return read_ledger_proof(_top(data, "ledger proof", MAX_PROOF))


def recorded_verdict(proof: LedgerProof) -> dict[str, Any]:
    """The object form of the verdict that the entry holds. Raises `Malformed`."""
    return fields.Fields(record.parse(proof.entry).body, "ledger entry.body").raw_object("verdict")


@dataclass(frozen=True, kw_only=True)
class ReleaseAnswer:
    """An accepted release.

    `sealed` is HPKE (enc ‖ ciphertext) of `encode_disk_keys`, of a renewal nothing; `certificates` are DER, leaf first;
    `account` is HPKE likewise, of `ExternalAccount`, empty where the contract has no ACME;
    `watch`: the token that `POST /v1/watches` asks for; `endorsements` are those that the evidence was verified with, whose digest is in the ledger's entry: with them
    anybody can judge again.
    """

    sealed: bytes
    certificates: tuple[bytes, ...]
    ledger: LedgerProof
    watch: bytes = field(repr=False)
    account: bytes = field(default=b"", repr=False)
    endorsements: endorsements_model.Endorsements = field(default=endorsements_model.NONE)

    @cached_property
    def verdict(self) -> dict[str, Any]:
        """The object form of the verdict, as the ledger's entry holds it. Raises `Malformed`."""
        return recorded_verdict(self.ledger)

    def encode(self) -> bytes:
        """JSON bytes."""
        return canonical.dumps(
            {
                "sealed": fields.format_data(self.sealed),
                "certificates": [fields.format_data(certificate) for certificate in self.certificates],
                "ledger": self.ledger.to_json(),
                "watch": fields.format_data(self.watch),
                "account": fields.format_data(self.account),
                "endorsements": self.endorsements.to_json(),
            }
        )


def parse_release_answer(data: bytes) -> ReleaseAnswer:
    """Parse an accepted release. Raises `Malformed`."""
    top = _top(data, "release answer", MAX_ANSWER)
    chain = top.datas("certificates", max_items=8, max_bytes=64 * 1024)
    answer = ReleaseAnswer(
        sealed=top.data("sealed", max_bytes=MAX_ANSWER),
        certificates=chain,
        ledger=read_ledger_proof(top.object("ledger")),
        watch=top.data("watch", max_bytes=WATCH_BYTES, exactly=WATCH_BYTES),
        account=top.data("account", max_bytes=MAX_ACCOUNT),
        endorsements=endorsements_model.read(top.object("endorsements")),
    )
    top.done()
    return answer


@dataclass(frozen=True, kw_only=True)
class BrokerError:
    """Why a broker answers otherwise than with 200, in its own words. Each may be empty."""

    code: str
    message: str
    hint: str


def read_error(source: fields.Fields) -> BrokerError:
    """Read `error` of such an answer; what else is in it is left to the caller. Raises `Malformed`."""
    texts = source.object("error").text_map_of(("code", "message", "hint"), max_length=4096)
    return BrokerError(**texts)


@dataclass(frozen=True, kw_only=True)
class DenialAnswer:
    """A denied release. `verdict` is the record form; `ledger` None: answered, but not recorded.

    words: what verifiers found wrong, in their own words, by the check's name. They are in no ledger.

    A denial goes unrecorded when its nonce was no good, when the broker's own party has not signed the contract, or
    when strangers have used up the budget. A recorded verdict is sent once, in its entry.
    """

    verdict: dict[str, Any]
    ledger: LedgerProof | None
    words: dict[str, Words] = field(default_factory=dict)

    def encode(self) -> bytes:
        """JSON bytes, under the error object that every refusal has."""
        failed = [check["name"] for check in self.verdict["checks"] if not check["ok"]]
        return canonical.dumps(
            {
                "error": {
                    "code": "denied",
                    "message": "release: denied by " + ", ".join(failed),
                    "hint": "each failed check says what was expected, and what to do",
                },
                "verdict": self.verdict if self.ledger is None else None,
                "words": {name: words.texts() for name, words in self.words.items()},
                "ledger": None if self.ledger is None else self.ledger.to_json(),
            }
        )


def read_denial(source: fields.Fields) -> DenialAnswer:
    """Read `verdict`, `words` and `ledger` of a denied release; the verdict stands in one place. Raises `Malformed`."""
    words = read_words(source.object("words"))
    ledger = source.object_or_null("ledger")
    if ledger is None:
        return DenialAnswer(verdict=source.raw_object("verdict"), words=words, ledger=None)
    if source.value("verdict") is not None:
        raise Malformed(
            f"{source.what}.verdict: expected null, as the ledger's entry holds the verdict", code="bad-value"
        )
    proof = read_ledger_proof(ledger)
    return DenialAnswer(verdict=recorded_verdict(proof), words=words, ledger=proof)


def release_info(binding: binding_model.Binding) -> bytes:
    """The HPKE `info` of a release: sealed keys open only for the binding they were released to."""
    return framed.join(KEYS_LABEL, binding.digest())


def account_info(binding: binding_model.Binding) -> bytes:
    """The HPKE `info` of an external account."""
    return framed.join(ACCOUNT_LABEL, binding.digest())


@dataclass(frozen=True, kw_only=True)
class ExternalAccount:
    """What an ACME client in the room binds its account to (RFC 8555, section 7.3.4). directory: the URL that it is given."""

    directory: str
    kid: str
    key: bytes = field(repr=False)

    def encode(self) -> bytes:
        """The plaintext."""
        return canonical.dumps(
            {"directory": self.directory, "kid": self.kid, "key": fields.format_data(self.key)}
        )


def parse_external_account(data: bytes) -> ExternalAccount:
    """Parse the plaintext. Raises `Malformed`."""
    top = _top(data, "external account", MAX_ACCOUNT)
    account = ExternalAccount(
        directory=top.text("directory", max_length=1024),
        kid=top.text("kid", max_length=MAX_ACCOUNT),
        key=top.data("key", max_bytes=64),
    )
    top.done()
    return account


def encode_disk_keys(keys: Mapping[ManifestDigest, bytes]) -> bytes:
    """Plaintext of a release: disk keys (64 bytes each) by manifest digest."""
    return canonical.dumps({"disks": {name: fields.format_data(key) for name, key in keys.items()}})


def parse_disk_keys(data: bytes) -> dict[ManifestDigest, bytes]:
    """Parse the plaintext of a release. Raises `Malformed`."""
    top = _top(data, "disk keys", 64 * 1024)
    inner = top.object("disks")
    keys = {}
    for name in inner.names():
        if fields.DIGEST.fullmatch(name) is None:
            raise Malformed(
                f"disk keys.disks: expected {fields.DIGEST_LIKE} for each key, got {unexpected.quoted(name)}"
            )
        keys[ManifestDigest(name)] = inner.data(name, max_bytes=64, exactly=64)
    top.done()
    return keys


def _top(data: bytes, what: str, limit: int) -> fields.Fields:
    return fields.Fields(canonical.loads(data, what=what, max_bytes=limit), what)
