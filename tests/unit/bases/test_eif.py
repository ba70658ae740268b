"""Enclave images: written as AWS's tool writes them, read strictly, signed over PCR 0."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from strongroom.bases.formats import eif, eif_signature
from strongroom.crypto import image_signer
from strongroom.errors import Malformed, Refused
from tests.unit.bases import enclave


def sections(image: bytes) -> list[tuple[int, bytes]]:
    """A reader of its own: it walks the file, and believes nothing of the header but its length."""
    out, at = [], 548
    while at < len(image):
        kind, _, size = struct.unpack_from(">HHQ", image, at)
        out.append((kind, image[at + 12 : at + 12 + size]))
        at += 12 + size
    return out


@pytest.mark.parametrize("signed", [False, True])
def test_another_reader_finds_every_part(signed):
    image = enclave.small(signer=enclave.signer() if signed else None)
    assert image[:4] == b"\x2e\x65\x69\x66"
    assert struct.unpack_from(">HHQQHH", image, 4) == (4, 0, 1 << 30, 2, 0, 7 if signed else 6)
    crc = zlib.crc32(image[548:], zlib.crc32(image[:544]))
    assert struct.unpack_from(">I", image, 544) == (crc,)
    found = sections(image)
    assert found[:3] == [(1, enclave.KERNEL), (2, enclave.CMDLINE), (5, enclave.METADATA)]
    assert found[3:6] == [(3, ramdisk) for ramdisk in enclave.RAMDISKS]
    assert len(found) == 6 + signed
    sizes = struct.unpack_from(">32Q", image, 28 + 256)
    assert list(sizes[: len(found)]) == [len(content) for _, content in found]


def test_what_goes_in_comes_out():
    image = enclave.small(signer=enclave.signer())
    found = eif.parse(image)
    assert (found.kernel, found.cmdline, found.ramdisks) == (
        enclave.KERNEL,
        enclave.CMDLINE,
        enclave.RAMDISKS,
    )
    assert found.metadata == enclave.METADATA
    assert found.signature is not None
    assert found.signature.certificate == enclave.signer().certificate
    assert enclave.small(signer=enclave.signer()) == image


def test_the_signature_verifies_by_other_libraries():
    kind, section = sections(enclave.small(signer=enclave.signer()))[-1]
    assert kind == 4
    ((_, certificate_numbers), (_, message_numbers)) = cbor2.loads(section)[0].items()
    certificate = x509.load_pem_x509_certificate(bytes(certificate_numbers))
    protected, unprotected, payload, signature = cbor2.loads(bytes(message_numbers))
    assert (cbor2.loads(protected), unprotected) == ({1: -35}, {})
    told = cbor2.loads(payload)
    everything = enclave.KERNEL + enclave.CMDLINE + b"".join(enclave.RAMDISKS)
    pcr0 = hashlib.sha384(bytes(48) + hashlib.sha384(everything).digest()).digest()
    assert told == {"register_index": 0, "register_value": list(pcr0)}
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    r, s = int.from_bytes(signature[:48], "big"), int.from_bytes(signature[48:], "big")
    signed = cbor2.dumps(["Signature1", protected, b"", payload])
    key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA384()))


def test_metadata_is_what_describe_eif_reads():
    told = json.loads(enclave.METADATA)
    assert told.keys() == {"ImageName", "ImageVersion", "BuildMetadata", "DockerInfo", "CustomMetadata"}
    assert told["BuildMetadata"]["KernelVersion"] == "6.12.1-cloud-amd64"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"kernel": b""}, "a kernel and at least one ramdisk, none of them empty"),
        ({"cmdline": b""}, "command line: expected one line of printable ASCII"),
        ({"cmdline": b"a\nb"}, "command line: expected one line of printable ASCII"),
        ({"cmdline": b"a\0"}, "command line: expected one line of printable ASCII"),
        ({"cmdline": b"x" * 5000}, "command line: expected one line of printable ASCII"),
        ({"ramdisks": ()}, "a kernel and at least one ramdisk, none of them empty"),
        ({"ramdisks": (b"x", b"")}, "a kernel and at least one ramdisk, none of them empty"),
        ({"ramdisks": (b"x",) * 29}, "a kernel and at least one ramdisk, none of them empty"),
        ({"metadata": b"{}"}, "key 'ImageName' is missing"),
        ({"metadata": b"not json"}, "not JSON"),
        (
            {"metadata": enclave.METADATA.replace(b"OperatingSystem", b"operatingsystem")},
            "key 'OperatingSystem' is missing",
        ),
    ],
)
def test_parts_that_no_image_can_carry_are_refused(changed, why):
    with pytest.raises(Malformed, match=why):
        enclave.small(**changed)


def sealed(image: bytes | bytearray) -> bytes:
    """With a checksum that fits."""
    crc = zlib.crc32(image[548:], zlib.crc32(image[:544]))
    return bytes(image[:544]) + crc.to_bytes(4, "big") + bytes(image[548:])


def test_every_flipped_byte_is_refused():
    image = bytearray(enclave.small(signer=enclave.signer()))
    for place in range(len(image)):
        image[place] ^= 1
        with pytest.raises(Malformed):
            eif.parse(bytes(image))
        image[place] ^= 1


@pytest.mark.parametrize(
    ("offset", "form", "value"),
    [
        (4, ">H", 3),  # version
        (6, ">H", 1),  # for ARM
        (24, ">H", 1),  # reserved
        (26, ">H", 5),  # sections
        (26, ">H", 33),
        (28, ">Q", 549),  # offset of the kernel
        (28 + 8 * 20, ">Q", 1),  # offset of a section that is not there
        (284, ">Q", 7),  # size of the kernel
        (540, ">I", 1),
        (548, ">H", 3),  # the kernel as a ramdisk
        (550, ">H", 1),  # a section's flags
        (552, ">Q", 7),  # a section's own size
    ],
)
def test_headers_that_contradict_are_refused(offset, form, value):
    image = bytearray(enclave.small())
    struct.pack_into(form, image, offset, value)
    with pytest.raises(Malformed) as caught:
        eif.parse(sealed(image))
    assert caught.value.code != "bad-checksum"


def test_trailing_bytes_are_refused():
    with pytest.raises(Malformed, match="trailing"):
        eif.parse(sealed(enclave.small() + b"x"))


def test_a_signature_of_another_image_is_refused():
    one = eif.parse(enclave.small(signer=enclave.signer())).signature
    assert one is not None
    eif_signature.check(one, one.pcr0)
    with pytest.raises(Refused, match="it is over another PCR 0 than the image's"):
        eif_signature.check(one, bytes(48))
    other = eif_signature.parse(eif_signature.make(bytes(48), enclave.signer()))
    forged = eif_signature.EifSignature(
        certificate=image_signer.load(*enclave.pems()).certificate, signed=other.signed, pcr0=other.pcr0
    )
    with pytest.raises(Refused, match="signature does not verify"):
        eif_signature.check(forged, bytes(48))


def test_keys_that_nitro_does_not_take_are_refused():
    key, certificate = enclave.pems()
    with pytest.raises(Malformed, match="another key"):
        image_signer.load(enclave.pems()[0], certificate)
    with pytest.raises(Malformed, match="P-384"):
        image_signer.load(*enclave.pems(ec.SECP256R1()))
    with pytest.raises(Malformed, match="expected a private key in PEM without a passphrase"):
        image_signer.load(b"junk", certificate)
    with pytest.raises(Malformed, match="expected PEM: CERTIFICATE blocks and nothing around them"):
        image_signer.load(key, b"junk")
    assert "key" not in repr(image_signer.load(key, certificate)).partition("certificate")[0]


def test_signatures_in_other_shapes_are_refused():
    good = cbor2.loads(eif_signature.make(bytes(48), enclave.signer()))
    eif_signature.parse(cbor2.dumps(good))
    one = good[0]
    for bad, why in (
        ([], "expected an array of one"),
        ([one, one], "expected an array of one"),
        ([{**one, "more": 1}], "unknown key 'more'"),
        ([{**one, "signature": bytes(one["signature"])}], "signature: expected an array of 1 to"),
        ([{**one, "signature": [256, *one["signature"][1:]]}], "signature: expected an array of bytes"),
        ([{**one, "signature": [True, *one["signature"][1:]]}], "signature: expected an array of bytes"),
        (
            [{**one, "signing_certificate": list(b"junk")}],
            "expected PEM: CERTIFICATE blocks and nothing around them",
        ),
        ([{"signature": one["signature"]}], "key 'signing_certificate' is missing"),
    ):
        with pytest.raises(Malformed, match=why):
            eif_signature.parse(cbor2.dumps(bad))
