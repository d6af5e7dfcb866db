"""docs/reproductions.md from the committed results: `python -m edgora.lab.reproduce.page [--check]`.

The page holds no figure of its own: title, method, paragraph and printed figures come from ITEM.json, the drawing from
ITEM.png beside it.
"""

import sys
from pathlib import Path

import msgspec

from edgora.lab.reproduce.item import ITEMS, Document

__all__ = ["main", "page"]

RESULTS = Path("allocator/experiments/results")
PAGE = Path("docs/reproductions.md")

_OPENING = """# The papers' figures, made again

Made by `python -m edgora.lab.reproduce.page` from the files of `{results}`, which `edgora reproduce all --out {results}`
writes. The papers' figures are theirs, on their machines; ours are measured. `edgora reproduce ITEM --quick` makes any of
them with fewer seeds in seconds.
"""


def page(results: Path) -> str:
    """The whole page; items without a committed result are named as such."""
    parts = [_OPENING.format(results=RESULTS.as_posix())]
    missing = []
    for paper, names in ITEMS.items():
        for name in names:
            path = results / f"{paper}.{name}.json"
            if path.exists():
                parts.append(_section(msgspec.json.decode(path.read_bytes(), type=Document)))
            else:
                missing.append(f"{paper}.{name}")
    if missing:
        parts.append(f"Not among the committed results: {', '.join(missing)}.\n")
    return "\n".join(parts)


def _section(made: Document) -> str:
    picture = f"../{RESULTS.as_posix()}/{made.item}"
    lines = [
        f"## {made.item}: {made.title}",
        "",
        f"![{made.title}]({picture}.png)",
        "",
        made.paragraph,
        "",
        f"{made.how} {made.cpu_s:g} s CPU on {made.machine}. [Data]({picture}.csv), [drawing]({picture}.svg).",
        "",
    ]
    if made.printed:
        lines += ["| | the paper | here |", "|---|---|---|"]
        lines += [f"| {row.what} | {row.paper} | {row.ours} |" for row in made.printed]
        lines.append("")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    made = page(RESULTS)
    if "--check" in arguments:
        if PAGE.read_text(encoding="utf-8") != made:
            print(f"{PAGE} is not what {RESULTS} gives: run python -m edgora.lab.reproduce.page", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
