"""QEMU: the machine, its accelerator, and its TEE."""
