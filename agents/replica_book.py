"""The replicas of one site over time: started, drained, stopped, brought back. Pure bookkeeping.

Decides which replica a wanted number concerns and when a failed one is started again. Whether a
step may ask for that number is `agents.step_rules`'; when routes move `agents.route_publisher`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from agents.executor_messages import (
    ExecutorEffect,
    SaveWanted,
    StartReplica,
    StopReplica,
    WatchIdle,
)
from agents.replica_set import (
    TAKING,
    Life,
    Replica,
    check_room,
    drain_order,
    failed,
    held_targets,
    stop_order,
)
from sites.assignment import GroupTarget, SiteAssignment


class ReplicaBook:
    """Owned by the executor. Methods return their effects; bool results say whether the set of
    ready replicas changed, so routes must be published again.
    """

    def __init__(
        self, replicas: Iterable[Replica], *, wanted: Mapping[str, int], next_replica: int
    ) -> None:
        self._replicas = {r.replica_id: r for r in replicas}
        self._wanted = dict(wanted)
        self._next_replica = next_replica
        self.effects: list[ExecutorEffect] = []
        self.is_ready_set_new = False

    def all(self) -> tuple[Replica, ...]:
        """Every replica, oldest first."""
        return tuple(sorted(self._replicas.values(), key=lambda r: r.number))

    def group(self, group_id: str) -> list[Replica]:
        """The replicas of one group, oldest first."""
        return [r for r in self.all() if r.group_id == group_id]

    def taking(self, group_id: str) -> list[Replica]:
        """Those of a group that take requests now or will."""
        return [r for r in self.group(group_id) if r.life in TAKING]

    def taking_by_group(self) -> dict[str, int]:
        """How many replicas of each group take requests now or will."""
        return {r.group_id: len(self.taking(r.group_id)) for r in self.all()}

    def reusable(self, group_id: str) -> int:
        """Replicas a START needs not start: those that take requests or can do so again."""
        return sum(1 for r in self.group(group_id) if r.life in TAKING or _can_turn_back(r))

    def held(self) -> tuple[GroupTarget, ...]:
        """Groups with the replicas that hold hardware now or have it reserved for a restart."""
        return held_targets(self._replicas.values())

    def ready_by_group(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Ids of the ready replicas of each group that has any."""
        ready: dict[str, list[str]] = {}
        for replica in self.all():
            if replica.life is Life.READY:
                ready.setdefault(replica.group_id, []).append(replica.replica_id)
        return tuple((group_id, tuple(ready[group_id])) for group_id in sorted(ready))

    def wanted(self, group_id: str) -> int:
        """Replicas of the group that are to take requests."""
        return self._wanted.get(group_id, 0)

    def wanted_groups(self) -> list[str]:
        """Groups with a wanted number."""
        return sorted(self._wanted)

    def want(self, group_id: str, count: int) -> None:
        """Change the wanted number; durable before anything is started for it."""
        if self.wanted(group_id) != count:
            self._wanted[group_id] = count
            self._save_wanted()

    def start_to(
        self, target: GroupTarget, count: int, *, limits: SiteAssignment | None, now_ms: int
    ) -> None:
        """Have `count` replicas take requests; draining ones turn back before new ones start."""
        group_id = target.group.group_id
        for replica in self.group(group_id):
            if len(self.taking(group_id)) < count and _can_turn_back(replica):
                life = Life.READY if replica.was_ready else Life.LOADING
                self._put(
                    replace(replica, life=life, since_ms=now_ms, stop_by_ms=None, is_watched=False)
                )
                self.is_ready_set_new |= replica.was_ready
        for _ in range(count - len(self.taking(group_id))):
            self._start_one(target, limits=limits, now_ms=now_ms)

    def _start_one(
        self, target: GroupTarget, *, limits: SiteAssignment | None, now_ms: int
    ) -> None:
        number = self._next_replica
        self._next_replica += 1
        replica = Replica(
            replica_id=f"{target.group.group_id}/r{number}",
            number=number,
            target=target,
            life=Life.LOADING,
            since_ms=now_ms,
        )
        self._save_wanted()
        if limits and check_room(limits, held=self.held(), more=target, count=1):
            replica = failed(replica, now_ms=now_ms, detail="no room on the site's hardware yet")
        else:
            self.effects.append(StartReplica(replica_id=replica.replica_id, target=target))
        self._put(replica)

    def restart_due(
        self, *, targets: Mapping[str, GroupTarget], limits: SiteAssignment | None, now_ms: int
    ) -> None:
        """Start failed replicas again whose wait is over and for which there is room."""
        for replica in self.all():
            if replica.life is not Life.FAILED or now_ms < replica.restart_at_ms:
                continue
            target = targets.get(replica.group_id, replica.target)
            others = held_targets(r for r in self._replicas.values() if r != replica)
            if limits and check_room(limits, held=others, more=target, count=1):
                detail = "no room on the site's hardware to restart it"
                self._put(failed(replica, now_ms=now_ms, detail=detail))
                continue
            self._put(replace(replica, target=target, life=Life.LOADING, since_ms=now_ms))
            self.effects.append(StartReplica(replica_id=replica.replica_id, target=target))

    def on_ready(self, replica_id: str, *, now_ms: int) -> None:
        """Its server answers."""
        replica = self._replicas.get(replica_id)
        if replica is None:
            return
        if replica.life is Life.LOADING:
            replica = replace(replica, life=Life.READY, since_ms=now_ms, detail="")
            self.is_ready_set_new = True
        self._put(replace(replica, was_ready=True))

    def on_exited(self, replica_id: str, *, detail: str, now_ms: int) -> None:
        """Its process ended unasked, or never began."""
        replica = self._replicas.get(replica_id)
        if replica is None or replica.life is Life.FAILED:
            return
        if replica.life in TAKING:
            self._put(failed(replica, now_ms=now_ms, detail=detail))
        else:
            del self._replicas[replica_id]
        self.is_ready_set_new |= replica.life is Life.READY

    def on_idle(self, replica_id: str, *, now_ms: int) -> None:
        """It has no request left."""
        replica = self._replicas.get(replica_id)
        if replica is not None and replica.life is Life.DRAINING:
            self._put(replace(replica, life=Life.DRAINED, since_ms=now_ms))

    def on_stopped(self, replica_id: str) -> None:
        """Its process is gone, as wanted."""
        self._replicas.pop(replica_id, None)

    def drain_to(self, group_id: str, count: int, *, now_ms: int) -> None:
        """Have at most `count` replicas take requests."""
        taking = self.taking(group_id)
        for replica in drain_order(taking)[: max(0, len(taking) - count)]:
            if replica.life is Life.FAILED:
                del self._replicas[replica.replica_id]
                continue
            is_ready = replica.life is Life.READY
            life = Life.DRAINING if is_ready else Life.DRAINED
            self._put(replace(replica, life=life, since_ms=now_ms))
            self.is_ready_set_new |= is_ready

    def stop_to(self, group_id: str, count: int, *, by_ms: int) -> None:
        """Have at most `count` replicas run: the others end once drained, or at `by_ms`."""
        group = self.group(group_id)
        for replica in stop_order(group)[: max(0, len(group) - count)]:
            if replica.life is not Life.STOPPING:
                self._put(replace(replica, stop_by_ms=by_ms))

    def stop_due(self, now_ms: int) -> None:
        """End what is to stop and is drained or out of time, but nothing the gateway still uses."""
        for replica in self.all():
            if replica.stop_by_ms is None or replica.life is Life.STOPPING:
                continue
            is_late = replica.is_watched and now_ms >= replica.stop_by_ms
            if replica.life is Life.DRAINED or (replica.life is Life.DRAINING and is_late):
                self._put(replace(replica, life=Life.STOPPING, since_ms=now_ms))
                self.effects.append(StopReplica(replica_id=replica.replica_id))

    def watch_drains(self, routed: tuple[tuple[str, tuple[str, ...]], ...]) -> None:
        """The gateway routes to these alone now: watch the draining ones not among them."""
        receiving = {replica_id for _, ids in routed for replica_id in ids}
        for replica in self.all():
            is_new = replica.life is Life.DRAINING and not replica.is_watched
            if is_new and replica.replica_id not in receiving:
                self._put(replace(replica, is_watched=True))
                self.effects.append(WatchIdle(replica_id=replica.replica_id))

    def _put(self, replica: Replica) -> None:
        self._replicas[replica.replica_id] = replica

    def _save_wanted(self) -> None:
        wanted = tuple((g, n) for g, n in sorted(self._wanted.items()) if n > 0)
        self.effects.append(SaveWanted(replicas=wanted, next_replica=self._next_replica))


def _can_turn_back(replica: Replica) -> bool:
    """Whether a replica that takes nothing new can take requests again."""
    return replica.life in (Life.DRAINING, Life.DRAINED)
