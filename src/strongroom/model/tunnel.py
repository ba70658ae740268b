"""What the two ends of a tunnel say to each other inside TLS 1.3: before the program's first byte, beside its bytes, and after.

Frame: type(1) ‖ length(3, big-endian) ‖ payload.

HELLO      canonical JSON, each side's first frame: {"format": "strongroom-tunnel/1", "contract": digest, "role": who this side
           says it is, "" for outside of all rooms, "peer": who it means the other to be, "port", "nonce": BASE64(32),
           "wants": "records" | "evidence"}. The client's names the port; the server's repeats it
STATEMENT  sequence(8) ‖ signature(64, Ed25519) ‖ proof: this side's room signs `StatementFacts`. Sequence 0 greets; later ones renew
DATA       the program's bytes, at most `MAX_DATA`
END        this side's program sends no more; the other's still may
READY      of the server: the client is let in, and the program has taken the connection
REFUSAL    canonical JSON {"code", "message"}: this side gives the tunnel up, and why

What is signed is a frame of `encoding.framed`, each field after its length: `LABEL`, the TLS exporter of this connection, both
leaf certificates' digests, both roles, the contract's digest, the port, both nonces, which side signs, the sequence, and the
digest of the proof that stands beside it.

A proof is canonical JSON: {"format": "strongroom-tunnel-proof/1", "manifests": [BASE64], "releases": [{"party", "binding",
"ledger", "evidence", "endorsements", "certificates"}]}, one release of each broker. `records` lack manifests, and have null,
null and [] for the last three: what a room of the same contract needs, which believes its contract's brokers.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strongroom.crypto import digest
from strongroom.encoding import canonical, fields, framed
from strongroom.errors import Malformed
from strongroom.model import binding as binding_model
from strongroom.model import endorsements as endorsements_model
from strongroom.model import evidence as evidence_model
from strongroom.model import messages
from strongroom.model.identifiers import ContractDigest, PartyName, RoomName

if TYPE_CHECKING:
    from strongroom.model.binding import Binding
    from strongroom.model.endorsements import Endorsements
    from strongroom.model.evidence import Evidence

ALPN = b"strongroom-tunnel/1"
EXPORTER = b"EXPORTER-strongroom-tunnel"
EXPORTER_BYTES = NONCE_BYTES = 32
FORMAT = "strongroom-tunnel/1"
PROOF_FORMAT = "strongroom-tunnel-proof/1"
LABEL = "strongroom/tunnel/1"
HEADER = 4
MAX_DATA = 4 * 16384 - HEADER  # a frame of it is four whole TLS records
MAX_HELLO = 1024
MAX_REFUSAL = 16 * 1024
MAX_RECORDS, MAX_EVIDENCE = 1 << 20, 8 << 20  # bytes of a proof, by what was wanted
_SEQUENCE, _SIGNATURE = 8, 64
MAX_TEXT = 1024
OUTSIDE = RoomName("")
"""The role of a client that is no room: a person, or a program outside."""


class TunnelFrame(enum.IntEnum):
    """What a frame is."""

    HELLO = 1
    STATEMENT = 2
    DATA = 3
    END = 4
    READY = 5
    REFUSAL = 6


class Wants(enum.StrEnum):
    """What a side asks the other to show: its brokers' records, or all that it takes to judge it again."""

    RECORDS = "records"
    EVIDENCE = "evidence"


class TlsSide(enum.StrEnum):
    """Who opened the TLS connection."""

    CLIENT = "client"
    SERVER = "server"

    @property
    def other(self) -> TlsSide:
        """The one at the other end."""
        return TlsSide.SERVER if self is TlsSide.CLIENT else TlsSide.CLIENT


def frame(kind: TunnelFrame, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return header(kind, len(payload)) + payload


def header(kind: TunnelFrame, length: int) -> bytes:
    """What stands before a payload of `length` bytes."""
    return bytes((kind,)) + length.to_bytes(HEADER - 1, "big")


def most(kind: TunnelFrame, wants: Wants) -> int:
    """How long a frame's payload may be, at a side that asked for `wants`."""
    if kind is TunnelFrame.STATEMENT:
        return _SEQUENCE + _SIGNATURE + (MAX_RECORDS if wants is Wants.RECORDS else MAX_EVIDENCE)
    return {TunnelFrame.HELLO: MAX_HELLO, TunnelFrame.DATA: MAX_DATA, TunnelFrame.REFUSAL: MAX_REFUSAL}.get(
        kind, 0
    )


def parse_header(data: bytes, *, wants: Wants) -> tuple[TunnelFrame, int]:
    """Type and payload length of the `HEADER` bytes before a frame. Raises `Malformed`."""
    if len(data) != HEADER or data[0] not in TunnelFrame._value2member_map_:
        raise Malformed(f"tunnel: expected a frame, got {data[:HEADER].hex()}", code="bad-tunnel")
    kind, length = TunnelFrame(data[0]), int.from_bytes(data[1:], "big")
    if length > most(kind, wants):
        raise Malformed(
            f"tunnel: a {kind.name} frame of {length} bytes, at most {most(kind, wants)} allowed",
            code="bad-tunnel",
        )
    return kind, length


@dataclass(frozen=True, kw_only=True)
class Hello:
    """What a side says first. Nothing of it is believed."""

    contract_digest: ContractDigest
    role: RoomName
    peer: RoomName
    port: str
    nonce: bytes
    wants: Wants

    def encode(self) -> bytes:
        """The payload."""
        return canonical.dumps(
            {
                "format": FORMAT,
                "contract": self.contract_digest,
                "role": self.role,
                "peer": self.peer,
                "port": self.port,
                "nonce": fields.format_data(self.nonce),
                "wants": self.wants.value,
            }
        )


def parse_hello(data: bytes) -> Hello:
    """Parse the payload of a HELLO. Raises `Malformed`."""
    top = fields.Fields(canonical.loads(data, what="tunnel hello", max_bytes=MAX_HELLO), "tunnel hello")
    top.constant("format", FORMAT)
    hello = Hello(
        contract_digest=ContractDigest(top.digest("contract")),
        role=_role(top, "role"),
        peer=_role(top, "peer"),
        port=top.name("port"),
        nonce=top.data("nonce", max_bytes=NONCE_BYTES, exactly=NONCE_BYTES),
        wants=Wants(top.choice("wants", Wants)),
    )
    top.done()
    return hello


@dataclass(frozen=True, kw_only=True)
class TlsFacts:
    """What both ends of one TLS connection know of it. exporter: RFC 8446, 7.5, of `EXPORTER`. Leaves: SHA-256 of the DER."""

    exporter: bytes = field(repr=False)
    client_leaf: bytes
    server_leaf: bytes


@dataclass(frozen=True, kw_only=True)
class StatementFacts:
    """What a room's attested key signs: this connection, both ends' names, and what it shows of itself."""

    channel: TlsFacts
    contract_digest: ContractDigest
    client_role: RoomName
    server_role: RoomName
    port: str
    client_nonce: bytes
    server_nonce: bytes
    signer: TlsSide
    sequence: int
    proof_digest: bytes

    @property
    def role(self) -> RoomName:
        """The role of who signs."""
        return self.client_role if self.signer is TlsSide.CLIENT else self.server_role

    def message(self) -> bytes:
        """The bytes that are signed."""
        return framed.join(
            LABEL,
            self.channel.exporter,
            self.channel.client_leaf,
            self.channel.server_leaf,
            self.client_role.encode(),
            self.server_role.encode(),
            digest.raw(self.contract_digest),
            self.port.encode(),
            self.client_nonce,
            self.server_nonce,
            self.signer.value.encode(),
            self.sequence.to_bytes(_SEQUENCE, "big"),
            self.proof_digest,
        )

    def to_json(self) -> dict[str, object]:
        """The form in which the process that ends the TLS asks the agent for the signature."""
        return {
            "exporter": fields.format_data(self.channel.exporter),
            "client_leaf": fields.format_data(self.channel.client_leaf),
            "server_leaf": fields.format_data(self.channel.server_leaf),
            "client_role": self.client_role,
            "server_role": self.server_role,
            "contract": self.contract_digest,
            "port": self.port,
            "client_nonce": fields.format_data(self.client_nonce),
            "server_nonce": fields.format_data(self.server_nonce),
            "signer": self.signer.value,
            "sequence": self.sequence,
            "proof": fields.format_data(self.proof_digest),
        }


def read_facts(top: fields.Fields) -> StatementFacts:
    """Read the object form of `StatementFacts`. Raises `Malformed`."""
    signed = StatementFacts(
        channel=TlsFacts(
            exporter=top.data("exporter", max_bytes=EXPORTER_BYTES, exactly=EXPORTER_BYTES),
            client_leaf=top.data("client_leaf", max_bytes=32, exactly=32),
            server_leaf=top.data("server_leaf", max_bytes=32, exactly=32),
        ),
        contract_digest=ContractDigest(top.digest("contract")),
        client_role=_role(top, "client_role"),
        server_role=_role(top, "server_role"),
        port=top.name("port"),
        client_nonce=top.data("client_nonce", max_bytes=NONCE_BYTES, exactly=NONCE_BYTES),
        server_nonce=top.data("server_nonce", max_bytes=NONCE_BYTES, exactly=NONCE_BYTES),
        signer=TlsSide(top.choice("signer", TlsSide)),
        sequence=top.integer("sequence", low=0, high=canonical.MAX_INTEGER),
        proof_digest=top.data("proof", max_bytes=32, exactly=32),
    )
    top.done()
    return signed


@dataclass(frozen=True, kw_only=True)
class RoomStatement:
    """A STATEMENT's payload. proof: a `Proof`'s bytes, not parsed."""

    sequence: int
    signature: bytes
    proof: bytes

    def encode(self) -> bytes:
        """The payload."""
        return self.sequence.to_bytes(_SEQUENCE, "big") + self.signature + self.proof


def parse_statement(data: bytes) -> RoomStatement:
    """Parse the payload of a STATEMENT. Raises `Malformed`."""
    head = _SEQUENCE + _SIGNATURE
    if len(data) <= head:
        raise Malformed(
            f"tunnel statement: expected more than {head} bytes, got {len(data)}", code="bad-tunnel"
        )
    return RoomStatement(
        sequence=int.from_bytes(data[:_SEQUENCE], "big"), signature=data[_SEQUENCE:head], proof=data[head:]
    )


@dataclass(frozen=True, kw_only=True)
class ShownRelease:
    """What one broker was shown and decided. The last three: None, None and empty where records alone are shown."""

    party: PartyName
    binding: Binding
    ledger: messages.LedgerProof
    evidence: Evidence | None = None
    endorsements: Endorsements | None = None
    certificates: tuple[bytes, ...] = ()

    def to_json(self, wants: Wants) -> dict[str, object]:
        """The object form, with as much as is wanted."""
        whole = wants is Wants.EVIDENCE
        return {
            "party": self.party,
            "binding": self.binding.to_json(),
            "ledger": self.ledger.to_json(),
            "evidence": self.evidence.to_json() if whole and self.evidence else None,
            "endorsements": self.endorsements.to_json() if whole and self.endorsements else None,
            "certificates": [fields.format_data(der) for der in self.certificates] if whole else [],
        }


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What a room shows of itself: a release of each of its brokers. manifests: its disks' signed manifests, the image's first."""

    releases: tuple[ShownRelease, ...]
    manifests: tuple[bytes, ...] = ()

    def encode(self, wants: Wants) -> bytes:
        """As much of it as is wanted."""
        return canonical.dumps(
            {
                "format": PROOF_FORMAT,
                "manifests": [
                    fields.format_data(manifest) for manifest in self.manifests if wants is Wants.EVIDENCE
                ],
                "releases": [release.to_json(wants) for release in self.releases],
            }
        )


def parse_proof(data: bytes, *, wants: Wants) -> Proof:
    """Parse a proof, which must have all that was wanted, and no more. Raises `Malformed`."""
    limit = MAX_RECORDS if wants is Wants.RECORDS else MAX_EVIDENCE
    top = fields.Fields(canonical.loads(data, what="tunnel proof", max_bytes=limit), "tunnel proof")
    top.constant("format", PROOF_FORMAT)
    manifests = top.datas("manifests", max_items=65, max_bytes=messages.MAX_PROOF)
    releases = tuple(_release(item) for item in top.objects("releases", max_items=32))
    top.done()
    proof = Proof(releases=releases, manifests=manifests)
    whole = [release.evidence is not None and release.endorsements is not None for release in releases]
    if not releases or (wants is Wants.EVIDENCE and not all(whole)):
        raise Malformed(
            f"tunnel proof: expected the {wants.value} of at least one release, got less", code="bad-tunnel"
        )
    if proof.encode(wants) != data:
        raise Malformed("tunnel proof: not in its one canonical form", code="not-canonical")
    return proof


def _release(source: fields.Fields) -> ShownRelease:
    evidence, endorsements = source.object_or_null("evidence"), source.object_or_null("endorsements")
    release = ShownRelease(
        party=PartyName(source.name("party")),
        binding=binding_model.read(source.object("binding")),
        ledger=messages.read_ledger_proof(source.object("ledger")),
        evidence=None if evidence is None else evidence_model.read(evidence),
        endorsements=None if endorsements is None else endorsements_model.read(endorsements),
        certificates=source.datas("certificates", max_items=8, max_bytes=64 * 1024),
    )
    source.done()
    return release


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a side gives up, in its own words, which nobody has checked."""

    code: str
    message: str

    def encode(self) -> bytes:
        """The payload. Words beyond `MAX_TEXT` are cut."""
        return canonical.dumps({"code": self.code[:64], "message": self.message[:MAX_TEXT]})


def parse_refusal(data: bytes) -> Refusal:
    """Parse the payload of a REFUSAL; what cannot be shown on a terminal is replaced. Raises `Malformed`."""
    top = fields.Fields(canonical.loads(data, what="tunnel refusal", max_bytes=MAX_REFUSAL), "tunnel refusal")
    texts = top.text_map_of(("code", "message"), max_length=MAX_TEXT)
    top.done()
    plain = {
        name: "".join(letter if letter.isprintable() else "?" for letter in text)
        for name, text in texts.items()
    }
    return Refusal(code=plain["code"], message=plain["message"])


def _role(source: fields.Fields, key: str) -> RoomName:
    """A room's name, or "" for who is none."""
    value = source.value(key)
    return OUTSIDE if value == OUTSIDE else RoomName(fields.Fields({key: value}, source.what).name(key))
