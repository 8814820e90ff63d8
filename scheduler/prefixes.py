"""Whether every prefix of a change, in every order its sites may reach it, is safe.

Judges phases against the observed start, independently of how they were made: while a wave is
under way each of its steps may or may not have happened at each site. Safe means: no site can draw
more than its power budget or use more accelerators than it has, and no ingress can send a key to a
site that does not answer it or to a group without a ready replica. What was broken before the
change is not held against it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest

from scheduler.phases import Phase
from sites.assignment import GroupTarget, Route, RouteKey, SiteAssignment
from sites.errors import Violation
from sites.fit import POWER_TOLERANCE_W, possible_draw_w
from sites.steps import Step, StepKind

Place = tuple[str, RouteKey]

Answering = Mapping[RouteKey, frozenset[str]]
"""Sites that answer a key; equal sets are one object."""

Void = Mapping[int, tuple[str, ...]]
"""Sites that a route, by its place in the assignment, sends to although they do not answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteStart:
    """What one site starts from: routes in force and replicas per group id.

    `in_force` None: nothing is in force if `fresh`, else it is not known what.
    """

    site_id: str
    in_force: SiteAssignment | None
    fresh: bool
    ready: Mapping[str, int]
    alive: Mapping[str, int]


@dataclass(kw_only=True, slots=True)
class _World:
    """All states that may hold at one moment of the change.

    `routes[site]` lists the assignments whose routes may be in force there (None: no route at all;
    empty: unknown). `ready` is the fewest ready and `alive` the most living replicas of a group.
    `excused` are the places that routes of the starting `ranks` send to although nothing answers.
    `void` says what each assignment, by its identity, sends into the void while `answering` holds.
    """

    routes: dict[str, tuple[SiteAssignment | None, ...]]
    ready: dict[str, int]
    alive: dict[str, int]
    targets: dict[str, GroupTarget] = field(default_factory=dict)
    ranks: dict[str, tuple[int, int]] = field(default_factory=dict)
    excused: frozenset[Place] = frozenset()
    answering: Answering = field(default_factory=dict)
    void: dict[int, Void] = field(default_factory=dict)


def check_prefixes(
    phases: tuple[Phase, ...], *, starts: Iterable[SiteStart]
) -> tuple[Violation, ...]:
    """Every unsafe prefix as a violation (``prefix_power``, ``prefix_accelerators``,
    ``prefix_absent_route``), each once; empty if all are safe.

    `starts` holds every site that serves, also those that take no part in the change.
    """
    starts = tuple(starts)
    world = _open(starts)
    world.excused = _broken(world)
    found: dict[tuple[str, str], Violation] = {}
    for phase in phases:  # all of them live to the end: `void` knows assignments by identity
        for assignment in phase.assignments:
            world.targets |= {t.group.group_id: t for t in assignment.groups}
        for wave in phase.waves:
            _begin(world, phase, wave)
            for violation in (*_hardware(world, phase, wave), *_routes(world, phase)):
                found.setdefault((violation.code, violation.subject), violation)
            _finish(world, phase, wave)
    return tuple(found.values())


def _open(starts: tuple[SiteStart, ...]) -> _World:
    world = _World(routes={}, ready={}, alive={})
    for start in starts:
        known = start.in_force is not None or start.fresh
        world.routes[start.site_id] = (start.in_force,) if known else ()
        world.ready |= start.ready
        world.alive |= start.alive
        if start.in_force is not None:
            world.targets |= {t.group.group_id: t for t in start.in_force.groups}
            world.ranks[start.site_id] = start.in_force.rank
    return world


def _begin(world: _World, phase: Phase, wave: tuple[Step, ...]) -> None:
    """Widen the world by what the wave's steps may already have done."""
    for step in wave:
        if step.kind is StepKind.START_REPLICAS:
            alive = world.alive.get(step.group_id, 0)
            world.alive[step.group_id] = max(alive, step.replicas)
        elif step.kind is StepKind.SET_ROUTES:
            assignment = phase.assignment(step.site_id)
            assert assignment is not None, "a step's site takes part in its phase"
            world.routes[step.site_id] = (*world.routes.get(step.site_id, ()), assignment)
        else:
            ready = world.ready.get(step.group_id, 0)
            world.ready[step.group_id] = min(ready, step.replicas)


def _finish(world: _World, phase: Phase, wave: tuple[Step, ...]) -> None:
    """Narrow the world to what holds once every step of the wave is done."""
    for step in wave:
        if step.kind is StepKind.START_REPLICAS:
            ready = world.ready.get(step.group_id, 0)
            world.ready[step.group_id] = max(ready, step.replicas)
        elif step.kind is StepKind.SET_ROUTES:
            assignment = phase.assignment(step.site_id)
            world.routes[step.site_id] = () if assignment is None else (assignment,)
        elif step.kind is StepKind.STOP_REPLICAS:
            alive = world.alive.get(step.group_id, 0)
            world.alive[step.group_id] = min(alive, step.replicas)


def _hardware(world: _World, phase: Phase, wave: tuple[Step, ...]) -> Iterable[Violation]:
    starting = {s.site_id for s in wave if s.kind is StepKind.START_REPLICAS}
    for assignment in phase.assignments:
        if assignment.site_id not in starting:
            continue
        held = [t for t in world.targets.values() if t.group.site_id == assignment.site_id]
        alive = {t.group.group_id: world.alive.get(t.group.group_id, 0) for t in held}
        bare = [_none_wanted(t) for t in held]
        draw_w = possible_draw_w(bare, pue=assignment.pue, running=alive)
        if draw_w > assignment.power_budget_w + POWER_TOLERANCE_W:
            yield Violation(
                code="prefix_power",
                subject=f'site "{assignment.site_id}" in phase {phase.name}',
                limit=assignment.power_budget_w,
                actual=draw_w,
                unit="W",
                remedy="stop something there before more is started",
            )
        for pool in assignment.pools:
            used = sum(
                alive[t.group.group_id] * t.group.accelerators_per_replica
                for t in held
                if t.group.pool_id == pool.pool_id
            )
            if used > pool.count:
                yield Violation(
                    code="prefix_accelerators",
                    subject=f'pool "{assignment.site_id}/{pool.pool_id}" in phase {phase.name}',
                    limit=pool.count,
                    actual=used,
                    unit="accelerators",
                    remedy="stop something there before more is started",
                )


def _none_wanted(target: GroupTarget) -> GroupTarget:
    return GroupTarget(group=target.group, replicas=0, point=target.point, variant=target.variant)


def _routes(world: _World, phase: Phase) -> Iterable[Violation]:
    for site_id, rank, place in _unanswered(world):
        if place not in world.excused or rank != world.ranks.get(site_id):
            yield Violation(
                code="prefix_absent_route",
                subject=f'site "{site_id}": route "{place[1].route_id}" to "{place[0]}"',
                limit="a ready replica that answers it",
                actual=f"none for a moment in phase {phase.name}",
                remedy="let every site of the change be connected, then apply again",
            )


def _answering(world: _World) -> Answering:
    """Where a key is answered whichever of the possible routes is in force."""
    answering: dict[RouteKey, set[str]] = {}
    for site_id, possible in world.routes.items():
        sure: set[RouteKey] | None = None
        for assignment in possible:
            routes = () if assignment is None else assignment.routes
            keys = {r.key for r in routes if r.groups and _has_ready(world, r)}
            sure = keys if sure is None else sure & keys
        for key in sure or ():
            answering.setdefault(key, set()).add(site_id)
    one: dict[frozenset[str], frozenset[str]] = {}
    frozen = ((key, frozenset(site_ids)) for key, site_ids in answering.items())
    return {key: one.setdefault(site_ids, site_ids) for key, site_ids in frozen}


def _has_ready(world: _World, route: Route) -> bool:
    return all(world.ready.get(g.group_id, 0) > 0 for g in route.groups if g.basis_points)


def _unanswered(world: _World) -> Iterable[tuple[str, tuple[int, int], Place]]:
    """(ingress site, rank of its routes, place not answering) under any of the possible routes."""
    answering = _answering(world)
    if answering != world.answering:
        world.answering, world.void = answering, {}
    for site_id in sorted(world.routes):
        like = None
        for assignment in world.routes[site_id]:
            if assignment is None:
                continue
            if id(assignment) not in world.void:
                world.void[id(assignment)] = _sent_into_void(world, assignment, like)
            for n, missing in world.void[id(assignment)].items():
                for target in missing:
                    yield site_id, assignment.rank, (target, assignment.routes[n].key)
            like = assignment


def _sent_into_void(world: _World, assignment: SiteAssignment, like: SiteAssignment | None) -> Void:
    """What no site answers of an assignment; where it holds the very route of the one before, that
    one's answer holds. Many routes share shares, and many keys who answers them: each such pair is
    compared once, known by the identity of objects that outlive the check.
    """
    before = like.routes if like else ()
    known = world.void[id(like)] if like else {}
    void: dict[int, tuple[str, ...]] = {}
    compared: dict[tuple[int, int, int], tuple[str, ...]] = {}
    nowhere = frozenset[str]()
    for n, (route, old) in enumerate(zip_longest(assignment.routes, before)):
        if route is old:
            missing = known.get(n, ())
        elif route is None:
            break  # the one before has more
        else:
            there = world.answering.get(route.key, nowhere)
            asked = (id(route.shares), id(route.backups), id(there))
            if asked not in compared:
                compared[asked] = _not_there(route, there)
            missing = compared[asked]
        if missing:
            void[n] = missing
    return void


def _not_there(route: Route, there: frozenset[str]) -> tuple[str, ...]:
    return tuple(
        share.site_id
        for share in (*route.shares, *route.backups)
        if share.basis_points and share.site_id not in there
    )


def _broken(world: _World) -> frozenset[Place]:
    """What is sent into the void before the change begins: mended by it, not caused."""
    return frozenset(place for _, _, place in _unanswered(world))
