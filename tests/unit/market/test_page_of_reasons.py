"""docs/why.md says every reason exactly as the platform does."""

import re
from pathlib import Path

from edgora.market import reasons
from edgora.wire import market_codes
from edgora.wire.ledger import LEDGER_CODES, LedgerCode
from edgora.wire.market import TaskState

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "why.md").read_text()


def said(template: str) -> str:
    return re.sub(r"\{\w+[^}]*\}", "…", template)


def rows(*titles: str) -> dict[str, str]:
    """Code -> sentence, from the tables under these headings; the sentence is in the first column that has blanks."""
    found: dict[str, str] = {}
    for title in titles:
        _, _, rest = PAGE.partition(f"### {title}\n")
        assert rest, f"no section {title}"
        for line in rest.partition("\n### ")[0].splitlines():
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            if cells[0].startswith("`"):
                sentence = cells[2] if cells[1].isdigit() else cells[1]
                assert found.setdefault(cells[0].strip("`"), sentence) == sentence
    return found


def test_every_reason_of_the_market_is_there_word_for_word() -> None:
    told = rows("While it waits", "How it ended", "Why not that server", "How a round ended", "What froze a batch")
    assert told == {code: said(words) for code, words in reasons._SENTENCES.items()}
    assert rows("What changed a server's standing") == {c: said(words) for c, words in reasons._OF_SERVERS.items()}
    assert rows("Why an allocator made no proposal") == {c: said(words) for c, words in reasons._SKIPPED.items()}


def test_a_wait_says_what_to_do() -> None:
    _, _, section = PAGE.partition("### While it waits\n")
    lines = [line for line in section.partition("\n### ")[0].splitlines() if line.startswith("| `")]
    assert {line.split("`")[1] for line in lines} >= set(reasons.NODE_CODES)
    assert all(len(line.strip("| ").split(" | ")[2]) > 5 for line in lines)


def test_every_refusal_is_there_word_for_word() -> None:
    refused = {code.name: said(words) for code, words in LEDGER_CODES.items() if code is not LedgerCode.OK}
    refused |= {code.name: said(words) for code, words in market_codes._SENTENCES.items()}
    assert rows("Refusals") == refused
    numbers = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", PAGE.partition("### Refusals")[2], re.MULTILINE))
    assert {int(number) for number in numbers.values()} == {int(c) for c in market_codes.Code} | set(range(1, 6))


def test_every_state_is_explained() -> None:
    _, _, table = PAGE.partition("## Where it stands")
    named = set(re.findall(r"`([A-Z]+)`", table.partition("\n## ")[0]))
    assert named == {state.name for state in TaskState} | {"UNORDERED"}
