"""The signed file of a base: three statements about the same files, each refused for what is wrong with it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cyclonedx.schema import SchemaVersion

from strongroom.appraisal import intoto
from strongroom.appraisal.intoto import InTotoStatement
from strongroom.bases import release_file, sbom
from strongroom.bases.document import Package
from strongroom.crypto import digest, sign
from strongroom.errors import Malformed, Misuse, Refused
from tests.unit.bases import release_kit

NOW = datetime(2026, 11, 1, tzinfo=UTC)
KEY, OTHER = sign.SigningKey(b"\x01" * 32), sign.SigningKey(b"\x02" * 32)
KEYID = digest.sha256(KEY.public.raw)
SNP = {"snp": [{"measurement": "aa" * 48}, {"measurement": "bb" * 48}]}
TERMS = {"name": "base", "version": 3, "issued": NOW, "expires": NOW + timedelta(days=30)}


@pytest.fixture
def bases(tmp_path):
    return [release_file.read(release_kit.base(tmp_path / name, name)) for name in ("local", "snp")]


def written(bases, key=KEY, **changed):
    made = release_file.release(bases, SNP, **{**TERMS, **changed})
    return release_file.write(made, bases, key=key, keyid=digest.sha256(key.public.raw))


def verify(data, *keys, now=NOW):
    trusted = {digest.sha256(key.public.raw): key.public for key in keys or (KEY,)}
    return release_file.verify(data, trusted=trusted, now=now)


def test_one_file_for_all_platforms(bases):
    made = verify(written(bases))
    assert [(one.profile, one.tee) for one in made.release.platforms] == [("local", "tpm"), ("snp", "snp")]
    assert made.release.platform("snp").references == tuple(SNP["snp"])
    assert made.release.platform("local").references[0]["machine"] == "q35"
    assert made.keyid == KEYID
    names = [one.name for one in made.release.subjects]
    assert {"local/base.disk", "snp/bzImage", "snp/base.json"} <= set(names)
    assert len(names) == 10


def test_provenance_is_slsa_s(bases):
    made = verify(written(bases))
    definition, details = made.provenance["buildDefinition"], made.provenance["runDetails"]
    assert definition["buildType"] == "urn:strongroom:base-build:1"
    assert definition["externalParameters"] == {"profiles": ["local", "snp"], "debug": False}
    assert details["builder"]["id"] == f"urn:strongroom:builder:{KEYID}" == made.builder
    by_name = {one["name"]: one for one in made.packages}
    assert by_name["libc6"] == {
        "name": "libc6",
        "uri": "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=bookworm",
        "digest": {"sha256": release_kit.digest(b"libc6")[7:]},
    }
    assert list(by_name["pyrage"]["digest"]) == ["strongroom-tree-sha256"]
    assert len(made.packages) == 3


def test_the_bill_of_materials_is_valid_by_the_standard_s_own_schema(bases):
    from cyclonedx.validation.json import (
        JsonStrictValidator,  # it makes forty grammars: seconds, of every worker
    )

    made = verify(written(bases))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(made.bill)) is None
    assert {one["name"] for one in made.bill["components"]} == {"libc6", "strongroom", "pyrage"}
    broken = {**made.bill, "components": [{"name": "x"}]}
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(broken)) is not None


def test_the_same_base_gives_the_same_bytes_in_other_processes_too(bases):
    program = (
        "import sys; from strongroom.bases import document as base_document, sbom as bill;"
        "print(bill.encode([base_document.Package(kind='deb', name=n, version='1', digest='sha256:' + '1' * 64)"
        " for n in sys.argv[1:]], about='sha256:' + '2' * 64, newest=1))"
    )
    made = [
        subprocess.run(
            [sys.executable, "-c", program, *order],
            capture_output=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "TZ": zone},
        ).stdout
        for order, seed, zone in ((("a", "b", "c"), "1", "UTC"), (("c", "a", "b"), "2", "Asia/Tokyo"))
    ]
    assert made[0] == made[1]
    assert written(bases) == written(bases)


def test_the_file_is_named_by_what_it_says_and_not_by_who_says_it(bases):
    one, other = (verify(written(bases, key=key), key).release for key in (KEY, OTHER))
    assert release_file.file_name(one) == release_file.file_name(other)
    newer = verify(written(bases, version=4)).release
    assert release_file.file_name(one) != release_file.file_name(newer)


def test_every_statement_needs_a_trusted_signature(bases):
    good, stranger = written(bases).splitlines(), written(bases, key=OTHER).splitlines()
    for index in range(3):
        mixed = [*good]
        mixed[index] = stranger[index]
        with pytest.raises(Refused) as caught:
            verify(b"\n".join(mixed))
        assert caught.value.code == "untrusted-reference"
    with pytest.raises(Refused, match="not signed by any key that you trust"):
        release_file.verify(b"\n".join(good), trusted={}, now=NOW)
    assert verify(b"\n".join(mixed), KEY, OTHER).keyid == KEYID


def test_statements_about_other_files_or_twice_or_of_unknown_type_are_refused(bases, tmp_path):
    good = written(bases).splitlines()
    other = [release_file.read(release_kit.base(tmp_path / "other", "snp"))]
    about_other = release_file.write(
        release_file.release(other, SNP, **TERMS), other, key=KEY, keyid=KEYID
    ).splitlines()
    with pytest.raises(Refused) as caught:
        verify(b"\n".join([good[0], about_other[1], good[2]]))
    assert caught.value.code == "other-subjects"
    with pytest.raises(Malformed, match=r"two statements of type https://slsa\.dev/provenance/v1"):
        verify(b"\n".join([*good, good[1]]))
    unknown = InTotoStatement(
        subjects=intoto.unverified(good[0]).subjects, predicate_type="urn:x", predicate={}
    ).sign(KEY, keyid=KEYID)
    with pytest.raises(Malformed, match="a statement of type 'urn:x'"):
        verify(b"\n".join([*good, unknown]))


def test_a_file_that_is_past_its_end_is_refused(bases):
    with pytest.raises(Refused) as caught:
        verify(written(bases), now=NOW + timedelta(days=30))
    assert caught.value.code == "reference-expired"


def test_the_files_are_hashed_and_not_believed(tmp_path):
    folder = release_kit.base(tmp_path / "snp", "snp")
    (folder / "initrd").write_bytes(b"another")
    with pytest.raises(Refused) as caught:
        release_file.read(folder)
    assert caught.value.code == "wrong-digest"
    folder = release_kit.base(tmp_path / "tdx", "tdx")
    (folder / "packages.json").write_bytes(b"[]")
    with pytest.raises(Refused, match=r"packages\.json: not the file that base\.json names"):
        release_file.read(folder)


def test_a_base_that_is_not_the_released_one_is_told(bases, tmp_path):
    made = verify(written(bases)).release
    release_file.check_files(made, bases[1])
    for changed in ("tdx", "snp"):
        one = release_kit.base(
            tmp_path / "again" / changed,
            changed,
            packages=release_kit.PACKAGES[:1] if changed == "snp" else None,
        )
        with pytest.raises(Refused) as caught:
            release_file.check_files(made, release_file.read(one))
        assert caught.value.code == "other-file"


def test_values_and_bases_have_to_fit(bases, tmp_path):
    def release(bases, values):
        return release_file.release(bases, values, **TERMS)

    with pytest.raises(Misuse, match="snp: no reference values"):
        release(bases, {})
    with pytest.raises(Misuse, match="no base for it"):
        release(bases, {**SNP, "tdx": [{"mrtd": "aa" * 48}]})
    uki = release_file.read(release_kit.base(tmp_path / "uki", "uki"))
    with pytest.raises(Misuse, match="uki: no reference values"):
        release([uki], {})
    made = release([*bases, uki], {**SNP, "azure": [{"pcr4": "aa" * 32}], "gcp": [{"pcr4": "bb" * 32}]})
    assert [one.profile for one in made.platforms] == ["local", "snp", "uki-azure", "uki-gcp"]
    assert made.platform("gcp").references == ({"pcr4": "bb" * 32},)
    debug = release_file.read(release_kit.base(tmp_path / "debug", "snp", debug=True))
    with pytest.raises(Misuse) as caught:
        release([debug], SNP)
    assert caught.value.code == "debug-base"


def test_shapes_of_provenance_that_nobody_expects_show_as_nothing(bases):
    made = verify(written(bases))
    for odd in ({}, {"buildDefinition": []}, {"buildDefinition": {"resolvedDependencies": {}}}, None):
        assert replace(made, provenance=odd).packages == []
    assert replace(made, provenance={"runDetails": {"builder": {"id": 5}}}).builder == "nobody"


def test_package_urls():
    one = Package(kind="deb", name="libstdc++6", version="12.2.0-14", digest="sha256:" + "1" * 64)
    assert sbom.purl(one) == "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14?arch=amd64&distro=bookworm"
    assert sbom.purl(replace(one, suite="bookworm-backports")).endswith("distro=bookworm-backports")
    assert sbom.purl(replace(one, kind="builder", name="cpython")) == "pkg:generic/cpython@12.2.0-14"
