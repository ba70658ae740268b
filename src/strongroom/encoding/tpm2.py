"""TPM 2.0 commands and responses as bytes: the dozen that provisioning and attesting need. No I/O.

Specs: TCG TPM 2.0 Library rev 1.59, part 2 (structures), part 3 (commands).
Each function returns one whole command; `response` opens what came back. Authorisations are password
sessions with the empty password: whoever can reach a room's TPM owns it, and its isolation is elsewhere.
Only the sha256 PCR bank is spoken of.
"""

from __future__ import annotations

from dataclasses import dataclass

from strongroom.encoding.reader import Reader
from strongroom.errors import Malformed, Unavailable

MAX_RESPONSE = 8192
MAX_NV = 16 * 1024
NV_CHUNK = 1024
MAX_HANDLES = 128
PCR_BYTES = 32

OWNER = 0x40000001
PLATFORM = 0x4000000C
ENDORSEMENT = 0x4000000B

# NV attributes (part 2, 13.4): written and read under the owner or the index's own empty password.
NV_OWNERWRITE = 1 << 1
NV_AUTHWRITE = 1 << 2
NV_OWNERREAD = 1 << 17
NV_AUTHREAD = 1 << 18
NV_NO_DA = 1 << 25

_PLAIN = 0x8001
_SESSIONS = 0x8002
PASSWORD_SESSION = 0x40000009
_RETRY = 0x922

_CAP_HANDLES = 1
_FIRST_NV = 0x01000000

_ECC = 0x0023
_SHA1 = 0x0004
_SHA256 = 0x000B
_SHA384 = 0x000C
_SHA512 = 0x000D
_ECDSA = 0x0018
_NULL = 0x0010
_P256 = 0x0003
# fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, restricted, sign (part 2, 8.3).
_AK_ATTRIBUTES = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 16 | 1 << 18


@dataclass(frozen=True, kw_only=True)
class Response:
    """A successful response: the handles that came first, and a reader over the parameters alone."""

    handles: tuple[int, ...]
    parameters: Reader


def startup() -> bytes:
    """TPM2_Startup(CLEAR)."""
    return command(0x144, (), u16(0))


def shutdown() -> bytes:
    """TPM2_Shutdown(CLEAR): the state is written down."""
    return command(0x145, (), u16(0))


def get_random(count: int) -> bytes:
    """TPM2_GetRandom: up to `count` bytes."""
    return command(0x17B, (), u16(count))


def pcr_read(index: int) -> bytes:
    """TPM2_PCR_Read of one PCR."""
    return command(0x17E, (), selection((index,)))


def pcr_extend(index: int, measurement: bytes) -> bytes:
    """TPM2_PCR_Extend by a 32-byte digest."""
    if len(measurement) != PCR_BYTES:
        raise Malformed(f"TPM: a PCR is extended by {PCR_BYTES} bytes, got {len(measurement)}")
    return command(0x182, (index,), u32(1) + u16(_SHA256) + measurement, authorised=1)


def pcr_allocate_sha256() -> bytes:
    """TPM2_PCR_Allocate: from the next start on, the sha256 bank alone."""
    banks = b"".join(u16(bank) + b"\x03" + bytes(3) for bank in (_SHA1, _SHA384, _SHA512))
    all_sha256 = u16(_SHA256) + b"\x03" + b"\xff\xff\xff"
    return command(0x12B, (PLATFORM,), u32(4) + banks + all_sha256, authorised=1)


def create_ak(hierarchy: int) -> bytes:
    """TPM2_CreatePrimary of a restricted ECDSA P-256 SHA-256 signing key. Answers (handle), public area."""
    public = (
        u16(_ECC)
        + u16(_SHA256)
        + u32(_AK_ATTRIBUTES)
        + sized(b"")  # no policy
        + u16(_NULL)  # no symmetric algorithm: it signs only
        + u16(_ECDSA)
        + u16(_SHA256)
        + u16(_P256)
        + u16(_NULL)  # no key derivation
        + sized(b"")
        + sized(b"")
    )
    return create_primary(hierarchy, public)


def create_primary(hierarchy: int, public: bytes) -> bytes:
    """TPM2_CreatePrimary of the key that the template `public` (TPMT_PUBLIC) describes. Answers (handle), public area."""
    sensitive = sized(sized(b"") + sized(b""))
    return command(0x131, (hierarchy,), sensitive + sized(public) + sized(b"") + u32(0), authorised=1)


def evict_control(handle: int, persistent: int) -> bytes:
    """TPM2_EvictControl: keep the object `handle` at the persistent handle."""
    return command(0x120, (OWNER, handle), u32(persistent), authorised=1)


def flush_context(handle: int) -> bytes:
    """TPM2_FlushContext."""
    return command(0x165, (), u32(handle))


def read_public(handle: int) -> bytes:
    """TPM2_ReadPublic of a loaded or persistent object."""
    return command(0x173, (handle,), b"")


def quote(key: int, extra_data: bytes, pcrs: tuple[int, ...]) -> bytes:
    """TPM2_Quote over `pcrs` in the key's own scheme. `read_quote` opens the answer."""
    return command(0x158, (key,), sized(extra_data) + u16(_NULL) + selection(pcrs), authorised=1)


def nv_define(index: int, size: int, attributes: int) -> bytes:
    """TPM2_NV_DefineSpace by the owner."""
    public = u32(index) + u16(_SHA256) + u32(attributes) + sized(b"") + u16(size)
    return command(0x12A, (OWNER,), sized(b"") + sized(public), authorised=1)


def nv_write(index: int, content: bytes, offset: int) -> bytes:
    """TPM2_NV_Write by the owner; at most `NV_CHUNK` bytes at once."""
    return command(0x137, (OWNER, index), sized(content) + u16(offset), authorised=1)


def nv_read_public(index: int) -> bytes:
    """TPM2_NV_ReadPublic. `read_nv_size` opens the answer."""
    return command(0x169, (index,), b"")


def nv_read(index: int, size: int, offset: int, *, authority: int | None = None) -> bytes:
    """TPM2_NV_Read under the index's own password, or that of `authority`; at most `NV_CHUNK` bytes at once."""
    by = index if authority is None else authority
    return command(0x14E, (by, index), u16(size) + u16(offset), authorised=1)


def list_nv() -> bytes:
    """TPM2_GetCapability of the NV indices that are defined. `read_handles` opens the answer."""
    return command(0x17A, (), u32(_CAP_HANDLES) + u32(_FIRST_NV) + u32(MAX_HANDLES))


def response(data: bytes, *, handles: int = 0) -> Response:
    """Open a response that carries `handles` handles.

    Raises `Malformed`, or `Unavailable` with code `tpm-retry` (send again) or `tpm-failed`.
    """
    if len(data) > MAX_RESPONSE:
        raise Malformed(f"TPM response: {len(data)} bytes, at most {MAX_RESPONSE} allowed", code="too-large")
    reader = Reader(data, "TPM response")
    tag, length, result = reader.u16(), reader.u32(), reader.u32()
    if length != len(data):
        raise Malformed(f"TPM response: its length field says {length} bytes, it has {len(data)}")
    if result:
        raise Unavailable(
            f"the TPM answered {result:#x}",
            code="tpm-retry" if result == _RETRY else "tpm-failed",
            hint="TPM 2.0 Library, part 2, 6.6 says what the code means; a TPM of software is damaged, or was not provisioned",
        )
    handle_values = tuple(reader.u32() for _ in range(handles))
    if tag == _PLAIN:
        return Response(handles=handle_values, parameters=reader)
    if tag != _SESSIONS:
        raise Malformed(f"TPM response: tag {tag:#06x}, expected {_PLAIN:#x} or {_SESSIONS:#x}")
    # With sessions the parameters are sized, and the authorisation area follows them.
    return Response(handles=handle_values, parameters=Reader(reader.take(reader.u32()), "TPM response"))


def read_sized(parameters: Reader) -> bytes:
    """One TPM2B: its bytes."""
    return parameters.take(parameters.u16())


def read_pcr(parameters: Reader, index: int) -> bytes:
    """The 32 bytes of PCR `index`. Raises `Malformed` when the bank does not hold it."""
    parameters.u32()  # update counter
    wanted = selection((index,))
    if parameters.take(len(wanted)) != wanted or parameters.u32() != 1:
        raise Malformed(
            f"TPM: PCR {index} is not in the sha256 bank",
            code="no-pcr-bank",
            hint="turn the SHA-256 PCR bank of this TPM on, in the firmware's set-up",
        )
    value = read_sized(parameters)
    parameters.done()
    if len(value) != PCR_BYTES:
        raise Malformed(f"TPM: PCR {index}: expected a value of {PCR_BYTES} bytes, got {len(value)}")
    return value


def read_quote(parameters: Reader) -> tuple[bytes, bytes]:
    """TPMS_ATTEST bytes and TPMT_SIGNATURE bytes."""
    attest = read_sized(parameters)
    return attest, parameters.take(parameters.remaining)


def read_nv_size(parameters: Reader) -> int:
    """How many bytes an NV index holds."""
    area = Reader(read_sized(parameters), "TPM NV public area")
    area.u32()  # index
    area.u16()  # name algorithm
    area.u32()  # attributes
    read_sized(area)  # policy
    size = area.u16()
    area.done()
    if size > MAX_NV:
        raise Malformed(f"TPM: NV index holds {size} bytes, at most {MAX_NV} allowed")
    return size


def read_handles(parameters: Reader) -> frozenset[int]:
    """Handles, as `list_nv` asks for them: all of them, or as many as the TPM tells at once."""
    parameters.u8()  # whether there are more
    if parameters.u32() != _CAP_HANDLES:
        raise Malformed("TPM response: not about handles, which were asked for")
    count = parameters.u32()
    if count > MAX_HANDLES:
        raise Malformed(f"TPM: {count} handles, at most {MAX_HANDLES} asked for")
    handles = frozenset(parameters.u32() for _ in range(count))
    parameters.done()
    return handles


def read_p256_point(public: bytes) -> tuple[bytes, bytes]:
    """The two 32-byte coordinates of a public area as `create_ak` asks for it. Raises `Malformed`."""
    area = Reader(public, "TPM public area")
    wanted = (_ECC, _SHA256)
    if (area.u16(), area.u16()) != wanted or area.u32() != _AK_ATTRIBUTES or read_sized(area):
        raise Malformed(
            "TPM public area: expected a restricted ECC signing key with SHA-256 and no policy",
            code="wrong-key",
        )
    if tuple(area.u16() for _ in range(5)) != (_NULL, _ECDSA, _SHA256, _P256, _NULL):
        raise Malformed("TPM public area: expected ECDSA on P-256 with SHA-256", code="wrong-key")
    point = read_sized(area), read_sized(area)
    area.done()
    if any(len(coordinate) > PCR_BYTES for coordinate in point):
        raise Malformed("TPM public area: a coordinate of the key is longer than 32 bytes", code="wrong-key")
    return point[0].rjust(PCR_BYTES, b"\x00"), point[1].rjust(PCR_BYTES, b"\x00")


def selection(pcrs: tuple[int, ...]) -> bytes:
    """TPML_PCR_SELECTION with one bank, sha256."""
    mask = bytearray(3)
    for index in pcrs:
        if not 0 <= index < 8 * len(mask):
            raise Malformed(f"TPM: no PCR has the number {index}: there are 24, numbered from 0")
        mask[index // 8] |= 1 << index % 8
    return u32(1) + u16(_SHA256) + bytes([len(mask)]) + bytes(mask)


def command(
    code: int, handles: tuple[int, ...], parameters: bytes, *, authorised: int = 0, sessions: bytes = b""
) -> bytes:
    """One whole command. authorised: how many of the handles take the empty password; sessions: others' areas."""
    body = b"".join(u32(handle) for handle in handles)
    sessions = sessions or (u32(PASSWORD_SESSION) + sized(b"") + b"\x00" + sized(b"")) * authorised
    if sessions:
        body += u32(len(sessions)) + sessions
    body += parameters
    return u16(_SESSIONS if sessions else _PLAIN) + u32(10 + len(body)) + u32(code) + body


def sized(data: bytes) -> bytes:
    """A TPM2B: the bytes after their length."""
    return u16(len(data)) + data


def u16(value: int) -> bytes:
    """UINT16, big-endian."""
    return value.to_bytes(2, "big")


def u32(value: int) -> bytes:
    """UINT32, big-endian."""
    return value.to_bytes(4, "big")
