"""COSE_Sign1 of devices: each of its four members has one form."""

from __future__ import annotations

import cbor2
import pytest

from strongroom.encoding import sign1
from strongroom.errors import Malformed


def message(protected=b"\xa1\x01\x26", unprotected=None, payload=b"payload", signature=b"s" * 64):
    return cbor2.dumps(cbor2.CBORTag(18, [protected, unprotected or {}, payload, signature]))


def test_a_message_is_read():
    read = sign1.parse(message(), "it", max_bytes=1000)
    assert (read.header, read.payload, read.signature) == ({1: -7}, b"payload", b"s" * 64)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"protected": b""}, "expected a protected header"),
        ({"protected": "text"}, "expected a protected header"),
        ({"protected": b"\x01"}, "expected a header without critical entries"),
        (
            {"protected": cbor2.dumps({1: -7, sign1.CRITICAL: [4]})},
            "expected a header without critical entries",
        ),
        ({"unprotected": {4: b"kid"}}, "expected an empty unprotected header"),
        ({"payload": b""}, "expected a payload"),
        ({"payload": "text"}, "expected a payload"),
        ({"signature": b""}, "expected a signature"),
        ({"signature": "text"}, "expected a signature"),
        ({"signature": bytes(sign1._MAX_SIGNATURE + 1)}, "expected a signature"),
    ],
)
def test_each_member_that_is_none_is_refused(changed, why):
    with pytest.raises(Malformed, match=f"it: {why}"):
        sign1.parse(message(**changed), "it", max_bytes=2000)
