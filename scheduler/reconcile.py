"""Where what is observed differs from what is desired.

Decides which groups must start or stop replicas and whether a site has drifted from its
assignment; when and in which order that is mended is `phases` and `cycle`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scheduler.state import HOLDS_HARDWARE, SiteState
from sites.assignment import GroupTarget, ReplicaGroup, SiteAssignment
from sites.telemetry import ReplicaState


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupChange:
    """Replicas of one group: `ready` and `alive` (loading, ready, draining) now, `wanted` later."""

    group: ReplicaGroup
    ready: int
    alive: int
    wanted: int

    @property
    def must_start(self) -> bool:
        """Whether copies are missing (one that is still loading is waited for)."""
        return self.ready < self.wanted

    @property
    def must_stop(self) -> bool:
        """Whether there are more copies than wanted."""
        return self.alive > self.wanted


def group_changes(
    targets: Iterable[GroupTarget],
    *,
    ready: Mapping[str, int],
    alive: Mapping[str, ReplicaGroup],
    alive_counts: Mapping[str, int],
) -> tuple[GroupChange, ...]:
    """Every group that is wanted or alive at one site, sorted; unchanged ones included."""
    wanted = {t.group.group_id: t for t in targets}
    groups = {group_id: t.group for group_id, t in wanted.items()}
    groups |= {group_id: group for group_id, group in alive.items() if alive_counts.get(group_id)}
    return tuple(
        GroupChange(
            group=groups[group_id],
            ready=ready.get(group_id, 0),
            alive=alive_counts.get(group_id, 0),
            wanted=wanted[group_id].replicas if group_id in wanted else 0,
        )
        for group_id in sorted(groups)
    )


def changes_at(site: SiteState, targets: Iterable[GroupTarget]) -> tuple[GroupChange, ...]:
    """`group_changes` against what was last observed at `site`."""
    return group_changes(
        targets,
        ready=site.counts(ReplicaState.READY),
        alive={r.group.group_id: r.group for r in site.replicas},
        alive_counts=site.counts(*HOLDS_HARDWARE),
    )


def drift(site: SiteState, wanted: SiteAssignment) -> tuple[str, ...]:
    """What at `site` is not as `wanted` says, one line each; empty when all is."""
    lines = []
    if site.rank != wanted.rank:
        lines.append(f"runs {_show(site.rank)}, wanted {_show(wanted.rank)}")
    for change in changes_at(site, wanted.groups):
        if change.must_start or change.must_stop:
            lines.append(
                f"{change.group.group_id}: {change.ready} ready of {change.alive}, "
                f"wanted {change.wanted}"
            )
    return tuple(lines)


def _show(rank: tuple[int, int]) -> str:
    return f"{rank[0]}.{rank[1]}"
