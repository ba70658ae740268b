"""The manifest of a sealed disk: everything needed to verify it, and to open it given the key.

Disk layout (bytes): `data_bytes` of ciphertext (or plain erofs when `cipher` is "none"), then the
dm-verity superblock and hash tree at `hash_offset`, exactly as `veritysetup format` lays them out.
The manifest travels as a DSSE envelope signed by the owner; contracts name the digest of the
payload bytes, so that a second signature changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from strongroom.crypto import digest
from strongroom.encoding import canonical, dsse, fields, unexpected
from strongroom.errors import Malformed
from strongroom.model.identifiers import KeyId, ManifestDigest

FORMAT = "strongroom-manifest/1"
WITH_CHECK = "strongroom-manifest/2"
CHECK_BYTES = 32
PAYLOAD_TYPE = "application/vnd.strongroom.manifest+json"
MAX_BYTES = 256 * 1024
MAX_ENVELOPE = 4 * MAX_BYTES  # signed: in base64, which takes a third more, with signatures
BLOCK = 4096
NO_CIPHER = "none"
CIPHERS = ("aes-xts-plain64", NO_CIPHER)
KINDS = ("dataset", "image")
MAX_USER = (
    1 << 31
) - 2  # the last id that a room has: the kernel's ids are 32 bits, and half of them the room's own


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """What an OCI image says about how to run it (OCI image-spec, config).

    `user` is "UID:GID" with the additional groups' ids in `groups`, already looked up in the
    image's own passwd and group files. `source` is the digest of the OCI image manifest.
    """

    source: str
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    environment: dict[str, str]
    working_directory: str
    uid: int
    gid: int
    groups: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A parsed manifest. `raw` is the exact bytes; `digest` is over them.

    Sizes are bytes and multiples of 4096. `salt` and `uuid` are fixed by the format (see `seal`). `key_check` is by
    `crypto.xts.check_value`; None for a disk without encryption, and in format 1, which had none.
    """

    raw: bytes
    kind: str
    name: str
    owner: KeyId
    cipher: str
    data_bytes: int
    hash_offset: int
    disk_bytes: int
    root_hash: str
    salt: bytes
    image: ImageSettings | None
    key_check: bytes | None = None

    @property
    def digest(self) -> ManifestDigest:
        """SHA-256 over the exact bytes: the disk's name in contracts and key stores."""
        return ManifestDigest(digest.sha256(self.raw))


def encode(manifest: Manifest) -> bytes:
    """The canonical payload bytes for the fields of `manifest` (its `raw` is not looked at)."""
    check = manifest.key_check
    return canonical.dumps(
        {
            "format": FORMAT if check is None else WITH_CHECK,
            **({} if check is None else {"key_check": fields.format_data(check)}),
            "kind": manifest.kind,
            "name": manifest.name,
            "owner": manifest.owner,
            "cipher": manifest.cipher,
            "block_bytes": BLOCK,
            "data_bytes": manifest.data_bytes,
            "hash_offset": manifest.hash_offset,
            "disk_bytes": manifest.disk_bytes,
            "root_hash": manifest.root_hash,
            "salt": fields.format_data(manifest.salt),
            "image": None if manifest.image is None else _image_json(manifest.image),
        }
    )


def parse(data: bytes) -> Manifest:
    """Parse payload bytes. Raises `Malformed`."""
    top = fields.Fields(canonical.loads(data, what="manifest", max_bytes=MAX_BYTES), "manifest", quoting=True)
    form = top.text("format", max_length=64)
    if form not in {FORMAT, WITH_CHECK}:
        raise Malformed(
            f"manifest.format: expected {FORMAT} or {WITH_CHECK}, got {unexpected.quoted(form)}",
            code="wrong-format",
        )
    key_check = (
        top.data("key_check", max_bytes=CHECK_BYTES, exactly=CHECK_BYTES) if form == WITH_CHECK else None
    )
    top.integer("block_bytes", low=BLOCK, high=BLOCK)
    inner = top.object_or_null("image")
    manifest = Manifest(
        raw=data,
        kind=top.choice("kind", KINDS),
        name=top.name("name"),
        owner=KeyId(top.digest("owner")),
        cipher=top.choice("cipher", CIPHERS),
        data_bytes=top.integer("data_bytes", low=BLOCK, high=1 << 50),
        hash_offset=top.integer("hash_offset", low=BLOCK, high=1 << 50),
        disk_bytes=top.integer("disk_bytes", low=BLOCK, high=1 << 50),
        root_hash=top.digest("root_hash"),
        salt=top.data("salt", max_bytes=256),
        image=None if inner is None else _read_image(inner),
        key_check=key_check,
    )
    top.done()
    if key_check is not None and manifest.cipher == NO_CIPHER:
        raise Malformed(
            "manifest.key_check: present, though the cipher is none and the disk has no key", code="bad-value"
        )
    if (manifest.kind == "image") != (manifest.image is not None):
        wanted, got = ("settings", "null") if manifest.image is None else ("null", "settings")
        raise Malformed(f"manifest.image: expected {wanted}, as the kind is {manifest.kind}, got {got}")
    for key, size in (
        ("data_bytes", manifest.data_bytes),
        ("hash_offset", manifest.hash_offset),
        ("disk_bytes", manifest.disk_bytes),
    ):
        if size % BLOCK:
            raise Malformed(f"manifest.{key}: expected a multiple of {BLOCK}, got {size}")
    if manifest.hash_offset != manifest.data_bytes or manifest.disk_bytes <= manifest.hash_offset:
        raise Malformed(
            "manifest: expected hash_offset to equal data_bytes, and disk_bytes to be more, got "
            f"{manifest.hash_offset}, {manifest.data_bytes} and {manifest.disk_bytes}"
        )
    return manifest


def parse_envelope(data: bytes) -> tuple[dsse.Envelope, Manifest]:
    """Parse the signed file form; whose signature it is stays to be checked by the caller."""
    envelope = dsse.parse(data, payload_type=PAYLOAD_TYPE, max_payload=MAX_BYTES)
    return envelope, parse(envelope.payload)


def _image_json(image: ImageSettings) -> dict[str, object]:
    return {
        "source": image.source,
        "entrypoint": list(image.entrypoint),
        "command": list(image.command),
        "environment": dict(image.environment),
        "working_directory": image.working_directory,
        "uid": image.uid,
        "gid": image.gid,
        "groups": list(image.groups),
    }


def _read_image(source: fields.Fields) -> ImageSettings:
    groups = []
    for index, item in enumerate(source.items("groups", max_items=256)):
        if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item <= MAX_USER:
            raise Malformed(
                f"{source.what}.groups[{index}]: expected a group id from 0 to {MAX_USER}, got {unexpected.kind(item)}"
            )
        groups.append(item)
    settings = ImageSettings(
        source=source.digest("source"),
        entrypoint=source.words("entrypoint", max_items=1024),
        command=source.words("command", max_items=1024),
        environment=source.text_map("environment", max_items=1024, max_length=65536),
        working_directory=source.text("working_directory", max_length=4096),
        uid=source.integer("uid", low=0, high=MAX_USER),
        gid=source.integer("gid", low=0, high=MAX_USER),
        groups=tuple(groups),
    )
    source.done()
    if not settings.entrypoint and not settings.command:
        raise Malformed(f"{source.what}: neither entrypoint nor command, so nothing to run")
    if not settings.working_directory.startswith("/"):
        raise Malformed(
            f"{source.what}.working_directory: expected a path that begins with /, got {unexpected.quoted(settings.working_directory)}"
        )
    return settings
