"""Junk for every file that the verbs of contracts, proofs, ledgers and identities read: a sentence, never a traceback."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from strongroom.cli import main
from strongroom.model.contracts import agreement
from strongroom_testing import brokers, packs
from tests import samples
from tests.effort import examples


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One good file of each kind."""
    folder = tmp_path_factory.mktemp("files")
    with packs.world(folder) as world:
        good = {
            "contract": world.agreement.encode(),
            "proof": world.pack().encode(),
            "party": world.anchors[0].encode(),
            "image": world.owners["bob"].manifest,
            "dataset": world.owners["alice"].manifest,
            "node": json.dumps({"root": samples.DIGEST, "machine": samples.DIGEST}).encode(),
            "base": json.dumps({"reference": samples.REFERENCE}).encode(),
            "bob": world.anchors[1].encode(),
        }
    for name, data in good.items():
        (folder / name).write_bytes(data)
    (folder / "identity").write_bytes(b"")
    return folder, good


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["strongroom", *map(str, words)])
    monkeypatch.setenv("STRONGROOM_PASSPHRASE", "x")
    with pytest.raises(SystemExit) as left:
        main.main()
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    assert "defect" not in told.err, told.err
    assert left.value.code in (0, None, 2, 3, 4, 5, 6)
    return left.value.code or 0, told


# Each verb, with the place of the file that is spoilt as a name in braces.
VERBS = {
    "contract-show": ("contract", ("contract", "show", "{contract}")),
    "contract-verify": ("contract", ("contract", "verify", "{contract}")),
    "contract-check": ("contract", ("contract", "check", "{contract}")),
    "contract-diff": ("contract", ("contract", "diff", "{contract}", "{contract}")),
    "contract-sign": ("contract", ("contract", "sign", "{contract}", "-i", "{identity}")),
    "proof-verify": ("proof", ("proof", "verify", "{proof}", "--trust", "{party}")),
    "proof-trust": ("party", ("proof", "verify", "{proof}", "--trust", "{party}")),
    "identity-show": ("party", ("identity", "show", "{party}")),
    "ledger-show": ("party", ("ledger", "show", "{party}")),
    **{
        f"contract-new-{kind}": (
            kind,
            (
                "contract", "new", "c", "--out", "{out}", "--party", "data-owner={party}", "--party", "program-owner={bob}",
                "--image", "{image}", "--dataset", "{dataset}", "--node", "{node}", "--base", "{base}",
            ),
        )
        for kind in ("party", "image", "dataset", "node", "base")
    },
}  # fmt: skip


def words(verb, folder, spoilt):
    kind, template = VERBS[verb]
    names = {path.name: path for path in folder.iterdir()} | {
        kind: spoilt,
        "out": spoilt.with_name("out.json"),
    }
    return [word.format_map({key: str(value) for key, value in names.items()}) for word in template]


@pytest.mark.parametrize("verb", sorted(VERBS))
@examples(25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_junk_files(verb, files, tmp_path, monkeypatch, capsys, data):
    folder, good = files
    kind = VERBS[verb][0]
    sound = good[kind]
    junk = data.draw(
        st.one_of(
            st.binary(max_size=200),
            st.integers(0, len(sound) - 1).map(lambda at: sound[:at]),
            st.tuples(st.integers(0, len(sound) - 1), st.binary(min_size=1, max_size=4)).map(
                lambda pair: sound[: pair[0]] + pair[1] + sound[pair[0] + len(pair[1]) :]
            ),
            st.sampled_from(
                [b"", b"null", b"[]", b"{}", b"1", b'""', b"[" * 10_000, b"{" * 10_000, b"9" * 5000]
            ),
        )
    )
    spoilt = tmp_path / "spoilt"
    spoilt.write_bytes(junk)
    (tmp_path / "out.json").unlink(missing_ok=True)
    code, told = run(monkeypatch, capsys, *words(verb, folder, spoilt))
    if code:
        assert told.err.strip()
    if verb == "proof-verify" and junk != sound:
        assert code in (2, 3)
        assert "the proof holds" not in told.out


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_folders_missing_files_and_devices(verb, files, tmp_path, monkeypatch, capsys):
    folder, _ = files
    for spoilt in (tmp_path, tmp_path / "absent", "/dev/null", "/dev/zero"):
        made = words(verb, folder, Path(spoilt))
        made = [str(tmp_path / "out.json") if word.endswith("out.json") else word for word in made]
        code, told = run(monkeypatch, capsys, *made)
        assert code in (2, 5), (spoilt, told)


@pytest.mark.parametrize(
    "option",
    [
        ("--days", 10**12), ("--days", -1), ("--runs", 0), ("--runs", 10**30), ("--threshold", 99), ("--threshold", -1),
        ("--memory-mib", 1), ("--wall-seconds", 0), ("--max-output", -5), ("--output", "/out"), ("--output", "/out="),
        ("--output", "/out=carol"), ("--output", "/out=,"), ("--output", "/out/../etc=bob"), ("--env", "LD PRELOAD=x"),
        ("--env", "=x"), ("--certificate-name", "*.example.org"), ("--certificate-name", "localhost"),
        ("--logs", "carol"), ("--argument", "\udcff"), ("--dataset", "=x"), ("--dataset", "a=/dev/null"),
        ("--party", "auditor"), ("--party", "king=x"), ("--replaces", "/dev/null"),
    ],
)  # fmt: skip
def test_options_that_make_no_contract(files, tmp_path, monkeypatch, capsys, option):
    folder, _ = files
    made = words("contract-new-node", folder, folder / "node")
    made[made.index("--out") + 1] = tmp_path / "out.json"
    code, told = run(monkeypatch, capsys, *made, *option)
    assert code in (2, 5), told
    assert told.err.strip()
    assert not (tmp_path / "out.json").exists()


def test_every_cut_of_a_contract_is_told(files, tmp_path, monkeypatch, capsys):
    _, good = files
    sound = good["contract"]
    for at in range(0, len(sound) - 1, 97):
        (tmp_path / "cut").write_bytes(sound[:at])
        assert run(monkeypatch, capsys, "contract", "verify", tmp_path / "cut")[0] == 2


def test_simulated_is_the_first_and_the_last_word_of_a_proof(files, monkeypatch, capsys):
    folder, _ = files
    words = ["proof", "verify", folder / "proof", "--trust", folder / "party", "--trust", folder / "bob"]
    code, told = run_ok(monkeypatch, capsys, *words)
    assert code == 0
    assert told.out.startswith("SIMULATED")
    assert told.out.splitlines()[-1] == "the proof holds, for a SIMULATED room"
    code, told = run_ok(monkeypatch, capsys, *words, "--json")
    assert json.loads(told.out)["simulated"] is True


def run_ok(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["strongroom", *map(str, words)])
    try:
        main.main()
    except SystemExit as left:
        return left.code or 0, capsys.readouterr()
    return 0, capsys.readouterr()


def test_an_unsigned_contract_is_not_verified(tmp_path, monkeypatch, capsys):
    (tmp_path / "c").write_bytes(agreement.draft(samples.a_contract()).encode())
    code, told = run(monkeypatch, capsys, "contract", "verify", tmp_path / "c")
    assert code == 3
    assert "not-approved" in told.err


def test_the_passphrase_of_tests_is_nowhere_in_what_is_printed(files, monkeypatch, capsys):
    folder, _ = files
    monkeypatch.setenv("STRONGROOM_PASSPHRASE", brokers.PASSPHRASE.decode())
    for verb in ("contract-show", "proof-verify"):
        _, told = run_ok(monkeypatch, capsys, *words(verb, folder, folder / VERBS[verb][0]))
        assert brokers.PASSPHRASE.decode() not in told.out + told.err
