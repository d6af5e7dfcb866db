"""Asking nodes in turn: driven by hand, since a flow opens no socket."""

import msgspec
import pytest

from edgora.client.session import Session, ask
from edgora.client.steps import Http, Pause, Reply, Unreachable
from edgora.client.wallet import Wallet
from edgora.crypto.keys import SealingKey
from edgora.crypto.sign import SigningKey
from edgora.wire import rest
from edgora.wire.errors import Conflict, NotFound, RuleRefused, TooMany, Unavailable

WALLET = Wallet(SigningKey.derived("asker"), SealingKey.generate())
NODES = ["http://a", "http://b", "http://c"]


def problem(status: int, code: str, **more) -> Reply:
    return Reply(
        status, msgspec.json.encode(rest.Problem(type="t", title="t", status=status, code=code, detail="why", **more))
    )


def play(session: Session, answers, **options):
    """Run one ask against scripted answers by node; returns (requests, pauses, result or error)."""
    flow = ask(session, "GET", "/v1/info", **options)
    requests, pauses, answer = [], [], None
    while True:
        try:
            step = flow.send(answer)
        except StopIteration as done:
            return requests, pauses, done.value
        except Exception as error:
            return requests, pauses, error
        if isinstance(step, Pause):
            pauses.append(step.ms)
            answer = None
        else:
            assert isinstance(step, Http)
            requests.append(step.url)
            said = answers(step.url.removesuffix("/v1/info"), len(requests))
            answer = said


def test_a_dead_node_is_passed_over_and_the_one_that_answered_is_asked_first_next_time() -> None:
    session = Session(NODES, WALLET)
    ok = Reply(200, b"{}")
    answers = lambda node, _: ok if node == "http://b" else Unreachable("refused")
    assert play(session, answers)[0] == ["http://a/v1/info", "http://b/v1/info"]
    assert play(session, answers)[0] == ["http://b/v1/info"]


def test_all_nodes_dead_gives_up_after_bounded_rounds_with_the_last_reason() -> None:
    requests, pauses, error = play(Session(NODES, WALLET), lambda *_: Unreachable("refused"))
    assert isinstance(error, Unavailable)
    assert "refused" in error.detail
    assert len(requests) == 3 * (len(pauses) + 1)
    assert len(pauses) < 10


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(409, "conflict", Conflict), (422, "rule_refused", RuleRefused)],
)
def test_a_refusal_is_raised_at_once_and_typed(status, code, kind) -> None:
    more = {"rule": "VOUCHER_SHORT"} if code == "rule_refused" else {}
    requests, pauses, error = play(
        Session(NODES, WALLET), lambda *_: problem(status, code, field="x", fix="do", **more)
    )
    assert type(error) is kind
    assert (error.detail, error.field, error.fix) == ("why", "x", "do")
    assert len(requests) == 1
    assert pauses == []


def test_what_a_node_that_is_behind_does_not_know_another_tells() -> None:
    session = Session(NODES, WALLET)
    behind = lambda node, _: Reply(200, b"{}") if node == "http://c" else problem(404, "not_found")
    requests, pauses, reply = play(session, behind)
    assert requests == [f"{node}/v1/info" for node in NODES]
    assert (reply.status, pauses) == (200, [])
    assert play(session, behind)[0] == ["http://c/v1/info"]  # it is asked first from now on


@pytest.mark.parametrize("silent", [(), ("http://a",), ("http://b", "http://c")])
def test_what_nobody_who_answers_knows_is_not_there(silent) -> None:
    answers = lambda node, _: Unreachable("refused") if node in silent else problem(404, "not_found")
    requests, pauses, error = play(Session(NODES, WALLET), answers)
    assert type(error) is NotFound
    assert (len(requests), pauses) == (3, [])


def test_too_many_waits_as_long_as_the_node_said_then_asks_again() -> None:
    def answers(node: str, number: int) -> Reply:
        return problem(429, "too_many", retry_after_s=2) if number == 1 else Reply(200, b"{}")

    requests, pauses, reply = play(Session(["http://a"], WALLET), answers)
    assert reply.status == 200
    assert pauses[0] == 2000
    assert len(requests) == 2


def test_too_many_for_ever_ends_as_too_many() -> None:
    *_, error = play(Session(["http://a"], WALLET), lambda *_: problem(429, "too_many", retry_after_s=1))
    assert isinstance(error, TooMany)


def test_a_node_that_was_named_is_the_only_one_asked() -> None:
    requests, _, error = play(Session(NODES, WALLET), lambda *_: Unreachable("refused"), node="http://z")
    assert set(requests) == {"http://z/v1/info"}
    assert isinstance(error, Unavailable)


def test_an_empty_body_of_a_head_request_still_has_a_type() -> None:
    *_, error = play(Session(["http://a"], WALLET), lambda *_: Reply(404, b""))
    assert type(error) is NotFound
