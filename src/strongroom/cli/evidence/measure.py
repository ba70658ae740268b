"""`strongroom measure FOLDER`, and `strongroom measure diff A B`: what a platform will report, and why that changed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from strongroom import files
from strongroom.cli.evidence import measure_diff
from strongroom.errors import Malformed, Misuse, of_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strongroom.bases.measure.predict import MachineShape, Parts, Prediction

MAX_ACPI = 1 << 20
MAX_KEY = 16 * 1024
_SIZE = re.compile(r"([0-9]{1,9})([KMGT]?)(?:iB)?", re.ASCII)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class _Verbs(TyperGroup):
    """`measure FOLDER` is `measure predict FOLDER`; a folder that is called diff is ./diff."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "--help"):
            args = ["predict", *args]
        return super().parse_args(ctx, args)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    group = typer.Typer(
        cls=_Verbs,
        help="Predict what a genuine platform will report for a base, from its files alone: `measure FOLDER …`.",
        no_args_is_help=True,
    )
    group.command("predict")(predict)
    group.command("diff")(measure_diff.diff)
    app.add_typer(group, name="measure")


def predict(
    folder: Annotated[Path, typer.Argument(help="A base's folder, or the one file of its profile.")],
    profile: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="local|uki|snp|tdx|nitro",
            help="local, uki, snp, tdx or nitro; by default what the base was built for.",
        ),
    ] = None,
    firmware: Annotated[
        Path | None,
        typer.Option(
            "--ovmf",
            "--firmware",
            help="The firmware that the machine starts; by default what `run` starts here: SeaBIOS, or an installed OVMF for snp or tdx.",
        ),
    ] = None,
    vcpus: Annotated[
        int | None,
        typer.Option(help="snp: number of virtual processors; by default 1, as `run` starts them.", min=1),
    ] = None,
    vcpu_type: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL|0x…",
            help="snp: QEMU's processor model (EPYC-Milan …), or a CPUID signature 0x…; by default EPYC-v4, as `run` starts them.",
        ),
    ] = None,
    guest_features: Annotated[
        str, typer.Option(metavar="0x…", help="snp: SEV_FEATURES of the guest, hexadecimal.")
    ] = "0x1",
    id_key: Annotated[
        Path | None,
        typer.Option(help="snp: public key (PEM, P-384) of the guest's ID block; tells its digest."),
    ] = None,
    author_key: Annotated[
        Path | None, typer.Option(help="snp: the key that signed that one; likewise.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="N[K|M|G|T]", help="tdx: memory, like 2G or 512M.")
    ] = None,
    acpi: Annotated[
        Path | None,
        typer.Option(
            help="tdx: folder with QEMU's table-loader, rsdp and tables (docs/measure.md says whence)."
        ),
    ] = None,
    page_order: Annotated[
        str,
        typer.Option(metavar="each|section", help="tdx: each (Linux 6.16 and newer) or section (older KVM)."),
    ] = "each",
    edits_kernel: Annotated[
        bool,
        typer.Option(
            "--qemu-before-10", help="tdx: QEMU edits the kernel's header before the firmware sees it."
        ),
    ] = False,
    vmm: Annotated[str, typer.Option(metavar="qemu|ec2|gce", help="qemu, ec2 or gce.")] = "qemu",
    evidence: Annotated[
        str | None,
        typer.Option(
            metavar="gcp|azure",
            help="uki, with --reference: which cloud's evidence states the PCRs, gcp or azure.",
        ),
    ] = None,
    reference: Annotated[
        bool, typer.Option("--reference", help="Print what `contract new --reference` takes.")
    ] = False,
    without: Annotated[
        list[str],
        typer.Option(
            metavar="REGISTER", help="Leave this register out of the reference: any value of it is accepted."
        ),
    ] = [],  # noqa: B006 - typer copies it
    as_json: Json = False,
) -> None:
    """Predict the registers. One that depends on what is not in the files has no value, and the reason is told."""
    from strongroom.bases.measure import predict as predictions
    from strongroom.bases.measure import snp, tdx
    from strongroom.node.qemu import tee as qemu_tee

    chosen = profile or _built_for(folder)
    if chosen == "snp" and vmm == snp.Vmm.QEMU and vcpus is None and vcpu_type is None:
        vcpus, vcpu_type = (
            1,
            qemu_tee.PROCESSOR,
        )  # the only shape that `run` starts; of another, both are asked for
    started = firmware or _usual_firmware(chosen)
    shape = predictions.MachineShape(
        firmware=None if started is None else _firmware(started),
        vcpus=vcpus,
        signature=None if vcpu_type is None else _signature(vcpu_type),
        features=_number(guest_features, "--guest-features"),
        memory=None if memory is None else _bytes(memory),
        vmm=snp.Vmm(_one_of(vmm, tuple(snp.Vmm), "--vmm")),
        order=tdx.PageOrder(_one_of(page_order, tuple(tdx.PageOrder), "--page-order")),
        acpi=None if acpi is None else _acpi(acpi),
        edits_kernel=edits_kernel,
        id_key=None if id_key is None else _public_key(id_key),
        author_key=None if author_key is None else _public_key(author_key),
    )
    parts = _parts(folder, chosen)
    with _of_its_file(started, folder):
        found = predictions.predict(chosen, parts, shape)
    if reference:
        tee = found.tee or _one_of(evidence or "", ("gcp", "azure"), "--evidence")
        values = found.references(without=without)
        for one in found.registers:
            if one.name in without:
                print(f"without {one.name}: {one.spare}", file=sys.stderr)
        print(json.dumps({"tee": tee, "references": [values]}))
    elif as_json:
        print(json.dumps(_json(found, shape)))
    else:
        _table(found)


def _built_for(folder: Path) -> str:
    """The profile that the base's document names."""
    from strongroom.bases import document

    if not (folder / document.BASE).is_file():
        raise Misuse(
            f"{folder}: has no {document.BASE} that says what it was built for",
            hint="name a base's folder, or say for which platform: --for local, uki, snp, tdx or nitro",
        )
    return document.load(folder).profile.name


def _parts(folder: Path, profile: str) -> Parts:
    """The files that the profile's registers depend on; a single file may be named itself."""
    from strongroom.bases import document
    from strongroom.bases.measure.predict import Parts

    wanted = {
        "nitro": {"eif": document.EIF},
        "uki": {"uki": document.EFI},
    }.get(profile)
    single = wanted is not None and folder.is_file()
    names = wanted or {
        "kernel": document.KERNEL,
        "initrd": document.INITRD,
        "cmdline": document.CMDLINE,
    }
    return Parts(
        **{
            part: document.read(folder if single else folder / name, document.MAX_PART)
            for part, name in names.items()
        }
    )


def _usual_firmware(profile: str) -> Path | None:
    """What `run` starts on this machine."""
    from strongroom.bases import build
    from strongroom.node import doctor

    if profile == "local":
        return build.FIRMWARE
    usual = {"snp": doctor.SNP_FIRMWARE, "tdx": doctor.TDX_FIRMWARE}
    return doctor.Host().firmware(usual[profile]) if profile in usual else None


def _firmware(path: Path) -> bytes:
    from strongroom.bases import document

    with of_file(path):
        return files.read(path, max_bytes=document.MAX_PART)


@contextlib.contextmanager
def _of_its_file(firmware: Path | None, folder: Path) -> Iterator[None]:
    """Within, what does not parse is said of the file that it came from: the firmware, or the base."""
    try:
        yield
    except Malformed as failure:
        of_firmware = firmware is not None and failure.message.startswith("firmware:")
        with of_file(firmware if firmware is not None and of_firmware else folder):
            raise


def _acpi(folder: Path) -> Any:
    from strongroom.bases.measure import tdx

    return tdx.Acpi(
        loader=files.read(folder / "table-loader", max_bytes=MAX_ACPI),
        rsdp=files.read(folder / "rsdp", max_bytes=MAX_ACPI),
        tables=files.read(folder / "tables", max_bytes=MAX_ACPI),
    )


def _public_key(path: Path) -> bytes:
    from strongroom.encoding import pem

    (key,) = files.parsed(
        path,
        lambda data: pem.decode(data, b"PUBLIC KEY", what="key", max_blocks=1, max_bytes=MAX_KEY),
        max_bytes=MAX_KEY,
    )
    return key


def _signature(text: str) -> int:
    from strongroom.bases.measure import snp

    return _number(text, "--vcpu-type") if text.startswith("0x") else snp.signature(text)


def _number(text: str, option: str) -> int:
    if re.fullmatch(r"0x[0-9a-fA-F]{1,16}", text) is None:
        raise Misuse(
            f"{option}: expected a hexadecimal number like 0x1, got {text[:40]!r}",
            hint="start it with 0x, and give 1 to 16 digits",
        )
    return int(text, 16)


def _bytes(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise Misuse(
            f"--memory: expected a size like 2G or 512M, got {text[:40]!r}",
            hint="a whole number, then K, M, G, T or nothing: --memory 2G",
        )
    return int(match[1]) * _UNITS[match[2]]


def _one_of(text: str, known: tuple[str, ...], option: str) -> str:
    if text not in known:
        raise Misuse(
            f"{option}: expected one of {', '.join(known)}, got {text[:40]!r}",
            hint=f"give {option} as one of {', '.join(known)}",
        )
    return text


def _json(found: Prediction, shape: MachineShape) -> dict[str, object]:
    complete = all(one.value is not None for one in found.registers)
    return {
        "profile": found.profile,
        "tee": found.tee,
        "vmm": shape.vmm.value,
        "registers": [one.to_json() for one in found.registers],
        "beside": [one.to_json() for one in found.beside],
        "references": [found.references()] if complete else None,
    }


def _table(found: Prediction) -> None:
    wide = int(os.environ.get("COLUMNS", "110")) - 14
    print(f"platform    {found.profile} (evidence of kind {found.tee or 'gcp or azure'})")
    for one in (*found.registers, *found.beside):
        print(f"{one.name:<12}{one.value or 'NOT PREDICTED'}")
        for word, text in (("covers", one.covers), ("depends on", one.depends), ("because", one.why)):
            if text:
                first, *rest = textwrap.wrap(f"{word} {text}", max(wide, 40))
                print(f"            {first}")
                for line in rest:
                    print(f"              {line}")
