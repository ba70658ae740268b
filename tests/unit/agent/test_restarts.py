"""When a program is started again."""

from __future__ import annotations

import pytest

from strongroom.agent.restarts import Restarts


@pytest.mark.parametrize(
    ("policy", "succeeded", "again"),
    [
        ("never", True, False),
        ("never", False, False),
        ("on-failure", True, False),
        ("on-failure", False, True),
        ("always", True, True),
        ("always", False, True),
    ],
)
def test_the_policy_says_whether_a_program_starts_again(policy, succeeded, again):
    assert (Restarts(policy).after(succeeded=succeeded, ran_seconds=1.0) is not None) is again


def test_pauses_grow_and_are_bounded_and_a_program_that_ran_steadily_begins_anew():
    restarts = Restarts("always")
    pauses = [restarts.after(succeeded=False, ran_seconds=1.0) for _ in range(8)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert restarts.after(succeeded=False, ran_seconds=301.0) == 1
    for _ in range(99):
        assert restarts.after(succeeded=False, ran_seconds=1.0) is not None
    assert restarts.after(succeeded=False, ran_seconds=1.0) is None
