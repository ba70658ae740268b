"""No two files of a run's folder have one name, whatever its parties are called."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from strongroom.encoding import fields
from strongroom.model.room import channel, run_files

NAMES = st.from_regex(fields.NAME, fullmatch=True)
# Names that a kind, a fixed file or an ending of this folder has.
NASTY = (
    *("key", "json", "receipt", "release", "evidence", "receipt.json", "agreement", "status", "image", "manifests"),
    *("log.age", "out-0", "out-0.tar.age", "release-a", "receipt-a", "a.json", "a", "a.part", "launch-record"),
)  # fmt: skip


def all_of(parties: list[str]) -> list[str]:
    of_parties = (run_files.evidence, run_files.release, run_files.ledger_proof)
    return [
        *run_files.OWN_NAMES,
        *(name(party) for name in of_parties for party in parties),
        *(run_files.output(number) for number in range(64)),
        *(
            run_files.manifest(serial)
            for serial in (channel.SERIAL_IMAGE, *map(channel.data_serial, range(64)))
        ),
    ]


@given(st.lists(st.one_of(NAMES, st.sampled_from(NASTY)), unique=True, max_size=8))
def test_no_two_files_meet_and_each_is_read_back(parties):
    names = all_of(parties)
    assert len(set(names)) == len(names)
    assert not any(name.startswith(".") for name in names)
    for party in parties:
        for name in (run_files.evidence(party), run_files.release(party), run_files.ledger_proof(party)):
            assert run_files.party_of(name) == party
            assert run_files.output_of(name) is None
    for number in range(64):
        assert run_files.output_of(run_files.output(number)) == number
    assert [run_files.party_of(name) for name in run_files.OWN_NAMES] == [None] * len(run_files.OWN_NAMES)


def test_names_of_parties_hold_no_path_and_no_case():
    for name in ("..", ".", "a/b", "A", "a\n", "", "-a", "a-", ".a", "é", "a" * 65):
        assert fields.NAME.fullmatch(name) is None
        assert run_files.party_of(f"receipt-{name}.json") is None
