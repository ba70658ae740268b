"""`strongroom endorsements`, and files over air gaps: fetched here, verified there, nothing older taken."""

from __future__ import annotations

import json
import sys

import pytest

from strongroom.cli import main as entry
from strongroom.encoding import canonical
from strongroom.errors import Malformed, Refused, Unavailable
from strongroom.evidence import verify
from strongroom.fetch.endorsements import bundle
from strongroom.fetch.endorsements.statement import Statement
from strongroom.model import endorsements
from strongroom_testing.vendors.vendor_services import serve
from tests.unit.fetch.vendors import BOUND, DAY, NOW, chip, fetcher, intel, library


@pytest.fixture
def services(tmp_path):
    with serve(tmp_path, now=NOW, amd=(chip(), chip("Milan", vlek=True)), intel=intel()) as made:
        yield made


@pytest.fixture
def full(tmp_path, services):
    made = fetcher(tmp_path / "here", services)
    made.endorse(intel().evidence(BOUND), now=NOW)
    made.endorse(chip().evidence(BOUND), now=NOW)
    return made.library


def there(tmp_path, **options):
    return library(tmp_path / "there", offline=True, **options)


def test_what_was_fetched_here_verifies_there(tmp_path, services, full):
    data = bundle.export(full, now=NOW)
    done = bundle.take(data, there(tmp_path), now=NOW)
    assert len(done.kept) == 7
    for evidence, root in (
        (intel().evidence(BOUND), intel().root_digest),
        (chip().evidence(BOUND), chip().root),
    ):
        found = fetcher(tmp_path / "there", services, offline=True).endorse(evidence, now=NOW)
        verify.verify(evidence, found, binding=BOUND, roots=frozenset({root}), now=NOW)
    assert bundle.export(there(tmp_path), now=NOW) == data


def test_taking_the_same_again_changes_nothing(tmp_path, full):
    data = bundle.export(full, now=NOW)
    bundle.take(data, there(tmp_path), now=NOW)
    assert len(bundle.take(data, there(tmp_path), now=NOW).kept) == 7


def test_what_is_past_its_end_is_passed_over(tmp_path, full):
    done = bundle.take(bundle.export(full, now=NOW), there(tmp_path), now=NOW + 31 * DAY)
    assert set(done.past) == {
        "intel/crl/platform",
        "intel/qe/tdx/standard",
        "intel/tcb/tdx/00906ed50000/standard",
    }
    assert len(done.kept) == 4


def test_only_what_counts_is_exported(full):
    later = bundle.parse(bundle.export(full, now=NOW + 31 * DAY))
    assert len(later) == 4


def test_rule_02_a_file_with_something_older_than_seen_is_refused_whole(tmp_path, services, full):
    old = bundle.export(full, now=NOW)
    services.again(tcb={"tcbEvaluationDataNumber": 18})
    new = fetcher(tmp_path / "new", services)
    new.endorse(intel().evidence(BOUND), now=NOW)
    target = there(tmp_path)
    bundle.take(bundle.export(new.library, now=NOW), target, now=NOW)
    before = {one.statement.key for one in target.listed(now=NOW)}
    with pytest.raises(Refused) as refusal:
        bundle.take(old, target, now=NOW)
    assert refusal.value.code == "downgrade"
    assert {one.statement.key for one in target.listed(now=NOW)} == before


def test_a_newer_one_kept_before_stays(tmp_path, services, full):
    old = bundle.export(full, now=NOW)
    later = (NOW + DAY / 24).strftime("%Y-%m-%dT%H:%M:%SZ")
    services.again(tcb={"issueDate": later})
    new = fetcher(tmp_path / "there", services)
    fetched = new.endorse(intel().evidence(BOUND), now=NOW + DAY)
    done = bundle.take(old, there(tmp_path), now=NOW + DAY)
    assert "intel/tcb/tdx/00906ed50000/standard" in done.newer_before
    again = fetcher(tmp_path / "there", services, offline=True).endorse(
        intel().evidence(BOUND), now=NOW + DAY
    )
    assert again.parts["tcb-info"] == fetched.parts["tcb-info"]


def test_a_file_for_another_root_is_refused(tmp_path, full):
    target = there(tmp_path, roots={"sha256:" + "0" * 64})
    with pytest.raises(Refused, match="the path ends in sha256:"):
        bundle.take(bundle.export(full, now=NOW), target, now=NOW)
    assert list(target.listed(now=NOW)) == []


def test_a_file_from_the_future_is_refused(tmp_path, full):
    with pytest.raises(Refused) as refusal:
        bundle.take(bundle.export(full, now=NOW), there(tmp_path), now=NOW - DAY)
    assert refusal.value.code == "not-yet"


def test_every_changed_part_of_a_file_is_refused(tmp_path, full):
    statements = bundle.parse(bundle.export(full, now=NOW))
    for index, one in enumerate(statements):
        for name, part in one.parts.items():
            at = len(part) // 2
            spoiled = part[:at] + bytes([part[at] ^ 1]) + part[at + 1 :]
            changed = Statement(key=one.key, parts={**one.parts, name: spoiled}, fetched=one.fetched)
            data = bundle.encode([*statements[:index], changed, *statements[index + 1 :]])
            target = there(tmp_path)
            with pytest.raises((Malformed, Refused)):
                bundle.take(data, target, now=NOW)
            assert list(target.listed(now=NOW)) == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda top: top.update(format="other"), "expected 'strongroom-endorsements/1'"),
        (lambda top: top.update(more=1), "unknown key 'more'"),
        (lambda top: top["statements"].append(top["statements"][0]), "the same statement twice"),
        (
            lambda top: top["statements"][0].update(key="unheard/of"),
            "'unheard/of': no statement that this version knows",
        ),
        (lambda top: top["statements"][0].update(key="amd/crl/vcek/Milan"), "the same statement twice"),
        (lambda top: top["statements"][0].pop("fetched"), "key 'fetched' is missing"),
        (lambda top: top["statements"][0].update(parts={}), "expected 1 to 4 named parts"),
        (lambda top: top["statements"][0]["parts"].update(issuers="*"), "parts.issuers: expected base64"),
        (lambda top: top["statements"][0]["parts"].update({"../x": "AA=="}), "expected 1 to 4 named parts"),
        (lambda top: top.update(statements={}), "expected a list of at most 2048"),
    ],
)
def test_files_that_are_none_are_refused(tmp_path, full, change, why):
    top = json.loads(bundle.export(full, now=NOW))
    change(top)
    with pytest.raises(Malformed, match=why):
        bundle.take(canonical.dumps(top), there(tmp_path), now=NOW)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "expected an object"),
        (b"\xff", "not JSON"),
        (b'{"format":"strongroom-endorsements/1"}', "key 'statements' is missing"),
    ],
)
def test_junk_is_malformed(tmp_path, data, why):
    with pytest.raises(Malformed, match=why):
        bundle.take(data, there(tmp_path), now=NOW)


def test_nothing_there_says_so(tmp_path, services):
    with pytest.raises(Unavailable, match="amd/chain/vcek/Milan: not kept, and this is offline"):
        fetcher(tmp_path / "there", services, offline=True).endorse(chip().evidence(BOUND), now=NOW)


# The verb


@pytest.fixture
def verb(tmp_path, services, monkeypatch, capsys):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def run(*arguments, roots=True):
        trusted = [f"--root={chip().root}", f"--root={intel().root_digest}"] if roots else []
        monkeypatch.setattr(sys, "argv", ["strongroom", "endorsements", *map(str, arguments), *trusted])
        try:
            entry.main()
        except SystemExit as ended:
            code = ended.code or 0
        else:
            code = 0
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def asking(services):
    return ("--kds", services.base, "--pccs", services.base, "--ca", services.ca)


def test_fetch_list_export_import(tmp_path, services, verb):
    for one, name in ((chip().evidence(BOUND), "snp"), (intel().evidence(BOUND), "tdx")):
        (tmp_path / name).write_bytes(one.encode())
        out = tmp_path / f"{name}.endorsements"
        code, said, err = verb("fetch", "--evidence", tmp_path / name, "--out", out, *asking(services))
        assert (code, err) == (0, "")
        assert "bytes" in said
        roots = frozenset({chip().root, intel().root_digest})
        verify.verify(one, endorsements.parse(out.read_bytes()), binding=BOUND, roots=roots, now=NOW)
    code, said, _ = verb("list")
    assert said.count("current, until") == 7
    assert "number 17" in said
    code, said, _ = verb("list", "--json")
    assert {one["state"] for one in json.loads(said)} == {"current"}
    code, said, _ = verb("export", tmp_path / "bundle")
    assert "7 statements" in said
    code, said, _ = verb("import", tmp_path / "bundle", "--folder", tmp_path / "other", "--json")
    assert len(json.loads(said)["kept"]) == 7
    services.asked.clear()
    code, said, _ = verb(
        "fetch", "--offline", "--folder", tmp_path / "other", "--evidence", tmp_path / "tdx", "--json"
    )
    assert code == 0
    assert json.loads(said)["parts"]["tcb-info"] > 1000
    assert services.asked == []
    assert (tmp_path / "state" / "strongroom" / "endorsements" / "seen.marks").is_file()


def test_raw_evidence_is_recognised(tmp_path, services, verb):
    (tmp_path / "report.bin").write_bytes(chip().evidence(BOUND).parts["report"])
    assert verb("fetch", "--evidence", tmp_path / "report.bin", *asking(services))[0] == 0


def test_a_vlek_certificate_is_brought_by_file(tmp_path, services, verb):
    one = chip("Milan", vlek=True)
    (tmp_path / "e").write_bytes(one.evidence(BOUND).encode())
    (tmp_path / "vlek.der").write_bytes(one.endorsements().parts["vek"])
    code, _, err = verb("fetch", "--evidence", tmp_path / "e", *asking(services))
    assert code == 5
    assert "VLEK" in err
    assert (
        verb("fetch", "--evidence", tmp_path / "e", "--vek", tmp_path / "vlek.der", *asking(services))[0] == 0
    )


def test_failures_have_their_exit_codes(tmp_path, services, verb):
    (tmp_path / "e").write_bytes(intel().evidence(BOUND).encode())
    (tmp_path / "junk").write_bytes(b"junk")
    assert verb("fetch", "--offline", "--evidence", tmp_path / "e")[0] == 4
    assert verb("fetch", "--evidence", tmp_path / "junk")[0] == 2
    assert verb("fetch", "--evidence", tmp_path / "none")[0] == 5
    assert verb("fetch", "--evidence", tmp_path / "e", *asking(services), roots=False)[0] == 3
    assert verb("fetch", "--evidence", tmp_path / "e", "--root", "x")[0] == 2
    assert verb("fetch", "--evidence", tmp_path / "e", "--ca", services.ca)[0] == 2
    assert verb("fetch", "--evidence", tmp_path / "e", "--pccs", "http://127.0.0.1")[0] == 2
    assert verb("fetch", "--evidence", tmp_path / "e", "--pccs", "https://169.254.169.254")[0] == 3
    assert verb("import", tmp_path / "junk")[0] == 2
    assert services.asked == []


def test_an_empty_folder_lists_nothing(verb):
    assert verb("list")[1] == "nothing is kept\n"
