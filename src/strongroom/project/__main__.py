"""The supervisor as a process: `python -m strongroom.project FOLDER`, which `up` starts and `down` ends."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from strongroom.project import supervisor
from strongroom.project.folder import StateFolder

PROGRAM = (sys.executable, "-m", "strongroom.cli.main")


def main() -> None:
    """Keep up what the folder's plan says."""
    folder = StateFolder(path=Path(sys.argv[1]))
    with folder.supervised():
        keeper = supervisor.ProjectSupervisor(
            folder, supervisor.ProcessCommands(folder=folder, program=PROGRAM)
        )
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, keeper.stop)
        keeper.run()


if __name__ == "__main__":
    main()
