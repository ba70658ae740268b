"""Files of reference values, as whoever relies on them reads them: whose, how old, about which base; from disk and from registries."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from strongroom.errors import Malformed, Misuse, NotFound, Refused, Unavailable
from strongroom.fetch import references
from strongroom.fetch.oci import names, reference_files
from strongroom.fetch.oci.session import Access
from strongroom.parties import release
from tests import samples
from tests.unit.bases import release_kit

NOW = samples.NOW
MAKER, STRANGER = samples.ALICE, samples.BOB
SNP = {"tee": "snp", "references": [{"measurement": "aa" * 48}]}
PLACE = f"registry.example/refs@{samples.DIGEST}"


@pytest.fixture
def bases(tmp_path):
    (tmp_path / "snp.json").write_text(json.dumps(SNP))
    return [release_kit.base(tmp_path / "bases" / name, name) for name in ("local", "snp")]


def sign(bases, tmp_path, version=3, who=MAKER):
    return release.sign_reference(
        bases,
        values=[tmp_path / "snp.json"],
        name="base",
        version=version,
        issued=NOW,
        expires=NOW + timedelta(days=30),
        signer=lambda: who,
        out=tmp_path / who.name,
    ).path


def reader(tmp_path, *who, now=NOW):
    parties = tuple(party.party() for party in who or (MAKER,))
    return references.ReferenceReader(parties=parties, now=now, state=tmp_path / "state")


def test_a_reader_has_somebody_to_trust_or_there_is_none(tmp_path, monkeypatch):
    with pytest.raises(Misuse) as caught:
        references.open_reader((), now=NOW, state=tmp_path)
    assert caught.value.code == "nobody-trusted"
    (tmp_path / "maker.party.json").write_bytes(MAKER.party().encode())
    opened = references.open_reader([tmp_path / "maker.party.json"], now=NOW, state=tmp_path / "s")
    assert (opened.parties, opened.state) == ((MAKER.party(),), tmp_path / "s")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    opened = references.open_reader([tmp_path / "maker.party.json"], now=NOW)
    assert opened.state == tmp_path / "home/strongroom/references"
    (tmp_path / "junk").write_bytes(b"junk")
    with pytest.raises(Malformed) as caught:
        references.open_reader([tmp_path / "junk"], now=NOW)
    assert caught.value.file == tmp_path / "junk"


def test_a_file_is_verified_against_every_base_that_is_named(bases, tmp_path):
    file = sign(bases, tmp_path)
    verified = references.verify_reference(file, reader=reader(tmp_path), bases=bases)
    assert (verified.keyid, verified.release.version) == (MAKER.party().keyid, 3)
    other = release_kit.base(tmp_path / "other", "local", packages=release_kit.PACKAGES[:1])
    with pytest.raises(Refused) as caught:
        references.verify_reference(file, reader=reader(tmp_path), bases=[bases[0], other])
    assert caught.value.code == "other-file"


@pytest.mark.parametrize(
    ("who", "now", "code"),
    [
        ((STRANGER,), NOW, "untrusted-reference"),
        ((MAKER,), NOW + timedelta(days=31), None),
        ((MAKER,), NOW - timedelta(days=1), None),
    ],
)
def test_a_strangers_file_and_one_of_another_time_are_refused_and_raise_no_mark(
    bases, tmp_path, who, now, code
):
    file = sign(bases, tmp_path)
    with pytest.raises(Refused) as caught:
        references.verify_reference(file, reader=reader(tmp_path, *who, now=now))
    assert caught.value.file == file
    assert code is None or caught.value.code == code
    assert not (tmp_path / "state").exists()


def test_an_older_version_than_was_seen_is_refused_by_every_way_in(bases, tmp_path, monkeypatch):
    old, new = (sign(bases, tmp_path, version) for version in (3, 4))
    kept = reader(tmp_path)
    references.verify_reference(new, reader=kept)
    monkeypatch.setattr(reference_files, "pull", lambda where, access: old.read_bytes())
    for call in (
        lambda: references.verify_reference(old, reader=kept),
        lambda: references.pull_reference(
            names.parse(PLACE), reader=kept, access=Access(), out=tmp_path / "out"
        ),
    ):
        with pytest.raises(Refused) as caught:
            call()
        assert caught.value.code == "downgrade"
    assert not (tmp_path / "out").exists()
    # Of the same release by another, and in another state folder, nothing newer was seen.
    references.verify_reference(sign(bases, tmp_path, 1, STRANGER), reader=reader(tmp_path, STRANGER))
    references.verify_reference(old, reader=references.ReferenceReader(parties=kept.parties, now=NOW, state=tmp_path / "s"))  # fmt: skip


def test_the_newest_that_somebody_trusted_signed_is_taken_of_several(bases, tmp_path):
    data = [sign(bases, tmp_path, version).read_bytes() for version in (3, 5, 4)]
    data += [sign(bases, tmp_path, 9, STRANGER).read_bytes(), b"junk"]
    subject = references.verify_reference(sign(bases, tmp_path), reader=reader(tmp_path)).release.subjects[0]
    assert reader(tmp_path).newest(data, subject=subject.digest) == data[1]
    with pytest.raises(Refused) as caught:
        reader(tmp_path).newest(data[:3], subject=samples.DIGEST)
    assert caught.value.code == "other-file"
    with pytest.raises(Refused) as caught:
        reader(tmp_path).newest(data[3:], subject=subject.digest)
    assert caught.value.code == "untrusted-reference"
    with pytest.raises(Refused, match="of 0 files"):
        reader(tmp_path).newest([], subject=subject.digest)


def test_what_was_pulled_is_kept_under_its_own_name_and_refused_without_a_trace(bases, tmp_path, monkeypatch):
    file = sign(bases, tmp_path)
    monkeypatch.setattr(reference_files, "pull", lambda where, access: file.read_bytes())
    where = names.parse(PLACE)
    pulled = references.pull_reference(where, reader=reader(tmp_path), access=Access(), out=tmp_path / "out")
    assert pulled.path == tmp_path / "out" / file.name
    assert (pulled.path.read_bytes(), pulled.verified.release.name) == (file.read_bytes(), "base")
    with pytest.raises(Refused, match="not signed by any key"):
        references.pull_reference(
            where, reader=reader(tmp_path, STRANGER), access=Access(), out=tmp_path / "o"
        )
    assert not (tmp_path / "o").exists()

    def nothing(where, access):
        raise NotFound("nothing about it", hint="none")

    monkeypatch.setattr(reference_files, "about", nothing)
    with pytest.raises(NotFound, match="nothing about it"):
        references.pull_reference(
            where, reader=reader(tmp_path), access=Access(), out=tmp_path / "o", about=True
        )
    tagged = names.parse("registry.example/refs:v1")
    monkeypatch.setattr(reference_files, "about", lambda where, access: (file.read_bytes(),))
    with pytest.raises(Refused) as caught:
        references.pull_reference(
            tagged, reader=reader(tmp_path), access=Access(), out=tmp_path / "o", about=True
        )
    assert caught.value.code == "tag-refused"


def test_nothing_is_published_to_a_digest_and_no_file_that_is_none(bases, tmp_path, monkeypatch):
    def never(data, where, access):
        raise AssertionError("nothing is sent")

    monkeypatch.setattr(reference_files, "publish", never)
    file, junk = sign(bases, tmp_path), tmp_path / "junk"
    with pytest.raises(Misuse, match="no place to publish to"):
        references.publish_reference(file, where=names.parse(PLACE), access=Access())
    for data in (b"", b"{}", file.read_bytes().splitlines()[1]):
        junk.write_bytes(data)
        with pytest.raises(Malformed) as caught:
            references.publish_reference(
                junk, where=names.parse("registry.example/refs", bare=True), access=Access()
            )
        assert caught.value.file == junk


def test_what_was_published_is_named_by_its_digest(bases, tmp_path, monkeypatch):
    done = reference_files.Published(digest=samples.DIGEST, subjects=("sha256:" + "1" * 64,))
    monkeypatch.setattr(reference_files, "publish", lambda data, where, access: done)
    where = names.parse("registry.example/refs:v3")
    published = references.publish_reference(sign(bases, tmp_path), where=where, access=Access())
    assert (str(published.name), published.subjects) == (PLACE, done.subjects)


def test_a_registry_that_is_not_there_is_unavailable(bases, tmp_path):
    where = names.parse("127.0.0.1:1/refs", bare=True)
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        references.publish_reference(sign(bases, tmp_path), where=where, access=Access())
