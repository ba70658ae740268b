"""What a denied release failed by."""

from __future__ import annotations

from strongroom.model import messages


def failed(answer):
    assert isinstance(answer, messages.DenialAnswer), "released, where a denial was due"
    return [check["name"] for check in answer.verdict["checks"] if not check["ok"]]
