"""The invariants are only worth what they catch: planted bugs must be found (market.md 10). `mutants.py` runs them all."""

import pytest

from unit.market.mutants import MUTANTS, in_process_of_its_own

QUICK = ("room not reduced", "reserved not freed", "one Held enough")


@pytest.mark.parametrize("name", QUICK)
def test_a_planted_bug_is_caught(name):
    found, what = in_process_of_its_own(name)
    assert found, what


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MUTANTS if name not in QUICK])
def test_every_planted_bug_is_caught(name):
    found, what = in_process_of_its_own(name)
    assert found, what


@pytest.mark.slow
def test_the_sound_market_is_not_accused():
    found, what = in_process_of_its_own("")
    assert not found, what
