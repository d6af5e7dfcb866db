"""`edgora top` and `edgora why` without a platform: rows, documents, screens of every size, nodes that die."""

import io
from typing import Any

import httpx2
import msgspec
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from edgora.cli import app
from edgora.cli import top as verbs
from edgora.cli.top_model import Panel, Picture, document, plain, round_rows, server_rows, span, task_rows, voter_rows
from edgora.cli.top_screen import Screen
from edgora.cli.top_source import Watch
from edgora.wire.errors import Refused, Unavailable
from unit.cli import top_world as world


def drawn(picture: Picture | None, width: int, height: int = 50, *, whole: bool = True, trouble: str | None = None, panels: list[Panel] | None = None) -> list[str]:  # fmt: skip
    console = Console(
        file=io.StringIO(), record=True, width=width, height=height, force_terminal=True, color_system=None
    )
    screen = Screen(panels or list(Panel), whole=whole)
    screen.picture, screen.trouble = picture, trouble
    console.print(screen, end="")
    return console.export_text().splitlines()


# ---- rows --------------------------------------------------------------------------------------------------------------


def test_a_task_row_says_how_long_by_the_nodes_clock_and_why() -> None:
    (row,) = task_rows([world.task(65, why="round 3 is open since 5 ms with 2 proposals")], world.NOW)
    assert (row.age_ms, row.why, row.source, row.executor) == (
        65_000,
        "round 3 is open since 5 ms with 2 proposals",
        1,
        None,
    )


@pytest.mark.parametrize(
    ("ms", "words"),
    [(-5, "0ms"), (999, "999ms"), (1_000, "1.0s"), (59_949, "59.9s"), (61_000, "1m01"), (3_599_999, "59m59"), (7_260_000, "2h01")],
)  # fmt: skip
def test_spans_are_short(ms: int, words: str) -> None:
    assert span(ms) == words


def test_words_of_others_cannot_command_the_terminal() -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\r\n\u202eword"
    picture = world.picture(under_way=[world.task(1, why=evil)], rounds=[world.allocation(1, winner=evil)], says=[evil])
    text = "\n".join(drawn(picture, 120))
    assert not any(mark in text for mark in "\x1b\x07\r\u202e")
    assert "word" in text
    assert plain("a\tb") == "a\ufffdb"
    assert "\\u001b" not in msgspec.json.encode(document(picture)).decode()


def test_rounds_name_winner_greedy_bound_and_every_refusal() -> None:
    late = world.allocation(4, closed_ms=None, winner=None, winner_validator=None, value=None, greedy_value=None, bound=None,
                            verdict=None, pairs=[], proposals=[])  # fmt: skip
    closed, opened = round_rows([world.allocation(9), late])
    assert (closed.winner, closed.value_wei, closed.greedy_wei, closed.bound_wei) == ("priced", "1100", "1000", "1250")
    assert list(closed.refused) == ["liar of validator 3: its value is not right"]
    assert (opened.winner, opened.verdict) == (None, "open")
    text = "\n".join(drawn(world.picture(rounds=[world.allocation(9), late]), 160))
    assert "+10.00 %" in text
    assert "88.00 % of bound" in text
    assert "validator 2" in text


def test_voters_are_named_with_what_each_says_itself() -> None:
    rows = voter_rows(world.picture())
    assert [row.primary for row in rows] == [False, False, True, False]
    assert [row.connected for row in rows] == [True, True, True, False]
    assert rows[3].waits_for == "does not answer (ConnectError)"
    assert rows[1].waits_for.startswith("nothing to order")
    alone = world.picture(nodes=[v for v in world.picture().nodes if v.server == 0])
    assert voter_rows(alone)[1].waits_for == "no URL of its REST is known"


def test_a_server_without_advert_has_no_load() -> None:
    rows = server_rows([world.server(0), world.server(1, advert=None, live=False)])
    assert (rows[0].room, rows[0].used) == (1_000, 250), "its credit is below its capacity"
    assert (rows[1].room, rows[1].slots, rows[1].ask) == (None, None, None)


# ---- the screen --------------------------------------------------------------------------------------------------------


def test_a_wide_screen_shows_every_panel() -> None:
    text = "\n".join(drawn(world.picture(), 160))
    for words in ("TASKS", "the reason of task 65", "ROUNDS", "LEDGER", "primary 2", "silent", "SERVERS", "0.002500", "25 %",
                  "3 of 4 nodes answer", "2 under way, oldest since 1m05"):  # fmt: skip
        assert words in text, words


@pytest.mark.parametrize("width", [30, 40, 60, 83, 84, 100, 200])
def test_no_line_is_wider_than_the_terminal_and_reasons_are_whole(width: int) -> None:
    lines = drawn(world.picture(under_way=[world.task(65, why="every ask is above its price of 5 gwei/Mfuel")]), width)
    assert max(map(len, lines)) <= width
    assert "everyaskisabove" in "".join(lines).replace(" ", ""), "the reason is wrapped, never cut"
    for panel in Panel:
        assert any(line.startswith(panel.upper()) for line in lines)


@pytest.mark.parametrize("height", [5, 12, 24, 40])
def test_a_low_terminal_gets_what_fits_and_is_told_what_does_not(height: int) -> None:
    picture = world.picture(under_way=[world.task(n) for n in range(30, 0, -1)])
    lines = drawn(picture, 120, height, whole=False)
    assert len(lines) <= height
    if height >= 24:
        assert any("more lines" in line for line in lines)
        assert all(any(line.startswith(panel.upper()) for line in lines) for panel in Panel)
        assert "[q] quit" in lines[-1]


def test_panels_are_shown_as_asked_and_the_last_one_stays() -> None:
    text = "\n".join(drawn(world.picture(), 120, panels=[Panel.LEDGER]))
    assert "LEDGER" in text
    assert "SERVERS" not in text
    screen = Screen([Panel.LEDGER], whole=False)
    screen.toggle(Panel.LEDGER)
    assert screen.panels == {Panel.LEDGER}
    screen.toggle(Panel.TASKS)
    assert screen.panels == {Panel.LEDGER, Panel.TASKS}


def test_a_dead_platform_leaves_the_last_picture_and_says_since_when() -> None:
    lines = drawn(world.picture(), 120, trouble="no node answers: http://node0.test does not answer")
    assert any("no node answers" in line for line in lines)
    assert any("what follows was so at" in line for line in lines)
    assert any("TASKS" in line for line in lines)
    assert drawn(None, 80) == ["asking ..."]


def test_an_empty_platform_and_an_absent_consensus_half_are_drawn() -> None:
    bare = world.picture(under_way=[], lately=[], rounds=[], nodes=[], servers=msgspec.convert(
        {"items": [], "height": 1, "time_ms": 1}, type=type(world.picture().servers)))  # fmt: skip
    text = "\n".join(drawn(bare, 100))
    assert "no task yet" in text
    away = world.without_consensus(world.picture())
    assert "the consensus half is away" in "\n".join(drawn(away, 100))
    assert document(away)["ledger"]["view"] is None  # type: ignore[index]


# ---- nodes -------------------------------------------------------------------------------------------------------------


async def test_one_node_is_enough_to_know_all() -> None:
    nodes = world.Nodes()
    async with nodes.client() as http:
        watch = Watch(http, ["http://node0.test/"])
        picture = await watch.look()
    assert watch.nodes == tuple(f"http://node{i}.test" for i in range(4))
    assert [view.server for view in picture.nodes] == [0, 1, 2, 3]
    assert [task.state for task in picture.under_way] == ["OPEN", "ASSIGNED"], "oldest first, ended ones left out"
    assert picture.says == ()


async def test_a_dead_node_is_replaced_by_one_that_was_learnt_and_it_says_so() -> None:
    nodes = world.Nodes()
    async with nodes.client() as http:
        watch = Watch(http, ["http://node0.test"])
        assert (await watch.look()).node == "http://node0.test"
        nodes.dead = {0, 1}
        after = await watch.look()
        assert after.node == "http://node2.test"
        (said,) = after.says
        assert "http://node0.test does not answer" in said
        assert "asking http://node2.test now" in said
        nodes.dead = set()
        assert (await watch.look()).node == "http://node2.test", "it stays where it is well"
        nodes.dead = {0, 1, 2, 3}
        with pytest.raises(Unavailable) as none:
            await watch.look()
        assert all(f"node{i}" in none.value.detail for i in range(4))
        nodes.dead = {2}
        assert (await watch.look()).node == "http://node3.test"


async def test_what_answers_nonsense_is_no_node() -> None:
    nodes = world.Nodes()
    nodes.strange = {0}
    async with nodes.client() as http:
        picture = await Watch(http, ["http://node0.test", "http://node1.test"]).look()
    assert picture.node == "http://node1.test"


async def test_a_node_under_another_name_is_not_asked_twice() -> None:
    nodes = world.Nodes()
    async with nodes.client() as http:
        watch = Watch(http, ["http://alias0.test", "http://alias1.test"])
        await watch.look()
    assert watch.nodes == ("http://alias0.test", "http://alias1.test", "http://node2.test", "http://node3.test")


def test_a_node_must_be_a_url() -> None:
    with pytest.raises(Refused):
        Watch(httpx2.AsyncClient(), ["localhost:8100"])


# ---- verbs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Any:
    found = world.Nodes()
    monkeypatch.setattr(verbs.httpx2, "AsyncClient", found.client)
    monkeypatch.setattr(verbs, "_DEFAULT_NODES", ["http://node0.test"])
    return found


def edgora(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_json_is_one_document_and_implies_once(nodes: Any) -> None:
    for arguments in (("top", "--once", "--json"), ("top", "--json")):
        done = edgora(*arguments)
        assert done.exit_code == 0, done.output
        told = msgspec.json.decode(done.stdout)
        assert [row["why"] for row in told["tasks"]["under_way"]] == ["the reason of task 65", "the reason of task 2"]
        assert [row["state"] for row in told["tasks"]["ended"]] == ["SETTLED"]
        assert (told["ledger"]["primary"], told["ledger"]["quorum"], len(told["servers"])) == (2, 3, 4)


def test_where_there_is_no_terminal_one_picture_is_printed(nodes: Any) -> None:
    done = edgora("top", "--panels", "servers,tasks")
    assert done.exit_code == 0
    assert "no terminal" in done.stderr
    assert "TASKS" in done.stdout
    assert "LEDGER" not in done.stdout
    assert "no terminal" not in edgora("top", "--once").stderr


def test_exit_codes(nodes: Any) -> None:
    assert edgora("top", "--once", "--panels", "tasks,nothing").exit_code == 2
    assert edgora("top", "--once", "--node", "localhost").exit_code == 2
    assert edgora("top", "--once", "--every", "0").exit_code == 2
    nodes.dead = {0, 1, 2, 3}
    assert edgora("top", "--once").exit_code == 1
    refused = edgora("top", "--json")
    assert refused.exit_code == 1
    assert msgspec.json.decode(refused.stdout)["error"]["code"] == "unavailable"


def test_why_takes_the_beginning_of_an_id(nodes: Any) -> None:
    done = edgora("why", "0x00000002")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "ASSIGNED: the reason of task 2", "it went to server 3",
        "  not to 1: its ask of 30 is above the price of 25 gwei/Mfuel",
    ]  # fmt: skip
    told = msgspec.json.decode(edgora("why", nodes.tasks[2].id, "--json").stdout)
    assert (told["state"], told["choice"]) == ("OPEN", None)


@pytest.mark.parametrize("task", ["0x0000000", "nothing", "0xff", "0x" + "ee" * 32, "0x" + "zz" * 32])
def test_why_of_no_task_is_bad_input(nodes: Any, task: str) -> None:
    assert edgora("why", task).exit_code == 2
