"""Bases of several profiles: each into a folder of its own, in the order asked for, and told step by step."""

from __future__ import annotations

import pytest

from strongroom.bases import build, profile
from strongroom.errors import Unavailable


@pytest.fixture
def built(monkeypatch):
    """What would be built: profile, target, whether by force, whether with a console; `snp` is in the cache, and `tdx` cannot be had."""
    asked = []

    def one_base(sources, cache, progress, *, out=None, force=False):
        kind, debug, signer = sources
        if kind.name == "tdx":
            raise Unavailable("no packages", hint="later")
        asked.append((kind.name, out, force, debug, signer))
        return build.BuiltBase(folder=cache / kind.name, base=None, cached=kind.name == "snp")

    monkeypatch.setattr(build, "sources", lambda *, profile, debug, signer: (profile, debug, signer))
    monkeypatch.setattr(build, "build", one_base)
    return asked


def of(*names):
    return [profile.PROFILES[name] for name in names]


def test_one_profile_goes_into_the_folder_itself(built, tmp_path):
    steps = []
    bases = build.build_bases(
        [profile.LOCAL], cache=tmp_path, out=tmp_path / "out", debug=True, progress=steps.append
    )
    assert built == [("local", tmp_path / "out", False, True, None)]
    assert [base.folder for base in bases] == [tmp_path / "local"]
    assert steps == ["looking at packages", "built"]


def test_several_go_into_folders_of_their_names(built, tmp_path):
    steps = []
    profiles = of("snp", "local")
    build.build_bases(profiles, cache=tmp_path, out=tmp_path / "out", force=True, progress=steps.append)
    assert [row[:3] for row in built] == [
        ("snp", tmp_path / "out/snp", True),
        ("local", tmp_path / "out/local", True),
    ]
    assert steps == [
        *("looking at packages (snp)", "taken from the cache"),
        *("looking at packages (local)", "built"),
    ]
    built.clear()
    build.build_bases(profiles, cache=tmp_path)
    assert [row[1] for row in built] == [None, None]


def test_after_a_failure_no_further_base_is_begun(built, tmp_path):
    with pytest.raises(Unavailable, match="no packages"):
        build.build_bases(of("local", "tdx", "snp"), cache=tmp_path)
    assert [row[0] for row in built] == ["local"]
    assert build.build_bases((), cache=tmp_path) == ()
