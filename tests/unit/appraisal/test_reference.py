"""Reference values from signed files: whose signature counts is the reader's to say, and nothing is dropped silently."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import cbor2
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from strongroom.appraisal import intoto
from strongroom.appraisal.intoto import InTotoStatement, InTotoSubject
from strongroom.appraisal.reference import corim as reference_corim
from strongroom.appraisal.reference import corim_keys
from strongroom.appraisal.reference import values as reference
from strongroom.appraisal.reference.values import Reference, ReferenceRelease
from strongroom.crypto import digest, public_key, sign
from strongroom.encoding import dsse
from strongroom.errors import Malformed, NotFound, Refused
from strongroom.evidence import verify
from strongroom.model.binding import Preset
from strongroom.model.contracts import policy_file
from strongroom_testing.vendors.fake_amd import FakeAmd
from strongroom_testing.vendors.fake_cca import FakeCca
from strongroom_testing.vendors.fake_intel import FakeIntel
from strongroom_testing.vendors.fake_nvidia import FakeGpu
from tests.effort import examples

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
KEY, OTHER = sign.SigningKey(b"\x01" * 32), sign.SigningKey(b"\x02" * 32)
TOLD = {"name": "guest-7", "issued": NOW - timedelta(days=1), "expires": NOW + timedelta(days=1)}
SNP = Reference(
    **TOLD,
    profile="snp",
    tee="snp",
    references=({"measurement": "aa" * 48}, {"measurement": "bb" * 48}),
    tcb={"committed.snp": 20},
)
NITRO = Reference(**TOLD, profile="nitro", tee="nitro", references=({"pcr0": "cc" * 48},), tcb={})
GOOD = ReferenceRelease(
    **TOLD,
    version=7,
    subjects=(InTotoSubject(name="snp/bzImage", digest="sha256:" + "1" * 64),),
    platforms=(SNP, NITRO),
)


def signed(value=GOOD, key=KEY):
    return value.statement().sign(key, keyid=digest.sha256(KEY.public.raw))


def open_signed(data, *trusted, now=NOW):
    return reference.open_signed(data, trusted=trusted or (KEY.public,), now=now)


def test_what_was_signed_is_read():
    assert open_signed(signed()) == GOOD
    assert open_signed(signed(), OTHER.public, KEY.public) == GOOD


def test_only_a_trusted_signature_counts():
    for trusted in ((OTHER.public,), ()):
        with pytest.raises(Refused) as caught:
            reference.open_signed(signed(), trusted=trusted, now=NOW)
        assert caught.value.code == "untrusted-reference"
    envelope = json.loads(signed())
    envelope["signatures"] = []
    with pytest.raises(Refused, match="not signed by any key that you trust"):
        open_signed(json.dumps(envelope).encode())


def test_references_begin_and_end():
    assert open_signed(signed(), now=GOOD.issued) == GOOD
    for now in (GOOD.expires, GOOD.issued - timedelta(seconds=1)):
        with pytest.raises(Refused) as caught:
            open_signed(signed(), now=now)
        assert caught.value.code == "reference-expired"


def test_every_changed_byte_is_refused_but_the_key_ids_which_nobody_signed():
    data = signed()
    keyid = digest.sha256(KEY.public.raw).encode()
    hint = range(data.index(keyid), data.index(keyid) + len(keyid))
    for index in range(len(data)):
        changed = bytearray(data)
        changed[index] ^= 1
        if index in hint:
            assert open_signed(bytes(changed)) == GOOD
            continue
        with pytest.raises((Refused, Malformed)):
            open_signed(bytes(changed))


PLATFORM = json.loads(GOOD.statement().encode())["predicate"]["platforms"][0]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": "strongroom-reference/1"}, "format: expected 'strongroom-reference/2'"),
        ({"platforms": []}, "platforms: expected at least one, each of a profile of its own and with"),
        (
            {"platforms": [PLATFORM, PLATFORM]},
            "platforms: expected at least one, each of a profile of its own and with",
        ),
        (
            {"platforms": [{**PLATFORM, "references": []}]},
            "platforms: expected at least one, each of a profile of its own and with",
        ),
        ({"platforms": [{**PLATFORM, "references": [{}]}]}, "an empty reference would accept anything"),
        ({"platforms": [{**PLATFORM, "tcb": {"committed.snp": -1}}]}, "snp: expected an integer from 0 to"),
        ({"platforms": [{**PLATFORM, "tcbs": {}}]}, "unknown key 'tcbs'"),
        ({"platforms": [{**PLATFORM, "tee": ""}]}, "tee: expected a name: at most 64"),
        (
            {"platforms": [{**PLATFORM, "profile": f"p{n}"} for n in range(17)]},
            "platforms: expected a list of at most 16",
        ),
        ({"version": 0}, "version: expected an integer from 1 to"),
        ({"version": "7"}, "version: expected an integer from 1 to"),
        ({"more": 1}, "unknown key 'more'"),
        ({"name": "x" * 300_000}, "more than"),
    ],
)
def test_what_is_not_understood_is_refused_though_it_is_signed(change, why):
    good = GOOD.statement()
    made = InTotoStatement(
        subjects=good.subjects,
        predicate_type=good.predicate_type,
        predicate={**good.predicate, **change},
    )
    with pytest.raises(Malformed, match=why):
        open_signed(made.sign(KEY, keyid=digest.sha256(KEY.public.raw)))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"_type": "https://in-toto.io/Statement/v0.1"}, "_type: expected 'https://in-toto.io/Statement/v1'"),
        ({"subject": []}, "empty, expected at least one: it would be about nothing"),
        ({"subject": [{"name": "x", "digest": {}}]}, "key 'sha256' is missing"),
        (
            {"subject": [{"name": "x", "digest": {"sha256": "1" * 63}}]},
            "expected a printable name and 64 lower-case hexadecimal digits as sha256, got",
        ),
        ({"subject": [{"name": "x", "digest": {"sha256": "1" * 64, "sha512": "2"}}]}, "unknown key 'sha512'"),
        (
            {"subject": [{"name": "a\nb", "digest": {"sha256": "1" * 64}}]},
            "expected a printable name and 64 lower-case hexadecimal digits as sha256, got",
        ),
        ({"subject": [{"name": "x", "digest": {"sha256": "1" * 64}, "uri": "y"}]}, "unknown key 'uri'"),
        (
            {"subject": [{"name": "x", "digest": {"sha256": "1" * 64}}] * 129},
            "subject: expected a list of at most 128",
        ),
        ({"predicate": []}, "predicate: expected an object"),
        (
            {"predicateType": "urn:strongroom:reference:3"},
            "0 statements of reference values .*, expected one",
        ),
        ({"more": 1}, "unknown key 'more'"),
    ],
)
def test_a_statement_of_another_shape_is_refused_though_it_is_signed(change, why):
    payload = json.dumps({**json.loads(GOOD.statement().encode()), **change}).encode()
    bare = dsse.Envelope(payload_type=intoto.PAYLOAD_TYPE, payload=payload, signatures=())
    signature = dsse.DsseSignature(keyid=digest.sha256(KEY.public.raw), sig=KEY.sign(bare.pae()))
    whole = dsse.Envelope(payload_type=intoto.PAYLOAD_TYPE, payload=payload, signatures=(signature,))
    with pytest.raises(Malformed, match=why):
        open_signed(whole.encode())


def test_other_statements_beside_it_change_nothing():
    other = InTotoStatement(
        subjects=GOOD.subjects, predicate_type="https://slsa.dev/provenance/v1", predicate={}
    )
    beside = other.sign(OTHER, keyid="stranger")
    assert open_signed(b"\n".join((beside, signed(), beside)) + b"\n") == GOOD
    for data, why in (
        (beside, "0 statements of reference values .*, expected one"),
        (b"\n".join((signed(), signed())), "2 statements of reference values .*, expected one"),
        (b"", "expected 1 to 8 lines, each an envelope and none empty, got"),
        (b"\n", "expected 1 to 8 lines, each an envelope and none empty, got"),
        (signed() + b"\n\n", "expected 1 to 8 lines, each an envelope and none empty, got"),
    ):
        with pytest.raises(Malformed, match=why):
            open_signed(data)
    with pytest.raises(Malformed, match="expected 1 to 8 lines, each an envelope and none empty, got"):
        intoto.lines(b"\n".join([signed()] * 9))


def test_a_platform_is_had_by_profile_or_by_tee():
    assert GOOD.platform("nitro") == NITRO
    assert GOOD.platform("snp").extra().tcb == {"committed.snp": 20}
    with pytest.raises(NotFound, match="says nothing of tdx"):
        GOOD.platform("tdx")
    two = ReferenceRelease(
        **TOLD, version=1, subjects=GOOD.subjects, platforms=(replace(SNP, profile="a"), SNP)
    )
    assert two.platform("a").profile == "a"
    with pytest.raises(Refused, match="several platforms are snp"):
        replace(two, platforms=(replace(SNP, profile="a"), replace(SNP, profile="b"))).platform("snp")


def test_the_same_release_is_the_same_bytes():
    assert signed() == signed()


def test_an_envelope_of_another_kind_is_refused():
    other = dsse.Envelope(payload_type="application/x", payload=b"{}", signatures=())
    with pytest.raises(Malformed, match=r"payloadType: expected application/vnd.in-toto.json, got"):
        open_signed(other.encode())


# CoRIM


def comid(*measurements, **more):
    triples = {0: [[{0: {1: "Maker"}}, list(measurements)]]}
    return cbor2.CBORTag(506, cbor2.dumps({1: {0: "tag"}, 4: triples, **more}))


def measurement(key="measurement", **values):
    return {0: key, 1: values.get("mval", {2: [[7, b"\xaa" * 48]]})}


def corim(*tags, validity=None, **more):
    value = {0: "guest-7", 1: list(tags) or [comid(measurement())], **more}
    if validity is not None:
        value[4] = {index: cbor2.CBORTag(1, int(one.timestamp())) for index, one in enumerate(validity)}
    return cbor2.dumps(cbor2.CBORTag(501, value))


def signed_corim(payload=None, key=KEY, header=None, signature=None):
    payload = corim() if payload is None else payload
    protected = cbor2.dumps({1: -8, 3: "application/rim+cbor", **(header or {})})
    message = cbor2.dumps(["Signature1", protected, b"", payload])
    made = key.sign(message) if signature is None else signature(message)
    return cbor2.dumps(cbor2.CBORTag(18, [protected, {}, payload, made]))


def open_corim(data, *trusted, tee="snp", vouched=False, now=NOW):
    return reference_corim.open_corim(
        data, tee=tee, trusted=trusted or (KEY.public,), unsigned_is_trusted=vouched, now=now
    )


def test_a_signed_corim_is_read():
    made = open_corim(signed_corim())
    assert made.references == ({"measurement": "aa" * 48},)
    assert (made.name, made.tee, made.tcb, made.expires) == ("guest-7", "snp", {}, None)


def test_a_corim_by_a_p256_key_is_read_and_algorithm_and_key_must_fit():
    private = ec.generate_private_key(ec.SECP256R1())

    def by(message):
        r, s = decode_dss_signature(private.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    spki = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    key = public_key.key_of_spki(spki)
    assert open_corim(signed_corim(header={1: -7}, signature=by), key).references
    for header in ({1: -8}, {1: -35}):
        with pytest.raises(Refused, match="not signed by any key that you trust"):
            open_corim(signed_corim(header=header, signature=by), key)
    with pytest.raises(Refused, match="not signed by any key that you trust"):
        open_corim(signed_corim(header={1: -7}), KEY.public)


def test_an_unsigned_corim_counts_only_where_the_reader_vouches_for_it():
    with pytest.raises(Refused) as caught:
        open_corim(corim())
    assert caught.value.code == "untrusted-reference"
    assert open_corim(corim(), vouched=True).references
    # To vouch for an unsigned file does not make a bad signature good.
    for data, why in (
        (signed_corim(key=OTHER), "not signed by any key that you trust"),
        (signed_corim(header={3: "text/plain"}), "3: expected application/rim.cbor or"),
    ):
        with pytest.raises((Refused, Malformed), match=why):
            open_corim(data, vouched=True)


def test_a_corim_ends():
    bounded = signed_corim(corim(validity=(NOW - timedelta(hours=1), NOW + timedelta(hours=1))))
    assert open_corim(bounded).expires == NOW + timedelta(hours=1)
    for now, why in (
        (NOW + timedelta(hours=1), "counts from .* until before .*, asked at 2026-11-24T13:00:00Z"),
        (NOW - timedelta(hours=2), "counts from .* until before .*, asked at 2026-11-24T10:00:00Z"),
    ):
        with pytest.raises(Refused, match=why):
            open_corim(bounded, now=now)


@pytest.mark.parametrize(
    ("tee", "key", "mval", "registers"),
    [
        ("snp", 641, {2: [[7, b"\xaa" * 48]]}, {"measurement": "aa" * 48}),
        ("nitro", 0, {2: [["sha-384", b"\xaa" * 48]]}, {"pcr0": "aa" * 48}),
        ("nitro", "pcr8", {2: [[7, b"\xaa" * 48]]}, {"pcr8": "aa" * 48}),
        ("tdx", "mr_td", {4: cbor2.CBORTag(560, b"\xbb" * 48)}, {"mr_td": "bb" * 48}),
        (
            "tdx",
            "x",
            {14: {0: [[7, b"\xaa" * 48]], 3: [[7, b"\xcc" * 48]]}},
            {"rtmr0": "aa" * 48, "rtmr3": "cc" * 48},
        ),
        ("gcp", None, {14: {7: [[1, b"\xaa" * 32]]}}, {"pcr7": "aa" * 32}),
        ("snp", "measurement", {2: [[7, b"\xaa" * 48]], 11: "for people"}, {"measurement": "aa" * 48}),
    ],
)
def test_measurements_become_registers(tee, key, mval, registers):
    one = {1: mval} if key is None else {0: key, 1: mval}
    assert open_corim(signed_corim(corim(comid(one))), tee=tee).references == (registers,)


def sized(value, size=32):
    return {2: [[{32: 1, 48: 7, 64: 8}[size], bytes([value]) * size]]}


def bare(key, mval):
    return {0: key, 1: mval}


REALM = [
    bare("cca.rim", sized(1)),
    bare("cca.rem0", sized(2)),
    bare("cca.rem1", sized(0)),
    bare("cca.rpv", {4: cbor2.CBORTag(560, b"\x07" * 64)}),
]
PLATFORM = [
    bare("cca.software-component", {**sized(3), 11: "BL1", 13: [cbor2.CBORTag(560, b"\x09" * 32)]}),
    bare("cca.software-component", {**sized(4), 11: "BL2"}),
    bare("cca.platform-config", {4: cbor2.CBORTag(560, b"\x05" * 33)}),
]
FIRST_PLATFORM = [
    bare(cbor2.CBORTag(601, {1: "BL", 4: "2.1.0", 5: b"\x09" * 32}), sized(3)),
    bare(cbor2.CBORTag(602, "cfg v1"), {4: cbor2.CBORTag(560, b"\x05" * 8)}),
]


@pytest.mark.parametrize(
    ("tee", "measurements", "registers", "facts"),
    [
        ("cca", REALM, {"rim": "01" * 32, "rem0": "02" * 32}, {"personalization": "07" * 64}),
        (
            "cca",
            PLATFORM,
            {"component0": "03" * 32, "component1": "04" * 32},
            {"component_0_signer": "09" * 32, "config": "05" * 33},
        ),
        (
            "cca",
            FIRST_PLATFORM,
            {"component0": "03" * 32},
            {"component_0_signer": "09" * 32, "config": "05" * 8},
        ),
        (
            "snp",
            [
                bare(641, sized(1, 48)),
                bare(642, {4: b"\x02" * 32}),
                bare(643, sized(3, 48)),
                bare(644, sized(4, 48)),
            ],
            {"measurement": "01" * 48},
            {"host_data": "02" * 32, "id_key_digest": "03" * 48, "author_key_digest": "04" * 48},
        ),
        ("snp", [bare(0, sized(1, 48)), bare(2, {4: b"\x02" * 32})], {"measurement": "01" * 48}, {"host_data": "02" * 32}),
        (
            "tdx",
            [bare("MRTD", sized(1, 48)), bare("mr-seam", sized(2, 48)), bare("RTMR0", sized(3, 48)), bare(1, sized(4, 48))],
            {"mr_td": "01" * 48, "mr_seam": "02" * 48, "rtmr0": "03" * 48, "rtmr1": "04" * 48},
            {},
        ),
        ("sgx", [bare("mrenclave", sized(1))], {"mr_enclave": "01" * 32}, {}),
        ("nvgpu", [bare(9, sized(1, 48))], {"m9": "01" * 48}, {}),
    ],
)  # fmt: skip
def test_the_keys_of_each_tees_profile_name_what_its_claims_have(tee, measurements, registers, facts):
    """A key that is taken as it stands names a register that no claim has: no evidence could fit the file."""
    made = open_corim(signed_corim(corim(comid(*measurements))), tee=tee)
    assert made.references == (registers,)
    assert made.facts == facts
    assert made.extra().facts == facts


def test_the_names_are_those_of_claims():
    now = datetime(2026, 11, 24, tzinfo=UTC)
    bound = Preset(values={"report_data": b"r" * 64, "challenge": b"r" * 64, "nonce": b"n" * 32})
    for tee, maker in (
        ("snp", FakeAmd(now=now)),
        ("tdx", FakeIntel(now=now)),
        ("cca", FakeCca()),
        ("nvgpu", FakeGpu(now=now)),
    ):
        evidence = maker.evidence(bound)
        given = maker.endorsements(evidence) if tee == "nvgpu" else maker.endorsements()
        root = maker.root_digest if tee == "tdx" else maker.root
        claims = verify.verify(evidence, given, binding=bound, roots=frozenset({root}), now=now)
        for name in claims.registers:
            assert corim_keys.register(name, tee) == name
        for name in corim_keys._FACTS.get(tee, ()):
            assert name in claims.facts


def test_attestation_keys_of_a_platform_are_passed_over():
    key = [[{1: cbor2.CBORTag(550, b"\x01" * 33)}, [cbor2.CBORTag(554, "-----BEGIN PUBLIC KEY-----")]]]
    triples = {0: [[{0: {0: cbor2.CBORTag(560, b"i" * 32)}}, PLATFORM]], 3: key}
    tag = cbor2.CBORTag(506, cbor2.dumps({1: {0: "tag"}, 4: triples}))
    assert "component1" in open_corim(signed_corim(corim(tag)), tee="cca").references[0]


@pytest.mark.parametrize(
    ("tee", "measurements", "why"),
    [
        ("cca", [bare("cca.rem4", sized(1))], "names no register: 'cca.rem4', for cca"),
        ("cca", [bare("cca.rpv", {14: {0: sized(1)[2]}})], "names no register: 0, for cca"),
        ("cca", [bare("cca.software-component", {**sized(1), 13: [cbor2.CBORTag(560, b"x")]})], "who signed the component"),
        ("snp", [bare(645, sized(1, 48))], "names no register: 645, for snp"),
        ("snp", [bare(2, {14: {642: sized(1, 48)[2]}})], "names no register: 642, for snp"),
        ("tdx", [bare(4, sized(1, 48))], "names no register: 'rtmr4'|names no register: 4"),
        ("tdx", [bare("measurement", sized(1, 48))], "names no register: 'measurement', for tdx"),
        ("sgx", [bare(0, sized(1))], "names no register: 0, for sgx"),
        ("nitro", [bare(cbor2.CBORTag(111, b"x"), sized(1, 48))], "names no register: of another kind, for nitro"),
        ("tpm", [bare(None, sized(1, 48))], "names no register: of another kind, for tpm"),
        ("tpm", [bare(f"r{index}", sized(1, 48)) for index in range(49)], "more than 48 registers in one triple"),
    ],
)  # fmt: skip
def test_a_key_that_names_nothing_is_refused_in_words(tee, measurements, why):
    with pytest.raises(Malformed, match=why):
        open_corim(signed_corim(corim(comid(*measurements))), tee=tee)


def test_facts_hold_for_all_alternatives_of_a_file_or_it_is_refused():
    one, other = (comid(bare(641, sized(1, 48)), bare(642, {4: bytes([value]) * 32})) for value in (1, 2))
    assert open_corim(signed_corim(corim(one, one))).facts == {"host_data": "01" * 32}
    with pytest.raises(Malformed, match="its alternatives differ in facts"):
        open_corim(signed_corim(corim(one, other)))


def test_minimum_svns_become_minimums_and_each_triple_an_alternative():
    least = measurement("committed.snp", mval={1: cbor2.CBORTag(553, 20)})
    made = open_corim(signed_corim(corim(comid(measurement(), least), comid(measurement()))))
    assert made.tcb == {"committed.snp": 20}
    assert len(made.references) == 2


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "ends too soon"),
        (b"\xa0", "expected a map under tag 501"),
        (cbor2.dumps({0: "x", 1: []}), "expected a map under tag 501"),
        (cbor2.dumps(cbor2.CBORTag(501, {0: "x", 1: []})), "1: expected an array of 1 to 64 items"),
        (
            cbor2.dumps(cbor2.CBORTag(501, {0: "x", 1: [cbor2.CBORTag(505, b"coswid")]})),
            "tag 505, which has no place here",
        ),
        (cbor2.dumps(cbor2.CBORTag(501, {0: "x", 1: [comid(measurement())], 9: "?"})), "unknown key 9"),
        (corim(comid()), "expected 1 to 64 reference triples with registers, got"),
        (corim(comid(measurement(), measurement())), "register measurement is given twice in one triple"),
        (corim(comid(measurement("Kernel Of Sorts"))), "a measurement's key that names no register"),
        (corim(comid({0: 5, 1: {2: [[7, b"\xaa" * 48]]}})), "a measurement's key that names no register"),
        (
            corim(comid(measurement(mval={}))),
            "expected a minimum SVN .1., digests .2., a raw value .4. or integrity registers",
        ),
        (
            corim(comid(measurement(mval={11: "name alone"}))),
            "expected a minimum SVN .1., digests .2., a raw value .4. or integrity registers",
        ),
        (corim(comid(measurement(mval={0: {0: "1.0"}}))), "unknown key 0"),
        (corim(comid(measurement(mval={3: {3: True}}))), "unknown key 3"),
        (
            corim(comid(measurement(mval={1: 3}))),
            "1: expected a minimum SVN .tag 553.: a policy cannot ask for an exact SVN",
        ),
        (
            corim(comid(measurement(mval={1: cbor2.CBORTag(552, 3)}))),
            "1: expected a minimum SVN .tag 553.: a policy cannot ask for an exact SVN",
        ),
        (
            corim(comid(measurement("committed.snp", mval={1: cbor2.CBORTag(553, -3)}))),
            "1: expected an SVN whose measurement is keyed by a",
        ),
        (corim(comid(measurement(mval={4: b"\xaa" * 48, 5: b"\xff" * 48}))), "unknown key 5"),
        (corim(comid(measurement(mval={4: b""}))), "4: expected 1 to 64 bytes"),
        (corim(comid(measurement(mval={2: []}))), "expected exactly one, as a list of algorithm and value"),
        (
            corim(comid(measurement(mval={2: [[7, b"\xaa" * 32]]}))),
            "expected SHA-256, SHA-384 or SHA-512, of its length",
        ),
        (
            corim(comid(measurement(mval={2: [[True, b"\xaa" * 32]]}))),
            "expected SHA-256, SHA-384 or SHA-512, of its length",
        ),
        (
            corim(comid(measurement(mval={2: [[1, b"\xaa" * 32], [7, b"\xaa" * 48]]}))),
            "expected exactly one, as a list of algorithm and value",
        ),
        (
            cbor2.dumps(
                cbor2.CBORTag(
                    501,
                    {0: "x", 1: [cbor2.CBORTag(506, cbor2.dumps({1: {0: "t"}, 4: {0: [[{}, []]], 1: []}}))]},
                )
            ),
            "unknown key 1",
        ),
        (
            corim(comid(*({0: f"pcr{index}", 1: {2: [[7, b"\xaa" * 48]]}} for index in range(49)))),
            "names no register: 'pcr0', for snp",
        ),
        (corim(*(comid(measurement()) for _ in range(65))), "1: expected an array of 1 to 64 items"),
    ],
)
def test_what_is_not_understood_in_a_corim_is_refused_though_it_is_signed(payload, why):
    if payload:
        with pytest.raises(Malformed, match=why):
            open_corim(signed_corim(payload))
    with pytest.raises(Malformed, match=why):
        open_corim(payload, vouched=True)


def test_every_changed_byte_of_a_corim_is_refused():
    data = signed_corim()
    for index in range(len(data)):
        changed = bytearray(data)
        changed[index] ^= 1
        with pytest.raises((Refused, Malformed)):
            open_corim(bytes(changed))


@examples(300)
@given(st.binary(max_size=200), st.integers(0, 200), st.binary(max_size=4))
def test_any_bytes_are_refused_in_words_or_read(data, at, patch):
    whole = corim()
    for one in (data, b"\xd9\x01\xf5" + data, whole[:at] + patch + whole[at + len(patch) :]):
        try:
            open_corim(one, vouched=True)
        except (Malformed, Refused):
            continue


# Policy files


ROOT = "sha256:" + "11" * 32
FILE = {
    "format": "strongroom-policy/1",
    "name": "prod",
    "platforms": [
        {"tee": "snp", "roots": [ROOT], "machines": ["any"], "references": [{"measurement": "cc" * 48}]}
    ],
}
TOML = f"""
format = "strongroom-policy/1"
name = "prod"
[[platforms]]
tee = "snp"
roots = ["{ROOT}"]
machines = ["any"]
references = [{{ measurement = "{"cc" * 48}" }}]
"""


def parse(value, *extra):
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return policy_file.parse(data, pinned=lambda tee: frozenset({ROOT} if tee == "snp" else ()), extra=extra)


def changed(**changes):
    return {**FILE, "platforms": [{**FILE["platforms"][0], **changes}]}


def test_both_forms_of_a_policy_are_one_policy():
    assert parse(FILE) == parse(TOML.encode())
    one = parse(FILE).platforms[0]
    assert (one.simulated, one.memory_guard) == (False, False)


def test_toml_dates_are_times_with_a_zone():
    text = TOML + "[platforms.policy.status]\nUpToDate = 2026-12-31T01:00:00+01:00\n"
    assert parse(text.encode()).platforms[0].policy.status == {"UpToDate": datetime(2026, 12, 31, tzinfo=UTC)}
    for bad, why in (
        (
            "2026-12-31T00:00:00",
            "status.UpToDate: a time without its zone; write it like 2026-12-31T00:00:00Z",
        ),
        ("2026-12-31", "status.UpToDate: expected text, .* with date and zone, got a date"),
        ("12:00:00", "status.UpToDate: expected text, .* got a time"),
        ("1.5", "expected text, an integer, true, false, or a time with date and zone, got a float"),
        ("inf", "expected text, an integer, true, false, or a time with date and zone, got a float"),
    ):
        with pytest.raises(Malformed, match=why):
            parse((TOML + f"[platforms.policy.status]\nUpToDate = {bad}\n").encode())


def test_pinned_roots_are_those_of_the_tee():
    assert parse(changed(roots=["pinned"])).platforms[0].roots == (ROOT,)
    with pytest.raises(Malformed, match="empty, which no room could meet"):
        parse(changed(roots=["pinned"], tee="tpm"))
    with pytest.raises(Malformed, match=r"roots\[0\]: expected sha256: and 64"):
        parse(changed(roots=["pinned", ROOT]))


def test_reference_files_add_alternatives_and_tighten_minimums():
    one = parse(changed(policy={"tcb": {"committed.snp": 22, "launch.snp": 3}}), SNP.extra()).platforms[0]
    assert one.references == ({"measurement": "cc" * 48}, *SNP.references)
    assert one.policy.tcb == {"committed.snp": 22, "launch.snp": 3}
    assert parse(FILE, SNP.extra()).platforms[0].policy.tcb == {"committed.snp": 20}
    assert parse(FILE, SNP.extra()).digest != parse(FILE).digest
    # Of another TEE: not added.
    other = policy_file.Extra(tee="tdx", references=({"mr_td": "x"},), tcb={"a": 1})
    assert parse(FILE, other) == parse(FILE)


def test_facts_of_reference_files_are_demanded_besides_the_policys_own():
    def extra(value):
        return policy_file.Extra(
            tee="snp", references=({"measurement": "aa" * 48},), tcb={}, facts={"host_data": value}
        )

    assert parse(FILE, extra("01")).platforms[0].policy.facts == {"host_data": ("01",)}
    own = changed(policy={"facts": {"host_data": ["01", "02"], "product": "Milan"}})
    assert parse(own, extra("02")).platforms[0].policy.facts == {"host_data": ("02",), "product": ("Milan",)}
    for contradicting in ((own, extra("03")), (FILE, extra("01"), extra("02"))):
        with pytest.raises(
            Malformed,
            match=r"the fact host_data: a reference file demands .*, the policy or another file accepts",
        ):
            parse(*contradicting)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"", "key 'format' is missing"),
        (b"[]", "neither JSON nor TOML: Invalid initial character for a"),
        (b"{}", "key 'format' is missing"),
        (b"format = ", "neither JSON nor TOML: Invalid value .at end of"),
        (b"\xff\xfe", "neither JSON nor TOML: 'utf-8' codec can't decode byte"),
        ({**FILE, "platforms": []}, "empty, so that nothing is accepted"),
        ({**FILE, "platform": []}, "unknown key 'platform'"),
        ({**FILE, "format": "strongroom-policy/2"}, "format: expected 'strongroom-policy/1'"),
        (changed(references=[]), "empty, which no room could meet"),
        (changed(machines=[]), "empty, which no room could meet"),
        (changed(roots=[]), "empty, which no room could meet"),
        (changed(rooots=[]), "unknown key 'rooots'"),
        (changed(policy={"tcbs": {}}), "unknown key 'tcbs'"),
        (changed(simulated="yes"), "simulated: expected true or false"),
        (json.dumps(FILE).encode().replace(b'"name"', b'"name":"x","name"', 1), "duplicate key 'name'"),
    ],
)
def test_rule_34_other_policy_files_are_refused(value, why):
    with pytest.raises(Malformed, match=why):
        parse(value)
