"""Any tar and any document: a value, or Malformed or Refused, and never anything else."""

from __future__ import annotations

import gzip
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given
from hypothesis import strategies as st

from strongroom.errors import Malformed, NotFound, Refused
from strongroom.images import accounts, blobs, layers, load, oci
from strongroom.images.limits import ImageLimits
from strongroom.seal.tree import validate
from tests.effort import examples
from tests.unit.images.kit import (
    ACCOUNTS,
    END,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    PROGRAM,
    Layout,
    entry,
    folder,
    hardlink,
    pax,
    symlink,
)

LIMITS = ImageLimits(entries=2000, file_bytes=1 << 20, layer_bytes=1 << 22, total_bytes=1 << 22)
SLOW = examples(150, suppress_health_check=[HealthCheck.too_slow])

_PLAIN = b"a b a/b a/b/c ./a /a .. a/.. ./ a/ // tmp out etc/passwd dev/a dev \xff"
_HIDING = b".wh.a a/.wh.b a/.wh..wh..opq .wh. .wh..wh.x .wh..wh.plnk/a a/.wh..wh.x .wh..wh..opq/a"
NAMES = st.sampled_from([*_PLAIN.split(), *_HIDING.split()])
DATA = st.binary(max_size=40)
PIECES = st.one_of(
    st.builds(entry, NAMES, DATA, mode=st.integers(0, 0o7777)),
    st.builds(folder, NAMES),
    st.builds(symlink, NAMES, NAMES),
    st.builds(hardlink, NAMES, NAMES),
    st.builds(entry, NAMES, flag=st.sampled_from([bytes([n]) for n in range(128)]), data=DATA),
    st.builds(entry, NAMES, size=st.one_of(st.integers(0, 1 << 32), st.binary(min_size=12, max_size=12))),
    st.builds(
        pax,
        st.dictionaries(
            st.one_of(
                st.sampled_from([b"path", b"size", b"linkpath", b"uid", b"mtime", b"SCHILY.xattr.user.a"]),
                st.binary(min_size=1, max_size=8).map(lambda key: key.replace(b"=", b"")).filter(len),
            ),
            st.one_of(DATA, NAMES, st.integers(-9, 9999).map(lambda n: b"%d" % n)),
            max_size=3,
        ),
    ),
    st.binary(max_size=600),
)
LAYER = st.lists(PIECES, max_size=8).map(lambda pieces: b"".join(pieces) + END)


@st.composite
def mutated(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> bytes:
    data = bytearray(draw(source))
    for _ in range(draw(st.integers(0, 3))):
        if data:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        return bytes(data)
    return bytes(data[: draw(st.integers(0, len(data)))])


@SLOW
@given(st.lists(st.one_of(LAYER, mutated(LAYER)), max_size=3))
@example([symlink(b"a", b"/") + END, entry(b"a/b") + END])
def test_any_layers(given_layers: list[bytes]) -> None:
    tree = layers.Tree(LIMITS)
    try:
        for data in given_layers:
            tree.apply(
                lambda at, count, data=data: data[at : at + count],
                len(data),
                lambda at, count, data=data: io.BytesIO(data[at : at + count]),
                what="layer",
            )
        for path in (b"a/b/c", b"etc/passwd", b"tmp/../a"):
            tree.find(path)
            tree.resolve(path)
        accounts.look_up("ann:staff", tree, LIMITS)
    except (Malformed, Refused):
        return
    finally:
        # Whatever was applied until then is a sound tree, with no whiteout in it.
        for one in validate(tree.entries()):
            assert not one.name.startswith(b".wh.")
            assert b".." not in one.path.split(b"/")


GOOD = (
    folder(b"./") + PROGRAM + ACCOUNTS + pax({b"SCHILY.xattr.user.a": b"1"}) + entry(b"f", b"x" * 700)
) + END


@SLOW
@given(mutated(st.just(GOOD)))
def test_mutations_of_a_good_layer(data: bytes) -> None:
    tree = layers.Tree(LIMITS)
    try:
        tree.apply(
            lambda at, count: data[at : at + count], len(data), lambda _a, _c: io.BytesIO(), what="layer"
        )
    except (Malformed, Refused):
        return
    tree.settle()
    validate(tree.entries())


@SLOW
@given(mutated(st.sampled_from([gzip.compress(GOOD, mtime=0), gzip.compress(b"", mtime=0) * 3])))
def test_any_gzip(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "blob"
        file.write_bytes(data)
        with (
            blobs.Blob(os.open(file, os.O_RDONLY), 0, len(data), "blob") as blob,
            blobs.Spool(Path(name)) as spool,
        ):
            try:
                blobs.unpack(
                    blob,
                    spool,
                    digest=None,
                    size=None,
                    diff_id="sha256:" + "0" * 64,
                    limits=LIMITS,
                    progress=lambda _: None,
                )
            except (Malformed, Refused):
                return
    raise AssertionError("no data has that digest")


KEYS = (
    "schemaVersion mediaType manifests layers config digest size platform os architecture rootfs type diff_ids"
    " Env Cmd Entrypoint User WorkingDir annotations urls Config RepoTags Layers imageLayoutVersion"
)
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-5, 1 << 60),
        st.text(max_size=10),
        st.sampled_from(
            [OCI_MANIFEST, OCI_INDEX, OCI_LAYER, "sha256:" + "a" * 64, "layers", "A=b", "linux", "/", "../x"]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(KEYS.split()),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=12,
)


@SLOW
@given(VALUES)
def test_any_document(value: Any) -> None:
    data = json.dumps(value).encode()
    for parse in (
        lambda: oci.parse_index(data, OCI_INDEX, what="it", limits=LIMITS),
        lambda: oci.parse_manifest(data, OCI_MANIFEST, what="it", limits=LIMITS),
        lambda: oci.parse_config(data, what="it", limits=LIMITS),
        lambda: oci.parse_settings(data, what="it", limits=LIMITS),
    ):
        try:
            parse()
        except (Malformed, Refused):
            pass


@st.composite
def spoiled(draw: st.DrawFn) -> dict[str, Any]:
    """A place in one of the documents, and what to put there."""
    return {
        "which": draw(st.sampled_from(["index", "manifest", "config"])),
        "at": draw(st.lists(st.integers(0, 7), min_size=1, max_size=4)),
        "value": draw(VALUES),
    }


def spoil(document: Any, at: list[int], value: Any) -> Any:
    """A copy of `document` with `value` at the place that `at` leads to."""
    if not at or not isinstance(document, dict | list) or not document:
        return value
    keys = list(document) if isinstance(document, dict) else list(range(len(document)))
    key = keys[at[0] % len(keys)]
    copy: Any = dict(document) if isinstance(document, dict) else list(document)
    copy[key] = spoil(copy[key], at[1:], value)
    return copy


class Spoiled(Layout):
    """A layout whose descriptors hold, and one of whose documents is strange."""

    def __init__(self, path: Path, plan: dict[str, Any]) -> None:
        super().__init__(path)
        self._plan = plan

    def json(self, value: Any, media_type: str, **more: Any) -> dict[str, Any]:
        which = "manifest" if media_type == OCI_MANIFEST else "config"
        if which == self._plan["which"]:
            value = spoil(value, self._plan["at"], self._plan["value"])
        return super().json(value, media_type, **more)


@examples(100, suppress_health_check=[HealthCheck.too_slow])
@given(spoiled(), st.booleans(), mutated(st.just(GOOD)))
def test_any_layout(plan: dict[str, Any], whole: bool, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        layout = Spoiled(Path(name) / "image", plan)
        layout.index(layout.image(GOOD if whole else data))
        if plan["which"] == "index":
            index = json.loads((layout.path / "index.json").read_text())
            (layout.path / "index.json").write_text(json.dumps(spoil(index, plan["at"], plan["value"])))
        try:
            with load.load(layout.path, scratch=Path(name), limits=LIMITS) as found:
                validate(found.entries)
        except (Malformed, Refused, NotFound):
            pass
        assert sorted(one.name for one in Path(name).iterdir()) == ["image"]


@examples(60, suppress_health_check=[HealthCheck.too_slow])
@given(VALUES, mutated(st.just(GOOD)))
def test_any_docker_archive(rows: Any, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "archive.tar"
        config = json.dumps(
            {
                "os": "linux",
                "architecture": "amd64",
                "rootfs": {"type": "layers", "diff_ids": []},
                "config": rows,
            }
        ).encode()
        row = json.dumps([{"Config": "c", "Layers": []}] if isinstance(rows, dict) else rows).encode()
        file.write_bytes(entry(b"manifest.json", row) + entry(b"c", config) + data)
        try:
            with load.load(file, scratch=Path(name), limits=LIMITS) as found:
                validate(found.entries)
        except (Malformed, Refused, NotFound):
            pass
