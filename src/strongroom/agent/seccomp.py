"""The program's system call filter: a classic BPF program, assembled here (seccomp(2), x86-64).

What passes: every call of the kernel that the base ships, but those in `REFUSED`, which administer
the machine, reach outside the container, or are known for holes and of no use to a program that
computes. Numbers above that kernel's last call answer ENOSYS, so that a newer kernel adds nothing.
Why not a list of what is allowed: programs come unmodified, and what remains is reached without any
capability, in own namespaces, with no secret of another party outside the program's own data.
"""

from __future__ import annotations

import errno

AUDIT_ARCH_X86_64 = 0xC000003E
X32_BIT = 0x40000000
LAST_CALL = 450  # set_mempolicy_home_node, the last of Linux 6.1

REFUSED = {
    # Mounts, roots, namespaces
    "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "unshare": 272, "setns": 308,
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "mount_setattr": 442, "name_to_handle_at": 303, "open_by_handle_at": 304, "quotactl": 179,
    "quotactl_fd": 443, "fanotify_init": 300,
    # Other processes' memory and registers
    "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "pidfd_getfd": 438,
    "process_madvise": 440,
    # The kernel itself
    "init_module": 175, "finit_module": 313, "delete_module": 176, "create_module": 174,
    "get_kernel_syms": 177, "query_module": 178, "kexec_load": 246, "kexec_file_load": 320, "reboot": 169,
    "bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "syslog": 103, "acct": 163, "lookup_dcookie": 212,
    "uselib": 134, "nfsservctl": 180, "sysfs": 139, "_sysctl": 156, "vhangup": 153, "modify_ldt": 154,
    # Keys outlive processes and are shared by a user's containers
    "keyctl": 250, "add_key": 248, "request_key": 249,
    # Devices, swap, clocks, ports
    "swapon": 167, "swapoff": 168, "iopl": 172, "ioperm": 173, "settimeofday": 164, "clock_settime": 227,
    "clock_adjtime": 305, "adjtimex": 159, "sethostname": 170, "setdomainname": 171,
    # Rings that act outside this filter
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
}  # fmt: skip
_CLONE = 56
_CLONE3 = 435  # its flags lie in memory, out of a filter's sight: ENOSYS makes C libraries use clone
_SOCKET, _SOCKETPAIR = 41, 53
_NAMESPACE_FLAGS = 0x7E020000  # NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_FAMILIES = (1, 2, 10, 16)  # UNIX, INET, INET6, NETLINK; above all not VSOCK, which no namespace confines

_KILL = 0x80000000
_ERRNO = 0x00050000
_ALLOW = 0x7FFF0000
_LOAD = 0x20
_RETURN = 0x06
_JUMP_EQUAL = 0x15
_JUMP_GREATER_EQUAL = 0x35
_JUMP_ANY_BIT = 0x45
_AT_NUMBER, _AT_ARCH, _AT_ARGUMENT_0 = 0, 4, 16


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return code.to_bytes(2, "little") + bytes([if_true, if_false]) + value.to_bytes(4, "little")


def build() -> bytes:
    """The filter's instructions, 8 bytes each."""
    refuse = _step(_RETURN, _ERRNO | errno.EPERM)
    absent = _step(_RETURN, _ERRNO | errno.ENOSYS)
    allow = _step(_RETURN, _ALLOW)
    out = [
        _step(_LOAD, _AT_ARCH),
        _step(_JUMP_EQUAL, AUDIT_ARCH_X86_64, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _AT_NUMBER),
        _step(_JUMP_GREATER_EQUAL, X32_BIT, 0, 1),
        _step(_RETURN, _KILL),
        _step(_JUMP_GREATER_EQUAL, LAST_CALL + 1, 0, 1),
        absent,
        _step(_JUMP_EQUAL, _CLONE3, 0, 1),
        absent,
    ]
    for number in sorted(REFUSED.values()):
        out += [_step(_JUMP_EQUAL, number, 0, 1), refuse]
    # A new thread or process is fine, a new namespace is not.
    out += [
        _step(_JUMP_EQUAL, _CLONE, 0, 4),
        _step(_LOAD, _AT_ARGUMENT_0),
        _step(_JUMP_ANY_BIT, _NAMESPACE_FLAGS, 0, 1),
        refuse,
        allow,
    ]
    out += [_step(_JUMP_EQUAL, _SOCKET, 2, 0), _step(_JUMP_EQUAL, _SOCKETPAIR, 1, 0), allow]
    out.append(_step(_LOAD, _AT_ARGUMENT_0))
    for family in _FAMILIES:
        out += [_step(_JUMP_EQUAL, family, 0, 1), allow]
    out.append(_step(_RETURN, _ERRNO | errno.EAFNOSUPPORT))
    return b"".join(out)
