"""The walk through the phases: what is sent when, and what the receipt says whatever happens."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scheduler.change import plan_change, reroute_change
from scheduler.receipt import ChangeReason, Receipt, RolloutState, StepStatus
from scheduler.rollout import Rollout, RolloutEffect
from scheduler.state import CycleConfig
from sites.errors import Violation
from sites.hub_messages import AssignmentWanted, StepsForgotten, StepWanted
from sites.steps import AssignmentVerdict, StepOutcome, StepResult
from tests.optimizer import builders as b
from tests.scheduler.states import state_in_force

A, B = "a/p/v/x1", "b/p/v/x1"
CONFIG = CycleConfig()


def receipt(reason: ChangeReason = ChangeReason.APPLY) -> Receipt:
    return Receipt(
        receipt_id="r",
        reason=reason,
        state=RolloutState.ACCEPTING,
        plan_digest="",
        epoch=1,
        version=0,
        started_at_ms=0,
    )


def moving(*, urgent: bool = False) -> Rollout:
    """Class c moves from a to b (urgent: only its routes do)."""
    problem = b.two_sites()
    groups = {A: 1, B: 1} if urgent else {A: 1}
    before = b.plan(problem, groups=groups, shares={("c", A): 10_000})
    after = b.plan(problem, groups={B: 1}, shares={("c", B): 10_000})
    state = state_in_force(problem, before)
    change = (reroute_change if urgent else plan_change)(state, problem, after, now_ms=0)
    assert change.violations == ()
    return Rollout(receipt(), change.phases, config=CONFIG, urgent=urgent)


def answer(wish: AssignmentWanted, *, ok: bool = True) -> AssignmentVerdict:
    no = Violation(code="site_power", subject="site", limit=1.0, actual=2.0, unit="W")
    return AssignmentVerdict(
        site_id=wish.site_id,
        epoch=wish.assignment.epoch,
        version=wish.assignment.version,
        assignment_digest="",
        violations=() if ok else (no,),
        applied_epoch=0,
        applied_version=0,
        validate_only=wish.validate_only,
    )


def ended(wish: StepWanted, outcome: StepOutcome = StepOutcome.DONE) -> StepResult:
    return StepResult(
        step_id=wish.step.step_id, site_id=wish.site_id, outcome=outcome, finished_at_ms=0
    )


def walk(rollout: Rollout, *, fail_at: int = -1, refuse_at: int = -1) -> None:
    """Answer everything; the `fail_at`-th step fails, the `refuse_at`-th verdict is a no."""
    wishes = list(rollout.begin(0))
    steps = verdicts = 0
    while True:
        if rollout.state is RolloutState.ACCEPTING:
            wishes += rollout.run(1)
        if not wishes:
            return
        wish: RolloutEffect = wishes.pop(0)
        match wish:
            case AssignmentWanted():
                wishes += rollout.on_verdict(answer(wish, ok=verdicts != refuse_at), 2)
                verdicts += 1
            case StepWanted():
                outcome = StepOutcome.FAILED if steps == fail_at else StepOutcome.DONE
                wishes += rollout.on_step(ended(wish, outcome), 3)
                steps += 1
            case StepsForgotten():
                pass


def test_a_walk_without_trouble_ends_done_with_every_step_done() -> None:
    rollout = moving()
    walk(rollout)
    assert rollout.state is RolloutState.DONE
    assert rollout.receipt.count(StepStatus.DONE) == len(rollout.receipt.steps)
    assert {a.rank for a in rollout.in_force.values()} == {rollout.phases[-1].rank}


@given(st.integers(0, 10))
def test_a_failed_step_stops_what_follows_and_nothing_else(fail_at: int) -> None:
    rollout = moving()
    walk(rollout, fail_at=fail_at)
    steps = rollout.receipt.steps
    if fail_at >= len(steps):
        assert rollout.state is RolloutState.DONE
        return
    assert rollout.state is RolloutState.STOPPED
    assert rollout.receipt.count(StepStatus.FAILED) == 1
    assert rollout.receipt.count(StepStatus.SENT) == 0
    kinds = [s.status for s in steps]
    first_untouched = kinds.index(StepStatus.NOT_STARTED) if StepStatus.NOT_STARTED in kinds else 99
    assert all(s is StepStatus.NOT_STARTED for s in kinds[first_untouched:])
    assert "failed" in rollout.receipt.message


@given(st.integers(0, 5))
def test_a_refusal_while_validating_changes_nothing(refuse_at: int) -> None:
    rollout = moving()
    walk(rollout, refuse_at=refuse_at)
    assert rollout.state is RolloutState.REJECTED
    assert rollout.receipt.count(StepStatus.NOT_STARTED) == len(rollout.receipt.steps)
    assert rollout.receipt.violations[0].code == "site_power"


@given(st.integers(6, 11))
def test_a_refusal_when_it_is_meant_stops_the_rollout(refuse_at: int) -> None:
    rollout = moving()
    walk(rollout, refuse_at=refuse_at)
    assert rollout.state is RolloutState.STOPPED


def test_verdicts_that_never_come_end_it() -> None:
    validating = moving()
    validating.begin(0)
    assert validating.on_tick(CONFIG.verdict_timeout_ms - 1) == ()
    assert validating.state is RolloutState.VALIDATING
    validating.on_tick(CONFIG.verdict_timeout_ms)
    assert validating.state is RolloutState.REJECTED
    assert validating.receipt.message == "no verdict from a, b within 10000 ms; nothing was changed"


def test_verdicts_may_take_their_time_as_long_as_they_come() -> None:
    rollout = moving()
    first, _ = rollout.begin(0)
    assert isinstance(first, AssignmentWanted)
    rollout.on_verdict(answer(first), CONFIG.verdict_timeout_ms - 1)
    rollout.on_tick(2 * CONFIG.verdict_timeout_ms - 2)
    assert rollout.state is RolloutState.VALIDATING
    rollout.on_tick(2 * CONFIG.verdict_timeout_ms - 1)
    assert rollout.receipt.message == "no verdict from b within 10000 ms; nothing was changed"


def test_an_urgent_rollout_validates_nothing_and_no_site_waits_for_another() -> None:
    rollout = moving(urgent=True)
    assert rollout.begin(0) == ()
    first, second = rollout.run(0)
    assert isinstance(first, AssignmentWanted)
    assert isinstance(second, AssignmentWanted)
    (step,) = rollout.on_verdict(answer(first), 1)
    assert isinstance(step, StepWanted)
    assert step.site_id == first.site_id
    rollout.on_step(ended(step), 2)
    assert rollout.state is RolloutState.RUNNING
    rollout.on_verdict(answer(second, ok=False), 3)
    assert rollout.state is RolloutState.STOPPED
    assert first.site_id in rollout.in_force


def test_steps_still_out_are_waited_for_after_a_failure() -> None:
    rollout = moving()
    wishes = list(rollout.begin(0))
    steps: list[StepWanted] = []
    while len(steps) < 2:
        if rollout.state is RolloutState.ACCEPTING:
            wishes += rollout.run(0)
        wish = wishes.pop(0)
        if isinstance(wish, AssignmentWanted):
            wishes += rollout.on_verdict(answer(wish), 0)
            out = [w for w in wishes if isinstance(w, StepWanted)]
            if len(out) == 2:
                steps = out
        elif isinstance(wish, StepWanted):
            wishes += rollout.on_step(ended(wish), 0)
    assert rollout.on_step(ended(steps[0], StepOutcome.FAILED), 5) == ()
    assert rollout.state is RolloutState.RUNNING
    rollout.on_step(ended(steps[1]), 6)
    assert rollout.state is RolloutState.STOPPED
    assert rollout.in_force[steps[1].site_id].rank == (1, steps[1].step.version)


def test_what_is_superseded_forgets_its_steps() -> None:
    rollout = moving()
    wishes = list(rollout.begin(0))
    while not any(isinstance(w, StepWanted) for w in wishes):
        if rollout.state is RolloutState.ACCEPTING:
            wishes += rollout.run(0)
        wish = wishes.pop(0)
        assert isinstance(wish, AssignmentWanted)
        wishes += rollout.on_verdict(answer(wish), 0)
    (step,) = wishes
    assert isinstance(step, StepWanted)
    assert rollout.open_wishes() == (step,)
    forgotten = rollout.supersede(1, "site a was lost")
    assert forgotten == (StepsForgotten(site_id="b", step_ids=(step.step.step_id,)),)
    assert rollout.open_wishes() == ()
    assert rollout.state is RolloutState.SUPERSEDED
