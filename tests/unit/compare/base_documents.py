"""A base's document, for comparing."""

from __future__ import annotations

from strongroom.bases import document as base_document
from strongroom.bases import profile as base_profile


def document(profile):
    """A base.json that names the profile; what it says of files is not looked at here."""
    chosen = base_profile.PROFILES[profile]
    local = profile == "local"
    digest = "sha256:" + "0" * 64
    return base_document.Base(
        profile=chosen,
        debug=False,
        reference={**dict.fromkeys(("firmware", "kernel", "initrd", "cmdline"), digest), "machine": "q35"}
        if local
        else {},
        files=dict.fromkeys(base_document.parts_of(chosen), (1, digest)),
        root_hash=digest,
        pcr0=dict.fromkeys(("guarded", "unguarded"), digest) if local else {},
        packages=digest,
    ).encode()
