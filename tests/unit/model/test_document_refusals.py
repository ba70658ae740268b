"""Documents between parties, rooms and brokers: each thing that is refused, by what refuses it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from strongroom.errors import Malformed
from strongroom.model import identity, manifest, messages, party, receipt, record, verdict
from tests import samples


def changed(data, path, value):
    """The document `data` with `value` at `path`."""
    top = json.loads(data)
    inner = top
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return json.dumps(top).encode()


IMAGE = manifest.ImageSettings(
    source=samples.DIGEST,
    entrypoint=("/bin/run",),
    command=("-x",),
    environment={"A": "b", "EMPTY": ""},
    working_directory="/",
    uid=1000,
    gid=1000,
    groups=(4, 27),
)
MANIFEST = manifest.encode(
    manifest.Manifest(
        raw=b"",
        kind="image",
        name="program",
        owner=samples.DIGEST,
        cipher="aes-xts-plain64",
        data_bytes=8192,
        hash_offset=8192,
        disk_bytes=16384,
        root_hash=samples.DIGEST,
        salt=b"s" * 32,
        image=IMAGE,
    )
)
SIZES = "expected a multiple of 4096, got"


def test_the_manifest_of_an_image_round_trips():
    parsed = manifest.parse(MANIFEST)
    assert parsed.image == IMAGE
    assert manifest.encode(parsed) == MANIFEST


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        (
            ("format",),
            "strongroom-manifest/3",
            "format: expected strongroom-manifest/1 or strongroom-manifest/2",
        ),
        (("format",), "strongroom-manifest/2", "key 'key_check' is missing"),
        (("key_check",), "AA" * 16, "unknown key 'key_check'"),
        (("kind",), "disk", "manifest.kind: expected one of dataset, image, got 'disk'"),
        (("cipher",), "aes-cbc", "manifest.cipher: expected one of aes-xts-plain64, none, got 'aes-cbc'"),
        (("image",), None, "image: expected settings, as the kind is image, got null"),
        (("kind",), "dataset", "image: expected null, as the kind is dataset, got settings"),
        (("block_bytes",), 512, "block_bytes: expected an integer from 4096 to 4096"),
        *(
            ((name,), (1 << 50) + 4096, f"{name}: expected an integer from 4096 to {1 << 50}")
            for name in ("data_bytes", "hash_offset", "disk_bytes")
        ),
        (("data_bytes",), 8193, SIZES),
        (("disk_bytes",), 16385, SIZES),
        (("disk_bytes",), 8192, "expected hash_offset to equal data_bytes, and disk_bytes to be more"),
        (("hash_offset",), 4096, "expected hash_offset to equal data_bytes, and disk_bytes to be more"),
        (("hash_offset",), 12288, "expected hash_offset to equal data_bytes, and disk_bytes to be more"),
        (("salt",), "AA" * 200, "salt: expected base64 of at most 256"),
        (("more",), 1, "unknown key 'more'"),
        (("image", "more"), 1, "unknown key 'more'"),
        (("image", "groups"), ["0"], "groups\\[0\\]: expected a group id from 0 to 2147483646, got"),
        (("image", "groups"), [True], "groups\\[0\\]: expected a group id from 0 to 2147483646, got"),
        (("image", "groups"), [-1], "groups\\[0\\]: expected a group id from 0 to 2147483646, got"),
        (
            ("image", "groups"),
            [manifest.MAX_USER + 1],
            "groups\\[0\\]: expected a group id from 0 to 2147483646, got",
        ),
        (("image", "groups"), [1] * 257, "groups: expected a list of at most 256"),
        (("image", "uid"), -1, "uid: expected an integer from 0"),
        (("image", "uid"), manifest.MAX_USER + 1, "uid: expected an integer from 0"),
        (("image", "gid"), manifest.MAX_USER + 1, "gid: expected an integer from 0"),
        (("image", "entrypoint"), ["a\0b"], "entrypoint\\[0\\]: expected text of at most 65536 characters"),
        (("image", "command"), ["a\0b"], "command\\[0\\]: expected text of at most 65536 characters"),
        (("image", "command"), [1], "command\\[0\\]: expected text of at most 65536 characters"),
        (("image", "command"), ["a" * 65_537], "command\\[0\\]: expected text of at most 65536 characters"),
        (("image", "command"), ["a"] * 1025, "command: expected a list of at most 1024"),
        (("image", "environment"), {"A": "b\0"}, "environment.A: expected text of at most"),
        (
            ("image", "working_directory"),
            "home",
            "working_directory: expected a path that begins with /, got 'home'",
        ),
        (("image", "working_directory"), "", "working_directory: expected text of 1"),
    ],
)
def test_manifests_are_refused_by_what_is_wrong(path, value, why):
    with pytest.raises(Malformed, match=why):
        manifest.parse(changed(MANIFEST, path, value))


def test_a_check_value_of_a_key_is_32_bytes_and_of_a_disk_that_has_one():
    checked = manifest.encode(replace(manifest.parse(MANIFEST), key_check=bytes(32)))
    with pytest.raises(Malformed, match="key_check: expected 32 bytes in base64"):
        manifest.parse(changed(checked, ("key_check",), "AAAA"))
    with pytest.raises(Malformed, match="key_check: present, though the cipher is none"):
        manifest.parse(changed(checked, ("cipher",), "none"))
    with pytest.raises(Malformed, match="unknown key 'key_check'"):
        manifest.parse(changed(checked, ("format",), manifest.FORMAT))


def test_an_image_that_runs_nothing_is_refused():
    bare = changed(changed(MANIFEST, ("image", "entrypoint"), []), ("image", "command"), [])
    with pytest.raises(Malformed, match="neither entrypoint nor command"):
        manifest.parse(bare)
    for key in ("entrypoint", "command"):
        assert manifest.parse(changed(MANIFEST, ("image", key), [])).image is not None


def test_the_widest_manifest_is_read():
    widest = changed(MANIFEST, ("image", "groups"), [0, manifest.MAX_USER])
    widest = changed(widest, ("image", "command"), ["a" * 65_536, ""])
    widest = changed(widest, ("image", "uid"), manifest.MAX_USER)
    parsed = manifest.parse(widest)
    assert parsed.image is not None
    assert parsed.image.groups == (0, manifest.MAX_USER)


PARTY = samples.ALICE.party(samples.broker()).encode()
URL = "broker.url: expected https://HOST:PORT"


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        (("format",), "strongroom-party/2", "format: expected 'strongroom-party/1'"),
        (("broker", "url"), "https://127.0.0.1:0", "broker.url: expected https://HOST:PORT"),
        (("broker", "url"), "https://127.0.0.1:65536", "broker.url: expected https://HOST:PORT"),
        (("broker", "url"), "https://127.0.0.1:100000", URL),
        (("broker", "url"), "https://127.0.0.1:1/", URL),
        (("broker", "url"), "https://[::1:1", URL),
        (("broker", "url"), "https://" + "a" * 254 + ":1", URL),
        (("broker", "pin"), "sha256:00", "pin: expected sha256: and 64"),
        (("broker", "authority"), "", "authority: expected sha256: and 64"),
        (("broker", "ledger_key"), "AAAA", "ledger_key: expected 32 bytes"),
        (("broker", "more"), 1, "unknown key 'more'"),
        (("signing_key",), "AAAA", "signing_key: expected 32 bytes"),
        (("recipient",), "age1x", "recipient"),
        (("more",), 1, "unknown key 'more'"),
    ],
)
def test_parties_are_refused_by_what_is_wrong(path, value, why):
    with pytest.raises(Malformed, match=why):
        party.parse(changed(PARTY, path, value))


def test_ports_and_hosts_of_brokers():
    for url, host, port in (
        ("https://broker.example:1", "broker.example", 1),
        ("https://[::1]:65535", "::1", 65535),
    ):
        address = party.parse(changed(PARTY, ("broker", "url"), url)).broker
        assert address is not None
        assert (address.host, address.port) == (host, port)
    loose = replace(samples.broker(), url="http://127.0.0.1:1")
    with pytest.raises(Malformed, match=r"broker.url: expected https://HOST:PORT"):
        _ = loose.host
    with pytest.raises(Malformed, match=r"broker.url: expected https://HOST:PORT"):
        _ = loose.port


def test_a_name_that_no_party_may_have_makes_no_identity():
    for name in ("", "Alice", "a b", "a" * 65):
        with pytest.raises(
            Malformed, match="identity name: expected a name: at most 64 lower-case letters"
        ) as refused:
            identity.generate(name)
        assert refused.value.code == "bad-name"


RECEIPT = receipt.Receipt(
    room="main",
    run_id="run-" + "0" * 32,
    contract_digest=samples.DIGEST,
    signing_key=b"s" * 32,
    image=receipt.Disk(manifest_digest=samples.DIGEST, root_hash=samples.DIGEST),
    datasets=(receipt.Disk(manifest_digest=samples.DIGEST, root_hash=samples.DIGEST),),
    outputs=(
        receipt.OutputRecord(
            path="/out", sealed_digest=samples.DIGEST, sealed_bytes=7, content_commitment=samples.DIGEST
        ),
    ),
    outcome=receipt.Outcome.EXITED,
    exit_status=0,
    details=(),
    started=samples.NOW,
    ended=samples.NOW + timedelta(seconds=3),
).encode()


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        (("outcome",), "won", "receipt.outcome: expected one of exited, killed"),
        (("exit_status",), 256, "exit_status: expected an integer from 0 to 255"),
        (("exit_status",), -1, "exit_status: expected an integer from 0 to 255"),
        (
            ("details",),
            ["no such detail"],
            "receipt.details: expected details that this version knows, sorted, each once",
        ),
        (("details",), None, "details: expected a list of at most"),
        (("outputs", 0, "content_commitment"), "", "content_commitment: expected sha256: and 64"),
        (("signing_key",), "AAAA", "signing_key: expected 32 bytes"),
        (("outputs", 0, "sealed_bytes"), -1, "sealed_bytes: expected an integer from 0"),
        (("outputs", 0, "more"), 1, "unknown key 'more'"),
        (("image", "more"), 1, "unknown key 'more'"),
        (("datasets", 0, "more"), 1, "unknown key 'more'"),
        (("more",), 1, "unknown key 'more'"),
    ],
)
def test_receipts_are_refused_by_what_is_wrong(path, value, why):
    with pytest.raises(Malformed, match=why):
        receipt.parse(changed(RECEIPT, path, value))


RECORD = record.Record(
    kind=record.RecordKind.CONTRACT,
    time=samples.NOW,
    broker="alice",
    contract_digest=samples.DIGEST,
    run_id="",
    body={"id": "flights", "version": 1},
).encode()


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        (("format",), "strongroom-ledger-entry/0", "format: expected 'strongroom-ledger-entry/"),
        (("kind",), "gift", "ledger entry.kind: expected one of release, denial"),
        (("kind",), "CONTRACT", "ledger entry.kind: expected one of release, denial"),
        (("broker",), "Alice", "broker: expected a name: at most 64"),
        (("contract",), "flights", "contract: expected sha256: and 64"),
        (("run",), None, "run: expected text of at most 64"),
        (("run",), "r" * 65, "run: expected text of at most 64"),
        (("body",), [], "body: expected an object"),
        (("more",), 1, "unknown key 'more'"),
    ],
)
def test_ledger_entries_are_refused_by_what_is_wrong(path, value, why):
    with pytest.raises(Malformed, match=why):
        record.parse(changed(RECORD, path, value))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (
            {"disks": {"flights": "AA=="}},
            "disks: expected sha256: and 64 lower-case hexadecimal digits for each key, got",
        ),
        (
            {"disks": {samples.DIGEST.upper(): "AA=="}},
            "disks: expected sha256: and 64 lower-case hexadecimal digits for each key, got",
        ),
        ({"disks": {samples.DIGEST: "AA=="}}, "expected 64 bytes in base64"),
        ({"disks": {}, "more": 1}, "unknown key 'more'"),
        ({}, "key 'disks' is missing"),
    ],
)
def test_disk_keys_are_refused_by_what_is_wrong(value, why):
    with pytest.raises(Malformed, match=why):
        messages.parse_disk_keys(json.dumps(value).encode())


@pytest.mark.parametrize("version", [None, 0, 2, "1", True])
def test_a_verdict_of_another_record_form_is_not_compared(version):
    with pytest.raises(Malformed, match="its record form is version") as refused:
        verdict.as_recorded({"checks": [], "claims": None}, {"version": version, "checks": []})
    assert refused.value.code == "unknown-version"
