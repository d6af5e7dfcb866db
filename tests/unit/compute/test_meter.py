"""Pace and calibration."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgora.compute.engine import compile_module
from edgora.compute.meter import calibrate, release_ms
from edgora.compute.sandbox import Sandbox
from edgora.wire.errors import Unavailable


def test_the_slower_of_machine_and_model_rules():
    assert release_ms(1_000_000, 1_000_000, 20) == 1000
    assert release_ms(1_000_000, 1_000_000, 2000) == 2000
    assert release_ms(0, 5, 0) == 0
    assert release_ms(1, 1_000_000, 0) == 1  # never early: rounded up


@given(fuel=st.integers(0, 10**12), speed=st.integers(1, 10**12), wall=st.integers(0, 10**7))
def test_release_is_never_before_wall_or_pace(fuel, speed, wall):
    due = release_ms(fuel, speed, wall)
    assert due >= wall
    assert due * speed >= 1000 * fuel
    assert due == wall or (due - 1) * speed < 1000 * fuel


def test_no_speed_is_an_error():
    with pytest.raises(ValueError, match="positive"):
        release_ms(1, 0, 0)


class Steps:
    """A clock that moves one second a look."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


def test_calibration_is_fuel_over_time_less_a_margin():
    """One slot: 28 fuel a step and the filling of 960 pages, in the one second that the clock gives it."""
    speed = calibrate(Sandbox(), 1, steps=10_000, clock=Steps())
    fuel = 10_000 * 28 + 960 * 1024 * 12
    assert fuel * 0.79 < speed < fuel * 0.82


def test_calibration_measures_every_slot():
    assert calibrate(Sandbox(), 2, steps=1_000) > 0


def test_a_machine_that_cannot_run_the_kernel_says_so(monkeypatch):
    sandbox = Sandbox(compiler=compile_module)
    monkeypatch.setattr(sandbox, "run", lambda *_, **__: sandbox_outcome())
    with pytest.raises(Unavailable):
        calibrate(sandbox, 1, steps=10)


def sandbox_outcome():
    from edgora.compute.limits import Outcome
    from edgora.wire.market import ResultCode

    return Outcome(code=ResultCode.UNAVAILABLE, output=b"", fuel_used=0, wall_ms=0)
