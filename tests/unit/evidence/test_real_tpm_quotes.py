"""Quotes of a real TPM 2.0 (swtpm) by every kind of key and bank that is read."""

from __future__ import annotations

import hashlib
import struct

import pytest

from strongroom.encoding import tpm2, tpm2_credential
from strongroom.errors import EvidenceRefused, Refused
from strongroom.evidence.formats import tpm_credential, tpm_quote
from tests.unit.evidence import swtpm

pytestmark = swtpm.needs_swtpm
AK = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 16 | 1 << 18
HASHES = {"sha256": 0x000B, "sha384": 0x000C}
SCHEMES = {"rsassa": 0x0014, "rsapss": 0x0016, "ecdsa": 0x0018}
KEYS = [
    ("rsassa", "sha256", 2048),
    ("rsassa", "sha384", 2048),
    ("rsapss", "sha256", 2048),
    ("rsapss", "sha384", 2048),
    ("ecdsa", "sha256", 0x0003),
    ("ecdsa", "sha384", 0x0004),
]


def template(scheme: str, hash: str, size: int) -> bytes:
    """A restricted signing key."""
    rsa = scheme != "ecdsa"
    head = struct.pack(">HHIHH", 0x0001 if rsa else 0x0023, HASHES[hash], AK, 0, 0x0010)
    head += struct.pack(">HHH", SCHEMES[scheme], HASHES[hash], size)
    return head + (struct.pack(">IH", 0, 0) if rsa else struct.pack(">HHH", 0x0010, 0, 0))


@pytest.fixture(scope="module")
def tpm():
    with swtpm.fresh() as client:
        yield client


@pytest.fixture(params=KEYS, ids=lambda key: "-".join(map(str, key)))
def key(request, tpm):
    """A handle, and the public key that the TPM answered."""
    command = tpm2_credential.create_primary(tpm2.ENDORSEMENT, template(*request.param))
    answer = tpm.run(command, handles=1)
    yield answer.handles[0], tpm_credential.parse_public(tpm2.read_sized(answer.parameters))
    tpm.run(tpm2.flush_context(answer.handles[0]))


def quoted(tpm, handle: int, bank: str, pcrs: tuple[int, ...]) -> tuple[bytes, bytes]:
    selected = sum(1 << index for index in pcrs).to_bytes(3, "little")
    selection = struct.pack(">IHB", 1, HASHES[bank], 3) + selected
    parameters = tpm2.sized(b"n" * 32) + tpm2.u16(0x0010) + selection
    answer = tpm.run(tpm2.command(0x158, (handle,), parameters, authorised=1))
    return tpm2.read_quote(answer.parameters)


@pytest.mark.parametrize("bank", HASHES)
def test_a_real_quote_verifies_and_none_of_its_bytes_can_be_changed(tpm, key, bank):
    handle, public = key
    tpm_credential.check_attestation_key(public)
    attest, raw = quoted(tpm, handle, bank, (0, 7, 23))
    quote, signature = tpm_quote.parse_quote(attest), tpm_quote.parse_signature(raw)
    assert (quote.bank, quote.selection, quote.extra_data) == (bank, (0, 7, 23), b"n" * 32)
    tpm_quote.check_signature(signature, public.key, attest)
    values = bytes(3 * hashlib.new(bank).digest_size)
    assert tpm_quote.check_pcrs(quote, signature, values)[7] == values[: len(values) // 3]
    with pytest.raises(EvidenceRefused, match="pcr-values:"):
        tpm_quote.check_pcrs(quote, signature, b"\1" + values[1:])
    for place in range(0, len(attest), 5):
        flipped = bytearray(attest)
        flipped[place] ^= 1
        with pytest.raises(Refused, match="signature:"):
            tpm_quote.check_signature(signature, public.key, bytes(flipped))


def test_another_keys_quote_is_refused(tpm, key):
    handle, _ = key
    answer = tpm.run(
        tpm2_credential.create_primary(tpm2.OWNER, template("ecdsa", "sha256", 0x0003)), handles=1
    )
    other = tpm_credential.parse_public(tpm2.read_sized(answer.parameters))
    tpm.run(tpm2.flush_context(answer.handles[0]))
    attest, raw = quoted(tpm, handle, "sha256", (0,))
    with pytest.raises(Refused, match="signature:"):
        tpm_quote.check_signature(tpm_quote.parse_signature(raw), other.key, attest)
