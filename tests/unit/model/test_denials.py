"""A denied release in bytes: its message names the checks that failed, and no other."""

from __future__ import annotations

import json

from strongroom.model import messages


def test_a_denial_names_the_checks_that_failed():
    checks = [{"name": "nonce.fresh", "ok": False}, {"name": "run.unique", "ok": True}]
    checks.append({"name": "request.role", "ok": False})
    answer = messages.DenialAnswer(verdict={"checks": checks}, ledger=None)
    error = json.loads(answer.encode())["error"]
    assert error["code"] == "denied"
    assert error["message"] == "release: denied by nonce.fresh, request.role"
