"""Where observed differs from desired."""

from __future__ import annotations

from scheduler.reconcile import changes_at, drift
from scheduler.state import CycleState
from sites.telemetry import ReplicaObservation, ReplicaState
from tests.optimizer import builders as b
from tests.scheduler.states import state_in_force

A, W = "a/p/v/x1", "a/p/w/x1"


def in_force() -> CycleState:
    problem = b.two_sites()
    plan = b.plan(problem, groups={A: 2}, shares={("c", A): 10_000})
    return state_in_force(problem, plan)


def lines(state: CycleState) -> tuple[str, ...]:
    assert state.desired is not None
    return drift(state.site("a"), state.desired.assignments["a"])


def replica(group_id: str, state: ReplicaState, number: int = 9) -> ReplicaObservation:
    return ReplicaObservation(
        replica_id=f"{group_id}#{number}", group=b.group(group_id), state=state
    )


def test_what_is_as_desired_has_not_drifted() -> None:
    assert lines(in_force()) == ()


def test_an_older_rank_is_drift() -> None:
    state = in_force()
    state.site("a").rank = (1, 0)
    assert lines(state) == ("runs 1.0, wanted 1.1",)


def test_a_missing_a_loading_and_a_failed_replica_are_drift() -> None:
    state = in_force()
    site = state.site("a")
    first = site.replicas[0]
    site.replicas = (first,)
    assert lines(state) == (f"{A}: 1 ready of 1, wanted 2",)
    site.replicas = (first, replica(A, ReplicaState.LOADING))
    assert lines(state) == (f"{A}: 1 ready of 2, wanted 2",)
    site.replicas = (first, replica(A, ReplicaState.FAILED))
    assert lines(state) == (f"{A}: 1 ready of 1, wanted 2",)


def test_a_stranger_and_a_draining_copy_are_drift() -> None:
    state = in_force()
    site = state.site("a")
    kept = site.replicas
    site.replicas = (*kept, replica(W, ReplicaState.READY))
    assert lines(state) == (f"{W}: 1 ready of 1, wanted 0",)
    site.replicas = (*kept, replica(A, ReplicaState.DRAINING))
    assert lines(state) == (f"{A}: 2 ready of 3, wanted 2",)


def test_changes_name_every_group_wanted_or_alive_once_sorted() -> None:
    state = in_force()
    site = state.site("a")
    site.replicas = (replica(W, ReplicaState.DRAINING),)
    assert state.desired is not None
    changes = changes_at(site, state.desired.assignments["a"].groups)
    assert [(c.group.group_id, c.ready, c.alive, c.wanted) for c in changes] == [
        (A, 0, 0, 2),
        (W, 0, 1, 0),
    ]
    assert [c.must_start for c in changes] == [True, False]
    assert [c.must_stop for c in changes] == [False, True]
