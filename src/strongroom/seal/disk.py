"""Sealed disks: a tree goes in, `NAME.disk` and its signed `NAME.manifest.json` come out; and the ways back.

Layers (see `model.manifest`): EROFS → AES-256-XTS (or none) → dm-verity over the result. Same tree, same key,
same bytes. All of it streams: memory is bounded by a few buffers per processor core, whatever the size, and
plaintext is nowhere but in memory.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.crypto import digest, xts
from strongroom.encoding import dsse
from strongroom.errors import Malformed, Misuse, Refused
from strongroom.model import manifest as manifest_model
from strongroom.model import party as party_model
from strongroom.model import signatures
from strongroom.model.manifest import BLOCK, ImageSettings, Manifest
from strongroom.seal import browse, erofs, extract, lanes, newfile, verity
from strongroom.seal.progress import silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from strongroom.crypto import sign
    from strongroom.seal.progress import Progress
    from strongroom.seal.tree import Entry

SUFFIX = ".disk"
MANIFEST_SUFFIX = ".manifest.json"
KEY_SUFFIX = ".key.age"


def beside(disk: Path, suffix: str) -> Path:
    """The file that belongs to `disk`: NAME.disk → NAME + `suffix`. Raises `Misuse` for a path without a name."""
    if not disk.name:
        raise Misuse(f"{disk}: is no disk's file", code="bad-path", hint="name the disk itself")
    for of_a_disk, what in ((MANIFEST_SUFFIX, "manifest"), (KEY_SUFFIX, "sealed key")):
        if disk.name.endswith(of_a_disk):
            disk_of_name = disk.with_name(disk.name.removesuffix(of_a_disk) + SUFFIX)
            raise Misuse(
                f"{disk}: a disk's {what} by its name",
                code="bad-path",
                hint=f"name the disk itself: {disk_of_name}",
            )
    return disk.with_name(disk.name.removesuffix(SUFFIX) + suffix)


def seal(
    entries: Iterable[Entry],
    *,
    kind: str,
    name: str,
    owner_key: sign.SigningKey,
    key: bytes | None,
    image: ImageSettings | None,
    target: Path,
    progress: Progress = silent,
) -> Manifest:
    """Write the disk `target` (`NAME.disk`) and, beside it, its manifest signed by the owner; returns the manifest.

    kind: "image" or "dataset". `key` is 64 bytes, or None for a disk that is not encrypted (cipher "none"). Raises `Malformed` for an unsound tree
    or key, `Conflict` when content changes while it is read, `Unavailable` when the disk is full, `Misuse`
    when one of the two files exists. After any failure, neither is there.
    """
    plan = erofs.layout(entries)
    tree_plan = verity.shape(plan.data_bytes)
    cipher = None if key is None else xts.SectorCipher(key)
    if os.path.lexists(beside(target, MANIFEST_SUFFIX)):
        raise Misuse(
            f"{beside(target, MANIFEST_SUFFIX)}: exists already",
            code="exists",
            hint="remove it, or seal under another name",
        )
    draft = Manifest(
        raw=b"",
        kind=kind,
        name=name,
        owner=party_model.keyid(owner_key.public),
        cipher="none" if cipher is None else xts.CIPHER,
        data_bytes=plan.data_bytes,
        hash_offset=plan.data_bytes,
        disk_bytes=tree_plan.disk_bytes,
        root_hash=digest.sha256(b""),  # is known once the disk is written, as its key's check value
        salt=verity.SALT,
        image=image,
        key_check=None if key is None else bytes(manifest_model.CHECK_BYTES),
    )
    manifest_model.parse(manifest_model.encode(draft))  # refuse what could not be read back, before the work
    with newfile.create(target, expected_bytes=tree_plan.disk_bytes) as fd:
        root = _write(fd, plan, tree_plan, cipher, progress)
    root_hash = "sha256:" + root.hex()
    check = None if key is None else xts.check_value(key, root_hash)
    final = manifest_model.parse(manifest_model.encode(replace(draft, root_hash=root_hash, key_check=check)))
    _write_manifest(target, final, owner_key)
    return final


def reseal(
    like: Manifest,
    *,
    name: str,
    owner_key: sign.SigningKey,
    target: Path,
    write: Callable[[int], None],
    progress: Progress = silent,
) -> Manifest:
    """Another disk with the bytes of one that was sealed before, for this name and owner; not encrypted.

    `write` puts the bytes into an empty file; they are believed when their root hash is that of `like`. Raises like `seal`, and
    `Refused` when they are not that disk. After any failure nothing is there.
    """
    if like.cipher != "none":
        raise Misuse(
            "seal: an encrypted disk is sealed anew, under a key of its own",
            code="key-mismatch",
            hint="seal the files themselves again: `strongroom seal FOLDER …`",
        )
    owned = replace(like, raw=b"", name=name, owner=party_model.keyid(owner_key.public))
    final = manifest_model.parse(manifest_model.encode(owned))
    if os.path.lexists(beside(target, MANIFEST_SUFFIX)):
        raise Misuse(f"{beside(target, MANIFEST_SUFFIX)}: exists already", code="exists", hint="remove it")
    with newfile.create(target, expected_bytes=final.disk_bytes) as fd:
        write(fd)
        verify(Path(f"/proc/self/fd/{fd}"), final, progress=progress)
    _write_manifest(target, final, owner_key)
    return final


def _write_manifest(target: Path, final: Manifest, owner_key: sign.SigningKey) -> None:
    try:
        newfile.write(beside(target, MANIFEST_SUFFIX), signed(final, owner_key).encode())
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def signed(manifest: Manifest, owner_key: sign.SigningKey) -> dsse.Envelope:
    """The manifest's envelope with the owner's signature. Ed25519 is deterministic, so these are the same bytes always."""
    pae = dsse.pae(manifest_model.PAYLOAD_TYPE, manifest.raw)
    signature = dsse.DsseSignature(keyid=party_model.keyid(owner_key.public), sig=owner_key.sign(pae))
    return dsse.Envelope(
        payload_type=manifest_model.PAYLOAD_TYPE, payload=manifest.raw, signatures=(signature,)
    )


def owned_by(manifest: Manifest, owner_key: sign.SigningKey) -> dsse.Envelope:
    """The signed manifest of the same disk for another owner. The disk, its key and its check value stay the same."""
    owned = replace(manifest, raw=b"", owner=party_model.keyid(owner_key.public))
    return signed(manifest_model.parse(manifest_model.encode(owned)), owner_key)


def check_owner(envelope: dsse.Envelope, manifest: Manifest, owner: sign.VerifyingKey) -> None:
    """Raise `Refused` unless `owner` is the manifest's owner and signed it."""
    if manifest.owner != digest.sha256(owner.raw):
        raise Refused(
            f"the manifest is of owner {manifest.owner}, not {digest.sha256(owner.raw)}",
            code="not-owner",
            hint="name the party that sealed the disk",
        )
    if not signatures.signed_by(envelope, owner):
        raise Refused(
            "the manifest is not signed by its owner",
            code="bad-signature",
            hint="it was changed, or never signed: get it again from the owner, as `seal` or `convert` wrote it",
        )


def verify(disk: Path, manifest: Manifest, *, progress: Progress = silent) -> None:
    """Check every byte of `disk` against `manifest`, without any key.

    The whole tree is computed anew from the data; the root hash, the stored tree, the superblock and the size must all
    be those. Raises `Refused`, and says which block differs first.
    """
    plan = _shape_of(manifest)
    with _opened(disk, manifest) as fd:
        wrong: list[int] = []

        def compare(offset: int, block: bytes) -> None:
            stored = bytearray(BLOCK)
            verity.read_fully(fd, memoryview(stored), offset)
            if stored != block:
                wrong.append(offset)

        def work(buffer: memoryview, first: int, count: int) -> bytes:
            verity.read_fully(fd, buffer[:count], first * BLOCK)
            return verity.digests(buffer, count)

        tree = verity.TreeWriter(plan, compare)
        done = 0
        with contextlib.closing(lanes.results(manifest.data_bytes, None, work)) as batches:
            for batch in batches:  # digests of blocks, one after another
                tree.update(batch)
                if wrong:
                    break
                done += len(batch) // verity.DIGEST * BLOCK
                progress(done, manifest.data_bytes)
        root = b"" if wrong else tree.finish()
        if wrong:
            _explain(fd, plan, manifest, wrong[0])
        if root != digest.raw(manifest.root_hash):
            raise verity.corrupt(f"root hash sha256:{root.hex()} (a whole disk, but another disk)")


def prove_key(manifest: Manifest, key: bytes, disk: Path | None) -> None:
    """Raise `Refused` unless `key` is that of the manifest's disk, by its check value, else by `disk` itself.

    `Misuse` where there is neither: manifests of format 1 have no check value.
    """
    if manifest.key_check is not None:
        check_key(manifest, key)
        return
    if disk is None:
        raise Misuse(
            f"key.check: the manifest of {manifest.name} is of a format without a check value of its key, and there is no "
            "disk to try the key on",
            code="key-unproved",
            hint="give the disk with --disk NAME.disk, or seal it again",
        )
    with plaintext(disk, manifest, key) as read:
        try:
            browse.check(read, manifest.data_bytes)
        except Malformed:
            raise _wrong_key(manifest, "what is sealed in it, read with this key", "noise") from None


def check_key(manifest: Manifest, key: bytes) -> None:
    """Raise `Refused` where the manifest's check value is of another key."""
    if manifest.key_check is None:
        return
    check_value = xts.check_value(key, manifest.root_hash)
    if not hmac.compare_digest(check_value, manifest.key_check):
        raise _wrong_key(
            manifest, f"a key with the check value {manifest.key_check.hex()}", check_value.hex()
        )


def _wrong_key(manifest: Manifest, expected: str, got: str) -> Refused:
    return Refused(
        f"key.check: this is not the key of the disk {manifest.name}: expected {expected}, got {got}",
        code="wrong-key",
        hint=f"the key is in the {KEY_SUFFIX} file that was written together with this very manifest",
    )


@contextlib.contextmanager
def plaintext(disk: Path, manifest: Manifest, key: bytes | None) -> Iterator[Callable[[int, int], bytes]]:
    """A function from (first block, number of blocks) to checked, decrypted bytes."""
    if (key is None) != (manifest.cipher == "none"):
        raise Misuse(
            "open: the disk is encrypted and there is no key"
            if key is None
            else "open: a key for a disk that is not encrypted",
            code="key-mismatch",
            hint="name its .key.age file with --key-file" if key is None else "leave --key-file out",
        )
    if key is not None:
        check_key(manifest, key)
    cipher = None if key is None else xts.SectorCipher(key)
    plan = _shape_of(manifest)
    with _opened(disk, manifest) as fd:
        checked = verity.CheckedReader(fd, plan, digest.raw(manifest.root_hash))

        def read(first: int, count: int) -> bytes:
            buffer = checked.read(first, count)
            if cipher is not None:
                cipher.decrypt(memoryview(buffer), count * BLOCK, first=first)
            return bytes(memoryview(buffer)[: count * BLOCK])

        yield read


def _write(
    fd: int,
    plan: erofs.ErofsLayout,
    tree_plan: verity.VerityShape,
    cipher: xts.SectorCipher | None,
    progress: Progress,
) -> bytes:
    """Data, tree and superblock into `fd`; returns the root hash."""
    stream = erofs.ImageStream(plan)

    def fill(buffer: memoryview, _first: int, count: int) -> None:
        if stream.fill(buffer[:count]) != count:
            raise Malformed("seal: the image is shorter than its layout")

    def work(buffer: memoryview, first: int, count: int) -> bytes:
        if cipher is not None:
            cipher.encrypt(buffer, count, first=first)
        _pwrite(fd, buffer[:count], first * BLOCK)
        return verity.digests(buffer, count)

    def write(offset: int, block: bytes) -> None:
        _pwrite(fd, memoryview(block), offset)

    tree = verity.TreeWriter(tree_plan, write)
    done = 0
    with (
        contextlib.closing(stream),
        contextlib.closing(lanes.results(plan.data_bytes, fill, work)) as batches,
    ):
        for batch in batches:  # digests of blocks, one after another
            tree.update(batch)
            done += len(batch) // verity.DIGEST * BLOCK
            progress(done, plan.data_bytes)
    return tree.finish()


def _pwrite(fd: int, view: memoryview, offset: int) -> None:
    done = 0
    while done < len(view):
        done += os.pwrite(fd, view[done:], offset + done)


def _shape_of(manifest: Manifest) -> verity.VerityShape:
    """Where blocks of data and of the hash tree lie. Raises `Malformed` for a manifest that says otherwise."""
    plan = verity.shape(manifest.data_bytes)
    if plan.disk_bytes != manifest.disk_bytes or manifest.salt != verity.SALT:
        raise Malformed(
            f"manifest: expected {plan.disk_bytes} bytes and salt {verity.SALT!r} for {manifest.data_bytes} bytes of data, "
            f"got {manifest.disk_bytes} and {manifest.salt!r}",
            code="bad-manifest",
            hint="another program or version sealed it: ask its owner to seal it again",
        )
    return plan


@contextlib.contextmanager
def _opened(disk: Path, manifest: Manifest) -> Iterator[int]:
    """The descriptor of a regular file as large as the manifest says."""
    fd = os.open(disk, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a fifo would wait for a writer
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Misuse(f"{disk}: not a regular file", hint="name the disk's own file, NAME.disk")
        if status.st_size != manifest.disk_bytes:
            raise Refused(
                f"{disk}: expected {manifest.disk_bytes} bytes, got {status.st_size}",
                code="disk-corrupt",
                hint="the file was cut short or is another disk; get it again from its owner",
            )
        yield fd
    finally:
        os.close(fd)


def _explain(fd: int, plan: verity.VerityShape, manifest: Manifest, offset: int) -> None:
    """Raise the refusal that names the first block that differs, seen from the stored tree block at `offset`."""
    block = offset // BLOCK
    if block == plan.data_blocks:
        raise verity.corrupt(f"the dm-verity superblock (byte {offset})")
    reader = verity.CheckedReader(fd, plan, digest.raw(manifest.root_hash))
    level, index = next(
        (number, block - first)
        for number, (first, count) in enumerate(plan.levels)
        if first <= block < first + count
    )
    reader.check_tree_block(level, index)
    if level == 0:
        # The stored tree is sound here, so a block of data under it is not.
        for data_block in range(index * verity.FAN, min((index + 1) * verity.FAN, plan.data_blocks)):
            reader.read(data_block, 1)
    raise verity.corrupt(f"hash block {index} of level {level} (byte {offset})")


def open_disk(
    disk: Path, manifest: Manifest, key: bytes | None, target: Path, *, progress: Progress = silent
) -> None:
    """Verify, decrypt and write the files inside into the new folder `target`, whole or not at all.

    Raises `Refused` for a disk that is not the manifest's, `Malformed` for an image that is not sound.
    """
    with extract.staged(target) as stage, plaintext(disk, manifest, key) as read:
        try:
            entries = browse.tree(read, manifest.data_bytes)
        except Malformed as failure:
            # The bytes are the manifest's: neither another manifest nor another copy would help.
            failure.hint = (
                failure.hint
                or "its owner sealed what `strongroom seal` does not write: ask for a disk that it wrote"
            )
            raise
        extract.write(entries, stage, foreign_links=manifest.kind == "image", progress=progress)
