"""What a program can say by the way: every field of a receipt, over everything that a program can do.

docs/limits.md tells the width of these channels in bits; it is counted here.
"""

from __future__ import annotations

import math
import os
import re
import signal
import tempfile
from dataclasses import fields as fields_of
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.agent import finish, outputs, program
from strongroom.errors import Malformed
from strongroom.model import manifest as manifest_model
from strongroom.model import receipt as receipt_model
from strongroom.model.contracts.contract import Disclosure, ExitStatus, OutputSizes
from strongroom.model.contracts.room_terms import Logs
from strongroom.model.receipt import DETAILS, Outcome, OutputRecord
from tests import samples
from tests.effort import examples

LIMITS = Path(__file__).parents[3] / "docs/limits.md"
SEEN = [None, *(code << 8 for code in range(256)), *range(1, 65)]  # wait statuses, and none
LEAVING = [(), ("entries-left-out",)]


def ends():
    """Every (outcome, status, details) that a started program can bring about, before outputs are looked at."""
    for status, timed_out, ran_out in product(SEEN, (False, True), (False, True)):
        yield program.judge(status=status, not_started="", timed_out=timed_out, ran_out=ran_out)


def receipts(disclosure):
    """Every (outcome, status, details) of a receipt that a started program can bring about."""
    contract = samples.a_contract(disclosure=disclosure)
    for outcome, status, details in set(ends()):
        kinds = [(outcome, details)]
        if outcome is Outcome.EXITED:
            kinds = [(Outcome.EXITED, (*details, *left)) for left in LEAVING]
            kinds += [(Outcome.OUTPUT_TOO_LARGE, (*details, code)) for code in outputs.TOO_LARGE]
        for kind, codes in kinds:
            yield kind, finish.shown_status(contract, status), tuple(sorted(codes))


@pytest.mark.parametrize(
    ("status", "most"), [(ExitStatus.EXACT, 12), (ExitStatus.ZERO_OR_ONE, 5)], ids=["exact", "coarse"]
)
def test_the_width_of_what_receipts_tell_is_the_limits_page_s(status, most):
    distinct = set(receipts(Disclosure(output_sizes=OutputSizes.EXACT, exit_status=status)))
    bits = math.log2(len(distinct))
    assert most - 1 < bits <= most
    assert f"`{status.value}`: {len(distinct)} different receipts, {most} bits" in LIMITS.read_text()


def test_every_end_parses_and_nothing_beyond_the_closed_set_does():
    base = a_receipt()
    for outcome, status, details in set(receipts(samples.a_contract().disclosure)):
        told = replace(base, outcome=outcome, exit_status=status, details=details)
        assert receipt_model.parse(told.encode()) == told
    for details in (
        ("3 entries left out",),
        ("killed by signal 9",),
        ("defect", "defect"),
        ("stopped", "defect"),
        ("",),
        ("data-64-corrupted",),
        ("data-01-corrupted",),
    ):
        with pytest.raises(Malformed, match=r"receipt\.details"):
            receipt_model.parse(replace(base, details=details).encode())


def a_receipt(**changes):
    disk = receipt_model.Disk(manifest_digest=samples.DIGEST, root_hash=samples.DIGEST)
    made = receipt_model.Receipt(
        room="main",
        run_id="run-" + "0" * 32,
        contract_digest=samples.DIGEST,
        signing_key=b"s" * 32,
        image=disk,
        datasets=(),
        outputs=(),
        outcome=Outcome.EXITED,
        exit_status=0,
        details=(),
        started=samples.NOW,
        ended=samples.NOW,
    )
    return replace(made, **changes)


def test_every_field_of_a_receipt_is_accounted_for():
    """A field that is added has to be put into one of these sets, and into the limits when a program chooses it."""
    agreed = {"run_id", "contract_digest", "room", "signing_key", "image", "datasets"}
    counted = {"outcome", "exit_status", "details"}
    clocked = {"sequence"}  # by renewals, which come by the clock
    rounded = {"egress"}  # to powers of two
    times = {"started", "ended"}
    sealed = {"path", "sealed_digest", "sealed_bytes", "content_commitment"}
    assert {one.name for one in fields_of(receipt_model.Receipt)} == (
        agreed | counted | clocked | rounded | times | {"outputs"}
    )
    assert {one.name for one in fields_of(OutputRecord)} == sealed
    assert all(re.fullmatch(r"[a-z0-9-]{1,32}", code) for code in DETAILS)


NAMES = st.binary(min_size=1, max_size=40).filter(
    lambda name: not {0, 47} & set(name) and name not in (b".", b"..")
)
THINGS = st.one_of(
    st.tuples(st.just("file"), st.binary(max_size=300)),
    st.tuples(st.just("link"), NAMES),
    st.tuples(st.just("sparse"), st.integers(0, 1 << 30)),
    st.tuples(st.just("folder"), st.just(b"")),
    st.tuples(st.just("fifo"), st.just(b"")),
)


@examples(80)
@given(
    things=st.dictionaries(NAMES, THINGS, max_size=8), log=st.binary(max_size=200), status=st.integers(0, 255)
)
def test_whatever_a_program_writes_receipts_tell_members_of_closed_sets(things, log, status):
    contract = samples.a_contract(
        logs=Logs(recipients=("bob",), max_bytes=1000),
        disclosure=Disclosure(output_sizes=OutputSizes.POWER_OF_TWO, exit_status=ExitStatus.ZERO_OR_ONE),
    )
    possible = set(receipts(contract.disclosure))
    with tempfile.TemporaryDirectory() as folder:
        for name, (kind, value) in things.items():
            write(os.fsencode(folder) + b"/" + name, kind, value)
        end = program.Ended(
            outcome=Outcome.EXITED, exit_status=status, details=(), started=0.0, ended=1.0, log=log
        )
        sealed = finish.seal(
            contract, contract.rooms[0], end, folder, memory=lambda: 1 << 28, random=os.urandom
        )
    try:
        told = sealed.ended
        shown = finish.shown_status(contract, told.exit_status)
        assert (told.outcome, shown, tuple(sorted(told.details))) in possible
        # Sizes: the padding's power of two, and the header of the age file, which is not the program's to choose.
        for _, file in sealed.files:
            size = file.seek(0, os.SEEK_END)
            assert min(abs(size - (1 << k) * (1 + 16 / 65536)) for k in range(12, 30)) < 1000
    finally:
        sealed.close()


def write(path, kind, value):
    if kind == "file":
        Path(os.fsdecode(path)).write_bytes(value)
    elif kind == "link":
        Path(os.fsdecode(path)).symlink_to(os.fsdecode(value))
    elif kind == "sparse":
        with Path(os.fsdecode(path)).open("wb") as file:
            file.truncate(value)
    elif kind == "folder":
        Path(os.fsdecode(path)).mkdir()
    else:
        os.mkfifo(path)


def test_signals_are_as_coarse_as_the_status():
    contract = samples.a_contract(
        disclosure=Disclosure(output_sizes=OutputSizes.EXACT, exit_status=ExitStatus.ZERO_OR_ONE)
    )
    assert finish.shown_status(contract, int(signal.SIGSEGV)) == 1
    assert finish.shown_status(contract, 0) == 0


def test_a_padded_output_shows_one_of_few_sizes():
    most = 16 << 20  # what `contract new` gives an output
    sizes = {
        outputs.padded_size(size, OutputSizes.POWER_OF_TWO) for size in range(1, most + (64 << 20), 4096)
    }
    assert len(sizes) == 16
    assert "16 different sizes, 4 bits" in LIMITS.read_text()


def test_a_manifest_has_no_digest_of_what_is_unsealed():
    """Root hashes are over ciphertext when a disk is encrypted, and so is what `key_check` is keyed over: by a random key
    of 256 bits or more, which nobody guesses. Nothing else of a manifest is computed from content."""
    assert {one.name for one in fields_of(manifest_model.Manifest)} == {
        "raw", "kind", "name", "owner", "cipher", "data_bytes", "hash_offset", "disk_bytes", "root_hash", "salt", "image",
        "key_check",
    }  # fmt: skip
