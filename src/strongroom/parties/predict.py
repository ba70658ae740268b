"""A base's registers, predicted from its folder and from files that say what machine it is to run in."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from strongroom import files
from strongroom.bases import document
from strongroom.bases.measure import predict, tdx
from strongroom.bases.measure.predict import MachineShape, Parts, Prediction
from strongroom.encoding import pem
from strongroom.errors import Malformed, Misuse, of_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_ACPI = 1 << 20
MAX_KEY = 16 * 1024
# Where one file of a folder is all that the registers depend on.
_SINGLE = {"nitro": {"eif": document.EIF}, "uki": {"uki": document.EFI}}
_BOOTED = {"kernel": document.KERNEL, "initrd": document.INITRD, "cmdline": document.CMDLINE}


def predict_base(folder: Path, *, profile: str, shape: MachineShape, firmware: Path | None) -> Prediction:
    """The registers of the base in `folder`, which for `nitro` and `uki` may be the one file itself.

    firmware: the file of `shape.firmware`. Raises `Misuse` when an input is missing, `Malformed` when one is unfit, of the file that it came from.
    """
    if firmware is not None:
        with of_file(firmware):
            shape = replace(shape, firmware=files.read(firmware, max_bytes=document.MAX_PART))
    parts = _parts(folder, profile)
    with _of_its_file(firmware, folder):
        return predict.predict(profile, parts, shape)


def built_for(folder: Path) -> str:
    """The profile that the base's document names. Raises `Misuse` where there is none."""
    if not (folder / document.BASE).is_file():
        raise Misuse(
            f"{folder}: has no {document.BASE} that says what it was built for",
            hint="name a base's folder, or say for which platform: --for local, uki, snp, tdx or nitro",
        )
    return document.load(folder).profile.name


def load_acpi(folder: Path) -> tdx.Acpi:
    """The three files of QEMU's ACPI tables, each at most `MAX_ACPI` bytes."""
    return tdx.Acpi(
        loader=files.read(folder / "table-loader", max_bytes=MAX_ACPI),
        rsdp=files.read(folder / "rsdp", max_bytes=MAX_ACPI),
        tables=files.read(folder / "tables", max_bytes=MAX_ACPI),
    )


def load_public_key(path: Path) -> bytes:
    """The public key (DER) in a file of PEM. Raises `Malformed`."""
    (key,) = files.parsed(
        path,
        lambda data: pem.decode(data, b"PUBLIC KEY", what="key", max_blocks=1, max_bytes=MAX_KEY),
        max_bytes=MAX_KEY,
    )
    return key


def _parts(folder: Path, profile: str) -> Parts:
    """The files that the profile's registers depend on."""
    single = profile in _SINGLE and folder.is_file()
    return Parts(
        **{
            part: document.read(folder if single else folder / name, document.MAX_PART)
            for part, name in _SINGLE.get(profile, _BOOTED).items()
        }
    )


@contextlib.contextmanager
def _of_its_file(firmware: Path | None, folder: Path) -> Iterator[None]:
    """Within, what does not parse is said of the file that it came from: the firmware, or the base."""
    try:
        yield
    except Malformed as failure:
        of_firmware = firmware is not None and failure.message.startswith("firmware:")
        with of_file(firmware if firmware is not None and of_firmware else folder):
            raise
