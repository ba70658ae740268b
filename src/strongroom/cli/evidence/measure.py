"""`strongroom measure FOLDER`, and `strongroom measure diff A B`: what a platform will report, and why that changed."""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from strongroom.cli.evidence import measure_diff
from strongroom.errors import Misuse

if TYPE_CHECKING:
    from strongroom.bases.measure.predict import MachineShape, Prediction

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
    """Predict the registers. A register that depends on what is not in the files has no value, and the reason is printed."""
    from strongroom.bases.measure import snp, tdx
    from strongroom.bases.measure.predict import MachineShape
    from strongroom.node.predict import predict_room
    from strongroom.parties import predict as predicting

    shape = MachineShape(
        vcpus=vcpus,
        signature=None if vcpu_type is None else _signature(vcpu_type),
        features=_number(guest_features, "--guest-features"),
        memory=None if memory is None else _bytes(memory),
        vmm=snp.Vmm(_one_of(vmm, tuple(snp.Vmm), "--vmm")),
        order=tdx.PageOrder(_one_of(page_order, tuple(tdx.PageOrder), "--page-order")),
        acpi=None if acpi is None else predicting.load_acpi(acpi),
        edits_kernel=edits_kernel,
        id_key=None if id_key is None else predicting.load_public_key(id_key),
        author_key=None if author_key is None else predicting.load_public_key(author_key),
    )
    prediction = predict_room(folder, profile=profile, shape=shape, firmware=firmware)
    if reference:
        tee = prediction.tee or _one_of(evidence or "", ("gcp", "azure"), "--evidence")
        values = prediction.references(without=without)
        for register in prediction.registers:
            if register.name in without:
                print(f"without {register.name}: {register.spare}", file=sys.stderr)
        print(json.dumps({"tee": tee, "references": [values]}))
    elif as_json:
        print(json.dumps(_json(prediction, shape)))
    else:
        _table(prediction)


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


def _json(prediction: Prediction, shape: MachineShape) -> dict[str, object]:
    complete = all(register.value is not None for register in prediction.registers)
    return {
        "profile": prediction.profile,
        "tee": prediction.tee,
        "vmm": shape.vmm.value,
        "registers": [register.to_json() for register in prediction.registers],
        "beside": [value.to_json() for value in prediction.beside],
        "references": [prediction.references()] if complete else None,
    }


def _table(prediction: Prediction) -> None:
    wide = int(os.environ.get("COLUMNS", "110")) - 14
    print(f"platform    {prediction.profile} (evidence of kind {prediction.tee or 'gcp or azure'})")
    for row in (*prediction.registers, *prediction.beside):
        print(f"{row.name:<12}{row.value or 'NOT PREDICTED'}")
        for word, text in (("covers", row.covers), ("depends on", row.depends), ("because", row.why)):
            if text:
                first, *rest = textwrap.wrap(f"{word} {text}", max(wide, 40))
                print(f"            {first}")
                for line in rest:
                    print(f"              {line}")
