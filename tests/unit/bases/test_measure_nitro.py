"""PCRs of enclaves, from the file: against values that AWS's tool is known to give, and the formula written out again."""

from __future__ import annotations

import hashlib
import struct
import zlib

import pytest

from strongroom.bases.formats import eif, eif_signature
from strongroom.bases.measure import nitro
from strongroom.errors import Refused
from strongroom.evidence import verify
from strongroom.model.binding import Preset
from strongroom.model.endorsements import NONE
from strongroom_testing.vendors import fake_aws
from tests.samples import NOW
from tests.unit.bases import enclave

# What `nitro-cli` prints as PCR2 of every image with a single ramdisk, as many published enclaves are.
NO_APPLICATION = (
    "21b9efbc184807662e966d34f390821309eeac6802309798826296bf3e8bec7c10edb30948c90ba67310f7b964fc500a"
)


def extended(content: bytes) -> str:
    return hashlib.sha384(bytes(48) + hashlib.sha384(content).digest()).hexdigest()


def test_the_formula():
    found = nitro.measure(enclave.small(signer=enclave.signer()))
    first, *rest = enclave.RAMDISKS
    booted = enclave.KERNEL + enclave.CMDLINE + first
    assert found.pcr0 == extended(booted + b"".join(rest))
    assert found.pcr1 == extended(booted)
    assert found.pcr2 == extended(b"".join(rest))
    assert found.pcr8 == extended(enclave.signer().certificate)
    assert found.reference() == {name: getattr(found, name) for name in ("pcr0", "pcr1", "pcr2", "pcr8")}


def test_an_image_with_one_ramdisk_has_the_published_pcr2():
    found = nitro.measure(enclave.small(ramdisks=(b"all",)))
    assert found.pcr2 == NO_APPLICATION
    assert found.pcr0 == found.pcr1
    assert found.reference().keys() == {"pcr0", "pcr1", "pcr2"}


def test_metadata_and_signature_are_not_measured_and_all_else_is():
    good = nitro.measure(enclave.small())
    other = eif.metadata(name="other", version="2", kernel="6", tool_version="9")
    assert nitro.measure(enclave.small(metadata=other)) == good
    assert nitro.measure(enclave.small(signer=enclave.signer())).pcr0 == good.pcr0
    first, *_, last = enclave.RAMDISKS
    images = {
        "kernel": enclave.small(kernel=enclave.KERNEL + b"x"),
        "cmdline": enclave.small(cmdline=enclave.CMDLINE + b" x"),
        "first": enclave.small(ramdisks=(first + b"x", *enclave.RAMDISKS[1:])),
        "last": enclave.small(ramdisks=(*enclave.RAMDISKS[:-1], last + b"x")),
    }
    changed = {
        "kernel": {"pcr0", "pcr1"},
        "cmdline": {"pcr0", "pcr1"},
        "first": {"pcr0", "pcr1"},
        "last": {"pcr0", "pcr2"},
    }
    for part, registers in changed.items():
        found = nitro.measure(images[part]).reference()
        assert {name for name, value in good.reference().items() if found[name] != value} == registers


def test_a_signature_that_nitro_would_not_take_is_refused():
    image = enclave.small(signer=enclave.signer())
    at, size = (struct.unpack_from(">Q", image, start + 8 * 6)[0] for start in (28, 284))
    wrong = eif_signature.make(bytes(48), enclave.signer())
    changed = bytearray(image[:at] + struct.pack(">HHQ", 4, 0, len(wrong)) + wrong)
    assert at + 12 + size == len(image)
    struct.pack_into(">Q", changed, 284 + 8 * 6, len(wrong))
    struct.pack_into(">I", changed, 544, zlib.crc32(changed[548:], zlib.crc32(changed[:544])))
    assert eif.parse(bytes(changed)).signature == eif_signature.parse(wrong)
    with pytest.raises(Refused, match="another PCR 0"):
        nitro.measure(bytes(changed))


def test_an_enclave_of_the_image_has_these_registers_in_its_claims():
    """A document with the PCRs that Nitro would have, through the verifier: names and values as a contract compares them."""
    reference = nitro.measure(enclave.small(signer=enclave.signer())).reference()
    aws = fake_aws.FakeAws(now=NOW)
    pcrs = dict.fromkeys(range(16), bytes(48))
    pcrs |= {int(name.removeprefix("pcr")): bytes.fromhex(value) for name, value in reference.items()}
    binding = Preset(values={"user_data": b"these", "nonce": b"n"})
    claims = verify.verify(
        aws.evidence(binding, pcrs=pcrs), NONE, binding=binding, roots=frozenset({aws.root}), now=NOW
    )
    assert claims.registers == reference
