"""Whoever requires a proof to hold gets every reason why it does not as an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from strongroom.errors import Refused
from strongroom.ledger import audit, export
from strongroom.ledger.inspect import Judgement
from strongroom.model.verdict import Explained
from tests import samples


def judgement(*failed):
    checks = tuple(
        Explained(
            name=name,
            expected="a",
            got="b" if name in failed else "a",
            ok=name not in failed,
            hint=f"mend {name}",
        )
        for name in ("parties", "receipt", "ledger")
    )
    return Judgement(checks=checks, simulated=False)


def test_one_that_holds_is_required_in_silence():
    export.require_proof(judgement())
    export.require_proof(judgement(), trust=[samples.ALICE.party()])


@pytest.mark.parametrize(
    ("failed", "trust", "why", "hint"),
    [
        (("parties",), (), "nobody can say whether the proof holds: it agrees with itself", "mend parties"),
        (("parties",), (samples.ALICE.party(),), "does not hold: parties$", "mend parties"),
        (("receipt", "parties"), (), "does not hold: parties, receipt$", "mend parties"),
        (("ledger", "receipt"), (samples.ALICE.party(),), "does not hold: receipt, ledger$", "mend receipt"),
    ],
)
def test_one_that_does_not_names_what_failed(failed, trust, why, hint):
    with pytest.raises(Refused, match=why) as caught:
        export.require_proof(judgement(*failed), trust=trust)
    assert (caught.value.code, caught.value.hint) == ("proof-fails", hint)


def test_what_was_seen_of_a_ledger_is_beside_its_owners_party_file():
    assert audit.remembered(Path("x/alice.party.json")) == Path("x/alice.party.json.checkpoint")
