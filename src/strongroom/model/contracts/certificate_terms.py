"""What a contract says of a room's certificate: its names, its key, what it is for, and where the program finds it.

::

    {"names": [DNS name], "lifetime_seconds",
     "key": "ecdsa-p384" | "ed25519" | "rsa-3072",             absent: ecdsa-p256
     "usages": ["server"] | ["client"],                        absent: both
     "trust_domain": DNS name,                                 absent: the contract's own
     "delivery": {"folder": path, "format": "pem" | "pkcs12", "uid", "gid", "mode": "0400" | "0600" | "0440" | "0640",
                  "reload": null | {"signal": name} | {"command": [text]}, "check": null | port},
     "interfaces": ["acme", "spiffe-workload-api"]}            absent: neither; by which others the program may ask for certificates

What is absent is never said in words, so that a contract says one thing in one way. Without `delivery`: PEM files in `FOLDER` for the image's user alone, and the program hears nothing when they change.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.errors import Malformed
from strongroom.model.manifest import MAX_USER

if TYPE_CHECKING:
    from strongroom.encoding import fields
    from strongroom.model.identifiers import ContractId, RunId

DNS_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9-]{1,63}(?<!-)){1,8}", re.ASCII)
DNS_LIKE = "a DNS name of two labels or more, in lower case, like room.flights.example"
FOLDER = "/run/strongroom/tls"
_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]{1,64}){1,16}", re.ASCII)
_PATH_LIKE = "an absolute path of letters, digits, dots, dashes and underscores, without . and .."
# What the room has there itself, and where nothing of a certificate belongs.
_TAKEN = ("/data", "/dev", "/out", "/proc", "/sys", "/tmp")  # noqa: S108 - refused, not used


class KeyKind(enum.StrEnum):
    """The kinds of a room's TLS key."""

    ECDSA_P256 = "ecdsa-p256"
    ECDSA_P384 = "ecdsa-p384"
    ED25519 = "ed25519"
    RSA_3072 = "rsa-3072"


class Usage(enum.StrEnum):
    """What a certificate is for (RFC 5280, section 4.2.1.12)."""

    SERVER = "server"
    CLIENT = "client"


class Format(enum.StrEnum):
    """How key and certificates are written."""

    PEM = "pem"
    PKCS12 = "pkcs12"


class Signal(enum.StrEnum):
    """Signals for which programs read their files again."""

    HUP = "HUP"
    USR1 = "USR1"
    USR2 = "USR2"


class Mode(enum.StrEnum):
    """The modes that a private key's file may have: never one by which others read it."""

    OWNER_READS = "0400"
    OWNER_WRITES = "0600"
    GROUP_READS = "0440"
    OWNER_WRITES_GROUP_READS = "0640"


class Interface(enum.StrEnum):
    """By what the room's program may ask for certificates, beside the files that are delivered."""

    ACME = "acme"  # RFC 8555: for keys of the program's own, without a SPIFFE ID
    WORKLOAD_API = "spiffe-workload-api"


BOTH = (Usage.SERVER, Usage.CLIENT)
_OTHER_KEYS = tuple(kind for kind in KeyKind if kind is not KeyKind.ECDSA_P256)


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """Where a program finds its key and certificates, and how it learns that they are new.

    folder: a folder of the room's own, which covers what the image has there. uid, gid, mode: of the files, in the program's
    eyes. signal, command: at most one, and None for what is not done. check: a port on the program's loopback where it
    speaks TLS, to see whether it took the new one.
    """

    folder: str = FOLDER
    format: Format = Format.PEM
    uid: int
    gid: int
    mode: Mode = Mode.OWNER_READS
    signal: Signal | None = None
    command: tuple[str, ...] | None = None
    check: int | None = None

    def to_json(self) -> dict[str, object]:
        """The object form."""
        reload: dict[str, object] | None = None
        if self.signal is not None:
            reload = {"signal": self.signal.value}
        elif self.command is not None:
            reload = {"command": list(self.command)}
        return {
            "folder": self.folder,
            "format": self.format.value,
            "uid": self.uid,
            "gid": self.gid,
            "mode": self.mode.value,
            "reload": reload,
            "check": self.check,
        }


@dataclass(frozen=True, kw_only=True)
class CertificateTerms:
    """The DNS names that a room's certificate may carry, for how many seconds it lives, and of which kind it is.

    trust_domain: the SPIFFE trust domain that the room's name is in; None for the contract's own.
    """

    names: tuple[str, ...]
    lifetime_seconds: int
    key: KeyKind = KeyKind.ECDSA_P256
    usages: tuple[Usage, ...] = BOTH
    trust_domain: str | None = None
    delivery: Delivery | None = None
    interfaces: tuple[Interface, ...] = ()

    def to_json(self) -> dict[str, object]:
        """The object form."""
        said: dict[str, object] = {"names": list(self.names), "lifetime_seconds": self.lifetime_seconds}
        if self.key is not KeyKind.ECDSA_P256:
            said["key"] = self.key.value
        if self.usages != BOTH:
            said["usages"] = [usage.value for usage in self.usages]
        if self.trust_domain is not None:
            said["trust_domain"] = self.trust_domain
        if self.delivery is not None:
            said["delivery"] = self.delivery.to_json()
        if self.interfaces:
            said["interfaces"] = [interface.value for interface in self.interfaces]
        return said


def spiffe_id(contract_id: ContractId, room: str, run_id: RunId, trust_domain: str | None = None) -> str:
    """The SPIFFE ID of a run. room: the role that its evidence is bound to. trust_domain: None for the contract's own."""
    if trust_domain is None:
        return f"spiffe://{contract_id}.strongroom/room/{room}/run/{run_id}"
    return f"spiffe://{trust_domain}/contract/{contract_id}/room/{room}/run/{run_id}"


def read(source: fields.Fields) -> CertificateTerms:
    """Read the object form. Raises `Malformed`."""
    names = source.texts("names", max_items=32, max_length=253, pattern=DNS_NAME, like=DNS_LIKE)
    lifetime_seconds = source.integer("lifetime_seconds", low=60, high=86_400)
    said = source.names()
    terms = CertificateTerms(
        names=names,
        lifetime_seconds=lifetime_seconds,
        key=KeyKind(source.choice("key", _OTHER_KEYS)) if "key" in said else KeyKind.ECDSA_P256,
        usages=_usages(source) if "usages" in said else BOTH,
        trust_domain=source.text("trust_domain", max_length=200, pattern=DNS_NAME, like=DNS_LIKE)
        if "trust_domain" in said
        else None,
        delivery=_delivery(source.object("delivery")) if "delivery" in said else None,
        interfaces=_interfaces(source) if "interfaces" in said else (),
    )
    source.done()
    if not terms.names:
        raise Malformed(f"{source.what}.names: a certificate needs at least one name")
    return terms


def _usages(source: fields.Fields) -> tuple[Usage, ...]:
    usages = source.texts("usages", max_items=len(Usage), max_length=16)
    if usages not in ((Usage.SERVER,), (Usage.CLIENT,)):
        raise Malformed(
            f"{source.what}.usages: expected server or client alone, got {', '.join(usages) or 'none'}",
            hint="leave it out for a certificate of both",
        )
    return tuple(Usage(usage) for usage in usages)


def _interfaces(source: fields.Fields) -> tuple[Interface, ...]:
    listed = source.texts("interfaces", max_items=len(Interface), max_length=32)
    known = [interface.value for interface in Interface]
    if not listed or list(listed) != [name for name in known if name in listed]:
        raise Malformed(
            f"{source.what}.interfaces: expected some of {', '.join(known)}, in this order and each once, got {', '.join(listed) or 'none'}",
            hint="leave it out for neither",
        )
    return tuple(Interface(name) for name in listed)


def _delivery(source: fields.Fields) -> Delivery:
    folder = source.text("folder", max_length=512, pattern=_PATH, like=_PATH_LIKE)
    if any(folder == taken or folder.startswith(f"{taken}/") for taken in _TAKEN):
        raise Malformed(
            f"{source.what}.folder: {folder} is of the room itself: expected one outside {', '.join(_TAKEN)}"
        )
    signal, command = _reload(source.object_or_null("reload"))
    delivery = Delivery(
        folder=folder,
        format=Format(source.choice("format", Format)),
        uid=source.integer("uid", low=0, high=MAX_USER),
        gid=source.integer("gid", low=0, high=MAX_USER),
        mode=Mode(source.choice("mode", Mode)),
        signal=signal,
        command=command,
        check=None if source.null("check") else source.integer("check", low=1, high=65_535),
    )
    source.done()
    return delivery


def _reload(source: fields.Fields | None) -> tuple[Signal | None, tuple[str, ...] | None]:
    """The signal or the command for the program to read its files again; neither for null."""
    if source is None:
        return None, None
    if source.names() == ("signal",):
        signal = Signal(source.choice("signal", Signal))
        source.done()
        return signal, None
    command = source.words("command", max_items=64)
    source.done()
    if not command or not command[0]:
        raise Malformed(f"{source.what}.command: expected a program to run, got none")
    return None, command
