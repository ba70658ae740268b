"""Real images for the demonstration and the tests, made the ordinary way: programs, layers, a config.

    from tools import images            # or put the folder tools/ on sys.path: import images
    layout = images.duckdb()            # an OCI layout folder: stock DuckDB, Debian's libraries, one SQL file
    layout = images.sklearn()           # an OCI layout folder: Debian's Python and scikit-learn, one script
    images.archive(layout, "image.tar") # the same as an OCI archive
    images.run_in_clear(layout, data={"flights": folder}, out=folder)   # the same program, no room; needs root

Nothing here knows of Strongroom. Layouts are made once and kept under $XDG_CACHE_HOME/strongroom/images
(~/.cache by default), by the digest of this file, the parameters and the versions of the Debian packages.
Needs `apt-get`, `dpkg-deb`; `run_in_clear` needs root and the programs `umoci` and `unshare`.
From the command line: `python tools/images.py duckdb|sklearn` prints the layout's path.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import importlib.metadata
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

# What makes no file of these images depend on the day they are made.
EPOCH = 1_700_000_000
USER_ID = 10_001

# As container tools do: a loopback that is up, and low ports for everybody (port 80 needs no root there).
_LOOPBACK = (
    f"{shlex.quote(sys.executable)} -c 'import fcntl, socket; fcntl.ioctl(socket.socket(), 0x8914, "
    r"""b"lo".ljust(16, b"\0") + b"\x41\0" + bytes(22))'"""
    " && echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start"
)

LIBRARIES = ("libc6", "libgcc-s1", "libstdc++6")
SCIKIT_LEARN = (
    *LIBRARIES,
    "zlib1g",
    "libexpat1",
    "libffi8",
    "libbz2-1.0",
    "liblzma5",
    "libssl3",
    "libcrypt1",
    "libgomp1",
    "libgfortran5",
    "libquadmath0",
    "libblas3",
    "liblapack3",
    "liblbfgsb0",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "python3.11-minimal",
    "python3-distutils",
    "python3-numpy",
    "python3-scipy",
    "python3-decorator",
    "python3-joblib",
    "python3-threadpoolctl",
    "python3-sklearn",
    "python3-sklearn-lib",
)

FLIGHTS_SQL = """\
SET temp_directory = '/tmp';
COPY (
    SELECT carrier, origin, count(*) AS flights, sum(distance) AS miles,
           round(avg(dep_delay), 3) AS mean_departure_delay,
           round(avg(arr_delay), 3) AS mean_arrival_delay,
           max(arr_delay) AS worst_arrival_delay
    FROM {source}
    WHERE arr_delay IS NOT NULL
    GROUP BY carrier, origin
    ORDER BY carrier, origin
) TO '/out/delays.csv' (HEADER, DELIMITER ',');
"""

TRAINING = """\
import json

from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, confusion_matrix, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

table = load_breast_cancer()
train_x, test_x, train_y, test_y = train_test_split(table.data, table.target, test_size=0.3, random_state=7)
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(train_x, train_y)
guess = model.predict(test_x)
metrics = {
    "rows": len(table.data),
    "accuracy": round(float(accuracy_score(test_y, guess)), 6),
    "roc_auc": round(float(roc_auc_score(test_y, model.decision_function(test_x))), 6),
    "confusion": confusion_matrix(test_y, guess).tolist(),
}
with open("/out/metrics.json", "w") as target:
    json.dump(metrics, target, indent=1, sort_keys=True)
    target.write("\\n")
"""


def flights_sql(source: str = "read_csv('/data/flights/flights.csv', nullstr = ['', 'NA'])") -> str:
    """The demonstration's query; `source` is DuckDB's expression for the table of flights."""
    return FLIGHTS_SQL.format(source=source)


def duckdb(sql: str | None = None) -> Path:
    """An OCI layout: `duckdb … -f /query.sql` as user query, results to /out/delays.csv. Three layers, one whiteout."""
    return _cached("duckdb", LIBRARIES, sql or flights_sql(), _build_duckdb)


def sklearn(script: str = TRAINING) -> Path:
    """An OCI layout: `python3.11 /train.py` as user query, results to /out/metrics.json. Two layers."""
    return _cached("sklearn", SCIKIT_LEARN, script, _build_sklearn)


def archive(layout: Path, target: Path) -> Path:
    """The layout as an OCI archive."""
    with tarfile.open(target, "w") as out:
        for child in sorted(layout.iterdir()):
            out.add(child, child.name)
    return target


def digest(layout: Path) -> str:
    """The digest of the layout's one image manifest."""
    index = json.loads((layout / "index.json").read_text())
    return str(index["manifests"][0]["digest"])


def config(layout: Path) -> dict[str, Any]:
    """The image's configuration document."""
    manifest = _document(layout, digest(layout))
    return _document(layout, manifest["config"]["digest"])


def run_in_clear(
    layout: Path, *, data: Mapping[str, Path], out: Path, seconds: int = 300
) -> subprocess.CompletedProcess[bytes]:
    """Run the image on this machine as any container tool would; datasets at /data/NAME, results in `out`.

    Raises CalledProcessError with the program's output when it fails.
    """
    return subprocess.run(
        command_in_clear(layout, data=data, out=out),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        timeout=seconds,
    )


def command_in_clear(layout: Path, *, data: Mapping[str, Path], out: Path) -> list[str]:
    """The command that `run_in_clear` runs, for those who want to watch it running.

    The program is a grandchild of it, in a mount and a process namespace of its own, and dies with it.
    """
    settings = config(layout)["config"]
    root = _unpacked(layout)
    user = _user(root, settings.get("User", ""))
    out.mkdir(parents=True, exist_ok=True)
    os.chown(out, *user)
    steps = [
        _LOOPBACK,
        # What the program writes goes to memory, as in any container: the tree is used again.
        "mount -t tmpfs tmpfs $R/tmp && mkdir $R/tmp/upper $R/tmp/work $R/tmp/root",
        "mount -t overlay -o lowerdir=$R,upperdir=$R/tmp/upper,workdir=$R/tmp/work overlay $R/tmp/root",
        "R=$R/tmp/root",
        "test -s $R/etc/hosts || { mkdir -p $R/etc && printf '127.0.0.1 localhost\\n::1 localhost\\n' >$R/etc/hosts; }",
        "mount -t tmpfs -o mode=1777 tmpfs $R/tmp",
        "mount -t tmpfs tmpfs $R/data",
        'mount --bind "$O" $R/out',
        "mount -t proc proc $R/proc",
        "mount --rbind /dev $R/dev",
    ]
    arguments = []
    for number, (name, folder) in enumerate(sorted(data.items()), start=3):
        steps.append(f'mkdir $R/data/{name} && mount --bind "${{{number}}}" $R/data/{name}')
        arguments.append(str(folder.resolve()))
    steps.append(f'shift {2 + len(arguments)}; exec env -i "$@"')
    environment = [*(settings.get("Env") or [])]
    if not any(one.startswith("PATH=") for one in environment):
        environment.append("PATH=/usr/local/bin:/usr/bin:/bin")
    program = [*(settings.get("Entrypoint") or []), *(settings.get("Cmd") or [])]
    inside = [_chroot(), f"--userspec={user[0]}:{user[1]}", "--groups=", f"{root}/tmp/root", *program]
    script = 'set -e; R="$1"; O="$2"; ' + "; ".join(steps)
    return [
        "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--propagation", "private",
        "sh", "-c", script, "sh", str(root), str(out.resolve()), *arguments, *environment, *inside,
    ]  # fmt: skip


def _build_duckdb(work: Path, packages: Sequence[Path], sql: str) -> None:
    root = work / "root"
    _extract(packages, root)
    image = Layout(work / "layout")
    image.layer(tree(root), compress=True)
    program = next(
        file.locate()
        for file in importlib.metadata.files("duckdb-cli") or ()
        if file.parts[-2:] == ("duckdb_cli", "duckdb")
    )
    accounts = _accounts()
    image.layer(
        [
            folder("usr"),
            folder("usr/local"),
            folder("usr/local/bin"),
            file("usr/local/bin/duckdb", Path(str(program)).read_bytes(), mode=0o755),
            *accounts,
        ]
    )
    image.layer([file("query.sql", sql.encode()), file("usr/share/.wh.doc", b"")], compress=True)
    image.finish(
        "query",
        {
            "Entrypoint": ["/usr/local/bin/duckdb", "-init", "/dev/null", "-bail"],
            "Cmd": [":memory:", "-f", "/query.sql"],
            "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/tmp"],
            "User": "query",
        },
    )


def _build_sklearn(work: Path, packages: Sequence[Path], script: str) -> None:
    root = work / "root"
    _extract(packages, root)
    # What the packages' own installation scripts would do. Hash-based files do not care for times.
    subprocess.run(
        [
            _chroot(), str(root), "/usr/bin/python3.11", "-m", "compileall", "-q",
            "--invalidation-mode", "unchecked-hash", "/usr/lib/python3", "/usr/lib/python3.11",
        ],
        env={"LC_ALL": "C.UTF-8"},
        stdout=subprocess.DEVNULL,
        check=False,  # one of Debian's own files is for another version of Python
    )  # fmt: skip
    for folder in ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/include"):
        shutil.rmtree(root / folder, ignore_errors=True)
    image = Layout(work / "layout")
    image.layer(tree(root))
    image.layer([file("train.py", script.encode()), *_accounts()], compress=True)
    libraries = "/usr/lib/x86_64-linux-gnu"
    image.finish(
        "train",
        {
            "Entrypoint": ["/usr/bin/python3.11"],
            "Cmd": ["/train.py"],
            "Env": [
                "PATH=/usr/local/bin:/usr/bin:/bin",
                # Debian's alternatives would put links to these two into /usr/lib.
                f"LD_LIBRARY_PATH={libraries}/blas:{libraries}/lapack",
                "OMP_NUM_THREADS=1",
                "PYTHONDONTWRITEBYTECODE=1",
                "HOME=/tmp",
            ],
            "User": "query",
            "WorkingDir": "/",
        },
    )


def _accounts() -> list[tuple[tarfile.TarInfo, bytes]]:
    passwd = f"root:x:0:0:root:/:/bin/false\nquery:x:{USER_ID}:{USER_ID}::/tmp:/bin/false\n"
    group = f"root:x:0:\nquery:x:{USER_ID}:\n"
    return [
        folder("etc"),
        file("etc/passwd", passwd.encode()),
        file("etc/group", group.encode()),
    ]


def folder(name: str) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, EPOCH
    return info, b""


def file(name: str, data: bytes, *, mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(data), mode, EPOCH
    return info, data


def tree(root: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Every entry below `root`, sorted; hard links become files, nothing is younger than EPOCH."""
    for path in sorted(root.rglob("*")):
        info = tarfile.TarInfo(str(path.relative_to(root)))
        status = path.lstat()
        info.mode, info.uid, info.gid = status.st_mode & 0o7777, 0, 0
        made = path.is_dir() or path.suffix == ".pyc"
        info.mtime = EPOCH if made and not path.is_symlink() else min(EPOCH, int(status.st_mtime))
        data = b""
        if path.is_symlink():
            info.type, info.linkname, info.mode = tarfile.SYMTYPE, str(path.readlink()), 0o777
        elif path.is_dir():
            info.type = tarfile.DIRTYPE
        elif path.is_file():
            data = path.read_bytes()
            info.size = len(data)
        else:
            continue
        yield info, data


class Layout:
    """An OCI layout being written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._layers: list[dict[str, Any]] = []
        self._diff_ids: list[str] = []
        (path / "blobs/sha256").mkdir(parents=True)

    def layer(self, members: Any, *, compress: bool = False) -> None:
        with tempfile.NamedTemporaryFile(dir=self.path.parent) as spool:
            with tarfile.open(fileobj=spool, mode="w", format=tarfile.PAX_FORMAT) as out:
                for info, data in members:
                    out.addfile(info, io.BytesIO(data))
            spool.flush()
            plain = Path(spool.name).read_bytes()
        self._diff_ids.append("sha256:" + hashlib.sha256(plain).hexdigest())
        kind = "application/vnd.oci.image.layer.v1.tar"
        if compress:
            kind, plain = kind + "+gzip", gzip.compress(plain, compresslevel=1, mtime=0)
        self._layers.append({"mediaType": kind, **self._blob(plain)})

    def finish(self, name: str, settings: dict[str, Any]) -> None:
        value: dict[str, Any] = {
            "architecture": "amd64",
            "os": "linux",
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": self._diff_ids},
            "history": [{"created_by": f"layer {number}"} for number in range(len(self._layers))],
        }
        described = self._json(value, "application/vnd.oci.image.config.v1+json")
        kind = "application/vnd.oci.image.manifest.v1+json"
        manifest = {"schemaVersion": 2, "mediaType": kind, "config": described, "layers": self._layers}
        row = self._json(manifest, kind) | {
            "platform": {"architecture": "amd64", "os": "linux"},
            "annotations": {"org.opencontainers.image.ref.name": f"{name}:latest"},
        }
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [row]}))
        (self.path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def _json(self, value: dict[str, Any], kind: str) -> dict[str, Any]:
        return {"mediaType": kind, **self._blob(json.dumps(value, sort_keys=True).encode())}

    def _blob(self, data: bytes) -> dict[str, Any]:
        name = hashlib.sha256(data).hexdigest()
        (self.path / "blobs/sha256" / name).write_bytes(data)
        return {"digest": "sha256:" + name, "size": len(data)}


def cache_folder() -> Path:
    """Where layouts are kept; made when it is not there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "strongroom/images"
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def _cached(
    name: str, packages: Sequence[str], text: str, build: Callable[[Path, Sequence[Path], str], None]
) -> Path:
    """The layout from the cache, made first when it is not there."""
    cache = cache_folder()
    key = hashlib.sha256(Path(__file__).read_bytes() + text.encode())
    key.update(importlib.metadata.version("duckdb-cli").encode() if name == "duckdb" else b"")
    key.update(_versions(packages))
    target = cache / f"{name}-{key.hexdigest()[:16]}"
    with locked(cache / f".{name}.lock"):
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=cache, prefix=f".{name}-") as folder:
                work = Path(folder)
                build(work, _download(packages, work / "packages"), text)
                (work / "layout").rename(target)
    return target


def _versions(packages: Sequence[str]) -> bytes:
    """What apt would install today, as text; without any network."""
    return subprocess.run(
        ["apt-cache", "show", "--no-all-versions", *packages], capture_output=True, check=True
    ).stdout


def _download(packages: Sequence[str], folder: Path) -> list[Path]:
    folder.mkdir()
    command = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", *packages]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise RuntimeError("apt-get download: " + done.stdout.decode(errors="replace")[-2000:])
    return sorted(folder.glob("*.deb"))


def _extract(packages: Sequence[Path], root: Path) -> None:
    root.mkdir()
    for package in packages:
        subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)


def _document(layout: Path, name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(
        (layout / "blobs/sha256" / name.removeprefix("sha256:")).read_text()
    )
    return document


def _unpacked(layout: Path) -> Path:
    """The image's tree on this machine's disk, by umoci, kept beside the layout."""
    target = layout.with_name(layout.name + ".clear")
    with locked(layout.with_name(f".{layout.name}.lock")):
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=layout.parent, prefix=".clear-") as folder:
                copy = Path(folder) / "layout"
                # umoci wants a plain tag, and writes into what it reads.
                shutil.copytree(layout, copy, copy_function=os.link)
                index = json.loads((copy / "index.json").read_text())
                index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": "clear"}
                (copy / "index.json").unlink()
                (copy / "index.json").write_text(json.dumps(index))
                subprocess.run(
                    ["umoci", "unpack", "--image", f"{copy}:clear", f"{folder}/bundle"],
                    check=True,
                    capture_output=True,
                )
                root = Path(folder) / "bundle/rootfs"
                for name in ("data", "out", "tmp", "proc", "dev"):
                    (root / name).mkdir(exist_ok=True)
                root.rename(target)
    return target


def _chroot() -> str:
    return shutil.which("chroot", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") or "chroot"


def _user(root: Path, user: str) -> tuple[int, int]:
    if re.fullmatch(r"[0-9]+:[0-9]+", user):
        return int(user.partition(":")[0]), int(user.partition(":")[2])
    rows = [line.split(":") for line in (root / "etc/passwd").read_text().splitlines()]
    return next((int(row[2]), int(row[3])) for row in rows if row[0] == (user or "root"))


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    print({"duckdb": duckdb, "sklearn": sklearn}[sys.argv[1]]())
