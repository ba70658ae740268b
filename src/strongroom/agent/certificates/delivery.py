"""Where the program finds its TLS key and certificates: one folder for each generation, and one link that is swapped.

The folder is memory that the agent mounts, and the container has it read-only at the place that the contract says::

    1/ …                      one folder for each generation; the two latest stay
    current -> 2
    key.pem -> current/key.pem, certificate.pem, combined.pem, ca.pem, chains     (format pem)
    identity.p12 -> current/identity.p12, ca.pem, chains                          (format pkcs12)
    acme -> current/acme                                                          (where the contract lets the program ask by ACME)

`certificate.pem` is the leaf with its issuer, `combined.pem` the key before those, `ca.pem` the root, `chains/PARTY.pem` what each broker issued, whole; of `acme/PARTY.…`,
`directory` is an URL, `kid` and `hmac-key` what an account is bound with (the key in base64url), `broker.pem` by what the client knows the broker. The link
`current` is replaced by a rename, so that at no moment a name leads to a key and another to a certificate of another generation.
Files have the owner and mode that the contract says before any name leads to them; folders let in whoever may read the files.
"""

from __future__ import annotations

import base64
import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strongroom.agent import owners
from strongroom.crypto.pki import csr
from strongroom.model.contracts.certificate_terms import Delivery, Format

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from strongroom.agent.attest import AcmeFiles
    from strongroom.crypto.pki.csr import RoomTlsKey
    from strongroom.model.contracts.certificate_terms import CertificateTerms
    from strongroom.model.identifiers import PartyName

PASSWORD = b"changeit"
"""Of PKCS#12 files, since readers want one: what protects the file are its owner and mode."""
CURRENT = "current"
ACME = "acme"
CHAINS = "chains"
_KEPT = 2
_READ, _ENTER = 0o444, 0o111


@dataclass(frozen=True, kw_only=True)
class Generation:
    """A key with what brokers issued for it. chains: DER certificates by party, leaf first and root last, in the contract's order.

    accounts: for ACME, of the brokers that gave one.
    """

    key: RoomTlsKey
    chains: Mapping[PartyName, Sequence[bytes]]
    accounts: Mapping[PartyName, AcmeFiles] = field(default_factory=dict)

    @property
    def leaf(self) -> bytes:
        """The certificate that the program is to serve (DER)."""
        return next(iter(self.chains.values()))[0]


class CertificateFolder:
    """The folder, outside of the container, and how the contract wants it. Generations are counted from 1."""

    def __init__(self, folder: str, delivery: Delivery) -> None:
        self.folder = folder
        self.generation = 0
        self.delivery = delivery

    def write(self, generation: Generation) -> None:
        """Write the next generation, and lead every name to it. Raises `OSError`; then names lead where they led before."""
        self.generation += 1
        place = f"{self.folder}/{self.generation}"
        files = _files(generation, self.delivery.format)
        folders = sorted({name.partition("/")[0] for name in files if "/" in name})
        os.mkdir(place, 0o700)
        try:
            for folder in folders:
                os.mkdir(f"{place}/{folder}", 0o700)
            for name, content in files.items():
                self._write(f"{place}/{name}", content)
            for path in (*(f"{place}/{folder}" for folder in folders), place):
                self._enter(path)
            self._lead(CURRENT, str(self.generation))
        except BaseException:
            _remove(place)
            raise
        for name in sorted({name.partition("/")[0] for name in files}):
            if not os.path.islink(f"{self.folder}/{name}"):
                self._lead(name, f"{CURRENT}/{name}")
        self._enter(self.folder)
        # Of those that are there: one may have been left out, where the memory was full.
        numbers = sorted(int(name) for name in os.listdir(self.folder) if name.isdecimal())
        for number in numbers[:-_KEPT]:
            _remove(f"{self.folder}/{number}")

    def _write(self, path: str, content: bytes) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            self._own(path)
            os.fchmod(fd, self._mode)

    def _enter(self, folder: str) -> None:
        """Let whoever may read the files come in, and nobody write."""
        self._own(folder)
        os.chmod(folder, (self._mode & _READ) | (self._mode & _READ) >> 2 & _ENTER)

    def _own(self, path: str) -> None:
        os.chown(path, owners.kernel_id(self.delivery.uid), owners.kernel_id(self.delivery.gid))

    def _lead(self, name: str, target: str) -> None:
        """A link in place of whatever is called `name`: by a rename, so that there always is one."""
        fresh = f"{self.folder}/.{name}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh)
        os.symlink(target, fresh)
        os.lchown(fresh, owners.kernel_id(self.delivery.uid), owners.kernel_id(self.delivery.gid))
        os.rename(fresh, f"{self.folder}/{name}")

    @property
    def _mode(self) -> int:
        return int(self.delivery.mode.value, 8)


def _remove(place: str) -> None:
    """Take a generation's folder away, as far as there is one: files, and folders of files."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(place)):
            if entry.is_dir(follow_symlinks=False):
                _remove(entry.path)
            else:
                os.unlink(entry.path)
        os.rmdir(place)


def of(terms: CertificateTerms, *, uid: int, gid: int) -> Delivery:
    """How the contract wants it; where it says nothing, PEM for the image's user, `uid` and `gid`."""
    return Delivery(uid=uid, gid=gid) if terms.delivery is None else terms.delivery


def _files(generation: Generation, form: Format) -> dict[str, bytes]:
    first = next(iter(generation.chains.values()))
    *served, root = first if len(first) > 1 else (*first, b"")
    files = {f"{CHAINS}/{party}.pem": _pem(chain) for party, chain in generation.chains.items()}
    files["ca.pem"] = _pem((root,)) if root else b""
    for party, given in generation.accounts.items():
        files[f"{ACME}/{party}.directory"] = given.account.directory.encode()
        files[f"{ACME}/{party}.kid"] = given.account.kid.encode()
        files[f"{ACME}/{party}.hmac-key"] = base64.urlsafe_b64encode(given.account.key).rstrip(b"=")
        files[f"{ACME}/{party}.broker.pem"] = _pem((given.broker,))
    if form is Format.PKCS12:
        from strongroom.crypto.pki import pkcs12  # noqa: PLC0415 - loads all of X.509, for this alone

        files["identity.p12"] = pkcs12.encode(generation.key, served, password=PASSWORD)
        return files
    files["key.pem"] = generation.key.pem()
    files["certificate.pem"] = _pem(served)
    files["combined.pem"] = files["key.pem"] + files["certificate.pem"]
    return files


def _pem(certificates: Sequence[bytes]) -> bytes:
    return b"".join(csr.pem_certificate(der) for der in certificates)
