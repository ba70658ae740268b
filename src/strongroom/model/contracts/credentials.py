"""Variables that look like somebody's credentials: a contract's environment is read by all who sign it, and by the operator.

Recognised by the name (PASSWORD, TOKEN, …) or by the form of the value (a PEM key, a cloud's key, a web token). A guess, made to ask
somebody to look: it decides nothing, and no value is ever repeated.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FIX = "seal it as a dataset of its owner (`strongroom seal FOLDER --name NAME …`) and let the program read the file at /data/NAME"

_WORDS = frozenset(
    [
        "password",
        "passwd",
        "passwort",
        "passphrase",
        "pass",
        "pwd",
        "pw",
        "secret",
        "secrets",
        "token",
        "tokens",
        "credential",
        "credentials",
        "cred",
        "creds",
        "apikey",
        "apitoken",
        "authtoken",
        "accesskey",
        "secretkey",
        "privatekey",
    ]
)
# Words before KEY that make no secret of it.
_NO_SECRET = frozenset(
    [
        "public",
        "pub",
        "gpg",
        "pgp",
        "sort",
        "primary",
        "partition",
        "foreign",
        "cache",
        "group",
        "routing",
        "join",
        "index",
    ]
)
# PASSWORD_FILE names a file, TOKEN_URL a place, MAX_TOKENS and TOKEN_LIMIT a number: not the secret itself.
_ABOUT = frozenset(
    [
        "file",
        "path",
        "dir",
        "folder",
        "name",
        "id",
        "url",
        "uri",
        "host",
        "port",
        "length",
        "len",
        "limit",
        "max",
        "min",
        "ttl",
        "timeout",
        "lifetime",
        "expiry",
        "type",
        "algorithm",
        "policy",
        "count",
        "size",
        "enabled",
        "required",
    ]
)
_SWITCHES = frozenset(["true", "false", "yes", "no", "on", "off"])
_SMALL = 5  # digits: a number that short is a setting
# What may go on for long begins where nothing of its kind stands before it: no text makes looking for it slow.
_FORMS = (
    ("a private key", re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY")),
    ("a secret key of age", re.compile(r"AGE-SECRET-KEY-1")),
    ("an access key of AWS", re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b")),
    ("a token of GitHub", re.compile(r"\b(gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})")),
    ("a token of GitLab", re.compile(r"\bglpat-[A-Za-z0-9_-]{20,}")),
    ("a token of Slack", re.compile(r"\bxox[abeprs]-[A-Za-z0-9-]{10,}")),
    ("a key of Google", re.compile(r"\bAIza[A-Za-z0-9_-]{35}\b")),
    ("a token of Hugging Face", re.compile(r"\bhf_[A-Za-z0-9]{20,}")),
    ("a key of a service", re.compile(r"\b(sk|rk)(_live|_test|-proj|-ant)?[-_][A-Za-z0-9_-]{20,}")),
    (
        "a signed web token (JWT)",
        re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),
    ),
    ("a password within an address", re.compile(r"(?<![a-z0-9+.-])[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s:@]+@")),
)


def exposed(variables: Mapping[str, str], arguments: Sequence[str] = ()) -> dict[str, str]:
    """What looks like a credential, each with why: variables by name, arguments by number. Never a value."""
    reasons = {name: why(name, value) for name, value in sorted(variables.items())}
    for number, word in enumerate(arguments, 1):
        name, _, value = word.partition("=")
        reasons[f"argument {number}"] = why(name.lstrip("-"), value) or why("", word)
    return {name: reason for name, reason in reasons.items() if reason}


def why(name: str, value: str) -> str:
    """Why this looks like a credential, or nothing."""
    if not value:
        return ""
    for what, form in _FORMS:
        if form.search(value):
            return f"its value has the form of {what}"
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().replace("-", "_").split("_")
    small = value.isascii() and value.isdigit() and len(value) < _SMALL
    if words[-1] in _ABOUT or words[0] in ("max", "min", "num") or small or value.lower() in _SWITCHES:
        return ""
    key = words[-1] in ("key", "keys") and not _NO_SECRET & set(words)
    if key or any(word in _WORDS or word.endswith("password") for word in words):
        return "its name says so"
    return ""
