"""A container image of the broker: Debian's Python, Strongroom, no shell; started as nobody's user, over a read-only root.

    podman run --read-only -v broker:/broker -p 8443:8443 -e STRONGROOM_PASSPHRASE oci-archive:strongroom-broker-VERSION.tar

What it holds of Debian is in /usr/share/strongroom/packages, with digests; the same packages give the same image.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tools import debian_root, images
from tools.release import places
from tools.release.places import File

if TYPE_CHECKING:
    from collections.abc import Mapping

USER = 65532  # as in other images that have one user and no shell
VOLUME = "broker"
_PACKAGES = ("python3.11-minimal", "libpython3.11-stdlib", "ca-certificates")
# What ca-certificates names for its installation alone, which does not take place.
_LEFT_OUT = ("debconf_", "openssl_", "perl-base_", "dpkg_", "tar_", "cdebconf_")
_CERTIFICATES = "usr/share/ca-certificates/mozilla"
PYTHON = "usr/bin/python3.11"


def build(out: Path, tree: Mapping[str, File], *, version: str) -> Path:
    """Write strongroom-broker-VERSION.oci.tar into `out`. As root."""
    target = out / f"strongroom-broker-{version}.oci.tar"
    archives = images.cache_folder() / "debs"
    debs = [one for one in debian_root.fetch(_PACKAGES, archives) if not one.name.startswith(_LEFT_OUT)]
    with tempfile.TemporaryDirectory(prefix="strongroom-image-") as name:
        work = Path(name)
        system, own = work / "system", work / "own"
        debian_root.unpack(debs, system)
        places.write(system, _system(system, debs))
        image = images.Layout(work / "layout")
        image.layer(images.tree(system), compress=True)
        own.mkdir()
        places.write(own, dict(tree))
        _compile(system, own / places.LIBRARY)
        image.layer([*images.tree(own), *_empty()], compress=True)
        image.finish(f"strongroom-broker-{version}", _settings())
        _archive(image.path, target)
    return target


def _system(root: Path, debs: list[Path]) -> dict[str, File]:
    roots = sorted((root / _CERTIFICATES).glob("*.crt"))
    listed = "".join(f"{one.name} {hashlib.sha256(one.read_bytes()).hexdigest()}\n" for one in debs)
    return {
        "etc/passwd": File(content=f"broker:x:{USER}:{USER}::/{VOLUME}:/nonexistent\n".encode()),
        "etc/group": File(content=f"broker:x:{USER}:\n".encode()),
        "etc/ssl/certs/ca-certificates.crt": File(content=b"".join(one.read_bytes() for one in roots)),
        "usr/share/strongroom/packages": File(content=listed.encode()),
    }


def _compile(system: Path, library: Path) -> None:
    """The root is read-only where it runs: its modules are compiled now, by the interpreter that will run them."""
    inside = system / places.LIBRARY
    inside.mkdir()
    subprocess.run(["mount", "--bind", str(library), str(inside)], check=True)
    try:
        subprocess.run(
            [
                debian_root.chroot(),
                str(system),
                f"/{PYTHON}",
                "-m",
                "compileall",
                "-q",
                "--invalidation-mode",
                "unchecked-hash",
                f"/{places.LIBRARY}",
            ],
            env={"LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"},
            stdout=subprocess.DEVNULL,
            check=True,
        )
    finally:
        subprocess.run(["umount", str(inside)], check=True)
        inside.rmdir()


def _empty() -> list[tuple[tarfile.TarInfo, bytes]]:
    """Where a runtime mounts what it brings, and the volume, which is the user's own."""
    out = [images.folder(name) for name in ("dev", "proc", "run", "sys", "tmp", VOLUME)]
    out[-2][0].mode = 0o1777
    out[-1][0].mode = 0o700
    out[-1][0].uid = out[-1][0].gid = USER
    return out


def _settings() -> dict[str, object]:
    return {
        "User": f"{USER}:{USER}",
        "Entrypoint": ["/usr/bin/strongroom"],
        "Cmd": ["broker", "serve", f"/{VOLUME}"],
        "Env": ["PATH=/usr/bin", f"HOME=/{VOLUME}", "PYTHONDONTWRITEBYTECODE=1"],
        "WorkingDir": f"/{VOLUME}",
        "Volumes": {f"/{VOLUME}": {}},
        "ExposedPorts": {"8443/tcp": {}},
    }


def _archive(layout: Path, target: Path) -> None:
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as out:
        for path in sorted(layout.rglob("*")):
            name = path.relative_to(layout).as_posix()
            info, data = images.folder(name) if path.is_dir() else images.file(name, path.read_bytes())
            out.addfile(info, io.BytesIO(data))
