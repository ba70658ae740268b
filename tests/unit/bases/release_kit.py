"""Folders that look like built bases, for tests of what is signed about them."""

from __future__ import annotations

import hashlib

from strongroom.bases import document as base_document
from strongroom.bases import profile as base_profile
from strongroom.bases.document import Package
from strongroom.encoding import canonical


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


PACKAGES = (
    Package(
        kind="deb",
        name="libc6",
        version="2.36-9+deb12u10",
        digest=digest(b"libc6"),
        origin="Debian",
        suite="bookworm",
    ),
    Package(kind="source", name="strongroom", version="0.1.0", digest=digest(b"agent")),
    Package(kind="wheel", name="pyrage", version="1.4", digest=digest(b"pyrage")),
)


def base(folder, profile="snp", *, debug=False, packages=None):
    """Write a base's folder."""
    folder.mkdir(parents=True)
    names = base_document.parts_of(base_profile.PROFILES[profile])
    files = {name: f"{profile} {name}".encode() for name in names}
    listed = base_document.packages_json(PACKAGES if packages is None else packages)
    document = {
        "format": "strongroom-base/2",
        "profile": profile,
        "debug": debug,
        "files": {name: {"bytes": len(data), "digest": digest(data)} for name, data in files.items()},
        "packages": digest(listed),
        "root_hash": digest(b"root"),
    }
    if profile == "local":
        parts = ("firmware", "kernel", "initrd", "cmdline")
        document["reference"] = {**{name: digest(name.encode()) for name in parts}, "machine": "q35"}
        document["pcr0"] = {"guarded": digest(b"g"), "unguarded": digest(b"u")}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / base_document.PACKAGES).write_bytes(listed)
    (folder / base_document.BASE).write_bytes(canonical.dumps(document))
    return folder
