"""Files that parties hold, by their paths: which is which, what is written over, and what is said of one that is none."""

from __future__ import annotations

import pytest

from strongroom.errors import Malformed, Misuse, NotFound, Refused
from strongroom.model import identity
from strongroom.model.contracts import agreement
from strongroom.parties import papers, sign
from tests import samples


@pytest.fixture
def folder(tmp_path):
    locked = identity.lock(samples.ALICE, b"x", random=lambda count: b"\x01" * count)
    (tmp_path / "alice.identity").write_bytes(locked)
    (tmp_path / "alice.party.json").write_bytes(samples.ALICE.party(samples.broker()).encode())
    (tmp_path / "contract.json").write_bytes(agreement.draft(samples.a_contract()).encode())
    (tmp_path / "junk").write_bytes(b"junk")
    return tmp_path


def test_an_identity_and_a_party_file_are_told_apart(folder):
    assert papers.load_public_or_party(folder / "alice.identity") == (samples.ALICE.party(), True)
    assert papers.load_public_or_party(folder / "alice.party.json") == (
        samples.ALICE.party(samples.broker()),
        False,
    )
    for name in ("junk", "contract.json"):
        with pytest.raises(Malformed, match=name):
            papers.load_public_or_party(folder / name)


def test_a_party_file_of_ones_own_that_is_not_there_says_whose_it_is(folder):
    assert papers.load_own_party(folder / "alice.party.json").name == "alice"
    for name in ("nobody.party.json", "."):
        with pytest.raises(NotFound, match="your own party file is not there") as caught:
            papers.load_own_party(folder / name)
        assert caught.value.code == "no-party-file"


def test_a_contract_is_written_whole_and_over_none_that_nobody_named(folder):
    drafted = papers.load_agreement(folder / "contract.json")
    with pytest.raises(Misuse, match="exists already"):
        papers.save_agreement(drafted, out=folder / "contract.json")
    signed = agreement.add_signature(drafted, samples.ALICE.signing)
    papers.save_agreement(signed, out=folder / "contract.json", replace=True)
    assert papers.load_agreement(folder / "contract.json") == signed
    (folder / "link").symlink_to("contract.json")
    with pytest.raises(Misuse, match="is no plain file"):
        papers.save_agreement(drafted, out=folder / "link", replace=True)


def copies(folder):
    drafted = papers.load_agreement(folder / "contract.json")
    for party in (samples.ALICE, samples.BOB):
        signed = agreement.add_signature(drafted, party.signing)
        papers.save_agreement(signed, out=folder / f"{party.name}.json")
    return [folder / "alice.json", folder / "bob.json"]


def test_copies_are_merged_into_a_new_file_or_into_one_of_them(folder):
    paths = copies(folder)
    merged = sign.merge_contracts(paths, out=folder / "both.json")
    assert merged.agreement.approved()
    assert merged.left_out == ()
    assert papers.load_agreement(folder / "both.json") == merged.agreement
    assert sign.merge_contracts(paths, out=paths[0]).agreement == papers.load_agreement(paths[0])
    with pytest.raises(Misuse, match="exists already"):
        sign.merge_contracts(paths, out=folder / "contract.json")
    assert papers.load_agreement(folder / "contract.json").signers() == ()


def test_what_is_another_contract_or_none_is_not_merged(folder):
    paths = copies(folder)
    other = agreement.draft(samples.a_contract(id="other"))
    papers.save_agreement(other, out=folder / "other.json")
    with pytest.raises(Refused, match="file 2 is another contract"):
        sign.merge_contracts([paths[0], folder / "other.json"], out=folder / "both.json")
    with pytest.raises(Malformed, match="junk"):
        sign.merge_contracts([paths[0], folder / "junk"], out=folder / "both.json")
    assert not (folder / "both.json").exists()


def test_a_contract_that_too_few_have_signed_names_who_is_missing_and_what_they_type(folder):
    paths = copies(folder)
    sign.require_approved(
        sign.merge_contracts(paths, out=folder / "both.json").agreement, file=folder / "both.json"
    )
    with pytest.raises(Refused, match="not approved") as caught:
        sign.require_approved(papers.load_agreement(paths[0]), file=paths[0])
    assert caught.value.code == "not-approved"
    assert "bob" in caught.value.hint
    assert f"contract sign {paths[0]}" in caught.value.hint
