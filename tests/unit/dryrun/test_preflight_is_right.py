"""What preflight says of an image, and what becomes of it in the agent's own container: the same, in both directions."""

from __future__ import annotations

import pytest

from strongroom.errors import Refused, Unavailable
from strongroom.images.preflight import examine
from strongroom.images.preflight.examine import ImageLocation
from tests import effort
from tests.unit.dryrun.cases import CASES
from tests.unit.dryrun.images import BUSYBOX, attempt, base, layout

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs busybox-static"),
]


@pytest.mark.parametrize("name", effort.some(list(CASES)))
def test_what_preflight_says_is_what_happens(tmp_path, name):
    word, files, settings = CASES[name]
    path = layout(tmp_path, base(), *files(), **settings)
    report = examine.examine(ImageLocation(path=path), scratch=tmp_path, platforms=("local",), memory_mib=512)
    try:
        happened = not attempt(path, tmp_path)[0].failed
    except (Refused, Unavailable) as cause:
        assert cause.code == "mount-point"  # noqa: PT017 - there is a word for either
        happened = False
    assert (report.will_run, happened) == (word, word), report.findings
