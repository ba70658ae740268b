"""What options of `strongroom evidence` give: what evidence must be bound to, and times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from strongroom.cli import options
from strongroom.encoding import fields
from strongroom.errors import Misuse

if TYPE_CHECKING:
    from strongroom.model.binding import Preset
    from strongroom.model.identifiers import ContractDigest


def binding(
    report_data: str | None,
    extra_data: str | None,
    nonce: str | None,
    user_data: str | None,
    public_key: str | None,
    contract: str | None,
) -> Preset:
    """What the evidence must be bound to, as options say it in hexadecimal. Raises `Misuse` when nothing is."""
    from strongroom.model.binding import Preset

    texts = {
        "report_data": report_data,
        "extra_data": extra_data,
        "nonce": nonce,
        "user_data": user_data,
        "public_key": public_key,
    }
    values = {
        name: _hexadecimal(f"--{name.replace('_', '-')}", text)
        for name, text in texts.items()
        if text is not None
    }
    if len(values.get("report_data", bytes(64))) != 64:
        raise Misuse(
            f"--report-data: {len(values['report_data'])} bytes, expected 64",
            hint="give all 128 hexadecimal digits: nothing is padded or cut here",
        )
    if not values:
        raise Misuse(
            "no option says what the evidence must be bound to",
            hint="give --report-data, --extra-data, --nonce or --user-data: what you asked for, in hexadecimal",
        )
    if contract is not None:
        values["contract"] = bytes.fromhex(contract_digest(contract).removeprefix("sha256:"))
    return Preset(values=values)


def contract_digest(text: str) -> ContractDigest:
    """What --contract says. Raises `Misuse`."""
    from strongroom.model.identifiers import ContractDigest

    if fields.DIGEST.fullmatch(text) is None:
        raise Misuse(
            f"--contract: expected sha256: and 64 lower-case hexadecimal digits, got {text[:100]!r}",
            hint="`strongroom contract verify FILE` prints a contract's digest",
        )
    return ContractDigest(text)


def moment(text: str | None, option: str = "--at") -> datetime:
    """A time in UTC, now where none is given."""
    if text is None:
        return datetime.now(UTC).replace(microsecond=0)
    if fields.TIME.fullmatch(text) is None:
        raise Misuse(
            f"{option}: expected a time such as 2026-11-24T12:00:00Z, got {text[:40]!r}",
            hint="give date and time to the second, in UTC, with T between them and Z at the end",
        )
    with options.value_of(option, takes="a time like 2026-11-24T12:00:00Z"):
        return fields.Fields({"time": text}, option).time("time")


def _hexadecimal(option: str, text: str) -> bytes:
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise Misuse(
            f"{option}: expected hexadecimal digits, two for each byte, got {text[:40]!r}",
            hint=f"for example {option} 0a1b2c",
        ) from None
