"""Extended attributes of an image's files: kept, left out with a note, or refused.

Kept are `security.capability` and `user.*`. Attributes by which overlayfs hides or moves files are refused, as some
runtimes obey them in a layer. All others mean nothing to a program in a room and are left out with a note: labels
(SELinux) and signatures (IMA, EVM) for the kernel of another system, access lists where there is one user, and names
that Linux does not know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.errors import Refused
from strongroom.seal.tree import show

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from strongroom.images.tar import ImagePlace

_OVERLAY = b"trusted.overlay."
# What overlayfs obeys; the others of its own (origin, impure, nlink, uuid, upper) are its bookkeeping.
_OBEYED = (b"opaque", b"redirect", b"metacopy", b"whiteout", b"whiteouts", b"xwhiteouts")
_ACLS = (b"system.posix_acl_access", b"system.posix_acl_default", b"system.nfs4_acl")


def kept(xattrs: Mapping[bytes, bytes], where: ImagePlace, note: Callable[[str], None]) -> dict[bytes, bytes]:
    """The attributes that go into the sealed image; `note` gets a remark on each of the rest. Raises `Refused`."""
    kept_xattrs = {}
    for name, value in xattrs.items():
        if name == b"security.capability" or (name.startswith(b"user.") and len(name) > 5):
            kept_xattrs[name] = value
        elif name.startswith(_OVERLAY) and name.removeprefix(_OVERLAY) in _OBEYED:
            raise Refused(
                f"{where}: extended attribute {show(name)}",
                code="bad-xattr",
                hint="overlayfs hides or moves files by it, and runtimes differ about it in a layer; "
                "rebuild the layer with whiteouts",
            )
        elif name == b"security.selinux":
            note("SELinux labels of the image are left out: they mean nothing in a room")
        elif name in _ACLS:
            note("access control lists of the image are left out: a room has one user")
        else:
            note(f"extended attributes {show(name)} of the image are left out: they mean nothing in a room")
    return kept_xattrs
