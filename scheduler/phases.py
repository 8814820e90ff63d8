"""The way from what is in force to a new plan, as phases that are each safe to interleave.

A plan changes a site's two roles, ingress and serving site, in one stroke, and sites change at
different moments. So a change is cut into up to three assignments per site: ``open`` starts what is
missing and lets every serving site know the keys it will get, while ingresses still send as before;
``move`` switches the ingresses; ``close`` forgets, drains and stops what nobody sends to any more.
Where old and new replicas do not fit beside each other, an ``elsewhere`` stage first moves traffic
to the other sites. Decides the order; `rollout` walks it, `prefixes` judges it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from scheduler.old_ways import OldWays
from scheduler.reconcile import GroupChange, changes_at
from scheduler.state import CycleConfig, SiteState
from sites.assignment import (
    GroupShare,
    GroupTarget,
    Route,
    RouteDecision,
    RouteKey,
    SiteAssignment,
)
from sites.errors import Violation
from sites.fit import check_fit
from sites.steps import Step, StepKind


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """One assignment per taking-part site, then waves of steps; a wave starts when the last is
    done.
    """

    name: str
    assignments: tuple[SiteAssignment, ...]
    waves: tuple[tuple[Step, ...], ...]

    @property
    def rank(self) -> tuple[int, int]:
        """(epoch, version) of its assignments."""
        return self.assignments[0].rank

    def assignment(self, site_id: str) -> SiteAssignment | None:
        """The assignment of one site, None if the site takes no part."""
        return next((a for a in self.assignments if a.site_id == site_id), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteMove:
    """One site's way: what is in force (None: nothing, or nothing known), what is to be.

    `changes` covers every group wanted or alive; `fresh` says nothing was ever applied there.
    """

    site_id: str
    before: SiteAssignment | None
    final: SiteAssignment
    changes: tuple[GroupChange, ...]
    fresh: bool


def site_move(site: SiteState, final: SiteAssignment) -> SiteMove:
    """The move of a site from what was last observed there to `final`."""
    return SiteMove(
        site_id=site.site_id,
        before=site.in_force,
        final=final,
        changes=changes_at(site, final.groups),
        fresh=site.rank == (0, 0),
    )


def unfit_moves(moves: tuple[SiteMove, ...]) -> dict[str, tuple[Violation, ...]]:
    """Sites that must start something and cannot hold old and new replicas at once, and why."""
    unfit = {}
    for move in moves:
        if any(c.must_start for c in move.changes):
            held = replace(move.final, groups=_held_targets(move), routes=())
            violations = check_fit(held)
            if violations:
                unfit[move.site_id] = violations
    return unfit


def build_phases(moves: tuple[SiteMove, ...], config: CycleConfig) -> tuple[Phase, ...]:
    """The phases (versions still those of the finals; `numbered` sets them). Moves must fit.

    None where no site takes part.
    """
    if not moves:
        return ()
    phases = []
    starts = _steps_of(StepKind.START_REPLICAS, moves, config)
    middle = [_moving(m) for m in moves]
    if _gains(moves):
        opened = tuple(_opening(m) for m in moves)
        phases.append(_phase("open", opened, (starts,), config))
        starts = ()
    closes = any(c.must_stop for m in moves for c in m.changes) or any(
        a.routes != m.final.routes for a, m in zip(middle, moves, strict=True)
    )
    phases.append(_phase("move", tuple(middle), (starts,), config))
    if closes:
        finals = tuple(replace(m.final, groups=_final_targets(m)) for m in moves)
        drains = _steps_of(StepKind.DRAIN_REPLICAS, moves, config)
        stops = _steps_of(StepKind.STOP_REPLICAS, moves, config)
        phases.append(_phase("close", finals, (), config, after=(drains, stops)))
    return tuple(phases)


def reroute_phase(moves: tuple[SiteMove, ...], config: CycleConfig) -> Phase:
    """Only the ingress switch, for a failover: nothing starts, drains or stops."""
    return _phase("reroute", tuple(_moving(m) for m in moves), (), config)


def numbered(phases: tuple[Phase, ...], *, first_version: int) -> tuple[Phase, ...]:
    """Give the phases consecutive versions from `first_version`, in assignments and steps."""
    done = []
    for offset, phase in enumerate(phases):
        version = first_version + offset
        assignments = tuple(
            a if a.version == version else replace(a, version=version) for a in phase.assignments
        )
        waves = tuple(tuple(_step_at(s, version) for s in wave) for wave in phase.waves)
        done.append(replace(phase, assignments=assignments, waves=waves))
    return tuple(done)


def _step_at(step: Step, version: int) -> Step:
    group = f"/{step.group_id}" if step.group_id else ""
    step_id = f"{step.epoch}.{version}/{step.kind}/{step.site_id}{group}"
    return replace(step, version=version, step_id=step_id[:200])


def _phase(
    name: str,
    assignments: tuple[SiteAssignment, ...],
    before: tuple[tuple[Step, ...], ...],
    config: CycleConfig,
    *,
    after: tuple[tuple[Step, ...], ...] = (),
) -> Phase:
    """Every taking-part site sets its routes in every phase: that is what raises its rank."""
    routes = tuple(
        Step(
            step_id=f"{StepKind.SET_ROUTES}/{a.site_id}",
            site_id=a.site_id,
            kind=StepKind.SET_ROUTES,
            epoch=a.epoch,
            version=a.version,
            timeout_ms=config.routes_timeout_ms,
        )
        for a in assignments
    )
    waves = tuple(wave for wave in (*before, routes, *after) if wave)
    return Phase(name=name, assignments=assignments, waves=waves)


def _steps_of(kind: StepKind, moves: tuple[SiteMove, ...], config: CycleConfig) -> tuple[Step, ...]:
    timeout_ms = {
        StepKind.START_REPLICAS: config.start_timeout_ms,
        StepKind.DRAIN_REPLICAS: config.drain_timeout_ms,
        StepKind.STOP_REPLICAS: config.stop_timeout_ms,
    }[kind]
    return tuple(
        Step(
            step_id=f"{kind}/{change.group.group_id}",
            site_id=move.site_id,
            kind=kind,
            epoch=move.final.epoch,
            version=move.final.version,
            group_id=change.group.group_id,
            replicas=change.wanted,
            timeout_ms=timeout_ms,
        )
        for move in moves
        for change in move.changes
        if (change.must_start if kind is StepKind.START_REPLICAS else change.must_stop)
    )


def _known_targets(move: SiteMove) -> dict[str, GroupTarget]:
    known = {t.group.group_id: t for t in (move.before.groups if move.before else ())}
    return known | {t.group.group_id: t for t in move.final.groups}


def _held_targets(move: SiteMove) -> tuple[GroupTarget, ...]:
    """Groups while old and new stand side by side: the larger of alive and wanted."""
    return _targets(move, {c.group.group_id: max(c.alive, c.wanted) for c in move.changes})


def _final_targets(move: SiteMove) -> tuple[GroupTarget, ...]:
    """The final groups; those about to go stay listed with 0 copies, for their figures."""
    return _targets(move, {c.group.group_id: c.wanted for c in move.changes})


def _targets(move: SiteMove, replicas: Mapping[str, int]) -> tuple[GroupTarget, ...]:
    known = _known_targets(move)
    return tuple(
        replace(known[group_id], replicas=replicas[group_id])
        for group_id in sorted(replicas)
        if group_id in known  # a stranger's figures are unknown: its STOP needs none
    )


def _gains(moves: tuple[SiteMove, ...]) -> bool:
    """Whether some ingress will send a key to a site that does not serve it yet."""
    serving: dict[RouteKey, set[str]] = {}
    for move in moves:
        for route in move.before.routes if move.before else ():
            if route.groups:
                serving.setdefault(route.key, set()).add(move.site_id)
    here, nowhere = {m.site_id for m in moves}, set[str]()
    return any(
        share.site_id in here and share.site_id not in serving.get(route.key, nowhere)
        for m in moves
        for route in m.final.routes
        for share in (*route.shares, *route.backups)
    )


def _opening(move: SiteMove) -> SiteAssignment:
    """Ingress as before, serving as before plus what is new."""
    old_ways = OldWays(move.before, move.final, move.changes)
    routes = []
    for final, old in _paired(move):
        groups = old_ways.groups(old) or final.groups
        if old is not None and old_ways.is_lawful(old):
            routes.append(_with_groups(old, groups))
        elif old is None and move.fresh and final.decision is RouteDecision.SERVE:
            routes.append(
                Route(
                    key=final.key,
                    decision=RouteDecision.SHED,
                    shed_basis_points=10_000,
                    groups=groups,
                    reason="the fleet is being opened",
                )
            )
        else:  # what is in force is unknown or unlawful by now: the new way at once
            routes.append(_with_groups(final, groups))
    return replace(move.final, groups=_held_targets(move), routes=tuple(routes))


def _moving(move: SiteMove) -> SiteAssignment:
    """Ingress as wanted, serving as wanted plus old keys that somebody may still send."""
    old_ways = OldWays(move.before, move.final, move.changes)
    routes = tuple(
        final
        if final.groups or old is None or not old.groups
        else _with_groups(final, old_ways.groups(old))
        for final, old in _paired(move)
    )
    return replace(move.final, groups=_held_targets(move), routes=routes)


def _paired(move: SiteMove) -> Iterable[tuple[Route, Route | None]]:
    """Each final route with the one in force for its key."""
    before = move.before.routes if move.before else ()
    if [r.key for r in before] == [r.key for r in move.final.routes]:
        return zip(move.final.routes, before, strict=True)
    known = {r.key: r for r in before}
    return ((final, known.get(final.key)) for final in move.final.routes)


def _with_groups(route: Route, groups: tuple[GroupShare, ...]) -> Route:
    """The route itself where nothing changes, so that it stays known as the same."""
    return route if route.groups == groups else replace(route, groups=groups)
