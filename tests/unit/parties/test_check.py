"""Whether a contract of several rooms would run: said of each."""

from __future__ import annotations

import pytest

from strongroom.errors import Malformed, Refused
from strongroom.model.verdict import Check
from strongroom.parties.check import check_contract
from tests import samples

AGREEMENT = samples.signed(
    samples.a_contract(
        rooms=(samples.a_room(name="db"), samples.a_room(name="web"), samples.a_room(name="log", datasets=()))
    )
)


def outlook(**options):
    asked = []

    def ask(_address, _signed, room):
        asked.append(room)
        return (Check(name="contract.runs", expected=1, got=1 if room == "db" else 0, ok=room != "db"),)

    return check_contract(AGREEMENT, now=samples.NOW, ask=ask, **options), asked


def test_a_room_that_would_not_run_is_told_from_one_that_would():
    whole, asked = outlook()
    assert asked == ["db", "web"]  # alice has no disk in the third
    assert whole.rooms == {"db": False, "web": True}
    assert not whole.would_run


def test_brokers_are_asked_about_that_room_alone():
    one, asked = outlook(room="web")
    assert (asked, one.rooms) == (["web"], {"web": True})
    with pytest.raises(Malformed, match="no room is called 'cellar'"):
        outlook(room="cellar")


def test_the_sentence_names_the_rooms():
    whole, _ = outlook()
    rest = [check for check in whole.checks if not check.ok]
    assert {check.name for check in rest} == {"contract.broker"}  # nobody judges `log`
    sound = type(whole)(checks=(), brokers=whole.brokers)
    with pytest.raises(Refused, match="db would not run now; web would"):
        sound.require()
