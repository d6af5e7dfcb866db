"""A task's page against the REST truth: its stages and instants, signatures, money to the wei, and a proof that holds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from board_platform import BoardPlatform
from edgora.client.proofs import check_document, read_document
from edgora.wire.codec import decode
from edgora.wire.ledger import TxProof
from edgora.wire.market import ResultHash, TaskPayload
from embedded import hexed, spin

pytestmark = pytest.mark.browser


@pytest.fixture
def paid(platform: BoardPlatform) -> Any:
    """A task that was forwarded, audited if one was, and paid."""
    tasks = [task for task in platform.json("/v1/tasks?limit=200")["items"] if task["state"] == "SETTLED"]
    return max(tasks, key=lambda task: task["executor"] != task["offer"]["source"])


def _open(platform: BoardPlatform, page: Page, task: str) -> None:
    page.goto(f"{platform.url}/#/task/{task}")
    expect(page.locator("#task-why")).not_to_have_text("asking a node", timeout=30_000)


def _ms_of(stage: Locator) -> int:
    return int(stage.locator("time").first.get_attribute("data-ms") or 0)


def _events(platform: BoardPlatform, task: str) -> list[Any]:
    """All events of a task that has ended."""
    body = platform.get(f"/v1/tasks/{task}/events?after=0").text
    return [json.loads(line[5:]) for line in body.splitlines() if line.startswith("data:")]


def test_the_timeline_has_each_stage_at_the_ledgers_time(
    platform: BoardPlatform, page: Page, paid: Any, shot: Callable[[str], Path]
) -> None:
    _open(platform, page, paid["id"])
    batch = platform.json(f"/v1/batches/{paid['batch']}")
    round_ = platform.json(f"/v1/allocations/{paid['round']}")
    at = {event["type"]: event["time_ms"] for event in _events(platform, paid["id"])}
    expected = {
        "ordered": paid["opened_ms"], "opened": round_["opened_ms"], "allocated": paid["assigned_ms"], "filed": at["ResultFiled"],
        "final": at["TaskFinal"], "frozen": batch["frozen_ms"], "paid": at["TaskSettled"],
    }  # fmt: skip
    expect(page.locator("[data-stage=certified]")).to_be_visible()
    assert {name: _ms_of(page.locator(f"[data-stage={name}]")) for name in expected} == expected
    shown = [_ms_of(stage) for stage in page.locator(".stage[data-timed=true]").all()]
    assert shown == sorted(shown)
    took = page.locator("[data-stage=frozen] .stage-took").inner_text()
    assert took.startswith("+")
    expect(page.locator("#task-state")).to_have_text("SETTLED")
    expect(page.locator("#task-why")).to_have_text(f"Paid by batch {paid['batch']}")
    page.screenshot(path=shot("task"), full_page=True)


def test_money_is_exact(platform: BoardPlatform, page: Page, paid: Any) -> None:
    _open(platform, page, paid["id"])
    data = {event["type"]: event["data"] for event in _events(platform, paid["id"])}
    wanted = [
        paid["maximum"], data["TaskFinal"]["amount"], data["TaskFinal"]["executor_share"], data["TaskFinal"]["source_share"],
        data["TaskSettled"]["paid"], data["TaskSettled"]["free"],
    ]  # fmt: skip
    expect(page.locator("#money [data-wei]")).to_have_count(len(wanted))
    amounts = page.locator("#money [data-wei]")
    assert amounts.evaluate_all("all => all.map(one => one.dataset.wei)") == wanted
    assert [text.replace(",", "") for text in amounts.all_inner_texts()] == [f"{wei} wei" for wei in wanted]
    assert int(paid["amount"]) == paid["result"]["fuel_used"] * paid["offer"]["price"] * 1000
    expect(page.locator("#money .disagrees")).to_have_count(0)
    expect(page.locator("#money")).to_contain_text(
        f"{paid['result']['fuel_used']:,} fuel x {paid['offer']['price']:,} x 1000"
    )


def test_signatures_are_those_of_the_transactions(platform: BoardPlatform, page: Page, paid: Any) -> None:
    _open(platform, page, paid["id"])
    proofs = platform.json(f"/v1/tasks/{paid['id']}/proof")["items"]
    held = {item["name"]: decode(bytes.fromhex(item["proof"][2:]), TxProof) for item in proofs if item["kind"] == "tx"}
    order, filed = held["TASK"].tx, held["RESULT_HASH"].tx
    payload, result = decode(order.tx.payload, TaskPayload), decode(filed.tx.payload, ResultHash)
    wanted = {payload.stored, order.signature, filed.signature, held["SETTLEMENT"].tx.signature} | {
        h.signature for h in result.held
    }
    if payload.voucher is not None:
        wanted.add(payload.voucher.signature)
    expect(page.locator("#certificates tbody tr")).to_have_count(len(proofs))
    shown = page.eval_on_selector_all("#signatures td:last-child code", "all => all.map(one => one.dataset.full)")
    assert {bytes.fromhex(text[2:]) for text in shown} == wanted
    names = page.eval_on_selector_all("#certificates tbody tr", "rows => rows.map(row => row.children[0].textContent)")
    assert names == [item["name"] for item in proofs]


def test_why_this_server_gives_the_ledgers_alternatives(platform: BoardPlatform, page: Page, paid: Any) -> None:
    _open(platform, page, paid["id"])
    choice = next(c for c in platform.json(f"/v1/allocations/{paid['round']}")["choices"] if c["task"] == paid["id"])
    rows = page.locator("#alternatives tbody tr")
    expect(rows).to_have_count(1 + len(choice["alternatives"]))
    expect(rows.first).to_contain_text(f"server {paid['executor']}")
    expect(rows.first).to_contain_text("chosen")
    for row, other in zip(rows.all()[1:], choice["alternatives"], strict=True):
        expect(row).to_contain_text(f"server {other['server']}")
        expect(row).to_contain_text(other["reason"]["sentence"])
        assert row.locator("[data-wei]").get_attribute("data-wei") == other["value"]


def test_the_downloaded_proof_holds(platform: BoardPlatform, page: Page, paid: Any, tmp_path: Path) -> None:
    """As the page's command checks it, with the genesis id that the page names; and it says who ordered the task."""
    _open(platform, page, paid["id"])
    with page.expect_download() as saved:
        page.get_by_role("button", name="Download the proof").click()
    file = tmp_path / saved.value.suggested_filename
    saved.value.save_as(file)
    command = page.locator("#proof .command code").inner_text()
    assert command == f"edgora verify {file.name} --genesis-id {platform.genesis_id}"
    document = read_document(file.read_bytes())
    checks = check_document(document, bytes.fromhex(platform.genesis_id[2:]))
    assert all(check.ok for check in checks), checks
    assert {"genesis", "offer", "task", "payment", "result"} <= {check.name for check in checks}
    assert document.task == paid["id"]
    assert document.offer.nonce == json.loads(platform.get(f"/v1/tasks/{paid['id']}").text)["offer"]["nonce"]
    said = {check.name: check.sentence for check in checks}
    assert paid["offer"]["ue"] in said["task"]
    assert f"batch {paid['batch']} " in said["payment"]


def test_a_task_that_ended_without_pay_says_why(platform: BoardPlatform, page: Page) -> None:
    ended = [task for task in platform.json("/v1/tasks?limit=200")["items"] if task["state"] == "REFUNDED"]
    task = ended[0]
    _open(platform, page, task["id"])
    expect(page.locator("[data-stage=ended]")).to_contain_text(task["reason"]["sentence"])
    expect(page.locator("#money")).to_contain_text("Free again")
    expect(page.get_by_role("button", name="Download the proof")).to_be_disabled()


def test_why_follows_the_state_live(own_platform: BoardPlatform, page: Page) -> None:
    """A task that is watched from its upload on: the sentence and the state change without a reload."""
    keys = own_platform.funded()
    with own_platform.client(keys) as ue:
        ticket = ue.submit(spin())
        page.goto(f"{own_platform.url}/#/task/{hexed(ticket)}")
        expect(page.locator("#task-state")).to_have_text("SETTLED", timeout=60_000)
    expect(page.locator("[data-stage=paid]")).to_be_visible()
    expect(page.locator("#task-why")).to_contain_text("Paid by batch")
    expect(page.locator("#announcer")).to_contain_text("SETTLED: paid by batch")
    assert page.locator("main [aria-live]").count() == 0, "a reader hears of changes, not of each second"


def test_what_is_not_known_yet_is_not_denied(platform: BoardPlatform, page: Page, paid: Any) -> None:
    """Of a task that is long certified the page never says that it is not, however late its proofs are read."""
    page.add_init_script("""
        window.said = new Set();
        new MutationObserver(() => {
          for (const part of document.querySelectorAll('#proof, #task-certificates')) window.said.add(part.textContent);
        }).observe(document, { subtree: true, childList: true, characterData: true });""")
    _open(platform, page, paid["id"])
    expect(page.locator("#certificates tbody tr").first).to_be_visible()
    said: list[str] = page.evaluate("[...window.said]")
    assert len(said) > 1
    assert not [words for words in said if "not certified" in words or "nothing yet" in words]


def test_an_unknown_task_is_said_to_be_unknown(platform: BoardPlatform, page: Page, watched: Any) -> None:
    watched.expect("status of 404")
    _open(platform, page, "0x" + "ab" * 32)
    expect(page.locator("#task-why")).to_contain_text("No task 0xabab")


def test_an_address_that_is_no_task_is_refused(platform: BoardPlatform, page: Page) -> None:
    page.goto(f"{platform.url}/#/task/%3Cscript%3Ealert(1)%3C%2Fscript%3E")
    expect(page.get_by_role("heading", level=1)).to_have_text("No task")
    assert page.locator("main script").count() == 0
