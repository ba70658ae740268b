"""What the tests of registries share: a real registry with an image in it, put there by skopeo."""

from __future__ import annotations

import contextlib
import os
import subprocess

import pytest

from strongroom.fetch.http.client import Client
from strongroom.fetch.oci import login as registry_login
from strongroom.fetch.oci import names
from strongroom.fetch.oci import pull as registry
from strongroom.fetch.oci.session import Access
from strongroom.images import oci
from strongroom_testing import registry_server as server
from strongroom_testing.registry_front import front
from tests.unit.images import kit

AMD64 = oci.parse_platform("linux/amd64")
ARM64 = oci.parse_platform("linux/arm64")
READER = registry_login.Credential(name=server.NAME, secret=server.SECRET)
needs_registry = pytest.mark.skipif(not server.available(), reason="docker-registry is not installed")


def sample(folder):
    """A layout with an index of two images, one of whose layers is of some size. Returns it and the index's descriptor."""
    made = kit.Layout(folder)
    big = kit.entry(b"noise", os.urandom(300_000))
    here = made.image(kit.PROGRAM + kit.END, kit.ACCOUNTS + kit.END, big + kit.END, compression="+gzip")
    there = made.image(kit.PROGRAM + kit.END, architecture="arm64")
    index = made.json(
        {
            "schemaVersion": 2,
            "mediaType": kit.OCI_INDEX,
            "manifests": [
                {**here, "platform": {"os": "linux", "architecture": "amd64"}},
                {**there, "platform": {"os": "linux", "architecture": "arm64"}},
            ],
        },
        kit.OCI_INDEX,
    )
    made.index({**index, "annotations": {oci.REF_NAME: "it"}})
    return made, index, here, there


def put(layout, host, *, repository="team/it", tag="today", login=None, docker=False):
    """Put all of a layout into a registry, with skopeo."""
    # Plain HTTP for a registry of our own: skopeo's switch for that is the same as for unverified TLS.
    command = ["skopeo", "copy", "-q", "--all", "--dest-tls-verify=false"]
    command += ["--format", "v2s2"] if docker else ["--preserve-digests"]
    if login is not None:
        command += ["--dest-creds", f"{login.name}:{login.secret}"]
    subprocess.run([*command, f"oci:{layout.path}", f"docker://{host}/{repository}:{tag}"], check=True)


def access(one, *, waits=None, **more):
    """Quick to give up, and never really asleep."""
    client = more.pop("client", None) or Client(
        read_seconds=2, total_seconds=5, tries=3, sleep=(waits if waits is not None else []).append
    )
    return Access(ca=one.ca, client=client, **more)


def name(host, digest, repository="team/it"):
    return names.parse(f"{host}/{repository}@{digest}")


def pull(one, digest, into, *, platform=AMD64, repository="team/it", limits=None, **more):
    extra = {} if limits is None else {"limits": limits}
    return registry.pull(
        name(one.host, digest, repository), platform=platform, into=into, access=access(one, **more), **extra
    )


@contextlib.contextmanager
def served(folder):
    """A real registry with the sample in it, behind a front: (front, registry, sample)."""
    with server.registry(folder / "registry") as real, front(folder / "front", upstream=real.host) as before:
        made = sample(folder / "sample")
        put(made[0], real.host)
        yield before, real, made
