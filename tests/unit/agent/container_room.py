"""A container on this very machine, from a root folder with busybox, for tests that need root."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from strongroom.agent import container, kernel, launcher, owners, program
from strongroom.agent.disks import reads
from strongroom.streams.poll import Poll

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from strongroom.agent.network.relay import ProgramNetwork

BUSYBOX = "/usr/bin/busybox"


class ContainerRoom:
    """Folders for one run. Mounts lie below `base`; `close` takes them away."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.root, self.out, self.data = base / "image", base / "out", base / "flights"
        for path in (self.root / "bin", self.root / "etc", self.out, self.data, base / "scratch"):
            path.mkdir(parents=True)
        shutil.copy(BUSYBOX, self.root / "bin/busybox")
        for name in ("sh", "cat", "id", "ls", "sleep", "mount", "ip", "echo", "kill", "env", "hostname", "chroot",
                     "unshare", "ping", "touch", "mkdir", "dd", "true", "head", "wc", "mkfifo", "stat", "grep"):  # fmt: skip
            (self.root / "bin" / name).symlink_to("busybox")
        (self.root / "etc/passwd").write_text(
            "root:x:0:0::/root:/bin/sh\nduck:x:1000:1000::/home/duck:/bin/sh\n"
        )
        (self.data / "table.csv").write_text("a,b\n1,2\n")
        kernel.mount("tmpfs", str(self.out), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m")
        os.chown(self.out, owners.kernel_id(1000), owners.kernel_id(1000))
        self.launch = container.ContainerLaunch(
            arguments=("/bin/sh", "-c", "true"),
            environment={"PATH": "/bin"},
            working_directory="/",
            uid=1000,
            gid=1000,
            groups=(1000, 2000),
            image=str(self.root),
            datasets={"flights": str(self.data)},
            out=str(self.out),
            tls="",
            scratch=str(base / "scratch"),
            root_bytes=8 << 20,
            tmp_bytes=4 << 20,
            cgroup="",
        )
        self.record, self._kernel = os.pipe()

    def fail_a_read(self) -> None:
        """As the kernel would note it."""
        os.write(self._kernel, b"x")

    def run(
        self,
        *arguments: str,
        wall: float = 20,
        log: int = 1 << 20,
        on_start: Callable[[], None] = lambda: None,
        waiter: program.Waiter | None = None,
        network: ProgramNetwork | None = None,
        **changes: object,
    ) -> program.Ended:
        self.starts = 0

        def started() -> None:
            self.starts += 1
            on_start()

        launch = replace(self.launch, arguments=arguments, **changes)
        return program.run(
            launcher.spawn(),
            launch,
            waiter=waiter or Poll(),
            network=network,
            reads=reads.ReadWatch(self.record),
            limit=wall,
            log_bytes=log,
            on_start=started,
        )

    def shell(self, script: str, **changes: object) -> program.Ended:
        return self.run("/bin/sh", "-c", script, **changes)

    def close(self) -> None:
        kernel.unmount(str(self.out))
        os.close(self.record)
        os.close(self._kernel)
