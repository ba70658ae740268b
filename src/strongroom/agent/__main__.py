"""Process 1 of the room.

The order of acts:
  1 mounts, and the last place in the kernel's out-of-memory order
  2 fork the launcher, which will run the program, while there is nothing to keep from it
  3 open the channel, take over the initrd's record of failed reads, and find the one TEE that this machine is
    (`devices.detect`)
  4 the room's life (`room.run`, whose own order is numbered there)
  5 tell the node how it ended, and power off; whatever happens, the machine does not go on without its agent

The kernel's command line says that a panic halts the machine, so that even an end of this process is an end.
"""

from __future__ import annotations

import os
import sys
import time

from strongroom.agent import value_classes

if __name__ == "__main__":
    sys.modules["dataclasses"] = value_classes  # before any class is made of it

from strongroom.agent import init, kernel, launcher

FIRST_SECONDS = 180.0


def main() -> None:
    """Live, report, power off."""
    try:
        init.set_up()  # 1
        init.watch(FIRST_SECONDS)
        guard = launcher.spawn()  # 2
        _run_room(guard)  # 3, 4
    finally:
        kernel.power_off()  # 5


def _run_room(guard: launcher.Warden) -> None:
    # Imported after the fork: the launcher needs none of it, and a small process forks fast.
    from strongroom.agent import channel, room  # noqa: PLC0415
    from strongroom.agent.devices import detect  # noqa: PLC0415
    from strongroom.agent.disks import reads  # noqa: PLC0415
    from strongroom.agent.life.kernel_clock import KernelClock  # noqa: PLC0415

    port = channel.open_any()  # 3
    try:
        watch = reads.inherited()
        hardware = detect.hardware(detect.RealKernel())
        if port.ends:  # a vsock connection: the disks come by vsock too
            from strongroom.agent import vsock  # noqa: PLC0415
            from strongroom.agent.disks import nbd  # noqa: PLC0415

            find = nbd.NbdDisks(lambda: vsock.connect(vsock.DISKS)).find
            room.run(port, hardware, guard, watch, KernelClock(), find)  # 4
        else:
            room.run(port, hardware, guard, watch, KernelClock())  # 4
    except BaseException as cause:  # noqa: BLE001 - whatever fails, the node gets word of it and the power goes off
        room.report(port, cause)
    else:
        port.send_control("done")
    os.sync()
    time.sleep(0.05)  # QEMU passes on what the port has taken in


if __name__ == "__main__":
    main()
