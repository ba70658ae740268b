"""Each getter of a document's fields: what it gives, and by which words it refuses."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from strongroom.encoding import cbor, cbor_writer, dsse, fields, tpm2
from strongroom.encoding.reader import Reader
from strongroom.errors import Malformed

DIGEST = "sha256:" + "0a" * 32


def source(value):
    return fields.Fields({"a": value}, "x", quoting=True)


@pytest.mark.parametrize(
    ("ask", "value", "why"),
    [
        (lambda one: one.text("a"), 1, "text of 1 to 4096 characters"),
        (lambda one: one.text("a"), "", "text of 1 to 4096 characters"),
        (lambda one: one.text("a"), "a" * 4097, "text of 1 to 4096 characters"),
        (lambda one: one.text("a"), "a\0b", "text without NUL"),
        (lambda one: one.text("a", pattern=re.compile("b")), "bb", "text that matches b"),
        (lambda one: one.digest("a"), DIGEST.upper(), "lower-case hexadecimal digits, got 'SHA256:0A"),
        (lambda one: one.digest("a"), DIGEST + "\n", "sha256: and 64 lower-case hexadecimal digits, got"),
        (lambda one: one.digest_or_null("a"), "", "sha256: and 64 lower-case hexadecimal digits, got"),
        (lambda one: one.integer("a", low=1, high=2), 0, "an integer from 1 to 2"),
        (lambda one: one.integer("a", low=1, high=2), 3, "an integer from 1 to 2"),
        (lambda one: one.integer("a", low=1, high=2), True, "an integer from 1 to 2"),
        (lambda one: one.integer("a", low=1, high=2), "1", "an integer from 1 to 2"),
        (lambda one: one.boolean("a"), 1, "true or false"),
        (lambda one: one.boolean("a"), None, "true or false"),
        (lambda one: one.data("a", max_bytes=3), "AAAAAAAA", "base64 of at most 3 bytes"),
        (lambda one: one.data("a", max_bytes=2), "AAAA", "base64 of at most 2 bytes, got 3 bytes"),
        (lambda one: one.data("a", max_bytes=2), "AAB=", "canonical base64, got text whose last"),
        (lambda one: one.data("a", max_bytes=3), b"AAAA", "base64 of at most 3 bytes"),
        (lambda one: one.data("a", max_bytes=3, exactly=2), "AAAA", "2 bytes in base64"),
        (lambda one: one.data_or_null("a", max_bytes=3), "A", "a: expected base64"),
        (lambda one: one.time("a"), "2026-11-24T12:00:00", "UTC time like .*, got '2026-11-24T12:00:00'"),
        (
            lambda one: one.time("a"),
            "2026-11-24T24:00:01Z",
            "a date and time that exist, got '2026-11-24T24:00:01Z'",
        ),
        (lambda one: one.items("a", max_items=1), [1, 2], "a list of at most 1"),
        (lambda one: one.items("a", max_items=1), {}, "a list of at most 1"),
        (lambda one: one.texts("a", max_items=2), ["b", 1], r"a\[1\]: expected text of 1 .*, got 1$"),
        (lambda one: one.text_map("a", max_items=1), [], "an object of at most 1 entries"),
        (lambda one: one.text_map("a", max_items=1), {"b": "", "c": ""}, "an object of at most 1 entries"),
        (lambda one: one.text_map("a", max_items=1), {"": ""}, "keys have 1 to 256 characters"),
        (lambda one: one.text_map("a", max_items=1), {"b" * 257: ""}, "keys have 1 to 256 characters"),
        (lambda one: one.text_map("a", max_items=1), {"b\0": ""}, "keys have 1 to 256 characters"),
        (
            lambda one: one.text_map("a", max_items=1),
            {"b": 1},
            "x.a.b: expected text of at most 4096 characters",
        ),
        (
            lambda one: one.text_map("a", max_items=1, max_length=1),
            {"b": "cc"},
            "x.a.b: expected text of at most 1 characters, .* got text of 2 characters",
        ),
        (
            lambda one: one.text_map("a", max_items=1),
            {"b": "\0"},
            "x.a.b: expected text of at most 4096 characters",
        ),
        (lambda one: one.text_map_of(("a",), max_length=1), "bb", "text of at most 1 characters"),
        (lambda one: one.text_map_of(("a",), max_length=1), 1, "text of at most 1 characters"),
        (lambda one: one.text_map_of(("a", "b"), max_length=1), "c", "key 'b' is missing"),
        (lambda one: one.raw_object("a"), [], "a: expected an object"),
        (lambda one: one.object("a"), None, "x.a: expected an object"),
        (lambda one: one.object_or_null("a"), [], "x.a: expected an object"),
        (lambda one: one.objects("a", max_items=1), [1], r"x.a\[0\]: expected an object"),
        (lambda one: one.constant("a", "b"), "c", "a: expected 'b', got 'c'"),
        (lambda one: one.constant("a", "b"), 1, "a: expected 'b', got 1"),
        (lambda one: one.choice("a", ("b", "c")), "d", "a: expected one of b, c, got 'd'"),
        (lambda one: one.choice("a", ("b",)), ["b"], "a: expected b, got a list of 1"),
        (
            lambda one: one.words("a", max_items=1),
            ["", ""],
            "a: expected a list of at most 1, got a list of 2",
        ),
        (
            lambda one: one.words("a", max_items=2),
            ["", 1],
            r"a\[1\]: expected text of at most 65536 .*, got 1$",
        ),
        (lambda one: one.words("a", max_items=1), ["b\0"], r"a\[0\]: expected text of .*, none of them NUL"),
        (lambda one: one.words_or_null("a", max_items=1), "", "a list of at most 1, got an empty text"),
        (lambda one: one.value("b"), 1, "key 'b' is missing"),
        (lambda one: one.done(), 1, "unknown key 'a'"),
    ],
)
def test_each_getter_refuses_by_name(ask, value, why):
    with pytest.raises(Malformed, match=why):
        ask(source(value))


@pytest.mark.parametrize(
    ("ask", "value", "got"),
    [
        (lambda one: one.text("a"), "a" * 4096, "a" * 4096),
        (lambda one: one.name("a"), "a" * 64, "a" * 64),
        (lambda one: one.digest_or_null("a"), None, None),
        (lambda one: one.digest_or_null("a"), DIGEST, DIGEST),
        (lambda one: one.integer("a", low=1, high=2), 1, 1),
        (lambda one: one.integer("a", low=1, high=2), 2, 2),
        (lambda one: one.boolean("a"), False, False),
        (lambda one: one.data("a", max_bytes=3), "AAAA", b"\0\0\0"),
        (lambda one: one.data("a", max_bytes=0), "", b""),
        (lambda one: one.data_or_null("a", max_bytes=3), None, None),
        (lambda one: one.data_or_null("a", max_bytes=3), "AAAA", b"\0\0\0"),
        (lambda one: one.time("a"), "2026-11-24T12:00:00Z", datetime(2026, 11, 24, 12, tzinfo=UTC)),
        (lambda one: one.items("a", max_items=1), [1], [1]),
        (lambda one: one.texts("a", max_items=2), ["b", "b"], ("b", "b")),
        (lambda one: one.text_map("a", max_items=1), {"b" * 256: ""}, {"b" * 256: ""}),
        (lambda one: one.text_map("a", max_items=1, max_length=1), {"b": "c"}, {"b": "c"}),
        (lambda one: one.text_map_of(("a",), max_length=1), "", {"a": ""}),
        (lambda one: one.text_map_of(("a",), max_length=1), "b", {"a": "b"}),
        (lambda one: one.raw_object("a"), {}, {}),
        (lambda one: one.object_or_null("a"), None, None),
        (lambda one: one.choice("a", ("b", "c")), "c", "c"),
        (lambda one: one.words("a", max_items=2), ["", "a" * 65536], ("", "a" * 65536)),
        (lambda one: one.words_or_null("a", max_items=2), None, None),
        (lambda one: one.words_or_null("a", max_items=2), [], ()),
        (lambda one: one.names(), 1, ("a",)),
        (lambda one: one.constant("a", "b"), "b", None),
    ],
)
def test_each_getter_gives_and_consumes(ask, value, got):
    one = source(value)
    assert ask(one) == got
    if got != ("a",):
        one.done()


def test_times_are_written_as_they_are_read():
    text = "2026-11-24T12:34:56Z"
    assert fields.format_time(source(text).time("a")) == text


ENVELOPE = dsse.Envelope(
    payload_type="a/b", payload=b"12345", signatures=(dsse.DsseSignature(keyid="k", sig=b"s"),)
)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"keyid":"k"', '"keyid":"k","x":1', "unknown key 'x'"),
        ('"payload":', '"x":1,"payload":', "unknown key 'x'"),
        ('"keyid":"k"', '"keyid":""', "keyid: expected text of 1 to 200"),
        ('"keyid":"k"', '"keyid":"' + "k" * 201 + '"', "keyid: expected text of 1 to 200"),
        ('"sig":"cw=="', '"sig":"' + "A" * 10928 + '"', "sig: expected base64 of at most 8192"),
        (
            '"signatures":[',
            '"signatures":[' + '{"keyid":"k","sig":"cw=="},' * dsse.MAX_SIGNATURES,
            "a list of at most",
        ),
        ("a/b", "a/c", "payloadType: expected a/b, got 'a/c'"),
        ("MTIzNDU=", "MTIzNDU2", "payload: expected base64 of at most 5 bytes, got 6 bytes"),
        ("MTIzNDU=", "MTIzNDU2Nzg5", "payload: expected base64 of at most 5"),
        ("{", " " * 100_000 + "{", "bytes, at most"),
    ],
)
def test_envelopes_are_refused_by_what_is_wrong(old, new, why):
    text = ENVELOPE.encode().decode()
    assert dsse.parse(text.encode(), payload_type="a/b", max_payload=5) == ENVELOPE
    with pytest.raises(Malformed, match=why):
        dsse.parse(text.replace(old, new, 1).encode(), payload_type="a/b", max_payload=5)


def test_a_cbor_map_knows_true_from_one():
    assert cbor.Map({1: True}, "x").boolean(1)
    assert not cbor.Map({1: False}, "x").boolean(1)
    for value in (1, 0, None, b""):
        with pytest.raises(Malformed, match=r"x.1: expected true or false"):
            cbor.Map({1: value}, "x").boolean(1)


def test_cbor_is_written_in_its_shortest_form():
    for count, head in ((23, "17"), (24, "1818"), (255, "18ff"), (256, "190100"), (65_536, "1a00010000")):
        assert cbor_writer.dumps(count).hex() == head
    assert cbor_writer.dumps((1 << 64) - 1).hex() == "1b" + "ff" * 8
    assert cbor_writer.dumps({10: 1, "a": 2, 2: 3}).hex() == "a302030a01616102"


def handles(capability, *values, more=0, count=None):
    data = bytes([more]) + capability.to_bytes(4, "big")
    data += (len(values) if count is None else count).to_bytes(4, "big")
    return Reader(data + b"".join(value.to_bytes(4, "big") for value in values), "TPM response")


def test_a_tpms_handles():
    assert tpm2.read_handles(handles(1, 7, 9, more=1)) == frozenset({7, 9})
    assert len(tpm2.read_handles(handles(1, *range(128)))) == 128
    for reader, why in (
        (handles(2, 7), "not about handles, which were asked for"),
        (handles(1, *range(129)), "129 handles, at most 128 asked for"),
        (handles(1, count=1 << 31), "handles, at most 128 asked for"),
        (handles(1, 7, count=2), "4 bytes wanted"),
        (handles(1, 7, 9, count=1), "4 trailing bytes"),
    ):
        with pytest.raises(Malformed, match=why):
            tpm2.read_handles(reader)


def test_numbers_are_read_whole_in_either_order():
    data = bytes(range(1, 9))
    for size, read, order in (
        (2, Reader.u16, "big"),
        (4, Reader.u32, "big"),
        (4, Reader.u32le, "little"),
        (8, Reader.u64le, "little"),
    ):
        reader = Reader(data[:size], "x")
        assert read(reader) == int.from_bytes(data[:size], order)
        reader.done()
        with pytest.raises(Malformed, match=f"x: {size} bytes wanted at offset 0, {size - 1} left"):
            read(Reader(data[: size - 1], "x"))


def test_an_envelope_holds_as_many_signatures_as_a_contract_has_parties():
    one = dsse.DsseSignature(keyid="k", sig=b"s")
    full = dsse.Envelope(payload_type="a/b", payload=b"", signatures=(one,) * 32)
    assert dsse.parse(full.encode(), payload_type="a/b", max_payload=0) == full
    over = dsse.Envelope(payload_type="a/b", payload=b"", signatures=(one,) * 33)
    with pytest.raises(Malformed, match="signatures: expected a list of at most 32"):
        dsse.parse(over.encode(), payload_type="a/b", max_payload=0)
