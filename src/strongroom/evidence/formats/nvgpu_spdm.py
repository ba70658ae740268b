"""What an NVIDIA GPU or NVSwitch signs: SPDM 1.1 GET_MEASUREMENTS and MEASUREMENTS, with NVIDIA's opaque fields.

Specs: DMTF DSP0274 1.1, sections 10.11 (messages) and 10.11.1 (measurement blocks); NVIDIA attestation SDK (opaque
data, with and without the header NVDAOD). All numbers are little-endian; nothing may follow the signature.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from strongroom.errors import Malformed

MAX_REPORT = 64 * 1024
MAX_VALUE = 64
MAX_FIELDS = 128
MAX_VERSION = 1  # of the opaque data
SIGNATURE_BYTES = 96
NONCE_BYTES = 32

# version, code, attributes (signature wanted), operation (all measurements), nonce, slot
_REQUEST = struct.Struct("<BBBB32sB")
# version, code, param 1, slot, number of blocks, length of the record (3 bytes)
_RESPONSE = struct.Struct("<BBBBB3s")
# index, specification (DMTF), size of the measurement; type of value, size of value
_BLOCK = struct.Struct("<BBHBH")
_VERSION, _GET_MEASUREMENTS, _MEASUREMENTS = 0x11, 0xE0, 0x60
_WITH_SIGNATURE, _ALL, _DMTF = 1, 0xFF, 1
_HEADER = struct.Struct("<6sHBB2s")
_MAGIC = b"NVDAOD"
_VERSION_FIELD = 34


@dataclass(frozen=True, kw_only=True)
class GpuReport:
    """A parsed report, nothing of it verified.

    signed: the bytes that the signature is over. nonce: the requester's. measurements: values by index, from 1.
    opaque: NVIDIA's fields by number.
    """

    signed: bytes
    signature: bytes
    nonce: bytes
    responder_nonce: bytes
    measurements: dict[int, bytes]
    kinds: dict[int, int]
    opaque: dict[int, bytes]


def parse(data: bytes) -> GpuReport:
    """Parse request ‖ response. Raises `Malformed`."""
    if len(data) > MAX_REPORT:
        raise Malformed(f"nvgpu report: {len(data)} bytes, at most {MAX_REPORT} allowed", code="too-large")
    least = _REQUEST.size + _RESPONSE.size + NONCE_BYTES + 2 + SIGNATURE_BYTES
    if len(data) < least:
        raise Malformed(f"nvgpu report: {len(data)} bytes, expected at least {least}", code="truncated")
    version, code, attributes, operation, nonce, slot = _REQUEST.unpack_from(data)
    if (version, code, attributes, operation, slot) != (
        _VERSION,
        _GET_MEASUREMENTS,
        _WITH_SIGNATURE,
        _ALL,
        0,
    ):
        raise Malformed(
            "nvgpu report: expected an SPDM 1.1 request for all measurements, signed, of slot 0, got another"
        )
    at = _REQUEST.size
    version, code, first, slot, count, size = _RESPONSE.unpack_from(data, at)
    if (version, code, first, slot) != (_VERSION, _MEASUREMENTS, 0, 0):
        raise Malformed(
            "nvgpu report: expected an SPDM 1.1 response with measurements of slot 0, got another"
        )
    at += _RESPONSE.size
    end = at + int.from_bytes(size, "little")
    if end + NONCE_BYTES + 2 + SIGNATURE_BYTES > len(data):
        raise Malformed("nvgpu report: its measurements end too soon", code="truncated")
    measurements, kinds = _blocks(data[at:end], count)
    responder_nonce = data[end : end + NONCE_BYTES]
    at = end + NONCE_BYTES + 2
    end = at + int.from_bytes(data[at - 2 : at], "little")
    if end + SIGNATURE_BYTES != len(data):
        raise Malformed(
            f"nvgpu report: {end + SIGNATURE_BYTES} bytes announced, {len(data)} there", code="trailing-bytes"
        )
    return GpuReport(
        signed=data[:end],
        signature=data[end:],
        nonce=nonce,
        responder_nonce=responder_nonce,
        measurements=measurements,
        kinds=kinds,
        opaque=parse_opaque(data[at:end]),
    )


def _blocks(record: bytes, count: int) -> tuple[dict[int, bytes], dict[int, int]]:
    values: dict[int, bytes] = {}
    kinds: dict[int, int] = {}
    at = 0
    last = 0
    for _ in range(count):
        if at + _BLOCK.size > len(record):
            raise Malformed("nvgpu report: a measurement ends too soon", code="truncated")
        index, specification, outer, kind, size = _BLOCK.unpack_from(record, at)
        at += _BLOCK.size
        if specification != _DMTF or outer != size + 3 or not 0 < size <= MAX_VALUE:
            raise Malformed(
                f"nvgpu report: expected measurement {index} in the form of DMTF, of 1 to {MAX_VALUE} bytes, got form {specification}, {size} bytes"
            )
        if index <= last or at + size > len(record):
            raise Malformed(f"nvgpu report: measurement {index} is out of order, or ends too soon")
        last = index
        values[index] = record[at : at + size]
        kinds[index] = kind
        at += size
    if at != len(record) or not values:
        raise Malformed("nvgpu report: no measurements, or bytes after them", code="trailing-bytes")
    return values, kinds


def parse_opaque(data: bytes) -> dict[int, bytes]:
    """NVIDIA's fields by number: type, length, value, each once. Raises `Malformed`."""
    at, head, version = 0, 4, 0
    if data.startswith(_MAGIC):
        if len(data) < _HEADER.size:
            raise Malformed("nvgpu opaque data: its header ends too soon", code="truncated")
        _, profile, version, _, _ = _HEADER.unpack_from(data)
        if profile != 0:
            raise Malformed(f"nvgpu opaque data: profile {profile}, expected 0")
        at, head = _HEADER.size, 6  # the type of the value stands between the field's number and its length
    fields: dict[int, bytes] = {}
    while at < len(data):
        if at + head > len(data):
            raise Malformed("nvgpu opaque data: a field ends too soon", code="truncated")
        number = int.from_bytes(data[at : at + 2], "little")
        size = int.from_bytes(data[at + head - 2 : at + head], "little")
        at += head
        if at + size > len(data):
            raise Malformed(f"nvgpu opaque data: field {number} ends too soon", code="truncated")
        if number in fields:
            raise Malformed(f"nvgpu opaque data: field {number} is given twice", code="duplicate-key")
        if len(fields) == MAX_FIELDS:
            raise Malformed(f"nvgpu opaque data: more than {MAX_FIELDS} fields", code="too-many")
        fields[number] = data[at : at + size]
        at += size
    if head == 4:
        version = int.from_bytes(fields.get(_VERSION_FIELD, b""), "little")
    if version > MAX_VERSION:
        raise Malformed(f"nvgpu opaque data: version {version}, expected at most {MAX_VERSION}")
    return fields
