"""When a service renews and ends; with a clock that is an argument."""

from __future__ import annotations

import pytest

from strongroom.agent.life.schedule import Renewals, VerdictSpan


def standing(since=0.0, verdict=86_400.0, certificate=86_400.0):
    return VerdictSpan(since=since, verdict_end=since + verdict, certificate_end=since + certificate)


@pytest.mark.parametrize(
    ("certificate", "verdict", "seconds", "due"),
    [
        (600, 86_400, 3600, 300),
        (86_400, 86_400, 3600, 3600),
        (9999, 1000, 3600, 500),
        (86_400, 86_400, 60, 60),
    ],
)
def test_a_renewal_is_due_at_half_life_or_sooner(certificate, verdict, seconds, due):
    plan = Renewals(standing(7.0, verdict, certificate), renewal_seconds=seconds)
    assert plan.due == 7.0 + due
    plan.renewed(standing(500.0, verdict, certificate))
    assert plan.due == 500.0 + due


def test_failures_are_tried_again_ever_later_until_the_verdict_ends():
    plan = Renewals(standing(0.0, 1000.0, 200.0), renewal_seconds=60)
    now, tries = 60.0, []
    while now < plan.end:
        plan.failed(now)
        tries.append(plan.due - now)
        now = plan.due
    assert tries[:6] == [2, 4, 8, 16, 32, 60]
    assert set(tries[6:]) == {60}
    assert plan.end == 1000.0
    plan.renewed(standing(990.0, 1000.0))
    assert (plan.due, plan.end) == (1050.0, 1990.0)
    plan.failed(1050.0)
    assert plan.due == 1052.0  # pauses begin anew
