"""PEM: the forms that count, and that no changed byte leads from one of them to another of the same contents."""

from __future__ import annotations

import pytest

from strongroom.encoding import pem
from strongroom.errors import Malformed
from tests import effort

BLOCKS = (bytes(range(200)), b"x", b"y" * 48)
TEXT = b"".join(pem.encode(one, b"CERTIFICATE") for one in BLOCKS)


def decode(text, *, most=3):
    return pem.decode(text, b"CERTIFICATE", what="chain", max_blocks=most, max_bytes=4096)


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        TEXT + b"\0",
        TEXT[:-1],
        TEXT.replace(b"-----\n-----", b"----------"),
        TEXT.replace(b"-----\n-----", b"-----\n\n-----"),
        TEXT.replace(b"\n", b"\r\n"),
        TEXT.replace(b"\n", b"\r\n") + b"\0",
    ],
)
def test_every_form_that_counts_and_none_of_its_changed_bytes(text):
    assert decode(text) == BLOCKS
    for at in effort.some(range(len(text))):
        for put in range(256):
            if put == text[at]:
                continue
            try:
                changed = decode(text[:at] + bytes([put]) + text[at + 1 :])
            except Malformed:
                continue
            assert changed != BLOCKS, (at, put)


def test_lines_may_be_of_76_characters_if_all_are():
    body = pem.encode(BLOCKS[0], b"CERTIFICATE").split(b"\n")
    letters = b"".join(body[1:-2])
    wide = b"\n".join(
        [body[0], letters[:76], letters[76:152], letters[152:228], letters[228:], body[-2], b""]
    )
    assert decode(wide) == BLOCKS[:1]
    ragged = b"\n".join([body[0], letters[:76], letters[76:140], letters[140:], body[-2], b""])
    with pytest.raises(Malformed, match="whose lines are all as long as the first"):
        decode(ragged)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"", "expected PEM: CERTIFICATE blocks and nothing around them"),
        (b"\0", "expected PEM: CERTIFICATE blocks and nothing around them"),
        (b"\n", "expected PEM: CERTIFICATE blocks and nothing around them"),
        (TEXT + b"\n", "expected PEM: CERTIFICATE blocks and nothing around them"),
        (TEXT[:-1] + b"\0", "expected PEM: CERTIFICATE blocks and nothing around them"),
        (TEXT + b"\0\0", "expected PEM: CERTIFICATE blocks and nothing around them"),
        (b" " + TEXT, "expected PEM: CERTIFICATE blocks and nothing around them"),
        (b"subject=x\n" + TEXT, "expected PEM: CERTIFICATE blocks and nothing around them"),
        (
            TEXT.replace(b"-----\n-----", b"-----\n\n\n-----"),
            "expected PEM: CERTIFICATE blocks and nothing around them",
        ),
        (
            TEXT.replace(b"CERTIFICATE", b"X509 CRL"),
            "expected PEM: CERTIFICATE blocks and nothing around them",
        ),
        (TEXT.replace(b"\n", b"\r"), "expected PEM: CERTIFICATE blocks and nothing around them"),
        (
            TEXT.replace(b"eA==", b"eB=="),
            "whose lines are all as long as the first",
        ),  # spare bits that are not zero
        (TEXT.replace(b"eA==", b""), "whose lines are all as long as the first"),
        (TEXT[: len(TEXT) // 2], "expected PEM: CERTIFICATE blocks and nothing around them"),
    ],
)
def test_other_texts_are_malformed(bad, why):
    with pytest.raises(Malformed, match=why):
        decode(bad)


def test_bounds_hold():
    with pytest.raises(Malformed, match="more than 2 blocks"):
        decode(TEXT, most=2)
    with pytest.raises(Malformed, match="505 bytes, at most 504 allowed"):
        pem.decode(TEXT, b"CERTIFICATE", what="chain", max_blocks=3, max_bytes=len(TEXT) - 1)
