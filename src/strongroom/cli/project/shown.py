"""What verbs about a Compose file have in common: how what was found in it is shown."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from strongroom.cli.printable import printable

if TYPE_CHECKING:
    from strongroom.project.model import Project

_WORDS = {"blocks": "refused", "warns": "warning", "fine": "note"}


def print_findings(project: Project) -> None:
    """Everything that the file says and a room does otherwise, on standard error, each with its line."""
    for finding in project.findings:
        fix = f"; {finding.fix}" if finding.fix else ""
        print(
            printable(
                f"{_WORDS[finding.severity.value]}: line {finding.line}: {finding.where}: {finding.what}{fix}"
            ),
            file=sys.stderr,
        )
