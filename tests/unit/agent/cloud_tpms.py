"""A real TPM (swtpm) with the NV indices and keys that Azure's and Google's virtual TPMs have."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.agent.devices import azure, gcp
from strongroom.encoding import tpm2
from strongroom.encoding.reader import Reader
from tests.unit.evidence import swtpm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strongroom_testing.vendors.fake_amd import Guest
    from strongroom_testing.vendors.fake_azure import FakeAzure
    from strongroom_testing.vendors.fake_google import FakeGoogle

_ATTRIBUTES = tpm2.NV_OWNERWRITE | tpm2.NV_AUTHWRITE | tpm2.NV_OWNERREAD | tpm2.NV_AUTHREAD | tpm2.NV_NO_DA
_SIGNS = tpm2.u32(1 << 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 16 | 1 << 18)
_SHA256, _NULL = tpm2.u16(0x000B), tpm2.u16(0x0010)
RSA_TEMPLATE = (
    tpm2.u16(1) + _SHA256 + _SIGNS + tpm2.sized(b"") + _NULL
    + tpm2.u16(0x0014) + _SHA256 + tpm2.u16(2048) + tpm2.u32(0) + tpm2.sized(b"")
)  # fmt: skip
ECC_TEMPLATE = (
    tpm2.u16(0x23) + _SHA256 + _SIGNS + tpm2.sized(b"") + _NULL
    + tpm2.u16(0x0018) + _SHA256 + tpm2.u16(3) + _NULL + tpm2.sized(b"") + tpm2.sized(b"")
)  # fmt: skip


def store(client: swtpm.Client, index: int, content: bytes) -> None:
    """An NV index that holds `content`."""
    client.run(tpm2.nv_define(index, len(content), _ATTRIBUTES))
    for start in range(0, len(content), tpm2.NV_CHUNK):
        client.run(tpm2.nv_write(index, content[start : start + tpm2.NV_CHUNK], start))


def measure_boot(client: swtpm.Client) -> dict[str, str]:
    """What firmware and boot loader measure; the registers that a contract's reference names for it."""
    registers = {}
    for index in (*range(8), 9, 11):
        digest = hashlib.sha256(f"event {index}".encode()).digest()
        client.run(tpm2.pcr_extend(index, digest))
        registers[f"pcr{index}"] = hashlib.sha256(bytes(32) + digest).hexdigest()
    return registers


@contextlib.contextmanager
def of_azure(vm: FakeAzure, *, guest: Guest | None = None) -> Iterator[tuple[Any, dict[str, str]]]:
    """The TPM of a VM, as the agent's transport, and what it measured."""
    with swtpm.fresh() as client:
        made = client.run(tpm2.create_primary(tpm2.OWNER, RSA_TEMPLATE), handles=1)
        public = Reader(tpm2.read_sized(made.parameters), "public")
        public.take(len(RSA_TEMPLATE) - 2)
        modulus = tpm2.read_sized(public)
        client.run(tpm2.evict_control(made.handles[0], azure.AK_HANDLE))
        client.run(tpm2.flush_context(made.handles[0]))
        store(client, azure.HCL_NV, vm.hcl_report(modulus, guest=guest))
        registers = measure_boot(client)
        yield client._transport, registers


@contextlib.contextmanager
def of_google(instance: FakeGoogle) -> Iterator[tuple[Any, dict[str, str]]]:
    """The TPM of an instance, as the agent's transport, and what it measured."""
    with swtpm.fresh() as client:
        equip_google(client, instance)
        registers = measure_boot(client)
        yield client._transport, registers


def equip_google(client: Any, instance: FakeGoogle) -> None:
    """Put Google's template and the certificate of its key into a TPM."""
    made = client.run(tpm2.create_primary(tpm2.ENDORSEMENT, ECC_TEMPLATE), handles=1)
    public = Reader(tpm2.read_sized(made.parameters), "public")
    public.take(len(ECC_TEMPLATE) - 4)
    x, y = (int.from_bytes(tpm2.read_sized(public), "big") for _ in range(2))
    client.run(tpm2.flush_context(made.handles[0]))
    key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()

    class Elsewhere:
        def public_key(self):
            return key

    store(client, gcp.ECC[0], instance.certify(Elsewhere()))
    store(client, gcp.ECC[1], ECC_TEMPLATE)
