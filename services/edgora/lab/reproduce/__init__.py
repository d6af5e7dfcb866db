"""The papers' tables and figures, made again: one function an item, one module a paper.

An item takes a `Setting` and returns a `Reproduction`: rows for the CSV, a drawing, the paper's printed figures beside
ours, and one paragraph that says what holds, what does not, and why. `edgora reproduce ITEM --out DIR` writes
ITEM.csv, ITEM.png, ITEM.svg and ITEM.json; docs/reproductions.md is made from the committed files of
allocator/experiments/results by `python -m edgora.lab.reproduce.page`.
"""

from edgora.lab.reproduce.item import ITEMS, Printed, Reproduction, Setting, items, reproduce

__all__ = ["ITEMS", "Printed", "Reproduction", "Setting", "items", "reproduce"]
