"""The base's Python packages: taken from the environment that runs this, which the lock file filled.

Every file is checked against its wheel's RECORD (PyPA "Recording installed projects"). Only modules are
taken, no metadata, tests or type stubs.
"""

from __future__ import annotations

import base64
import hashlib
import sys
from dataclasses import dataclass
from importlib import metadata

from strongroom.bases.files import File
from strongroom.crypto import digest
from strongroom.encoding import canonical
from strongroom.errors import Malformed, Misuse, NotFound

# Distribution → what to take of it, by the beginning of its path. Of cffi, `cryptography` uses the backend alone; pyOpenSSL, which ends
# tunnels, imports typing_extensions. h2 and its two speak the Workload API; hpack imports `logging`.
WHEELS = {
    "cffi": "_cffi_backend.",
    "cryptography": "cryptography/",
    "pyopenssl": "OpenSSL/",
    "h2": "h2/",
    "hpack": "hpack/",
    "hyperframe": "hyperframe/",
    "pyrage": "pyrage/",
    "typing_extensions": "typing_extensions.py",
}
PYTHON = (3, 11)  # the base's; compiled modules are for one version
_MODULES = (".py", ".so")
MAX_MODULE = 64 << 20


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """`digest` is over the taken files' paths and digests, so that the installer's own additions do not count."""

    name: str
    version: str
    digest: str
    files: dict[str, File]


def collect() -> tuple[Wheel, ...]:
    """The wheels' modules by path below `site-packages`. Raises `NotFound`, or `Malformed` for an altered file."""
    if sys.version_info[:2] != PYTHON:
        raise Misuse(
            f"base: needs Python {PYTHON[0]}.{PYTHON[1]}, the base's own, and this is {sys.version.split()[0]}",
            code="wrong-python",
            hint="make the virtual environment with Debian 12's /usr/bin/python3",
        )
    return tuple(_collect(name, prefix) for name, prefix in sorted(WHEELS.items()))


def _collect(name: str, prefix: str) -> Wheel:
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise NotFound(
            f"the Python package {name} is not installed", code="no-wheel", hint="run `make setup`"
        ) from None
    files: dict[str, File] = {}
    for entry in distribution.files or ():
        path = entry.as_posix()
        if not path.startswith(prefix) or entry.suffix not in _MODULES:
            continue
        located = entry.locate()
        try:
            with open(located, "rb") as source:  # noqa: PTH123 - a SimplePath has no typed open
                content = source.read(MAX_MODULE + 1)
        except OSError:
            content = b""
        encoded = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        if entry.hash is None or entry.hash.mode != "sha256" or entry.hash.value != encoded:
            raise Malformed(
                f"{name}: {path} is not the file that the wheel brought",
                code="altered-wheel",
                hint="install the locked packages again",
            )
        files[path] = File(content=content, executable=entry.suffix == ".so")
    if not files:
        raise NotFound(f"the Python package {name} has no modules", code="no-wheel", hint="run `make setup`")
    listing = canonical.dumps({path: digest.sha256(file.content) for path, file in files.items()})
    return Wheel(name=name, version=distribution.version, digest=digest.sha256(listing), files=files)
