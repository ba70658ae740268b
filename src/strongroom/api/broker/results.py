"""Asking for an attestation result over HTTP: whose run, for whom, answering which nonce, in which form."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.api.broker import ledger
from strongroom.appraisal import ear_token
from strongroom.broker.result import result
from strongroom.errors import Malformed
from strongroom.model.identifiers import RunId

if TYPE_CHECKING:
    from collections.abc import Mapping

    from strongroom.broker.broker import Broker

_FORMS = {"jwt": "application/" + ear_token.JWT_TYPE, "cwt": ear_token.CWT_TYPE}
_AUDIENCE = re.compile(r"[!-~]{1,256}", re.ASCII)
_NONCE = re.compile(r"(?:[0-9a-f]{2}){8,64}", re.ASCII)
_KEYS = frozenset({"audience", "nonce", "form"})


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request for a result, parsed."""

    run_id: RunId
    audience: str
    nonce: bytes
    form: str

    @property
    def media_type(self) -> str:
        """The media type of the answer."""
        return _FORMS[self.form]


def read(run: str, query: Mapping[str, str]) -> Asked:
    """Parse the path's run and the query: `audience`, `nonce` (hexadecimal), `form` (`jwt` or `cwt`). Raises `Malformed`."""
    if ledger.RUN.fullmatch(run) is None:
        raise ledger.bad_run(run)
    if unknown := sorted(set(query) - _KEYS):
        raise Malformed(
            f"result: unknown parameter {unknown[0][:40]!r}, expected audience, nonce and perhaps form",
            code="unknown-key",
        )
    audience, nonce, form = query.get("audience", ""), query.get("nonce", ""), query.get("form", "jwt")
    if _AUDIENCE.fullmatch(audience) is None:
        raise Malformed(
            f"audience: expected 1 to 256 printable characters, got {len(audience)} characters",
            hint="name who will rely on the result: ?audience=NAME",
        )
    if _NONCE.fullmatch(nonce) is None:
        raise Malformed(
            f"nonce: expected 8 to 64 bytes in lower-case hexadecimal, got {len(nonce)} characters that are not",
            hint="give fresh random bytes of your own: &nonce=HEX",
        )
    if form not in _FORMS:
        raise Malformed(f"form: expected jwt or cwt, got {form[:20]!r}")
    return Asked(run_id=RunId(run), audience=audience, nonce=bytes.fromhex(nonce), form=form)


def answer(broker: Broker, asked: Asked) -> bytes:
    """The token. Raises as `broker.result`."""
    return result(broker, asked.run_id, nonce=asked.nonce, audience=asked.audience, cwt=asked.form == "cwt")
