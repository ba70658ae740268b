"""What room and broker say to each other: a denial names what failed, and nothing unknown is passed over."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from strongroom.errors import Malformed
from strongroom.model import messages, verdict


def test_a_denial_names_the_checks_that_failed():
    checks = [{"name": "nonce.fresh", "ok": False}, {"name": "run.unique", "ok": True}]
    checks.append({"name": "request.role", "ok": False})
    answer = messages.DenialAnswer(verdict={"checks": checks}, ledger=None)
    error = json.loads(answer.encode())["error"]
    assert error["code"] == "denied"
    assert error["message"] == "release: denied by nonce.fresh, request.role"


def test_a_challenge_has_its_keys_and_no_other():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    one = messages.Challenge(nonce=bytes(messages.NONCE_BYTES), time=now, expires=now)
    assert messages.parse_challenge(one.encode()) == one
    more = {**json.loads(one.encode()), "more": 1}
    with pytest.raises(Malformed, match="challenge: unknown key 'more'"):
        messages.parse_challenge(json.dumps(more).encode())


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


def test_data_of_a_check_are_nested_so_deep_and_no_deeper():
    assert verdict._data(nested(verdict._MAX_DEPTH), "got") == nested(verdict._MAX_DEPTH)
    with pytest.raises(Malformed, match="got: expected text of at most 4096 characters, an integer"):
        verdict._data(nested(verdict._MAX_DEPTH + 1), "got")
