"""Makes images for tests, honest and otherwise: tar headers byte by byte, blobs, layouts."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from strongroom.images import layers, tar
from strongroom.images import load as image
from strongroom.images.limits import LIMITS, ImageLimits
from strongroom.seal.tree import EntryKind, validate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"

END = bytes(1024)


def octal(value: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, value)


def entry(
    name: bytes,
    data: bytes = b"",
    *,
    flag: bytes = b"0",
    link: bytes = b"",
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 1_700_000_000,
    size: int | bytes | None = None,
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    checksum: bytes | None = None,
) -> bytes:
    """One header and its padded contents; `size` may lie, as a number or as the field's 12 bytes."""
    stated = len(data) if size is None else size
    block = bytearray(512)
    block[0 : len(name)] = name[:100]
    block[100:108] = octal(mode, 8)
    block[108:116] = octal(uid, 8)
    block[116:124] = octal(gid, 8)
    block[124:136] = stated if isinstance(stated, bytes) else octal(stated, 12)
    block[136:148] = octal(mtime, 12)
    block[148:156] = b" " * 8
    block[156:157] = flag
    block[157 : 157 + len(link)] = link[:100]
    block[257:265] = magic
    block[345 : 345 + len(prefix)] = prefix
    block[148:156] = checksum if checksum is not None else b"%06o\0 " % sum(block)
    return bytes(block) + data + bytes(-len(data) % 512)


def pax(records: dict[bytes, bytes], flag: bytes = b"x") -> bytes:
    body = b"".join(record(key, value) for key, value in records.items())
    return entry(b"PaxHeaders/x", body, flag=flag)


def record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def folder(name: bytes, **more: Any) -> bytes:
    return entry(name, flag=b"5", **{"mode": 0o755, **more})


def symlink(name: bytes, target: bytes, **more: Any) -> bytes:
    return entry(name, flag=b"2", link=target, **more)


def hardlink(name: bytes, target: bytes, **more: Any) -> bytes:
    return entry(name, flag=b"1", link=target, **more)


def read(data: bytes, limits: ImageLimits = LIMITS) -> list[tar.TarMember]:
    return list(tar.members(lambda at, count: data[at : at + count], len(data), what="layer", limits=limits))


def apply(*given: bytes, limits: ImageLimits = LIMITS) -> layers.Tree:
    """The tree of layers whose ends are added here."""
    made = layers.Tree(limits)
    for number, body in enumerate(given):
        data = body + END
        made.apply(
            lambda at, count, data=data: data[at : at + count],
            len(data),
            lambda at, count, data=data: io.BytesIO(data[at : at + count]),
            what=f"layer {number}",
        )
    made.settle()
    return made


def listing(made: layers.Tree) -> dict[bytes, Any]:
    """Path → contents (bytes), symlink target ("-> …"), or None for a directory."""
    out: dict[bytes, Any] = {}
    for one in validate(made.entries()):
        if one.kind is EntryKind.FILE:
            assert one.open is not None
            with one.open() as source:
                out[one.path] = source.read()
        else:
            out[one.path] = b"-> " + one.target if one.kind is EntryKind.SYMLINK else None
    del out[b""]
    return out


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Layout:
    """An OCI layout being made in `path`. Every part can be made to lie."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs/sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, data: bytes) -> dict[str, Any]:
        digest = sha256(data)
        (self.path / "blobs/sha256" / digest[7:]).write_bytes(data)
        return {"digest": digest, "size": len(data)}

    def json(self, value: Any, media_type: str, **more: Any) -> dict[str, Any]:
        return {"mediaType": media_type, **self.blob(json.dumps(value).encode()), **more}

    def layer(self, tarball: bytes, compression: str = "") -> dict[str, Any]:
        packed = gzip.compress(tarball, mtime=0) if compression == "+gzip" else tarball
        return {"mediaType": OCI_LAYER + compression, **self.blob(packed)}

    def config(self, diff_ids: list[str], **more: Any) -> dict[str, Any]:
        inner = {"Entrypoint": ["/bin/program"], **more.pop("config", {})}
        value = {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "config": inner,
            **more,
        }
        return self.json(value, OCI_CONFIG)

    def image(self, *tarballs: bytes, compression: str = "", **config: Any) -> dict[str, Any]:
        """A manifest's descriptor."""
        rows = [self.layer(tarball, compression) for tarball in tarballs]
        described = self.config([sha256(tarball) for tarball in tarballs], **config)
        return self.manifest(described, rows)

    def manifest(self, config: dict[str, Any], rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        value = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": rows, **more}
        return self.json(value, OCI_MANIFEST)

    def index(self, *manifests: dict[str, Any], **more: Any) -> Layout:
        value = {"schemaVersion": 2, "manifests": list(manifests), **more}
        (self.path / "index.json").write_text(json.dumps(value))
        return self

    def archive(self, to: Path) -> Path:
        with tarfile.open(to, "w") as out:
            for child in sorted(self.path.iterdir()):
                out.add(child, child.name)
        return to


def simple(path: Path, *tarballs: bytes, **config: Any) -> Layout:
    """A layout of one image."""
    made = Layout(path)
    return made.index(made.image(*tarballs, **config))


PROGRAM = folder(b"bin/") + entry(b"bin/program", b"#!", mode=0o755)
ACCOUNTS = (
    folder(b"etc/")
    + entry(b"etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nann:x:1000:100:Ann:/home/ann:/bin/sh\n")
    + entry(b"etc/group", b"root:x:0:\nusers:x:100:\nstaff:x:50:ann,bob\naudio:x:29:ann\n")
)


@contextmanager
def loaded(path: Path, tmp_path: Path, **more: Any) -> Iterator[image.Loaded]:
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    with image.load(path, scratch=scratch, **more) as found:
        validate(found.entries)
        yield found
    assert list(scratch.iterdir()) == []
