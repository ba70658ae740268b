"""The host side of a room: QEMU, swtpm, disks, relay, memory guard."""
