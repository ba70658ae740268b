"""Secrets at rest, and age files against the format's own header."""

from __future__ import annotations

import io
import secrets

import pytest

from strongroom.crypto import age, digest, sign, vault
from strongroom.errors import Malformed, Refused
from tests import effort


def lock(passphrase=b"pass", purpose="test"):
    return vault.lock(passphrase, b"secret", purpose=purpose, random=secrets.token_bytes)


def test_vault_round_trip():
    assert vault.unlock(b"pass", lock(), purpose="test") == b"secret"
    assert lock() != lock()


def test_rule_46_a_vault_opens_for_its_own_purpose_alone():
    with pytest.raises(Refused, match="the passphrase is another one"):
        vault.unlock(b"pass", lock(), purpose="other")


def test_vault_refuses_every_flipped_byte():
    data = lock()
    for position in effort.some(range(0, len(data), 5)):
        bad = bytearray(data)
        bad[position] ^= 1
        with pytest.raises((Refused, Malformed)):
            vault.unlock(b"pass", bytes(bad), purpose="test")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "25 bytes wanted at offset 0, 0 left"),
        (b"SRVAULT1", "25 bytes wanted at offset 0, 8 left"),
        (b"x" * 100, "not in the form that this version writes"),
        (b"SRVAULT1\xff" + b"x" * 90, "not in the form that this version writes"),
    ],
)
def test_vault_refuses_junk_without_doing_the_work_it_asks_for(data, why):
    with pytest.raises(Malformed, match=why):
        vault.unlock(b"pass", data, purpose="test")


def test_empty_passphrase_is_refused():
    with pytest.raises(Malformed, match="empty"):
        lock(passphrase=b"")


def test_age_round_trip_and_strangers():
    mine, other = age.generate(), age.generate()
    sealed = age.seal((mine.recipient,), b"result")
    assert sealed.startswith(b"age-encryption.org/v1\n-> X25519 ")
    assert mine.open(sealed) == b"result"
    with pytest.raises(Refused, match="the age file does not open with this identity"):
        other.open(sealed)
    with pytest.raises(Refused, match="the age file does not open with this identity"):
        mine.open(sealed[:-1])
    assert "AGE-SECRET" not in repr(mine)


def test_age_streams():
    mine = age.generate()
    sealed, opened = io.BytesIO(), io.BytesIO()
    age.seal_stream((mine.recipient,), io.BytesIO(b"x" * 200_000), sealed)
    mine.open_stream(io.BytesIO(sealed.getvalue()), opened)
    assert opened.getvalue() == b"x" * 200_000
    with pytest.raises(Refused, match="the age file is damaged or cut short"):
        mine.open_stream(io.BytesIO(sealed.getvalue()[:-9]), io.BytesIO())


def test_no_recipient_is_refused():
    with pytest.raises(Malformed, match="no recipient, so nobody could open the file"):
        age.seal((), b"x")
    with pytest.raises(Malformed, match="expected age1 and 58 more characters, got"):
        age.check_recipient("age1nonsense")


def test_rule_51_keys_do_not_show():
    key = sign.generate()
    assert key.raw.hex() not in repr(key)
    assert repr(key.raw) not in repr(key)


def test_digest_text_form():
    assert digest.sha256(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert digest.raw(digest.sha256(b""))[:2] == b"\xe3\xb0"
