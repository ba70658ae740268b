"""Evidence in texts for people: protocol buffers in text form (go-tpm-tools), and what tpm2_quote prints (YAML).

Specs: protobuf.dev, Text Format (messages, byte strings with C's escapes, numbers, names; the rest is refused);
tpm2-tools, tpm2_quote(1). Both are read strictly and bounded; what does not fit is not recognised.
"""

from __future__ import annotations

import re
from typing import Any

MAX_TOKENS = 20_000
MAX_DEPTH = 8
_TOKEN = re.compile(
    r"""\s*(?:\#[^\n]*\n\s*)*(?P<token>[{}<>:;,]|[A-Za-z_][A-Za-z0-9_]*|-?[0-9]+|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
)
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|x([0-9a-fA-F]{1,2})|(.))", re.DOTALL)
_LETTERS = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}
_ITSELF = frozenset(b"\\\"'?")
_CLOSES = {"{": "}", "<": ">"}

# tpm2_quote(1): the quote, then `signature:`, `pcrs:` and `calcDigest:`.
_QUOTED = re.compile(r"^quoted: ([0-9a-f]{2,4096})\nsignature:\n", re.MULTILINE)

Message = dict[str, list[Any]]


def message(text: str) -> Message:
    """A message in text form: each field's values in order; byte strings as `bytes`. Raises `ValueError`."""
    tokens = _tokens(text)
    tokens.reverse()
    parsed = _message(tokens, "", 0)
    if tokens:
        raise ValueError("something after the end")
    return parsed


def _tokens(text: str) -> list[str]:
    out: list[str] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None or len(out) == MAX_TOKENS:
            raise ValueError("no token, or too many")
        out.append(match["token"])
        at = match.end()
    return out


def _message(tokens: list[str], close: str, depth: int) -> Message:
    """`tokens` are in reverse, so that the next one is popped."""
    if depth > MAX_DEPTH:
        raise ValueError("too deep")
    out: Message = {}
    while tokens and tokens[-1] != close:
        name = tokens.pop()
        if not (name[0].isalpha() or name[0] == "_"):
            raise ValueError("expected a field's name")
        out.setdefault(name, []).append(_value(tokens, depth))
        if tokens and tokens[-1] in ",;":
            tokens.pop()
    if close and (not tokens or tokens.pop() != close):
        raise ValueError("cut short")
    return out


def _value(tokens: list[str], depth: int) -> Any:
    word = _pop(tokens)
    named = word == ":"
    if named:
        word = _pop(tokens)
    if word in _CLOSES:
        return _message(tokens, _CLOSES[word], depth + 1)
    if not named or word in "}>;,:":
        raise ValueError("expected a value")
    if word[0] not in "\"'":
        return int(word) if word.lstrip("-").isdigit() else word
    run = unescaped(word)
    while tokens and tokens[-1][0] in "\"'":  # adjacent strings are one
        run += unescaped(tokens.pop())
    return run


def _pop(tokens: list[str]) -> str:
    if not tokens:
        raise ValueError("cut short")
    return tokens.pop()


def unescaped(quoted: str) -> bytes:
    """The bytes of a string in quotes with C's escapes. Raises `ValueError`."""

    def _plain(match: re.Match[bytes]) -> bytes:
        octal, hexadecimal, letter = match.groups()
        if octal is not None:
            return bytes((int(octal, 8),))  # ValueError above 255
        if hexadecimal is not None:
            return bytes((int(hexadecimal, 16),))
        if letter in _LETTERS:
            return _LETTERS[letter]
        if letter[0] in _ITSELF:
            return bytes(letter)
        raise ValueError("an escape that is not known")

    return _ESCAPE.sub(_plain, quoted[1:-1].encode())


def tpm2_quote(text: str) -> bytes | None:
    """The quote that tpm2_quote printed; None where it is no such text.

    The quote alone: which hash the signature is over is not printed, so that it cannot be put together from this.
    """
    quoted = _QUOTED.search(text)
    return None if quoted is None or len(quoted[1]) % 2 else bytes.fromhex(quoted[1])
