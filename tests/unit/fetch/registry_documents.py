"""Documents of a registry, and a registry that serves them."""

from __future__ import annotations

import json

from strongroom.fetch.oci import names as registry_names
from strongroom.images import artifact, oci
from strongroom_testing.vendors.vendor_services import Reply
from tests.unit.images import kit

INDEX, MANIFEST = oci.INDEXES[0], artifact.MANIFEST


def serve(one, document, kind, *, kept="manifests", name=None):
    """Answer for a document. Returns what an index says of it."""
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    digest = kit.sha256(data)
    headers = (("Content-Type", kind),)
    one.files[f"/v2/team/it/{kept}/{name or digest}"] = Reply(body=data, headers=headers)
    return {"mediaType": kind, "digest": digest, "size": len(data)}


def index_of(entries, **more):
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries, **more}


def named(one, digest):
    return registry_names.parse(f"{one.host}/team/it@{digest}")
