"""What a room of this machine will report: a base's registers, with whatever `run` chooses where nobody chose."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from strongroom.bases.measure import snp
from strongroom.bases.measure.predict import MachineShape
from strongroom.node import backends, doctor
from strongroom.node.qemu import tee as qemu_tee
from strongroom.parties import predict

if TYPE_CHECKING:
    from pathlib import Path

    from strongroom.bases.measure.predict import Prediction

_VCPUS = 1  # of every room that `run` starts


def predict_room(
    folder: Path,
    *,
    profile: str | None = None,
    shape: MachineShape = MachineShape(),  # noqa: B008 - frozen
    firmware: Path | None = None,
) -> Prediction:
    """The registers of the base in `folder`, or in the one file of `nitro` and `uki`.

    profile: `local`, `uki`, `snp`, `tdx` or `nitro`; without one what the base's document names. What `shape` and `firmware` leave open is as `run`
    starts rooms on this machine: its usual firmware, and for QEMU with SEV-SNP one processor of its usual model where the shape states neither.
    Raises like `predict.predict_base`.
    """
    chosen = profile or predict.built_for(folder)
    if chosen == "snp" and shape.vmm == snp.Vmm.QEMU and (shape.vcpus, shape.signature) == (None, None):
        shape = replace(shape, vcpus=_VCPUS, signature=snp.signature(qemu_tee.PROCESSOR))
    usual = backends.usual_firmware(chosen, doctor.Host()) if firmware is None else firmware
    return predict.predict_base(folder, profile=chosen, shape=shape, firmware=usual)
