"""The replicas of one site as the executor sees them, and what room is left for more. Pure.

Decides which replica of a group is drained or stopped first and whether another still fits the
site's power, accelerators and memory. When to start, drain and stop is `agents.executor`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from sites.assignment import GroupTarget, SiteAssignment
from sites.errors import Violation
from sites.fit import check_fit
from sites.telemetry import ReplicaState

RESTART_FIRST_MS = 500
RESTART_LONGEST_MS = 30_000
STEADY_AFTER_MS = 60_000
"""A replica ready for so long has its past failures forgiven."""


class Life(StrEnum):
    """Where a replica is in its life. FAILED waits for its restart; all others have a process."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    DRAINED = "drained"
    FAILED = "failed"
    STOPPING = "stopping"


TAKING = frozenset({Life.LOADING, Life.READY, Life.FAILED})
"""Lives that take requests now or will."""

_OBSERVED = {
    Life.LOADING: ReplicaState.LOADING,
    Life.READY: ReplicaState.READY,
    Life.DRAINING: ReplicaState.DRAINING,
    Life.DRAINED: ReplicaState.DRAINING,
    Life.STOPPING: ReplicaState.DRAINING,
    Life.FAILED: ReplicaState.FAILED,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Replica:
    """One replica. Times are monotonic ms; `stop_by_ms`: end it then at the latest (None: keep)."""

    replica_id: str
    number: int
    target: GroupTarget
    life: Life
    since_ms: int
    failures: int = 0
    restart_at_ms: int = 0
    stop_by_ms: int | None = None
    is_watched: bool = False
    was_ready: bool = False
    detail: str = ""

    @property
    def group_id(self) -> str:
        """Its group."""
        return self.target.group.group_id

    @property
    def observed_state(self) -> ReplicaState:
        """Its life in the words of telemetry."""
        return _OBSERVED[self.life]


def failed(replica: Replica, *, now_ms: int, detail: str) -> Replica:
    """The replica after its process ended unasked, with its restart put off twice as long each
    time.
    """
    was_steady = replica.life is Life.READY and now_ms - replica.since_ms >= STEADY_AFTER_MS
    failures = 1 if was_steady else replica.failures + 1
    wait_ms = min(RESTART_LONGEST_MS, RESTART_FIRST_MS * 2 ** min(failures - 1, 16))
    return replace(
        replica,
        life=Life.FAILED,
        since_ms=now_ms,
        failures=failures,
        restart_at_ms=now_ms + wait_ms,
        was_ready=False,
        detail=detail,
    )


def drain_order(replicas: Iterable[Replica]) -> list[Replica]:
    """Whom to drain first: what is not ready, then the youngest."""
    return sorted(replicas, key=lambda r: (r.life is Life.READY, -r.number))


def stop_order(replicas: Iterable[Replica]) -> list[Replica]:
    """Whom to stop first: what takes nothing any more, what is not ready, then the youngest."""
    return sorted(replicas, key=lambda r: (r.life in TAKING, r.life is Life.READY, -r.number))


def held_targets(replicas: Iterable[Replica]) -> tuple[GroupTarget, ...]:
    """Per group the replicas that hold hardware or have it reserved, as targets of that count."""
    counts: dict[str, GroupTarget] = {}
    for replica in sorted(replicas, key=lambda r: r.number):
        before = counts.get(replica.group_id)
        count = before.replicas + 1 if before else 1
        counts[replica.group_id] = replace(replica.target, replicas=count)
    return tuple(counts[group_id] for group_id in sorted(counts))


def check_room(
    assignment: SiteAssignment, *, held: Iterable[GroupTarget], more: GroupTarget, count: int
) -> tuple[Violation, ...]:
    """What would break if `count` replicas of `more` joined those held: power, accelerators,
    memory; by the same checker that judges whole assignments.
    """
    targets: Mapping[str, GroupTarget] = {t.group.group_id: t for t in held}
    before = targets.get(more.group.group_id)
    joined = replace(more, replicas=(before.replicas if before else 0) + count)
    groups = {**targets, more.group.group_id: joined}
    moment = replace(assignment, groups=tuple(groups[g] for g in sorted(groups)), routes=())
    return check_fit(moment)
