"""Plans of the UEs' resources: what the problems' models say, in integers, and what happens when a policy fails."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgora.allocator import registry
from edgora.allocator.plan_files import PlanRequest, RadioPlan, read_request
from edgora.allocator.radio_plan import instance_of, nearest_equal, solve_plan
from edgora.wire.errors import NotFound, Refused
from unit.allocator.plan_world import address, request, server, user

CHEAP = ("tcr:gucaa", "dpe:gucaa", "tcr:rucaa", "dpe:gucro")


def solved(asked: PlanRequest) -> Any:
    problem, _, solver = asked.policy.partition(":")
    return registry.solve(problem, solver, instance_of(asked), seed=asked.seed)


# ---- what is asked of the models -------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", ["tcr", "dpe"])
def test_an_instance_holds_the_fleets_own_numbers(problem: str) -> None:
    asked = request(f"{problem}:gucaa", users=3)
    asked = msgspec.structs.replace(asked, users=(
        asked.users[0], msgspec.structs.replace(asked.users[1], fuel=4_000_000.0),
        msgspec.structs.replace(asked.users[2], bits=960_000.0),
    ))  # fmt: skip
    made = instance_of(asked)
    work = [u.fuel for u in asked.users]
    assert (made.d * made.eta_u).tolist() == pytest.approx(work), "every UE's work is exact"
    assert made.d.sum() == pytest.approx(sum(u.bits for u in asked.users)), "and so are all their bits together"
    assert made.fs_max.tolist() == [s.speed * s.slots for s in asked.servers]
    assert (made.kappa_u * made.fu_max**3).tolist() == pytest.approx([0.1] * 3), "power at full clock"
    assert (made.kappa_s * made.fs_max**3).tolist() == pytest.approx([40.0] * 3)
    near = np.argmax(made.gain, axis=1)
    far = [[np.hypot(u.position_m[0] - s.position_m[0], u.position_m[1] - s.position_m[1]) for s in asked.servers]
           for u in asked.users]  # fmt: skip
    assert near.tolist() == np.argmin(far, axis=1).tolist(), "the nearest server is heard best"


def test_both_problems_wait_equally_long_for_the_chain() -> None:
    tcr, dpe = (instance_of(request(f"{problem}:gucaa")) for problem in ("tcr", "dpe"))
    assert tcr.model.t_chain.tolist() == pytest.approx(dpe.t_chain.tolist())
    alone = instance_of(request("dpe:gucaa", servers=1))
    assert alone.t_chain.tolist() == instance_of(request("tcr:gucaa", servers=1)).model.t_chain.tolist() == [0.0]


# ---- plans -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", CHEAP)
def test_a_plan_is_the_solution_in_integers(policy: str) -> None:
    asked = request(policy)
    plan, solution, instance = solve_plan(asked), solved(asked), instance_of(asked)
    assert plan.fallback == ""
    assert plan.objective == pytest.approx(solution.objective)
    terms = instance.model.terms(registry.problem(policy[:3]).foreign(solution, instance).plan)
    rates = terms.Ru if policy.startswith("tcr") else terms.rate
    for n, share in enumerate(plan.ues):
        assert share.ue == asked.users[n].ue
        assert share.server == asked.servers[solution.assoc[n]].id
        assert share.phi == pytest.approx(solution.phi[n], abs=1e-6)
        assert share.bandwidth_hz == pytest.approx(solution.b[n], abs=1)
        assert share.rate_up == pytest.approx(rates[n], rel=1e-5)
        own = asked.servers[solution.assoc[n]]
        assert share.speed == pytest.approx(min(own.speed, solution.gamma[n] * solution.fs[n]), abs=1)
        assert share.local_speed == pytest.approx(solution.fu[n], abs=1)


@pytest.mark.parametrize("policy", CHEAP)
def test_where_all_ask_the_same_the_expected_delays_are_the_models(policy: str) -> None:
    asked = request(policy, servers=2, users=8)
    plan, instance = solve_plan(asked), instance_of(asked)
    terms = instance.model.terms(registry.problem(policy[:3]).foreign(solved(asked), instance).plan)
    for n, share in enumerate(plan.ues):
        if share.reasons:
            continue
        expected = share.expected_ms
        assert expected.upload == pytest.approx(1000 * terms.t_ut[n], rel=1e-4)
        assert expected.run == pytest.approx(1000 * terms.t_sp[n], rel=1e-4)
        assert expected.local == pytest.approx(1000 * terms.t_up[n], rel=1e-4)
        if policy.startswith("tcr"):
            assert expected.download == pytest.approx(1000 * terms.t_st[n], rel=1e-3)
            assert expected.chain == pytest.approx(1000 * (terms.t_sg[n] + terms.t_chain[n]), rel=1e-2)
            assert expected.total == pytest.approx(1000 * max(terms.T_u[n], terms.T_s[n]), rel=1e-3)
    assert any(not share.reasons for share in plan.ues), "the test compares something"


def check_shares(asked: PlanRequest, plan: RadioPlan) -> None:
    for own in asked.servers:
        there = plan.at(own.id)
        assert sum(s.bandwidth_hz for s in there) <= own.bandwidth_hz * (1 + 1e-6)
        assert sum(s.power_down_uw for s in there) <= 1e6 * own.power_w * (1 + 1e-6)
        assert sum(s.speed for s in there) <= own.clock * (1 + 1e-6) + len(there)
        assert all(1 <= s.speed <= own.speed for s in there)
    for who, share in zip(asked.users, plan.ues, strict=True):
        assert share.ue == who.ue
        assert 1 <= share.local_speed <= who.clock * (1 + 1e-6)
        assert 1 <= share.power_up_uw <= 1e6 * who.power_w * (1 + 1e-6)
        assert share.rate_up >= 1 <= share.rate_down
        assert asked.phi_min - 1e-6 <= share.phi <= max(asked.phi_max, 0.0 if who.splittable else 1.0) + 1e-6


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["tcr:gucaa", "dpe:gucaa", "tcr:rucaa", "dpe:rucaa"]), st.integers(1, 12), st.integers(1, 5),
    st.integers(0, 999), st.tuples(st.integers(0, 90), st.integers(5, 50)), st.data(),
)  # fmt: skip
def test_shares_never_exceed_what_is_shared(policy, users, servers, seed, offload, choose) -> None:
    asked = request(policy, users, servers, seed, phi_min=offload[0] / 100, phi_max=min(100, sum(offload)) / 100)
    fuel = st.floats(1e3, 1e9)
    who = tuple(
        msgspec.structs.replace(u, splittable=choose.draw(st.booleans()), fuel=choose.draw(fuel)) for u in asked.users
    )
    asked = msgspec.structs.replace(asked, users=who)
    check_shares(asked, solve_plan(asked))
    check_shares(asked, nearest_equal(asked, "because"))


def test_what_cannot_be_split_goes_to_the_server_and_says_so() -> None:
    asked = request("tcr:gucaa", users=2)
    asked = msgspec.structs.replace(
        asked, users=(msgspec.structs.replace(asked.users[0], splittable=False), asked.users[1])
    )
    whole, part = solve_plan(asked).ues
    assert (whole.phi_ppm, whole.expected_ms.local) == (1_000_000, 0.0)
    assert "cannot be split" in whole.reasons[0]
    assert (part.phi_ppm, part.reasons) == (500_000, ())


def test_a_share_beyond_a_slot_is_cut_and_says_so() -> None:
    asked = request("dpe:gucaa", users=1, servers=1)
    asked = msgspec.structs.replace(asked, servers=(server(0, (0, 0), slots=4),))
    [share] = solve_plan(asked).ues
    assert share.speed == asked.servers[0].speed
    assert "more than a slot of server 0 gives" in share.reasons[0]


def test_equal_requests_have_equal_plans() -> None:
    first, again = (msgspec.structs.replace(solve_plan(request("dpe:gucro")), wall_s=0.0) for _ in range(2))
    assert first == again


# ---- what goes wrong -------------------------------------------------------------------------------------------------


class Raises:
    def propose(self, instance: Any, budget_s: float) -> Any:
        raise ZeroDivisionError("by my policy")


class Greedy:
    """Takes a hundred times the band that there is."""

    def propose(self, instance: Any, budget_s: float) -> Any:
        model = instance.model
        decision = model.even(model.spread())
        return {**{f: getattr(decision, f) for f in ("assoc", "phi", "gamma", "pu", "ps", "fu", "fs")},
                "b": 100.0 * decision.b}  # fmt: skip


class Nonsense:
    def propose(self, instance: Any, budget_s: float) -> Any:
        return "server 3"


@pytest.mark.parametrize(
    ("own", "why"),
    [("Raises", "ZeroDivisionError"), ("Greedy", "C5 is broken"), ("Nonsense", "assoc must be 6 integers")],
)
def test_a_policy_that_fails_costs_its_plan_and_says_why(own: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_imported", lambda name: globals()[name.partition(":")[2]]())
    asked = request(f"tcr:my_own:{own}")
    plan = solve_plan(asked)
    assert why in plan.fallback
    assert plan.status == "fallback"
    assert plan.bound is None
    check_shares(asked, plan)
    for who, share in zip(asked.users, plan.ues, strict=True):
        distance = {s.id: np.hypot(who.position_m[0] - s.position_m[0], who.position_m[1] - s.position_m[1])
                    for s in asked.servers}  # fmt: skip
        assert share.server == min(distance, key=lambda i: distance[i])
        crowd = len(plan.at(share.server))
        own_server = asked.servers[share.server]
        assert share.bandwidth_hz == int(own_server.bandwidth_hz / crowd)


@pytest.mark.parametrize("policy", ["tcr:nobody", "dpe:nobody", "tcr:no_module:Thing"])
def test_a_policy_that_is_not_there_is_refused(policy: str) -> None:
    with pytest.raises(NotFound):
        solve_plan(request(policy))


def test_a_setting_that_is_not_there_is_refused() -> None:
    with pytest.raises(Refused, match="nonsense"):
        solve_plan(request("tcr:gucaa", settings={"nonsense": 1}))


def broken(**changes: Any) -> bytes:
    document = msgspec.to_builtins(request("tcr:gucaa"))
    return msgspec.json.encode({**document, **changes})


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b"{", "$"), (broken(policy="mta:exact"), "policy"), (broken(policy="tcr"), "policy"), (broken(users=[]), "users"),
        (broken(phi_min=2), "phi_min"), (broken(budget_s=0), "budget_s"), (broken(budget_s=61), "budget_s"),
        (broken(nonsense=1), "nonsense"), (broken(servers=[msgspec.to_builtins(server(0, (0, 0)))] * 2), "$"),
        (broken(users=[msgspec.to_builtins(user(i, (0, 0))) for i in range(257)]), "users"),
        (broken(users=[{**msgspec.to_builtins(user(0, (0, 0))), "ue": "0xAB"}]), "users[0].ue"),
        (broken(phi_min=0.9, phi_max=0.1), "$"),
    ],
)  # fmt: skip
def test_requests_are_bounded_and_refused_by_field(data: bytes, field: str) -> None:
    with pytest.raises(Refused) as refused:
        read_request(data)
    assert refused.value.field == field


def test_a_request_survives_the_wire() -> None:
    asked = request("dpe:gucaa")
    assert read_request(msgspec.json.encode(asked)) == asked
    plan = solve_plan(asked)
    assert msgspec.json.decode(msgspec.json.encode(plan), type=RadioPlan) == plan
    assert plan.of(address(2)) == plan.ues[2]
    assert plan.of("0x" + "00" * 20) is None
