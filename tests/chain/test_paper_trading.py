"""The BaaS paper's two functions written plainly: what they do, and what they cost (contracts.md 10)."""

import pytest

from edgora.adapters.anvil_chain import find_anvil
from edgora.contracts import paper_trading
from edgora.lab.paper_trading import measure_paper_trading


@pytest.mark.skipif(find_anvil() is None, reason="no anvil")
def test_gas_of_a_plain_trade_repeats_to_the_unit() -> None:
    creation, trading = measure_paper_trading()
    assert (creation, trading) == (164_612, 60_765)


def test_its_record_is_plain() -> None:
    rows = {row["name"] for row in paper_trading().storage}
    assert {"trades", "count", "trades.user", "trades.server", "trades.price", "trades.paidAt"} <= rows
