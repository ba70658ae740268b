"""Endorsements by files: whom to ask, what is kept where, and what a file of them may not be. The services have tests of their own."""

from __future__ import annotations

from datetime import timedelta

import pytest

from strongroom.errors import Malformed, Misuse, NotFound, Refused, Unavailable
from strongroom.evidence import roots, verify
from strongroom.fetch.endorsements import amd, fetch, intel
from strongroom.fetch.endorsements.resolve import Fetcher
from strongroom.model import endorsements
from strongroom_testing.vendors.vendor_services import serve
from tests.unit.fetch.vendors import BOUND, NOW, chip, fetcher, library
from tests.unit.fetch.vendors import intel as fake_intel


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    with serve(
        tmp_path_factory.mktemp("services"),
        now=NOW,
        amd=(chip(), chip("Milan", vlek=True)),
        intel=fake_intel(),
    ) as running:
        yield running


def test_vendors_are_their_own_services_unless_somebody_says_otherwise(tmp_path):
    assert (fetch.choose_vendors().pcs, fetch.choose_vendors().kds) == (intel.PCS, amd.KDS)
    ca = tmp_path / "ca.pem"
    chosen = fetch.choose_vendors(pccs="https://pccs.example", ca=ca)
    assert (chosen.kds, chosen.pcs.lists) == (amd.KDS, None)
    assert (chosen.pcs.api.private, chosen.pcs.api.ca, chosen.pcs.api.plain) == (True, ca, False)
    chosen = fetch.choose_vendors(kds="https://kds.example:444")
    assert (chosen.pcs, chosen.kds.place()) == (intel.PCS, ("kds.example", 444))


@pytest.mark.parametrize(
    ("asked", "option"),
    [
        ({"ca": "ca.pem"}, "--ca"),
        ({"pccs": "http://pccs.example"}, "--pccs"),
        ({"kds": "kds.example"}, "--kds"),
        ({"kds": "https://name:secret@kds.example"}, "--kds"),
    ],
)
def test_a_place_that_is_none_is_refused_by_its_option(asked, option):
    with pytest.raises(Misuse, match=f"^{option}:") as caught:
        fetch.choose_vendors(**asked)
    assert caught.value.hint


def test_a_library_counts_the_pinned_roots_and_those_that_are_named(tmp_path, monkeypatch):
    more = "sha256:" + "a" * 64
    assert fetch.open_library(tmp_path, roots=[more]).roots == roots.PINNED | {more}
    assert fetch.open_library(tmp_path).roots == roots.PINNED
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert fetch.open_library().shelf.folder == tmp_path / "strongroom/endorsements"
    for digest in ("a" * 64, "sha256:" + "A" * 64, ""):
        with pytest.raises(Misuse, match=r"^--root:"):
            fetch.open_library(tmp_path, roots=[more, digest])


def test_what_was_fetched_is_written_for_the_verifier(tmp_path, services):
    evidence = fake_intel().evidence(BOUND)
    (tmp_path / "e").write_bytes(evidence.encode())
    (tmp_path / "out").write_text("older")
    fetched = fetch.fetch_endorsements(
        tmp_path / "e", fetcher=fetcher(tmp_path, services), now=NOW, out=tmp_path / "out"
    )
    written = endorsements.parse((tmp_path / "out").read_bytes())
    assert (fetched.tee, fetched.endorsements) == ("tdx", written)
    verify.verify(evidence, written, binding=BOUND, roots=frozenset({fake_intel().root_digest}), now=NOW)


def test_a_certificate_of_ones_own_is_taken_in_der_and_pem_and_nothing_else(tmp_path, services):
    provider = chip("Milan", vlek=True)
    (tmp_path / "e").write_bytes(provider.evidence(BOUND).encode())
    asking = {"fetcher": fetcher(tmp_path, services), "now": NOW}
    with pytest.raises(NotFound, match="VLEK"):
        fetch.fetch_endorsements(tmp_path / "e", **asking)
    (tmp_path / "vlek.der").write_bytes(provider.endorsements().parts["vek"])
    fetched = fetch.fetch_endorsements(tmp_path / "e", vek=tmp_path / "vlek.der", **asking)
    assert fetched.endorsements.parts["vek"] == (tmp_path / "vlek.der").read_bytes()
    for data in (b"", b"junk", bytes(fetch.MAX_VEK + 1)):
        (tmp_path / "vlek.der").write_bytes(data)
        with pytest.raises(Malformed) as caught:
            fetch.fetch_endorsements(tmp_path / "e", vek=tmp_path / "vlek.der", **asking)
        assert str(tmp_path / "vlek.der") in caught.value.message


def test_after_a_refusal_nothing_is_written(tmp_path, services):
    (tmp_path / "e").write_bytes(fake_intel().evidence(BOUND).encode())
    offline = Fetcher(library=library(tmp_path / "l", offline=True), vendors=services.vendors)
    with pytest.raises(Unavailable, match="this is offline"):
        fetch.fetch_endorsements(tmp_path / "e", fetcher=offline, now=NOW, out=tmp_path / "out")
    stranger = Fetcher(
        library=library(tmp_path / "m", roots={"sha256:" + "0" * 64}), vendors=services.vendors
    )
    with pytest.raises(Refused, match="root"):
        fetch.fetch_endorsements(tmp_path / "e", fetcher=stranger, now=NOW, out=tmp_path / "out")
    (tmp_path / "junk").write_bytes(b"junk")
    with pytest.raises(Malformed) as caught:
        fetch.fetch_endorsements(
            tmp_path / "junk", fetcher=fetcher(tmp_path, services), now=NOW, out=tmp_path / "out"
        )
    assert caught.value.file == tmp_path / "junk"
    assert not (tmp_path / "out").exists()


def test_a_file_of_statements_is_counted_carried_and_named_when_it_is_none(tmp_path, services):
    here = fetcher(tmp_path, services)
    here.endorse(fake_intel().evidence(BOUND), now=NOW)
    exported = fetch.export_endorsements(here.library, out=tmp_path / "bundle", now=NOW)
    assert exported == fetch.ExportedStatements(statements=4, size=(tmp_path / "bundle").stat().st_size)
    there = library(tmp_path / "there", offline=True)
    assert len(fetch.import_endorsements(tmp_path / "bundle", library=there, now=NOW).kept) == 4
    late = fetch.import_endorsements(tmp_path / "bundle", library=there, now=NOW + timedelta(days=31))
    assert len(late.past) == 3
    with pytest.raises(Refused) as caught:
        fetch.import_endorsements(tmp_path / "bundle", library=there, now=NOW - timedelta(days=1))
    assert (caught.value.code, caught.value.file) == ("not-yet", tmp_path / "bundle")
    (tmp_path / "bundle").write_bytes((tmp_path / "bundle").read_bytes()[:-1])
    with pytest.raises(Malformed) as caught:
        fetch.import_endorsements(tmp_path / "bundle", library=there, now=NOW)
    assert caught.value.file == tmp_path / "bundle"
