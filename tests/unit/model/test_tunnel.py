"""What the two ends of a tunnel say: one spelling each, bounded, and `Malformed` for all else."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import Malformed
from strongroom.model import tunnel
from strongroom.model.tunnel import TunnelFrame, Wants
from tests.effort import examples

HELLO = tunnel.Hello(
    contract_digest="sha256:" + "a" * 64,
    role=tunnel.OUTSIDE,
    peer="db",
    port="sql",
    nonce=bytes(32),
    wants=Wants.EVIDENCE,
)


@pytest.mark.parametrize("hello", [HELLO, replace(HELLO, role="web", wants=Wants.RECORDS)])
def test_a_hello_is_read_as_it_was_written(hello):
    assert tunnel.parse_hello(hello.encode()) == hello


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", "strongroom-tunnel/2"),
        ("contract", "sha256:00"),
        ("role", "Web"),
        ("role", None),
        ("peer", "../db"),
        ("port", ""),
        ("nonce", "AAAA"),
        ("wants", "nothing"),
        ("more", 1),
    ],
)
def test_a_hello_that_is_not_one(key, value):
    document = {**json.loads(HELLO.encode()), key: value}
    with pytest.raises(Malformed, match=rf"tunnel hello.*{key}"):
        tunnel.parse_hello(json.dumps(document).encode())


@pytest.mark.parametrize("wants", Wants)
@pytest.mark.parametrize("kind", TunnelFrame)
def test_frames_have_a_longest(kind, wants):
    most = tunnel.most(kind, wants)
    assert tunnel.parse_header(tunnel.header(kind, most), wants=wants) == (kind, most)
    with pytest.raises(Malformed, match=f"at most {most}"):
        tunnel.parse_header(tunnel.header(kind, most + 1), wants=wants)


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x00\x00\x00\x00", b"\x07\x00\x00\x00", b"\xff" * 4])
def test_no_frame(data):
    with pytest.raises(Malformed, match="expected a frame"):
        tunnel.parse_header(data, wants=Wants.RECORDS)


def test_a_statement_has_all_its_parts():
    statement = tunnel.RoomStatement(sequence=7, signature=b"s" * 64, proof=b"{}")
    assert tunnel.parse_statement(statement.encode()) == statement
    for cut in range(73):
        with pytest.raises(Malformed, match="more than 72 bytes"):
            tunnel.parse_statement(statement.encode()[:cut])


def test_a_refusal_cannot_write_on_a_terminal():
    refusal = tunnel.Refusal(code="tunnel-port", message="no\x1b[2J\nverified" + "ü" * 2000)
    data = refusal.encode()
    assert len(data) <= tunnel.MAX_REFUSAL
    shown = tunnel.parse_refusal(data)
    assert shown.message.startswith("no?[2J?verified")
    assert shown.message.isprintable()


PARSERS = {
    "hello": tunnel.parse_hello,
    "statement": tunnel.parse_statement,
    "refusal": tunnel.parse_refusal,
    "header": lambda data: tunnel.parse_header(data, wants=Wants.RECORDS),
    "records": lambda data: tunnel.parse_proof(data, wants=Wants.RECORDS),
    "evidence": lambda data: tunnel.parse_proof(data, wants=Wants.EVIDENCE),
}


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.binary(max_size=300))
@examples(200)
def test_any_bytes_are_a_value_or_malformed(name, data):
    try:
        PARSERS[name](data)
    except Malformed:
        pass
