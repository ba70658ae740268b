"""Initrds of any bytes read as a sound tree, or are `Malformed`."""

from __future__ import annotations

import contextlib
import io

from hypothesis import given

from strongroom.bases import cpio, initramfs
from strongroom.bases.files import File
from strongroom.compare import base, image
from strongroom.errors import Malformed
from strongroom.seal.tree import Entry, EntryKind
from tests.fuzz.mutations import mutations, often

GOOD = initramfs.archive({"init": File(content=b"#!", executable=True), "lib/a": File(content=b"abc" * 20)})


@often
@given(data=mutations(GOOD))
def test_rule_15_archives_of_any_bytes(data):
    with contextlib.suppress(Malformed):
        found = cpio.tree(data)
        assert sum(one.size for one in found) <= len(data)


@often
@given(data=mutations(bytes(0x202) + b"HdrS" + bytes(64)))
def test_rule_15_a_kernels_release_is_a_word(data):
    assert base.release(data).isascii()


@often
@given(
    data=mutations(b"Package: openssl\nVersion: 3.0.15\nDescription: x\n more\n\nPackage: zlib\nVersion: 1\n")
)
def test_rule_15_package_databases_of_any_bytes(data):
    entry = Entry(
        path=b"var/lib/dpkg/status",
        kind=EntryKind.FILE,
        mode=0o644,
        size=len(data),
        open=lambda: io.BytesIO(data),
    )
    for name, version in image.packages((entry,)).items():
        assert len(name) <= 4 * 256 + len(" (deb)")
        assert len(version) <= 4 * 256
