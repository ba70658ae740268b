"""Where a program finds its key and certificates: one generation at a time, and nobody else's to read."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from strongroom.agent import owners
from strongroom.agent.certificates import delivery
from strongroom.agent.certificates.delivery import CertificateFolder
from strongroom.crypto.pki import csr
from strongroom.model.contracts.certificate_terms import CertificateTerms, Delivery, Format, KeyKind, Mode
from tests.unit.agent import tls_material

WANTED = Delivery(uid=os.getuid(), gid=os.getgid())


@pytest.fixture(autouse=True)
def own_ids(monkeypatch):
    """The ids of files are those that the contract says: outside of a room nothing maps them."""
    monkeypatch.setattr(owners, "FIRST", 0)


def folder(tmp_path, **changes):
    path = tmp_path / "tls"
    path.mkdir(mode=0o700)
    return CertificateFolder(str(path), replace(WANTED, **changes))


def reads(place, name):
    return (Path(place.folder) / name).read_bytes()


def test_a_generation_has_key_chain_and_root(tmp_path):
    place, generation = folder(tmp_path), tls_material.generation("alice", "bob")
    place.write(generation)
    leaf, issuer, root = (csr.pem_certificate(der) for der in generation.chains["alice"])
    assert reads(place, "key.pem") == generation.key.pem()
    assert reads(place, "certificate.pem") == leaf + issuer
    assert reads(place, "combined.pem") == reads(place, "key.pem") + leaf + issuer
    assert reads(place, "ca.pem") == root
    for party, chain in generation.chains.items():
        assert reads(place, f"chains/{party}.pem") == b"".join(map(csr.pem_certificate, chain))
    verified = subprocess.run(
        [
            "openssl",
            "verify",
            "-no_check_time",
            "-CAfile",
            "ca.pem",
            "-untrusted",
            "certificate.pem",
            "certificate.pem",
        ],
        cwd=place.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.returncode == 0, verified.stderr


def test_every_name_leads_to_one_generation_at_every_moment(tmp_path, monkeypatch):
    """Whatever the order of what is done: key and certificate that names lead to are of one generation, or of none."""
    place = folder(tmp_path)
    seen = set()
    generations = [tls_material.generation("alice") for _ in range(3)]
    pairs = {
        (each.key.pem(), b"".join(map(csr.pem_certificate, each.chains["alice"][:2]))) for each in generations
    }

    def watching(act):
        def watched(*arguments, **named):
            result = act(*arguments, **named)
            with_key = Path(place.folder, "key.pem")
            if with_key.exists() and Path(place.folder, "certificate.pem").exists():
                pair = reads(place, "key.pem"), reads(place, "certificate.pem")
                assert pair in pairs
                seen.add(pair)
            return result

        return watched

    for name in ("mkdir", "chmod", "chown", "fchmod", "symlink", "rename", "open", "unlink"):
        monkeypatch.setattr(os, name, watching(getattr(os, name)))
    for each in generations:
        place.write(each)
    assert seen == pairs


def test_the_two_latest_generations_stay(tmp_path):
    place = folder(tmp_path)
    for number in range(1, 5):
        place.write(tls_material.generation("alice"))
        assert Path(place.folder, "current").readlink() == Path(str(number))
    kept = {path.name for path in Path(place.folder).iterdir() if path.is_dir() and not path.is_symlink()}
    assert kept == {"3", "4"}


def test_a_generation_that_cannot_be_written_changes_nothing(tmp_path, monkeypatch):
    place, first = folder(tmp_path), tls_material.generation("alice")
    place.write(first)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fchmod", full)
    with pytest.raises(OSError, match="No space left"):
        place.write(tls_material.generation("alice"))
    assert reads(place, "key.pem") == first.key.pem()
    assert sorted(path.name for path in Path(place.folder).iterdir() if not path.is_symlink()) == ["1"]


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("form", Format)
def test_nobody_but_whom_the_contract_says_reads_or_writes(tmp_path, mode, form):
    place = folder(tmp_path, mode=mode, format=form, uid=12_345, gid=12_346)
    place.write(tls_material.generation("alice"))
    for path in (Path(place.folder), *Path(place.folder).rglob("*")):
        if path.is_symlink():
            continue
        status = path.stat()
        assert (status.st_uid, status.st_gid) == (12_345, 12_346)
        permitted = stat.S_IMODE(status.st_mode)
        if path.is_dir():
            assert permitted == (0o550 if int(mode.value, 8) & 0o040 else 0o500)
        else:
            assert permitted == int(mode.value, 8)


@pytest.mark.parametrize("kind", KeyKind)
def test_every_kind_of_key_is_written_in_both_formats(tmp_path, kind):
    generation = tls_material.generation("alice", kind=kind)
    for form in Format:
        place = (
            folder(tmp_path / form.value, format=form) if (tmp_path / form.value).mkdir() is None else None
        )
        place.write(generation)
        if form is Format.PEM:
            key = serialization.load_pem_private_key(reads(place, "key.pem"), None)
        else:
            key, certificate, above = pkcs12.load_key_and_certificates(
                reads(place, "identity.p12"), delivery.PASSWORD
            )
            assert certificate.public_bytes(serialization.Encoding.DER) == generation.leaf
            assert [one.public_bytes(serialization.Encoding.DER) for one in above] == [
                generation.chains["alice"][1]
            ]
            assert not Path(place.folder, "key.pem").exists()
        encoded = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        assert encoded == generation.key.public


def test_a_contract_that_says_nothing_means_the_images_user():
    terms = CertificateTerms(names=("a.example",), lifetime_seconds=60)
    plain = delivery.of(terms, uid=7, gid=8)
    assert (plain.uid, plain.gid, plain.mode, plain.format) == (7, 8, Mode.OWNER_READS, Format.PEM)
    assert delivery.of(replace(terms, delivery=WANTED), uid=7, gid=8) is WANTED


def test_no_secret_shows_in_a_repr():
    generation = tls_material.generation("alice")
    shown = repr(generation)
    assert "PrivateKey" not in shown


def test_a_generation_that_was_not_written_leaves_no_older_one_for_ever(tmp_path, monkeypatch):
    """The folder is 1 MiB of memory: with one more that stays for each that failed, none could be written any more."""
    place, generation = folder(tmp_path), tls_material.generation("alice")
    whole = CertificateFolder._write
    for number in range(1, 9):
        if number % 3:
            monkeypatch.setattr(CertificateFolder, "_write", whole)
            place.write(generation)
        else:
            monkeypatch.setattr(CertificateFolder, "_write", full)
            with pytest.raises(OSError, match="space"):
                place.write(generation)
    assert sorted(path.name for path in Path(place.folder).iterdir() if path.name.isdecimal()) == ["7", "8"]


def full(_folder, _path, _content):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
