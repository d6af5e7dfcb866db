"""The reviewed gas table is what anvil's receipts say, to the unit, and within its limits (contracts.md 10)."""

from importlib.resources import files

import pytest

from edgora.adapters.anvil_chain import find_anvil
from edgora.contracts import gas_table
from edgora.lab.gas import GOALS, MUST, PAPER_GAS, gas_json, measure_on_fresh_anvil, ratios
from edgora.wire.settlement import MAX_GAS, Line, LockLine, Payload, Section, ServerRow, payload_gas


def test_reviewed_table_is_within_its_limits() -> None:
    table = gas_table()
    over = {name: (table[name], most) for name, most in MUST.items() if table[name] > most}
    assert not over
    assert set(GOALS) <= set(MUST)


SHAPES = {
    "settle_1": (1, 1, 1, 0), "settle_10x10": (10, 10, 4, 0), "settle_100x100": (100, 100, 4, 0),
    "settle_100x10": (100, 10, 4, 0), "settle_1000x10": (1_000, 10, 4, 0),
    "settle_100_locks_with_remainders": (0, 0, 4, 100),
}  # fmt: skip


@pytest.mark.parametrize(("name", "shape"), SHAPES.items())
def test_model_of_the_market_core_fits_the_table(name: str, shape: tuple[int, int, int, int]) -> None:
    """The core closes batches by `payload_gas`: it must neither pass the block's cap nor waste half of it."""
    tasks, ues, servers, locks = shape
    line = Line(0, 0, 1, 1)
    payload = Payload(
        tuple(ServerRow(id, 1, 1) for id in range(servers)),
        tuple(Section(bytes(65), 1, 1, (line,) * (tasks // ues)) for _ in range(ues)),
        tuple(LockLine(bytes(32), line) for _ in range(locks)),
    )
    assert gas_table()[name] == pytest.approx(payload_gas(payload), rel=0.035)
    assert MAX_GAS * 1.035 < 2**24  # EIP-7825


def test_anvil_measures_the_reviewed_table() -> None:
    if find_anvil() is None:
        pytest.skip("no anvil")
    table = measure_on_fresh_anvil()
    assert table == dict(gas_table())
    assert (files("edgora.contracts") / "gas.json").read_text("utf-8") == gas_json(table)


def test_ratios_divide_the_papers_gas_by_a_trades() -> None:
    table = {"open": 40_000, "settle_100_locks": 1_000_000, "settle_100x100": 100, "settle_100x10": 100,
             "settle_1000x10": 1_000}  # fmt: skip
    assert ratios(table)["lock lane"] == (PAPER_GAS / 50_000, 251_440 / 50_000)
    assert ratios(table)["voucher lane, 100 tasks of 100 UEs"][0] == PAPER_GAS
