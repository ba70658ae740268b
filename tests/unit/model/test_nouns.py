"""Round trips and refusals of the other documents."""

from __future__ import annotations

import contextlib
import hmac
import secrets
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.crypto import digest, hpke, sign, xts
from strongroom.encoding import framed
from strongroom.errors import Malformed, Refused
from strongroom.model import binding, evidence, identity, manifest, messages, party, receipt, record
from strongroom.model.room import channel, launch
from tests import samples
from tests.effort import examples


def keys():
    return binding.RoomKeys(signing=b"s" * 32, tls=b"t" * 91, kem=b"k" * 1216)


def a_binding(**changes):
    value = {
        "nonce": b"n" * 32,
        "contract_digest": samples.DIGEST,
        "keys": keys(),
        "role": "room",
        "audience": samples.DIGEST,
    }
    return binding.Binding(**{**value, **changes})


def test_rule_19_every_field_of_the_binding_counts():
    one = a_binding().digest()
    assert len(one) == 64
    others = [
        a_binding(nonce=b"m" * 32),
        a_binding(contract_digest="sha256:" + "ac" * 32),
        a_binding(keys=binding.RoomKeys(signing=b"x" * 32, tls=b"t" * 91, kem=b"k" * 1216)),
        a_binding(keys=binding.RoomKeys(signing=b"s" * 32, tls=b"x" * 91, kem=b"k" * 1216)),
        a_binding(keys=binding.RoomKeys(signing=b"s" * 32, tls=b"t" * 91, kem=b"x" * 1216)),
        a_binding(role="other"),
        a_binding(audience="sha256:" + "ac" * 32),
    ]
    assert len({one, *(other.digest() for other in others)}) == len(others) + 1


def test_rule_19_moving_bytes_between_fields_changes_the_binding():
    first = a_binding(keys=binding.RoomKeys(signing=b"s" * 32, tls=b"ab", kem=b"c"))
    second = a_binding(keys=binding.RoomKeys(signing=b"s" * 32, tls=b"a", kem=b"bc"))
    assert first.digest() != second.digest()


def test_identity_opens_with_its_passphrase_alone():
    made = identity.generate("carol")
    data = identity.lock(made, b"secret words", random=secrets.token_bytes)
    assert identity.unlock(data, b"secret words") == made
    assert identity.read_public(data) == made.party()
    with pytest.raises(Refused, match="passphrase"):
        identity.unlock(data, b"other words")
    assert made.age.text not in repr(made)
    assert made.signing.raw.hex() not in repr(made)
    assert repr(made.signing.raw) not in repr(made)


def test_identity_with_more_in_its_vault_than_keys_is_refused(monkeypatch):
    made = identity.generate("alice")
    dumps = identity.canonical.dumps
    monkeypatch.setattr(
        identity.canonical, "dumps", lambda value: dumps({**value, "more": 1} if "age" in value else value)
    )
    data = identity.lock(made, b"p", random=secrets.token_bytes)
    monkeypatch.undo()
    with pytest.raises(Malformed, match="identity: unknown key 'more'"):
        identity.unlock(data, b"p")


def test_identity_with_somebody_elses_public_part_is_refused():
    first, second = identity.generate("carol"), identity.generate("carol")
    mixed = identity.lock(first, b"p", random=secrets.token_bytes).decode()
    for ours, theirs in ((first.party().recipient, second.party().recipient),):
        mixed = mixed.replace(ours, theirs)
    with pytest.raises(Malformed, match="its public part is not that of its secret keys"):
        identity.unlock(mixed.encode(), b"p")


def test_party_file_round_trip():
    one = samples.ALICE.party(samples.broker())
    assert party.parse(one.encode()) == one


def test_launch_record_round_trip():
    one = launch.LaunchRecord(**samples.REFERENCE, memory_guard=True)
    assert launch.parse(one.encode()) == one
    assert one.reference() == samples.REFERENCE
    with pytest.raises(Malformed, match="machine: expected text of 1 to 64 characters"):
        launch.parse(one.encode().replace(b"q35", b""))


def a_manifest(**changes):
    value = {
        "raw": b"",
        "kind": "dataset",
        "name": "flights",
        "owner": samples.DIGEST,
        "cipher": "aes-xts-plain64",
        "data_bytes": 8192,
        "hash_offset": 8192,
        "disk_bytes": 16384,
        "root_hash": samples.DIGEST,
        "salt": b"",
        "image": None,
    }
    return manifest.Manifest(**{**value, **changes})


def test_manifest_round_trip():
    for one in (a_manifest(), a_manifest(key_check=bytes(range(32)))):
        data = manifest.encode(one)
        assert manifest.encode(manifest.parse(data)) == data
        assert manifest.parse(data).digest == digest.sha256(data)
        assert manifest.parse(data).key_check == one.key_check


def test_a_check_value_is_of_one_key_and_one_disk():
    key = bytes(range(64))
    own = xts.check_value(key, samples.DIGEST)
    assert own == hmac.digest(key, framed.join(xts.CHECK_LABEL, samples.DIGEST.encode()), "sha256")
    assert xts.check_value(key[::-1], samples.DIGEST) != own
    assert xts.check_value(key, "sha256:" + "0" * 64) != own
    with pytest.raises(Malformed, match="expected 64 bytes, got 3"):
        xts.check_value(b"key", samples.DIGEST)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"kind": "image"}, "image: expected settings, as the kind is image, got null"),
        ({"kind": "other"}, "manifest.kind: expected one of dataset, image, got 'other'"),
        ({"cipher": "rot13"}, "manifest.cipher: expected one of aes-xts-plain64, none, got 'rot13'"),
        ({"data_bytes": 8191}, "expected a multiple of 4096, got"),
        ({"hash_offset": 4096}, "expected hash_offset to equal data_bytes, and disk_bytes to be more"),
        ({"disk_bytes": 8192}, "expected hash_offset to equal data_bytes, and disk_bytes to be more"),
        ({"owner": "alice"}, "owner: expected sha256: and 64"),
    ],
)
def test_manifest_refusals(changes, why):
    with pytest.raises(Malformed, match=why):
        manifest.parse(manifest.encode(a_manifest(**changes)))


@pytest.mark.parametrize("field", ["uid", "gid", "groups"])
def test_a_room_has_numbers_for_half_of_all_users(field):
    def read(number):
        settings = {
            "source": samples.DIGEST,
            "entrypoint": ("/a",),
            "command": (),
            "environment": {},
            "working_directory": "/",
            "uid": 0,
            "gid": 0,
            "groups": (),
            field: (number,) if field == "groups" else number,
        }
        image = manifest.ImageSettings(**settings)
        return manifest.parse(manifest.encode(a_manifest(kind="image", image=image))).image

    assert getattr(read(manifest.MAX_USER), field) in (manifest.MAX_USER, (manifest.MAX_USER,))
    with pytest.raises(Malformed, match=rf"image.{field}(\[0\])?: expected"):
        read(manifest.MAX_USER + 1)


def a_receipt():
    return receipt.Receipt(
        room="main",
        run_id="run-" + "0" * 32,
        contract_digest=samples.DIGEST,
        signing_key=b"s" * 32,
        image=receipt.Disk(manifest_digest=samples.DIGEST, root_hash=samples.DIGEST),
        datasets=(),
        outputs=(),
        outcome=receipt.Outcome.EXITED,
        exit_status=0,
        details=(),
        started=samples.NOW,
        ended=samples.NOW + timedelta(seconds=3),
    )


def test_receipt_round_trip():
    assert receipt.parse(a_receipt().encode()) == a_receipt()
    with pytest.raises(Malformed, match=r"receipt: .*bytes, at most 65536 allowed"):
        receipt.parse(a_receipt().encode().ljust(64 * 1024 + 1))


def test_what_went_outside_is_rounded_up_in_a_receipt():
    count = receipt.EgressCount(host="api.example", port=443, connections=5, sent=0, received=1025)
    rounded = receipt.EgressCount(host="api.example", port=443, connections=8, sent=0, received=2048)
    assert count.rounded() == rounded == rounded.rounded()
    least = replace(count, connections=1, sent=1, received=1 << 60).rounded()
    assert (least.connections, least.sent, least.received) == (1, 1024, 1 << 40)
    values = {replace(count, sent=1 << shift).rounded().sent for shift in range(64)} | {0}
    assert len(values) <= 32
    other = replace(rounded, port=80)
    for egress in ((), (rounded,), (other, rounded)):
        given = replace(a_receipt(), egress=egress)
        assert receipt.parse(given.encode()) == given
    for egress in ((rounded, rounded), (rounded, other), (count,), (replace(rounded, sent=1),)):
        with pytest.raises(Malformed, match=r"receipt.egress: expected hosts and ports in order"):
            receipt.parse(replace(a_receipt(), egress=egress).encode())


def test_record_round_trip_and_bound():
    one = record.Record(
        kind=record.RecordKind.RECEIPT,
        time=samples.NOW,
        broker="alice",
        contract_digest=samples.DIGEST,
        run_id="run-x",
        body={},
    )
    assert record.parse(one.encode()) == one
    with pytest.raises(Malformed, match="bytes, at most 61440 allowed"):
        record.Record(
            kind=record.RecordKind.RECEIPT,
            time=samples.NOW,
            broker="alice",
            contract_digest=samples.DIGEST,
            run_id="",
            body={"x": "y" * record.MAX_BYTES},
        ).encode()


@pytest.mark.parametrize("kind", [record.RecordKind.DISK_REMOVAL, record.RecordKind.ROTATION])
def test_records_of_no_contract_name_none(kind):
    nameless = record.Record(kind=kind, time=samples.NOW, broker="a", contract_digest="", run_id="", body={})
    assert record.parse(nameless.encode()) == nameless
    with pytest.raises(Malformed, match="of no contract"):
        record.parse(replace(nameless, contract_digest=samples.DIGEST).encode())


def test_release_request_round_trip():
    request = messages.ReleaseRequest(
        nonce=b"n" * 32,
        contract_digest=samples.DIGEST,
        agreement=samples.signed(samples.a_contract()).encode(),
        evidence=evidence.Evidence(tee="tpm", parts={"quote": b"q"}),
        keys=keys(),
        role="main",
        csr=None,
    )
    split = messages.split_release_request(request.encode())
    assert messages.parse_release_request(split) == request
    for size, fits in ((1024, True), (1025, False)):
        sized = replace(request, keys=replace(request.keys, tls=b"t" * size))
        with contextlib.nullcontext() if fits else pytest.raises(Malformed, match="tls: expected base64"):
            messages.parse_release_request(messages.split_release_request(sized.encode()))


def test_a_standing_says_nothing_else():
    made = messages.Standing(checks=(), time=samples.NOW).encode()
    assert messages.parse_standing(made).time == samples.NOW
    with pytest.raises(Malformed, match="unknown key 'more'"):
        messages.parse_standing(made.replace(b"{", b'{"more":1,', 1))


def test_challenge_round_trip():
    one = messages.Challenge(nonce=b"n" * 32, time=samples.NOW, expires=samples.NOW)
    assert messages.parse_challenge(one.encode()) == one
    with pytest.raises(Malformed, match="nonce: expected 32 bytes in base64"):
        messages.parse_challenge(one.encode().replace(b"bm5u", b"", 1))


def test_disk_keys_round_trip():
    held = {samples.DIGEST: b"k" * 64}
    assert messages.parse_disk_keys(messages.encode_disk_keys(held)) == held
    with pytest.raises(Malformed, match="expected 64 bytes in base64"):
        messages.parse_disk_keys(messages.encode_disk_keys({samples.DIGEST: b"short"}))


def test_rule_23_sealed_keys_open_for_their_key_and_binding_alone():
    mine, other = hpke.generate(), hpke.generate()
    info = messages.release_info(a_binding())
    sealed = hpke.seal(mine.public, b"disk key", info=info)
    assert mine.open(sealed, info=info) == b"disk key"
    with pytest.raises(Refused, match="sealed message does not open with this key"):
        other.open(sealed, info=info)
    with pytest.raises(Refused, match="sealed message does not open with this key"):
        mine.open(sealed, info=messages.release_info(a_binding(nonce=b"m" * 32)))
    flipped = sealed[:-1] + bytes([sealed[-1] ^ 1])
    with pytest.raises(Refused, match="sealed message does not open with this key"):
        mine.open(flipped, info=info)


def test_signatures_verify_or_raise():
    key = sign.generate()
    made = key.sign(b"message")
    key.public.verify(made, b"message")
    for signature, message in ((made, b"other"), (made[:-1], b"message"), (b"", b"message")):
        with pytest.raises(Refused, match="signature does not verify"):
            key.public.verify(signature, message)


@examples(200)
@given(
    st.lists(
        st.one_of(
            st.tuples(
                st.sampled_from([channel.FrameType.CONTROL, channel.FrameType.OPEN, channel.FrameType.DATA]),
                st.integers(0, 9),
                st.binary(max_size=99),
            ),
            st.tuples(
                st.sampled_from([channel.FrameType.END, channel.FrameType.ACCEPT]),
                st.integers(0, 9),
                st.just(b""),
            ),
            st.tuples(st.just(channel.FrameType.RESET), st.integers(0, 9), st.binary(max_size=16)),
            st.tuples(st.just(channel.FrameType.CREDIT), st.integers(0, 9), st.binary(max_size=4)),
            st.tuples(
                st.just(channel.FrameType.CONTROL), st.integers(0, 9), st.integers(0, 400_000).map(bytes)
            ),
        )
    ),
    st.data(),
)
def test_frames_survive_any_cutting(frames, data):
    made = [channel.Frame(type=kind, stream=stream, payload=payload) for kind, stream, payload in frames]
    stream = b"".join(one.encode() for one in made)
    decoder = channel.Decoder()
    out = []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        out += decoder.feed(stream[:cut])
        stream = stream[cut:]
    assert out == made


@examples(200)
@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_malformed(data):
    with contextlib.suppress(Malformed):
        channel.Decoder().feed(data)


PARSERS = [
    party.parse,
    identity.read_public,
    launch.parse,
    manifest.parse,
    manifest.parse_envelope,
    receipt.parse,
    receipt.parse_envelope,
    record.parse,
    evidence.parse,
    messages.parse_challenge,
    messages.parse_challenge_request,
    messages.split_release_request,
    messages.parse_release_head,
    messages.parse_release_answer,
    messages.parse_ledger_proof,
    messages.parse_disk_keys,
]


@pytest.mark.parametrize("parse", PARSERS, ids=lambda one: f"{one.__module__}.{one.__name__}")
@examples(60)
@given(
    st.one_of(
        st.binary(max_size=100),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8)),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
            ),
            max_leaves=8,
        ).map(lambda value: __import__("json").dumps(value).encode()),
    )
)
def test_rule_15_parsers_raise_malformed_alone(parse, data):
    with pytest.raises(Malformed):
        parse(data)
