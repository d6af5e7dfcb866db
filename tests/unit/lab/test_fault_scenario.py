"""Whether faults are allowed is the scenario's word, and no other file says yes by accident."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from edgora.lab.demo import DEMO_SETTINGS
from edgora.lab.scenario import Faults, load
from edgora.wire.errors import Refused

SCENARIOS = Path(__file__).parents[3] / "deploy" / "scenarios"


def test_only_the_scenario_for_it_allows_faults() -> None:
    assert not load(None).faults.allowed
    assert not load(None, DEMO_SETTINGS).faults.allowed
    allowed = [path.name for path in sorted(SCENARIOS.glob("*.toml")) if load(path).faults.allowed]
    assert allowed == ["faults.toml"]


def test_it_is_the_compose_scenario_otherwise() -> None:
    broken, whole = load(SCENARIOS / "faults.toml"), load(SCENARIOS / "compose.toml")
    assert replace(broken, name=whole.name, faults=Faults()) == whole


def test_a_wrong_word_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        load(None, ["faults.allowed=maybe"])
    assert refused.value.field == "faults.allowed"
