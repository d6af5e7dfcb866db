"""Limits at their edges and one beyond (market.md 8); outcomes keep outputs out of sight."""

import pytest

from edgora.compute.limits import Limits, Outcome
from edgora.wire.errors import Refused, TooLarge
from edgora.wire.market import ResultCode

EDGES = {
    "fuel": (1, 10**12),
    "memory_pages": (0, 1024),
    "output_octets": (0, 16 * 1024 * 1024),
    "wall_ms": (1, 3_600_000),
}
PLAIN = {"fuel": 10, "memory_pages": 1, "output_octets": 1, "wall_ms": 1}


@pytest.mark.parametrize("name", EDGES)
def test_edges_are_taken_and_one_beyond_is_refused_by_name(name):
    least, most = EDGES[name]
    assert getattr(Limits(**{**PLAIN, name: least}), name) == least
    assert getattr(Limits(**{**PLAIN, name: most}), name) == most
    with pytest.raises(Refused) as low:
        Limits(**{**PLAIN, name: least - 1})
    with pytest.raises(TooLarge) as high:
        Limits(**{**PLAIN, name: most + 1})
    assert low.value.field == high.value.field == name
    assert str(most) in high.value.detail


def test_an_outcome_does_not_show_its_output():
    outcome = Outcome(code=ResultCode.OK, output=b"a diagnosis", fuel_used=1, wall_ms=1)
    assert "diagnosis" not in repr(outcome)
