"""What a node hands over to a room."""

from __future__ import annotations

from dataclasses import replace

from strongroom.crypto import digest
from strongroom.encoding import dsse
from strongroom.model import manifest as manifest_model
from strongroom.model import party as party_model
from strongroom.model.contracts import room_terms
from strongroom.model.room import agreed
from strongroom.model.room.channel import Start, parse_start
from strongroom_testing import contracts
from strongroom_testing.contracts import changed

SETTINGS = manifest_model.ImageSettings(
    source="sha256:" + "5" * 64, entrypoint=("/bin/duckdb",), command=("-c", "select 1"), environment={"A": "image", "B": "b"},
    working_directory="/w", uid=7, gid=8, groups=(9,),
)  # fmt: skip


def envelope(identity, kind, cipher="none", signer=None, owner=None, keyid="") -> bytes:
    made = manifest_model.Manifest(
        raw=b"", kind=kind, name=kind, owner=(owner or identity).party().keyid, cipher=cipher, data_bytes=8192,
        hash_offset=8192, disk_bytes=16384, root_hash="sha256:" + "7" * 64, salt=bytes(32),
        image=SETTINGS if kind == "image" else None,
    )  # fmt: skip
    bare = dsse.Envelope(
        payload_type=manifest_model.PAYLOAD_TYPE, payload=manifest_model.encode(made), signatures=()
    )
    key = (signer or identity).signing
    keyid = keyid or identity.party().keyid
    return replace(bare, signatures=(dsse.DsseSignature(keyid=keyid, sig=key.sign(bare.pae())),)).encode()


class Handover:
    def __init__(
        self,
        *,
        image=None,
        data=None,
        broker=True,
        signers=("alice", "bob"),
        image_cipher="none",
        arguments=None,
    ):
        self.scene = contracts.scene()
        alice, bob = self.scene.alice, self.scene.bob
        self.image = image(self.scene) if image else envelope(bob, "image", image_cipher)
        self.data = data(self.scene) if data else envelope(alice, "dataset", "aes-xts-plain64")
        address = party_model.BrokerAddress(
            url="https://a.example:1",
            pin="sha256:" + "1" * 64,
            ledger_key=bytes(32),
            authority="sha256:" + "2" * 64,
        )

        def change(one):
            members = tuple(
                replace(
                    member,
                    party=replace(
                        member.party, broker=address if broker and member.party.name == "alice" else None
                    ),
                )
                for member in one.members
            )
            return changed(
                one,
                members=members,
                image=replace(
                    one.rooms[0].image,
                    manifest_digest=payload_digest(self.image),
                    arguments=arguments,
                    environment={"A": "contract"},
                ),
                datasets=(
                    room_terms.Dataset(
                        name="flights", owner="alice", manifest_digest=payload_digest(self.data)
                    ),
                ),
            )

        self.agreement = self.scene.agreement(change, signers=signers)

    def check(self, **manifests):
        given = {"image": self.image, "data-0": self.data, **manifests}
        start = Start(
            agreement=self.agreement.encode(), room="main", launch_record=b"", issuers=b"",
            manifests={name: data for name, data in given.items() if data is not None},
        )  # fmt: skip
        assert parse_start(start.encode()) == start
        return agreed.check(self.agreement, start)


def payload_digest(data: bytes) -> str:
    payload = dsse.parse(data, payload_type=manifest_model.PAYLOAD_TYPE, max_payload=1 << 20).payload
    return digest.sha256(payload)


class StillClock:
    """A machine's wall clock that is only set: no test sets that of the machine it runs on."""

    def __init__(self) -> None:
        self.shown = 0.0

    def now(self) -> float:
        return self.shown

    def set(self, seconds: float) -> None:
        self.shown = seconds

    def slew(self, seconds: float) -> None:
        """It is right already."""
