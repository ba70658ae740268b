"""A tree sealed to a disk."""

from __future__ import annotations

from strongroom.crypto import sign
from strongroom.model.manifest import ImageSettings
from strongroom.seal import disk
from tests.unit.seal.trees import noise, rich

OWNER = sign.SigningKey(bytes(range(32)))
KEY = noise(64, 3)

IMAGE = ImageSettings(
    source="sha256:" + "1" * 64,
    entrypoint=("/bin/x",),
    command=(),
    environment={},
    working_directory="/",
    uid=0,
    gid=0,
    groups=(),
)


def seal(target, entries=None, key=KEY, kind="dataset", **more):
    return disk.seal(
        rich() if entries is None else entries,
        kind=kind,
        name="flights",
        owner_key=OWNER,
        key=key,
        image=IMAGE if kind == "image" else None,
        target=target,
        **more,
    )
