"""Reference values, signed for a release and shown by anybody: what is refused before anybody is asked to sign."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from strongroom.bases import release_file
from strongroom.errors import Malformed, Misuse, NotFound, Refused
from strongroom.parties import release
from tests import samples
from tests.unit.bases import release_kit

MAKER = samples.ALICE
SNP = {"tee": "snp", "references": [{"measurement": "aa" * 48}]}


@pytest.fixture
def bases(tmp_path):
    (tmp_path / "snp.json").write_text(json.dumps(SNP))
    return [release_kit.base(tmp_path / "bases" / name, name) for name in ("local", "snp")]


def sign(bases, tmp_path, **changes):
    asked = {
        "values": [tmp_path / "snp.json"],
        "name": "base",
        "version": 3,
        "issued": samples.NOW,
        "expires": samples.NOW + timedelta(days=365),
        "signer": lambda: MAKER,
        "out": tmp_path / "out",
        **changes,
    }
    return release.sign_reference(bases, **asked)


def test_a_release_is_signed_named_by_its_digest_and_the_same_again(bases, tmp_path):
    signed = sign(bases, tmp_path)
    first = signed.path.read_bytes()
    assert signed.path == tmp_path / "out" / release_file.file_name(signed.release)
    assert [platform.profile for platform in signed.release.platforms] == ["local", "snp"]
    verified = release_file.verify(
        first, trusted={MAKER.party().keyid: MAKER.signing.public}, now=samples.NOW
    )
    assert verified.release == signed.release
    assert sign(bases, tmp_path).path.read_bytes() == first


def nobody():
    raise AssertionError("nobody is asked to sign what is refused")


@pytest.mark.parametrize(
    ("changes", "kind", "code"),
    [
        ({"values": []}, Misuse, "no-values"),
        ({"values": ["tdx.json", "snp.json"]}, Misuse, "no-base"),
        ({"values": ["junk.json"]}, Malformed, None),
        ({"values": ["nowhere.json"]}, OSError, None),
    ],
)
def test_values_that_fit_no_base_are_refused_before_anybody_signs(bases, tmp_path, changes, kind, code):
    (tmp_path / "tdx.json").write_text(json.dumps({**SNP, "tee": "tdx"}))
    (tmp_path / "junk.json").write_text("junk")
    values = [tmp_path / name for name in changes["values"]]
    with pytest.raises(kind) as caught:
        sign(bases, tmp_path, values=values, signer=nobody)
    assert code is None or caught.value.code == code
    assert not (tmp_path / "out").exists()


def test_a_base_with_a_console_one_that_was_changed_and_none_are_refused(bases, tmp_path):
    debug = release_kit.base(tmp_path / "debug", "local", debug=True)
    (bases[1] / "bzImage").write_bytes(b"another kernel")
    for folder, kind, code in (
        (debug, Misuse, "debug-base"),
        (bases[1], Refused, "wrong-digest"),
        (tmp_path / "nowhere", NotFound, None),
    ):
        with pytest.raises(kind) as caught:
            sign([folder], tmp_path, values=[], signer=nobody)
        assert code is None or caught.value.code == code


def test_every_statement_is_shown_whoever_signed_it_and_one_has_the_values(bases, tmp_path):
    signed = sign(bases, tmp_path)
    shown = release.show_reference(signed.path)
    assert [each.release for each in shown] == [signed.release, None, None]
    assert {len(each.statement.subjects) for each in shown} == {len(signed.release.subjects)}
    assert [each.statement.to_json()["predicateType"] for each in shown] == [
        each.statement.predicate_type for each in shown
    ]


def test_what_is_no_file_of_statements_is_malformed_and_named(tmp_path):
    for data in (b"", b"junk\n", b"{}\n", b"\n\n"):
        (tmp_path / "file").write_bytes(data)
        with pytest.raises(Malformed) as caught:
            release.show_reference(tmp_path / "file")
        assert caught.value.file == tmp_path / "file"
