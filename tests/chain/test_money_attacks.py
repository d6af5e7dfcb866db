"""Attacks of contracts.md 11 that are after money: reentrancy, griefing, deadlines, arithmetic, stakes."""

import pytest

from chain.evm_world import (
    AMOUNT,
    EXIT_DELAY_S,
    LINE,
    OFFER,
    RICH,
    ROWS,
    STAKE,
    START_S,
    Refused,
    World,
    hexed,
)
from chain.vectors import twin
from edgora.crypto.sign import SigningKey
from edgora.wire.hashing import keccak, merkle_path
from edgora.wire.ledger import Vote
from edgora.wire.settlement import (
    BURN,
    Exit,
    Line,
    LockLine,
    Payload,
    Penalty,
    ServerRow,
    TaskLeaf,
    certificate_arguments,
    line_amount,
    lock_key,
    payload_hash,
    split,
)


@pytest.fixture
def world() -> World:
    return World()


# ---- reentrancy --------------------------------------------------------------------------------------------------------


def reentering(market: bytes, data: bytes) -> bytes:
    """Code that calls the contract with `data` whenever it is called or paid.

    Whether that worked stands at the slot that the caller names: 1 it failed, 2 it did not.
    PUSH2 len PUSH1 43 0 CODECOPY | 0 0 PUSH2 len 0 0 PUSH20 market GAS CALL | PUSH1 1 ADD CALLER SSTORE STOP
    """
    size = len(data).to_bytes(2, "big").hex()
    code = bytes.fromhex(f"61{size}602b5f395f5f61{size}5f5f73{market.hex()}5af1600101335500")
    assert len(code) == 43
    return code + data


@pytest.mark.parametrize("way", ["refund", "finishExit", "withdraw", "withdrawStake"])
def test_a_receiver_that_calls_back_is_paid_once(world: World, way: str) -> None:
    """The receiver is a contract that claims again while it is being paid."""
    thief = SigningKey.derived("thief").address
    other = SigningKey.derived("other")
    world.fund(thief)
    world.lock(other, OFFER, 3 * STAKE)
    world.ue("bystander")
    arguments: tuple[object, ...]
    if way == "refund":
        world.send(thief, "open", OFFER, world.now + 1, wei=STAKE)
        world.pass_time(2)
        arguments = (thief, OFFER)
    elif way == "finishExit":
        world.send(RICH, "depositFor", thief, wei=STAKE)
        world.send(thief, "requestExit")
        world.pass_time(EXIT_DELAY_S)
        arguments = (thief,)
    elif way == "withdraw":
        id = world.register(SigningKey.derived("thief's server"), owner=thief)
        ue = world.ue("ue")
        line = Line(0, 0, 10**6, 10**3)
        world.settle(Payload((ServerRow(id, 1, 1),), (world.section(ue, [line]),)))
        arguments = (id, thief)
    else:
        id = world.register(SigningKey.derived("thief's server"), owner=thief)
        world.send(thief, "unbond", id)
        world.pass_time(2 * EXIT_DELAY_S)
        arguments = (id,)
    due = STAKE if way != "withdraw" else line_amount(line)
    world.code_at(thief, reentering(world.market, world.abi.call(way, *arguments)))
    world.fund(thief, 0)
    held = world.balance(world.market)
    if way in ("withdraw", "withdrawStake"):  # the owner itself, which is the thief, has to ask
        world.evm.message_call(hexed(RICH.address), hexed(thief), b"")
        assert world.evm.storage(hexed(thief), int.from_bytes(RICH.address, "big")) == 2
    else:
        world.send(RICH, way, *arguments)
    assert world.balance(thief) == due
    assert world.balance(world.market) == held - due
    called_back = world.evm.storage(hexed(thief), int.from_bytes(world.market, "big"))
    assert called_back == 1, "the call back must have happened, and failed"


# ---- griefing ----------------------------------------------------------------------------------------------------------


def test_no_gas_limit_makes_a_valid_section_skip(world: World) -> None:
    """A relayer picks the gas: either the batch pays in full or nothing has happened."""
    ue = world.ue("ue")
    certified = world.certified(world.one_section(ue))
    outcomes = set()
    for gas in range(32_000, 140_000, 500):
        checkpoint = world.evm.snapshot()
        try:
            world.settle(certified, gas=gas)
        except Refused as error:
            outcomes.add(error.rule)
            assert world.view("head")[2] == 0
            assert world.view("account", ue.address)[:2] == (10**18, 0)
        else:
            outcomes.add("paid")
            assert world.view("account", ue.address)[:2] == (10**18 - AMOUNT, AMOUNT)
        world.evm.revert(checkpoint)
    assert "paid" in outcomes
    assert outcomes <= {"paid", "OutOfGas", "LedgerProofPrecompile"}


def test_receiver_that_refuses_money_harms_only_itself(world: World) -> None:
    stubborn, other = SigningKey.derived("stubborn").address, SigningKey.derived("other")
    world.fund(stubborn)
    world.send(stubborn, "open", OFFER, world.now + 1, wei=STAKE)
    world.lock(other, OFFER, STAKE, deadline=world.now + 1)
    world.pass_time(2)
    world.code_at(stubborn, bytes.fromhex("5f5ffd"))
    with pytest.raises(Refused, match="SendFailed"):
        world.send(RICH, "refund", stubborn, OFFER)
    assert world.view("lockOf", lock_key(stubborn, OFFER))[0] == STAKE
    world.send(RICH, "refund", other.address, OFFER)


def test_dust_deposit_does_not_cancel_an_exit(world: World) -> None:
    ue = world.ue("ue")
    world.send(ue, "requestExit")
    when = world.view("account", ue.address)[2]
    world.pass_time(EXIT_DELAY_S - 1)
    world.send(RICH, "depositFor", ue.address, wei=1)
    assert world.view("account", ue.address)[2] == when
    with pytest.raises(Refused, match="TooEarly"):
        world.send(RICH, "finishExit", ue.address)
    world.pass_time(1)
    before = world.balance(ue.address)
    world.send(RICH, "finishExit", ue.address)
    assert world.balance(ue.address) == before + 10**18 + 1
    assert world.named("Exited") == [(ue.address, 10**18 + 1)]


def test_only_one_exit_is_pending(world: World) -> None:
    ue = world.ue("ue")
    signature = ue.sign(Exit(0, START_S + 60).digest(world.domain))
    world.send(RICH, "requestExitFor", ue.address, START_S + 60, signature)
    with pytest.raises(Refused, match="Exiting"):
        world.send(ue, "requestExit")
    with pytest.raises(Refused, match="BadSignature"):
        world.send(RICH, "requestExitFor", ue.address, START_S + 60, signature)
    world.pass_time(EXIT_DELAY_S)
    world.send(RICH, "finishExit", ue.address)
    assert world.view("account", ue.address) == (0, 0, 0, 1)
    world.send(ue, "requestExit")


def test_stale_exit_of_a_ue_that_came_back_is_refused(world: World) -> None:
    ue = world.ue("ue")
    signature = ue.sign(Exit(0, START_S + 10**6).digest(world.domain))
    world.send(RICH, "requestExitFor", ue.address, START_S + 10**6, signature)
    world.pass_time(EXIT_DELAY_S)
    world.send(RICH, "finishExit", ue.address)
    with pytest.raises(Refused, match="BadSignature"):
        world.send(RICH, "requestExitFor", ue.address, START_S + 10**6, signature)


def test_exit_order_ends_with_its_time(world: World) -> None:
    ue = world.ue("ue")
    signature = ue.sign(Exit(0, START_S + 60).digest(world.domain))
    world.pass_time(61)
    with pytest.raises(Refused, match="BadDeadline"):
        world.send(RICH, "requestExitFor", ue.address, START_S + 60, signature)


# ---- sections that are not payable -------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["cap", "balance", "time"])
def test_section_pays_all_its_lines_or_none_and_can_be_certified_again(world: World, why: str) -> None:
    ue, other = world.ue("ue", wei=2 * AMOUNT - (why == "balance")), world.ue("other")
    terms = {"cap": 2 * AMOUNT - (why == "cap"), "valid_until": world.now - (why == "time")}
    section = world.section(ue, [LINE, LINE], **terms)
    world.settle(Payload(ROWS, (section, world.section(other, [LINE]))))
    assert world.named("SectionSkipped") == [(1, ue.address, 2 * AMOUNT)]
    assert world.named("BatchSettled")[0][2] == AMOUNT
    fee, rest = split(AMOUNT, 1_000)
    assert [world.view("earned", id)[0] for id in (0, 1)] == [fee, rest]
    assert world.view("account", ue.address)[:2] == (2 * AMOUNT - (why == "balance"), 0)
    world.send(RICH, "depositFor", ue.address, wei=1)
    world.settle(Payload(ROWS, (world.section(ue, [LINE, LINE], cap=2 * AMOUNT),)))
    assert world.named("SectionSkipped") == []
    assert world.view("earned", 1)[0] == 3 * rest


def test_skipped_section_leaves_no_trace_in_what_later_lines_earn(world: World) -> None:
    poor, rich = world.ue("poor", wei=1), world.ue("rich")
    lines = [Line(0, 1, 10**6 + n, 50 + n) for n in range(7)]
    key = world.lock(SigningKey.derived("lock ue"), OFFER, 1)
    world.settle(Payload(
        ROWS, (world.section(poor, lines), world.section(rich, [LINE])), (LockLine(key, lines[3]),)
    ))  # fmt: skip
    fee, rest = split(AMOUNT, 1_000)
    assert [world.view("earned", id) for id in (0, 1)] == [(fee, 1_000, 900, 0), (rest, 2_000, 2_500, 1)]


# ---- front running, deadlines ------------------------------------------------------------------------------------------


def test_outcome_is_the_same_whoever_settles() -> None:
    states = []
    for sender in ("a stranger", "validator 0"):
        world = World()
        ue, key = world.ue("ue"), SigningKey.derived(sender)
        world.fund(key.address)
        world.settle(world.certified(world.one_section(ue)), sender=key)
        states.append((world.view("account", ue.address), world.view("earned", 0), world.view("earned", 1)))
    assert states[0] == states[1]


@pytest.mark.parametrize("late", [0, 1])
def test_settle_and_refund_share_no_second(world: World, late: int) -> None:
    ue = SigningKey.derived("lock ue")
    deadline = world.now + 100
    key = world.lock(ue, OFFER, AMOUNT, deadline=deadline)
    certified = world.certified(Payload(ROWS, (), (LockLine(key, LINE),)))
    world.pass_time(100 + late)
    if late:
        world.settle(certified)
        assert world.named("LockSkipped") == [(1, key)]
        world.send(RICH, "refund", ue.address, OFFER)
        assert world.named("OfferRefunded") == [(OFFER, ue.address, AMOUNT)]
    else:
        with pytest.raises(Refused, match="TooEarly"):
            world.send(RICH, "refund", ue.address, OFFER)
        world.settle(certified)
        assert world.named("LockSkipped") == []


@pytest.mark.parametrize("late", [0, 1])
def test_voucher_holds_through_its_last_second(world: World, late: int) -> None:
    ue = world.ue("ue")
    certified = world.certified(world.one_section(ue, valid_until=world.now + 50))
    world.pass_time(50 + late)
    world.settle(certified)
    assert len(world.named("SectionSkipped")) == late


@pytest.mark.parametrize(("ahead", "good"), [(0, False), (1, True), (30 * 86_400, True), (30 * 86_400 + 1, False)])
def test_lock_deadlines_are_bounded(world: World, ahead: int, good: bool) -> None:
    ue = SigningKey.derived("lock ue")
    if good:
        world.lock(ue, OFFER, 1, deadline=world.now + ahead)
    else:
        with pytest.raises(Refused, match="BadDeadline"):
            world.lock(ue, OFFER, 1, deadline=world.now + ahead)


# ---- double spending ---------------------------------------------------------------------------------------------------


def test_one_cap_at_two_servers_is_spent_once(world: World) -> None:
    """Two batches carry the same UE's voucher to two servers; the cap is one cumulative limit."""
    ue = world.ue("ue")
    world.settle(Payload(ROWS, (world.section(ue, [Line(0, 0, 10**6, 50)], cap=AMOUNT + 1),)))
    world.settle(Payload(ROWS, (world.section(ue, [Line(1, 1, 10**6, 50)], cap=AMOUNT + 1),)))
    assert len(world.named("SectionSkipped")) == 1
    assert world.view("account", ue.address)[1] == AMOUNT


def test_ue_on_its_way_out_still_pays_what_it_signed(world: World) -> None:
    ue = world.ue("ue")
    section = world.section(ue, [LINE], valid_until=world.now + EXIT_DELAY_S - 60)
    world.send(ue, "requestExit")
    world.pass_time(EXIT_DELAY_S - 60)
    world.settle(Payload(ROWS, (section,)))
    assert world.named("SectionSkipped") == []
    world.pass_time(60)
    world.send(RICH, "finishExit", ue.address)
    assert world.named("Exited") == [(ue.address, 10**18 - AMOUNT)]
    assert world.view("account", ue.address) == (0, AMOUNT, 0, 1)


# ---- arithmetic --------------------------------------------------------------------------------------------------------


def test_widest_line_neither_wraps_nor_rounds(world: World) -> None:
    widest = Line(0, 1, 2**48 - 1, 2**32 - 1)
    wei = line_amount(widest)
    ue = world.ue("ue", wei=60 * wei)
    world.settle(Payload(ROWS, (world.section(ue, [widest] * 60, cap=2**96 - 1),)))
    fee, rest = split(wei, 1_000)
    assert [world.view("earned", id)[0] for id in (0, 1)] == [60 * fee, 60 * rest]
    world.settle(Payload(ROWS, (world.section(ue, [widest] * 255, cap=2**96 - 1),)))
    assert world.named("SectionSkipped") == [(2, ue.address, 255 * wei)]


@pytest.mark.parametrize("lambda_bps", [0, 1, 1_000, 3_333, 9_999, 10_000])
def test_lambda_dust_goes_to_the_executor(lambda_bps: int) -> None:
    world = World(lambda_bps=lambda_bps)
    lines = [Line(0, 1, 7, 1), Line(0, 1, 3, 7), Line(1, 1, 1, 1)]
    world.settle(Payload(ROWS, (world.section(world.ue("ue"), lines),)))
    shares = [split(line_amount(line), lambda_bps) for line in lines]
    assert world.view("earned", 0)[0] == shares[0][0] + shares[1][0]
    assert world.view("earned", 1)[0] == shares[0][1] + shares[1][1] + sum(shares[2])


def test_reputation_sums_saturate(world: World) -> None:
    assert world.view("reputation", 0) == 0
    world.settle(Payload((ServerRow(0, 3_000, 2_000),)))
    assert world.view("reputation", 0) == 15 * 10**17
    slot = int.from_bytes(keccak(bytes(32) + (4).to_bytes(32, "big")), "big")
    full = (2**56 - 5) << 96 | (2**56 - 5) << 152 | (2**40 - 1) << 208 | 1 << 248
    world.evm.insert_account_storage(hexed(world.market), slot, full)
    world.settle(Payload((ServerRow(0, 9, 2**32 - 1),), (world.section(world.ue("ue"), [Line(0, 0, 1, 1)]),)))
    assert world.view("earned", 0) == (1_000, 2**56 - 1, 2**56 - 1, 2**40 - 1)


def test_deposit_beyond_the_width_is_refused(world: World) -> None:
    ue = world.ue("ue", wei=2**96 - 1)
    with pytest.raises(Refused, match="BadAmount"):
        world.send(RICH, "depositFor", ue.address, wei=1)
    with pytest.raises(Refused, match="BadAmount"):
        world.send(RICH, "depositFor", RICH.address)
    with pytest.raises(Refused, match="BadAmount"):
        world.send(RICH, "open", OFFER, world.now + 1, wei=2**96)


def test_forced_money_changes_nothing(world: World) -> None:
    ue = world.ue("ue")
    world.fund(world.market, world.balance(world.market) + 10**30)
    world.settle(world.one_section(ue))
    world.send(ue, "requestExit")
    world.pass_time(EXIT_DELAY_S)
    world.send(RICH, "finishExit", ue.address)
    assert world.named("Exited") == [(ue.address, 10**18 - AMOUNT)]
    with pytest.raises(Refused):
        world.raw(RICH.address, b"", wei=1)
    with pytest.raises(Refused):
        world.raw(RICH.address, b"\x12\x34\x56\x78", wei=1)


# ---- stakes ------------------------------------------------------------------------------------------------------------


def test_a_batch_fines_at_most_a_tenth_of_the_stake(world: World) -> None:
    """A lying quorum names one server in every penalty line."""
    lines = tuple(Penalty(2, place, STAKE) for place in (0, BURN, 1, 0))
    world.settle(Payload(ROWS, (), (), lines))
    assert world.view("server", 2)[1] == STAKE - STAKE // 10
    assert [values[1] for values in world.named("ServerPenalised")] == [STAKE // 10, 0, 0, 0]
    assert world.view("earned", 0)[0] == STAKE // 10
    world.settle(Payload(ROWS, (), (), (Penalty(2, BURN, 7), Penalty(3, 1, 5), Penalty(2, 1, STAKE))))
    left = STAKE - STAKE // 10
    assert world.view("server", 2)[1] == left - left // 10
    assert world.view("server", 3)[1] == STAKE - 5
    assert world.view("counters")[1] == 7
    assert world.view("earned", 1)[0] == 5 + left // 10 - 7


def two_votes(world: World, key: SigningKey, *, phase: int = 2, other: tuple[int, int, int] | None = None) -> tuple:
    place = (0, 3, 77)
    blocks = keccak(b"a"), keccak(b"b")
    signatures = [
        key.sign(Vote(phase, *where, block).digest(world.quorum.domain))
        for where, block in zip((place, other or place), blocks, strict=True)
    ]
    return (phase, *place, blocks[0], signatures[0], blocks[1], signatures[1])


@pytest.mark.parametrize("phase", [1, 2])
def test_two_votes_for_one_place_cost_the_stake(world: World, phase: int) -> None:
    accused = world.quorum.keys[1]
    reporter = SigningKey.derived("reporter")
    world.fund(reporter.address)
    before = world.balance(reporter.address)
    arguments = two_votes(world, accused, phase=phase)
    world.send(reporter, "slash", *arguments)
    assert world.balance(reporter.address) == before + STAKE // 10
    assert world.view("counters") == (4, STAKE - STAKE // 10)
    assert world.named("ServerSlashed") == [(1, reporter.address, STAKE)]
    with pytest.raises(Refused, match="BadStake"):
        world.send(reporter, "slash", *arguments)


def test_slashing_needs_the_victims_own_two_votes(world: World) -> None:
    accused, other = world.quorum.keys[1], world.quorum.keys[2]
    good = list(two_votes(world, accused))
    equal = [*good[:6], good[4], good[5]]
    third = [*two_votes(world, accused, phase=3)]
    mixed = [*good[:7], two_votes(world, other)[7]]
    elsewhere = [*two_votes(world, accused, other=(0, 4, 77))]
    later = [*two_votes(world, accused, other=(1, 3, 77))]
    high = [*good[:5], twin(good[5]), *good[6:]]
    for bad in (equal, third, mixed, elsewhere, later, high):
        with pytest.raises(Refused, match="NoFault"):
            world.send(RICH, "slash", *bad)
    with pytest.raises(Refused, match="UnknownServer"):
        world.send(RICH, "slash", *two_votes(world, SigningKey.derived("a stranger")))
    assert world.view("server", 1)[1] == STAKE


def test_stake_comes_back_only_late_and_off_duty(world: World) -> None:
    key = world.quorum.keys[0]
    newcomers = [SigningKey.derived(f"newcomer {index}") for index in range(4)]
    for newcomer in newcomers:
        world.register(newcomer)
    with pytest.raises(Refused, match="StakeLocked"):
        world.send(key, "withdrawStake", 0)
    with pytest.raises(Refused, match="NotOwner"):
        world.send(RICH, "unbond", 0)
    world.send(key, "unbond", 0)
    with pytest.raises(Refused, match="TooEarly"):
        world.send(key, "unbond", 0)
    world.pass_time(2 * EXIT_DELAY_S)
    with pytest.raises(Refused, match="StakeLocked"):
        world.send(key, "withdrawStake", 0)
    world.advance(newcomers)
    world.send(key, "withdrawStake", 0)
    assert world.named("StakeReturned") == [(0, key.address, STAKE)]
    with pytest.raises(Refused, match="BadStake"):
        world.send(key, "withdrawStake", 0)
    early = World()
    spare = SigningKey.derived("spare")
    id = early.register(spare)
    early.send(spare, "unbond", id)
    early.pass_time(2 * EXIT_DELAY_S - 1)
    with pytest.raises(Refused, match="TooEarly"):
        early.send(spare, "withdrawStake", id)


def test_registration_is_once_a_signer_and_needs_the_stake(world: World) -> None:
    key = SigningKey.derived("newcomer")
    world.fund(key.address)
    with pytest.raises(Refused, match="BadStake"):
        world.send(key, "register", key.address, bytes(32), wei=STAKE - 1)
    with pytest.raises(Refused, match="NotOwner"):
        world.send(key, "register", bytes(20), bytes(32), wei=STAKE)
    assert world.register(key) == 4
    with pytest.raises(Refused, match="SignerTaken"):
        world.register(key)
    world.send(key, "setMeta", 4, keccak(b"new"))
    assert world.view("server", 4)[4] == keccak(b"new")
    with pytest.raises(Refused, match="NotOwner"):
        world.send(RICH, "setMeta", 4, bytes(32))
    with pytest.raises(Refused, match="UnknownServer"):
        world.send(RICH, "setMeta", 9, bytes(32))


def test_earnings_go_where_the_owner_says_and_to_nobody_elses_order(world: World) -> None:
    world.settle(world.one_section(world.ue("ue")))
    owner, purse = world.quorum.keys[1], SigningKey.derived("purse").address
    with pytest.raises(Refused, match="NotOwner"):
        world.send(RICH, "withdraw", 1, purse)
    world.send(owner, "withdraw", 1, purse)
    _, rest = split(AMOUNT, 1_000)
    assert world.balance(purse) == rest
    assert world.view("earned", 1) == (0, 2_000, 2_500, 1)
    with pytest.raises(Refused, match="BadAmount"):
        world.send(owner, "withdraw", 1, purse)


# ---- audit -------------------------------------------------------------------------------------------------------------


def test_a_task_can_be_shown_to_stand_in_a_certified_batch(world: World) -> None:
    ue = world.ue("ue")
    tasks = [
        TaskLeaf(keccak(bytes([n])), ue.address, 0, 1, 10**6, 50, 1_000, 900 + n, keccak(b"result")) for n in range(5)
    ]
    certified = world.certified(world.one_section(ue), tasks=tasks, links=1)
    arguments = (1, certified.task_root, payload_hash(certified.payload), certificate_arguments(certified.proof))
    data = [task.encoded() for task in tasks]
    for place, task in enumerate(tasks):
        path = merkle_path(data, place)
        assert world.view("verifyTask", *arguments, task.leaf(), place, 5, path)
        assert not world.view("verifyTask", *arguments, task.leaf(), (place + 1) % 5, 5, path)
        assert not world.view("verifyTask", *arguments, task._replace(fuel=1).leaf(), place, 5, path)
        assert not world.view("verifyTask", *arguments, task.leaf(), place, 5, [*path, bytes(32)])
    wrong = (2, *arguments[1:])
    with pytest.raises(Refused, match="BadReceipt"):
        world.view("verifyTask", *wrong, tasks[0].leaf(), 0, 5, merkle_path(data, 0))
