"""The BaaS paper's items: every one runs with --quick, and Table III's arithmetic is the paper's."""

import csv
from pathlib import Path

import pytest

from edgora.adapters.anvil_chain import find_anvil
from edgora.lab.reproduce.item import ITEMS, Setting, reproduce


@pytest.mark.skipif(find_anvil() is None, reason="no anvil")
def test_table_iii_in_dollars(tmp_path: Path) -> None:
    made = reproduce("baas.table3", tmp_path, Setting(quick=True), lambda _: None)
    rows = {row["trade"]: row for row in csv.DictReader((tmp_path / "baas.table3.csv").open())}
    total = rows["total, printed"]
    assert float(total["gas"]) == 4_075_775
    assert float(total["ether"]) == pytest.approx(0.0815155)
    assert float(total["usd"]) == pytest.approx(15.8955, abs=5e-5)
    assert float(rows["Trading, printed"]["usd"]) == pytest.approx(15.2288, abs=5e-5)
    plain = float(rows["total, written plainly"]["gas"])
    assert float(rows["lock lane, a batch of 100"]["gas"]) < plain < 400_000
    assert "15.8905" in made.paragraph
    assert "15.8955" in made.paragraph


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ITEMS["baas"] if name != "table3"])
def test_every_item_runs_quickly(name: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    made = reproduce(f"baas.{name}", tmp_path, Setting(quick=True), lambda _: None)
    assert made.quick
    assert made.rows > 0
    assert {file.name for file in tmp_path.iterdir()} == set(made.files)
    assert made.printed
