"""Which extra brings which package: the library needs `cryptography` alone, and most verbs need more.

pip install 'strongroom[cli,server]'      # `all` is every extra
"""

from __future__ import annotations

from strongroom.errors import NotFound

# Package as it is imported → the extra of pyproject.toml that brings it.
EXTRA = {
    "typer": "cli",
    "rich": "cli",
    "structlog": "cli",
    "pyrage": "rooms",
    "OpenSSL": "rooms",
    "h2": "rooms",
    "uvloop": "server",
    "httptools": "server",
    "sqlalchemy": "server",
    "orjson": "server",
    "cyclonedx": "build",
    "sigstore": "sigstore",
    "sigstore_models": "sigstore",
    "yaml": "compose",
    "pkcs11": "token",
}


def install(extra: str) -> str:
    """What to type to get an extra."""
    return f"pip install 'strongroom[{extra}]'"


def missing(failure: ModuleNotFoundError) -> NotFound | None:
    """What a failed import means to whoever typed the command; None where no extra would bring the package."""
    package = (failure.name or "").partition(".")[0]
    extra = EXTRA.get(package)
    if extra is None:
        return None
    return NotFound(
        f"the Python package {package} is not installed", code="missing-extra", hint=install(extra)
    )
