"""The program's container: its namespaces, its file system, its user. Runs in the launcher's children.

`build` is called as process 1 of fresh namespaces, with the agent's file system still in sight, and
leaves only this behind (tmpfs sizes are the launch's; owners are the program's own, `owners`):
  /            the image, read-only erofs, under an overlay in memory: unmodified programs may write there
  /data/NAME   the datasets, read-only, nosuid, nodev, noexec       /out   what may leave, owned by the user
  /tmp         private, 1777       /dev  null zero full random urandom, shm       /proc  below
  /run/strongroom/tls   the room's key and certificates, when the contract asks for them; or the folder that it says
These places are of `model/room/mounts`, by which images are judged beforehand too; links of the image lead them elsewhere in it.
  /etc/hosts, /etc/hostname   the loopback's names, where the image has none of its own; before those, the contract's hosts
Network: an own stack with a loopback and nothing else (`network/namespace`); ports below 1024 are open to every user there.
Of /proc: the program's own processes, and of the kernel's files those of a short list, read-only. All else that this or
a later kernel has there reads empty.

`become` then turns the calling process into the image's user: no capabilities, none to be regained, no
new privileges, the system call filter, rlimits.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import stat
from dataclasses import dataclass

from strongroom.agent import kernel, owners, seccomp
from strongroom.agent.network import places
from strongroom.encoding import canonical, fields
from strongroom.encoding.symlinks import Symlinks
from strongroom.errors import Malformed
from strongroom.model.contracts import certificate_terms
from strongroom.model.manifest import MAX_USER
from strongroom.model.room import mounts

_PROGRAM = "give the image an entrypoint, or the contract arguments"

NAMESPACES = (
    kernel.CLONE_NEWNS
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWCGROUP
)
HOST_NAME = "room"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OPEN_FILES = (1024, 524_288)

_DATA = kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
_DEVICES = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}
_DEVICE_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
# What programs read of the machine. Of /proc/sys, folders; the network's are of the program's own stack.
SHOWN = frozenset(
    {"cgroups", "cpuinfo", "filesystems", "loadavg", "meminfo", "stat", "sys", "uptime", "version"}
)
SHOWN_SYS = frozenset({"fs", "kernel", "net", "vm"})
_NAMES = {
    "hosts": f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{HOST_NAME}\n".encode(),
    "hostname": f"{HOST_NAME}\n".encode(),
}
_OWNED = f"uid={owners.kernel_id(0)},gid={owners.kernel_id(0)}"
_MOST_NAMES = 1 << 20  # bytes of an image's own hosts
_LOW_PORTS = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
# no root by uid 0, no capability changes on set-uid, no ambient ones, each locked (capabilities(7))
_SECUREBITS = 0x03 | 0x0C | 0xC0 | 0x20
_LAST_CAPABILITY = 63


@dataclass(frozen=True, kw_only=True)
class ContainerLaunch:
    """All that the launcher needs to know. Paths are the agent's; it holds no secret.

    image, out, tls: mounted folders (tls may be empty text: none). tls_place: where the program finds `tls`. reload: the command
    that makes the program read it again; signal: the number of the one that does; neither where nothing is to be done. datasets: folder by dataset name.
    scratch: an empty folder to build in. Sizes are bytes. cgroup: its folder, or empty text for none. listeners: what the program
    may connect to, each "HOST:PORT" (`network/places`). restart: when it is started again (`restarts`).
    """

    arguments: tuple[str, ...]
    environment: dict[str, str]
    working_directory: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    image: str
    datasets: dict[str, str]
    out: str
    tls: str
    scratch: str
    root_bytes: int
    tmp_bytes: int
    cgroup: str
    listeners: tuple[str, ...] = ()
    tls_place: str = certificate_terms.FOLDER
    reload: tuple[str, ...] = ()
    signal: int = 0
    restart: str = "never"

    def encode(self) -> bytes:
        """JSON bytes, for the pipe to the launcher."""
        return canonical.dumps({name: getattr(self, name) for name in self.__dataclass_fields__})


def parse_launch(data: bytes) -> ContainerLaunch:
    """Read what `ContainerLaunch.encode` wrote. Raises `Malformed`."""
    top = fields.Fields(canonical.loads(data, what="launch", max_bytes=64 * 1024 * 1024), "launch")
    texts = top.text_map_of(
        ("image", "out", "tls", "tls_place", "scratch", "cgroup", "working_directory", "restart"),
        max_length=4096,
    )
    launch = ContainerLaunch(
        arguments=tuple(top.items("arguments", max_items=4096)),
        environment=top.text_map("environment", max_items=4096, max_length=1 << 20),
        uid=top.integer("uid", low=0, high=MAX_USER),
        gid=top.integer("gid", low=0, high=MAX_USER),
        groups=tuple(top.items("groups", max_items=256)),
        datasets=top.text_map("datasets", max_items=64),
        root_bytes=top.integer("root_bytes", low=4096, high=1 << 50),
        tmp_bytes=top.integer("tmp_bytes", low=4096, high=1 << 50),
        listeners=tuple(top.items("listeners", max_items=places.MAX_HOSTS)),
        reload=top.words("reload", max_items=64),
        signal=top.integer("signal", low=0, high=64),
        **texts,
    )
    top.done()
    if not launch.arguments:
        raise Malformed("launch: nothing to run", hint=_PROGRAM)
    return launch


def build(launch: ContainerLaunch, users: int) -> None:
    """Make the container around the calling process and change into its root. Raises `OSError`.

    users: a descriptor of the program's user namespace (`owners.make_namespace`), which it is not in yet.
    """
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    _open_low_ports()
    root = _overlay(launch, users)
    tls = mounts.of_certificates(launch.tls_place)
    placed = _placed(root, tls, certificates=bool(launch.tls))  # as the image has it: nothing is mounted yet
    _name_hosts(root, launch.listeners)
    for placement in placed:
        MAKERS.get(placement.mount, _mount_tls)(launch, _directory(root, os.fsdecode(placement.place)), users)
    os.chdir(root)
    kernel.pivot_root(".", ".")
    kernel.unmount(".")
    os.chdir("/")
    kernel.sethostname(HOST_NAME)


def become(launch: ContainerLaunch, users: int) -> None:
    """Give up everything but the image's user, in `users`. Not to be undone. Raises `OSError`."""
    kernel.enter(users, kernel.CLONE_NEWUSER)  # which gives all rights in it, and none outside
    os.close(users)
    for capability in range(_LAST_CAPABILITY + 1):
        try:
            kernel.prctl(kernel.PR_CAPBSET_DROP, capability)
        except OSError:
            break  # the kernel's last capability was the one before
    kernel.prctl(kernel.PR_SET_SECUREBITS, _SECUREBITS)
    os.setgroups(list(launch.groups))
    os.setresgid(launch.gid, launch.gid, launch.gid)
    os.setresuid(launch.uid, launch.uid, launch.uid)
    kernel.prctl(kernel.PR_CAP_AMBIENT, kernel.PR_CAP_AMBIENT_CLEAR_ALL)
    kernel.drop_capabilities()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit_open_files()
    os.umask(0o022)
    os.chdir(launch.working_directory)
    # Python ignores the first and last, and whoever started a dry run may have the second ignored; the program shall find what every program finds.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.set_seccomp(seccomp.build())


def execute(launch: ContainerLaunch) -> None:
    """Become the program. Returns only by `OSError`.

    The program is a file of the image: /proc/self/exe would be the agent's own interpreter.
    """
    environment = {"PATH": DEFAULT_PATH, **launch.environment}
    name = launch.arguments[0]
    if "/" in name:
        kernel.lead_plainly(name)
        os.execve(name, launch.arguments, environment)  # noqa: S606 - replaces this process, by design
    denied: OSError | None = None
    for folder in environment["PATH"].split(":"):
        path = f"{folder or '.'}/{name}"
        try:
            kernel.lead_plainly(path)
            os.execve(path, launch.arguments, environment)  # noqa: S606 - as above
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as cause:
            denied = cause
    raise denied or FileNotFoundError(2, "no such program on the image's PATH", name)


def home_of(uid: int, passwd: str = "/etc/passwd") -> str:  # noqa: S107 - a file of names
    """The home folder of `uid` in the image's own passwd file; / when it names none."""
    try:
        # The image may have a pipe there, or a link to one of this process's own: neither is waited for or read.
        with open(os.open(passwd, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return "/"
            lines = file.read(1 << 20).split(b"\n")
    except OSError:
        return "/"
    for line in lines:
        entry = line.split(b":")
        if len(entry) == 7 and entry[2] == b"%d" % uid and entry[5].startswith(b"/"):
            return os.fsdecode(entry[5])
    return "/"


def _overlay(launch: ContainerLaunch, users: int) -> str:
    kernel.mount("tmpfs", launch.scratch, "tmpfs", kernel.MS_NODEV, f"size={launch.root_bytes},mode=0700")
    image, upper, work, root = (f"{launch.scratch}/{name}" for name in ("image", "upper", "work", "root"))
    for path in (image, upper, work, root):
        os.mkdir(path, 0o755)
    _own(upper)  # the root folder's owner is the upper one's
    kernel.bind_mapped(launch.image, image, kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV, users)
    options = f"lowerdir={image},upperdir={upper},workdir={work}"
    kernel.mount("overlay", root, "overlay", kernel.MS_NOSUID | kernel.MS_NODEV, options)
    return root


def _placed(root: str, tls: mounts.Mount, *, certificates: bool) -> tuple[mounts.Placed, ...]:
    """Where the mounts go in the image. Raises `Refused`, for an image that `convert` would not have taken."""

    def is_file(path: bytes) -> bool:
        return _kind(root, path) not in (0, stat.S_IFDIR, stat.S_IFLNK)

    return mounts.place(
        target=lambda path: _target(root, path), is_file=is_file, certificates=certificates, tls=tls
    )


def _kind(root: str, path: bytes) -> int:
    """The type of what the image has at a path whose last part alone may be a link; 0 where it has nothing."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return stat.S_IFMT(os.lstat(os.fsencode(root) + b"/" + path).st_mode)
    return 0


def _target(root: str, path: bytes) -> bytes | None:
    return os.readlink(os.fsencode(root) + b"/" + path) if _kind(root, path) == stat.S_IFLNK else None


def _directory(root: str, place: str) -> str:
    """The folder of that name in the root, made where there is none. No part of it is a link: `mounts.place`.

    Raises `OSError` (ENOTDIR) all the same rather than follow one, which might lead out of the root.
    """
    where = root
    for name in place.split("/"):
        where = f"{where}/{name}"
        with contextlib.suppress(FileExistsError):
            os.mkdir(where, 0o755)
            _own(where)
        os.close(os.open(where, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
    return where


def _own(path: str) -> None:
    """Give `path` to the container's root, as if the image had brought it."""
    os.chown(path, owners.kernel_id(0), owners.kernel_id(0))


def _name_hosts(root: str, listeners: tuple[str, ...]) -> None:
    """What container runtimes write for every container: without it no program finds `localhost`.

    An image's own words stay, behind the names that its contract lists; builders leave an empty file where their runtime mounted
    one. Where its /etc leads to no folder, nothing is written.
    """
    end = Symlinks(lambda path: _target(root, path), chroot=True).resolve(b"etc")
    if not end:
        return
    try:
        folder = _directory(root, os.fsdecode(end))
    except NotADirectoryError:
        return
    for name, words in _NAMES.items():
        path = f"{folder}/{name}"
        own, added = _own_words(path), places.hosts_file(listeners) if name == "hosts" else b""
        if own != b"" and not added:
            continue
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, 0o644)
            _own(path)
            file.write(added + (own or words))


def _own_words(path: str) -> bytes | None:
    """What the image's file says, nothing where there is none; None where it is something else, or far too long."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return b""
    if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_NAMES:
        return None
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        return file.read(_MOST_NAMES)


def _open_low_ports() -> None:
    """Let any user listen on port 80 of the loopback, as container runtimes do: there are no rights to do it with."""
    with open(_LOW_PORTS, "wb", buffering=0) as file:
        file.write(b"0")


def _mount_data(launch: ContainerLaunch, data: str, users: int) -> None:
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("tmpfs", data, "tmpfs", flags, "size=1m,mode=0755")
    for name, folder in launch.datasets.items():
        target = f"{data}/{name}"
        os.mkdir(target, 0o755)
        kernel.bind_mapped(folder, target, _DATA, users)
    kernel.mount("tmpfs", data, "tmpfs", kernel.MS_REMOUNT | _DATA, "size=1m,mode=0755")


def _mount_out(launch: ContainerLaunch, out: str, _users: int) -> None:
    kernel.bind(launch.out, out, kernel.MS_NOSUID | kernel.MS_NODEV)


def _mount_tmp(launch: ContainerLaunch, tmp: str, _users: int) -> None:
    options = f"size={launch.tmp_bytes},mode=1777,{_OWNED}"
    kernel.mount("tmpfs", tmp, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)


def _mount_tls(launch: ContainerLaunch, tls: str, _users: int) -> None:
    kernel.bind(launch.tls, tls, _DATA)


def _mount_dev(_launch: ContainerLaunch, dev: str, _users: int) -> None:
    kernel.mount("tmpfs", dev, "tmpfs", kernel.MS_NOSUID | kernel.MS_NOEXEC, "size=64k,mode=0755")
    for name, minor in _DEVICES.items():
        os.mknod(f"{dev}/{name}", stat.S_IFCHR | 0o666, os.makedev(1, minor))
        os.chmod(f"{dev}/{name}", 0o666)  # noqa: S103 - as everywhere; the umask took bits from mknod
    for name, target in _DEVICE_LINKS.items():
        os.symlink(target, f"{dev}/{name}")
    os.mkdir(f"{dev}/shm")
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("tmpfs", f"{dev}/shm", "tmpfs", flags, f"size=50%,mode=1777,{_OWNED}")
    flags = kernel.MS_REMOUNT | kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NOEXEC
    kernel.mount("tmpfs", dev, "tmpfs", flags, "size=64k,mode=0755")


def _mount_proc(_launch: ContainerLaunch, proc: str, _users: int) -> None:
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    # Process 1 is not the program's, and invisible like everything of another user.
    kernel.mount("proc", proc, "proc", flags, "hidepid=invisible")
    _show(proc, SHOWN)
    _show(f"{proc}/sys", SHOWN_SYS)


# How each mount of the table is made: (launch, the folder to mount on, the program's user namespace). Any other is `_mount_tls`.
MAKERS = {
    mounts.DEV: _mount_dev,
    mounts.TMP: _mount_tmp,
    mounts.OUT: _mount_out,
    mounts.DATA: _mount_data,
    mounts.TLS: _mount_tls,
    mounts.PROC: _mount_proc,
}


def _show(folder: str, shown: frozenset[str]) -> None:
    """Make what is `shown` of a folder of the kernel's read-only, and all else empty; links and processes stay."""
    for entry in list(os.scandir(folder)):
        if entry.is_symlink() or entry.name.isdigit():
            continue
        if entry.name in shown:
            kernel.bind(entry.path, entry.path, _DATA)
        elif entry.is_dir():
            kernel.mount("tmpfs", entry.path, "tmpfs", _DATA, "size=4k,mode=0555")
        else:
            kernel.bind(os.devnull, entry.path, kernel.MS_RDONLY)  # the agent's, which is still in sight


def _limit_open_files() -> None:
    soft, hard = OPEN_FILES
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if allowed not in (resource.RLIM_INFINITY, -1):
        hard = min(hard, allowed)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard), hard))
