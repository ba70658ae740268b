"""Compose files of tests."""

from __future__ import annotations

from strongroom.project import file

DIGEST = "sha256:" + "ab" * 32
IMAGE = f"registry.example/team/web@{DIGEST}"


def project(body: str = "", *, top: str = "", others: str = "") -> file.Project:
    """A file with the service `web`, whose keys are `body`. others: further services, each indented by two."""
    indented = "".join(f"    {line}\n" for line in body.splitlines())
    text = f"{top}\nservices:\n  web:\n    image: {IMAGE}\n{indented}{others}"
    return file.parse(text.encode(), what="compose.yaml", folder="Shop 1")


def service(name: str, body: str) -> str:
    """One more service."""
    return f"  {name}:\n    image: {IMAGE}\n" + "".join(f"    {line}\n" for line in body.splitlines())


def said(parsed: file.Project, severity: str = "blocks") -> dict[str, str]:
    """Where → what, of the findings of a severity."""
    return {finding.where: finding.what for finding in parsed.findings if finding.severity == severity}
