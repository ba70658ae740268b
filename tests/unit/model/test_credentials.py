"""Credentials in a contract's environment: recognised by name and by form, and never repeated."""

from __future__ import annotations

import pytest

from strongroom.model.contracts import credentials

BODY = "eyJhbGciOiJIUzI1NiJ9"


@pytest.mark.parametrize(
    "name",
    ["PASSWORD", "DB_PASSWORD", "PGPASSWORD", "mysqlRootPassword", "API_TOKEN", "GITHUB_TOKEN", "KEY", "API_KEY", "apiKey",
     "AWS_SECRET_ACCESS_KEY", "CLIENT_SECRET", "LICENSE_KEY", "SSH_PRIVATE_KEY", "DB_PASS", "REDIS_PWD", "HF_TOKEN", "X_CREDENTIALS"],
)  # fmt: skip
def test_by_name(name):
    assert credentials.why(name, "hunter22222") == "its name says so"
    assert credentials.why(name, "") == ""


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ("AKIA" + "Q7" * 8, "AWS"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMII", "a private key"),
        ("-----BEGIN PRIVATE KEY-----", "a private key"),
        ("ghp_" + "a" * 36, "GitHub"),
        ("github_pat_" + "a" * 30, "GitHub"),
        ("glpat-" + "a" * 20, "GitLab"),
        ("xoxb-123456789012", "Slack"),
        ("AIza" + "b" * 35, "Google"),
        ("hf_" + "c" * 30, "Hugging Face"),
        ("sk-proj-" + "d" * 30, "a service"),
        (f"{BODY}.{BODY}.c2ln", "JWT"),
        ("postgres://app:hunter2@db/flights", "a password within an address"),
        ("AGE-SECRET-KEY-1" + "Q" * 58, "age"),
    ],
)
def test_by_form_whatever_the_name(value, form):
    assert form in credentials.why("MODE", value)
    assert value not in credentials.why("MODE", value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PATH", "/usr/bin:/bin"), ("GPG_KEY", "E3FF2839C048B25C084DEBE9B26995E310250568"), ("PYTHON_VERSION", "3.12.1"),
        ("MAX_TOKENS", "100000"), ("TOKEN_LIMIT", "4096"), ("PASSWORD_FILE", "/data/keys/db"), ("TOKEN_URL", "https://h/token"),
        ("SORT_KEY", "day"), ("PUBLIC_KEY", "ssh-ed25519 AAAA"), ("COMPASS", "north"), ("MONKEY", "see"), ("TOKENIZERS_PARALLELISM", "x"),
        ("USE_TOKEN", "true"), ("TOKENS", "512"), ("MODE", "-----BEGIN CERTIFICATE-----"), ("URL", "https://host:8443/path"),
        ("REDIS_KEY_PREFIX", "app:"), ("HOME", "/home/passwd"),
    ],
)  # fmt: skip
def test_what_is_none(name, value):
    assert credentials.why(name, value) == ""


def test_arguments_are_told_by_number_and_no_value_is_repeated():
    found = credentials.exposed(
        {"B_TOKEN": "swordfish", "A": "plain"}, ["--port=80", "--password=swordfish", "ghp_" + "a" * 36, "-"]
    )
    assert list(found) == ["B_TOKEN", "argument 2", "argument 3"]
    assert "swordfish" not in str(found)


@pytest.mark.parametrize("part", ["a.", "eyJ-", "eyJaaaaaaaaaa.", "a://x:", "-----BEGIN ", "sk-", "aA"])
def test_rule_59_a_value_of_a_megabyte_is_looked_through_once(part):
    # Where the search began anew at every letter, this took the better part of an hour.
    text = part * ((1 << 20) // len(part))
    assert all(part not in told for told in credentials.exposed({"X": text}, (text,)).values())
