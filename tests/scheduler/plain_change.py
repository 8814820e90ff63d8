"""What `scheduler.phases`, `old_ways` and `prefixes` are held against: each route on its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction

from optimizer.assign_routes import split_bp
from scheduler.phases import Phase, SiteMove, _held_targets
from scheduler.prefixes import (
    Place,
    SiteStart,
    _begin,
    _finish,
    _open,
    _World,
)
from sites.assignment import GroupShare, Route, RouteDecision, RouteKey, SiteAssignment
from sites.errors import Violation
from sites.residency import ResidencyPolicy, may_process, may_transit


def plain_prefix_faults(
    phases: tuple[Phase, ...], starts: tuple[SiteStart, ...]
) -> tuple[Violation, ...]:
    """The ``prefix_absent_route`` violations of a change, each once."""
    world = _open(starts)
    world.excused = _broken(world)
    found: dict[str, Violation] = {}
    for phase in phases:
        for wave in phase.waves:
            _begin(world, phase, wave)
            for violation in plain_route_faults(world, phase):
                found.setdefault(violation.subject, violation)
            _finish(world, phase, wave)
    return tuple(found.values())


def plain_route_faults(world: _World, phase: Phase) -> Iterable[Violation]:
    answering = _answering(world)
    for site_id, rank, place in _sent(world):
        excused = place in world.excused and rank == world.ranks.get(site_id)
        if place not in answering and not excused:
            yield Violation(
                code="prefix_absent_route",
                subject=f'site "{site_id}": route "{place[1].route_id}" to "{place[0]}"',
                limit="a ready replica that answers it",
                actual=f"none for a moment in phase {phase.name}",
                remedy="let every site of the change be connected, then apply again",
            )


def _answering(world: _World) -> frozenset[Place]:
    """(site, key) that are answered whichever of the possible routes is in force."""
    answering: set[Place] = set()
    for site_id, possible in world.routes.items():
        sure: set[RouteKey] | None = None
        for assignment in possible:
            routes = () if assignment is None else assignment.routes
            keys = {r.key for r in routes if _has_ready(world, r)}
            sure = keys if sure is None else sure & keys
        answering |= {(site_id, key) for key in sure or ()}
    return frozenset(answering)


def _has_ready(world: _World, route: Route) -> bool:
    return bool(route.groups) and all(
        world.ready.get(g.group_id, 0) > 0 for g in route.groups if g.basis_points
    )


def _sent(world: _World) -> Iterable[tuple[str, tuple[int, int], Place]]:
    """(ingress site, rank of its routes, (serving site, key)) under any of the possible routes."""
    for site_id in sorted(world.routes):
        for assignment in world.routes[site_id]:
            if assignment is None:
                continue
            for route in assignment.routes:
                for share in (*route.shares, *route.backups):
                    if share.basis_points:
                        yield site_id, assignment.rank, (share.site_id, route.key)


def _broken(world: _World) -> frozenset[Place]:
    """What is sent into the void before the change begins: mended by it, not caused."""
    answering = _answering(world)
    return frozenset(place for _, _, place in _sent(world) if place not in answering)


def plain_gains(moves: tuple[SiteMove, ...]) -> bool:
    """Whether some ingress will send a key to a site that does not serve it yet."""
    serving = {
        (m.site_id, r.key)
        for m in moves
        if m.before is not None
        for r in m.before.routes
        if r.groups
    }
    here = {m.site_id for m in moves}
    return any(
        share.site_id in here and (share.site_id, route.key) not in serving
        for m in moves
        for route in m.final.routes
        for share in (*route.shares, *route.backups)
    )


def plain_opening(move: SiteMove) -> SiteAssignment:
    """Ingress as before, serving as before plus what is new."""
    before = {r.key: r for r in (move.before.routes if move.before else ())}
    routes = []
    for final in move.final.routes:
        old = before.get(final.key)
        policy = _policy(move.final, final.key)
        groups = _kept_groups(move, old, policy) or final.groups
        if old is not None and _is_lawful(move, old, policy):
            routes.append(replace(old, groups=groups))
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
            routes.append(replace(final, groups=groups))
    return replace(move.final, groups=_held_targets(move), routes=tuple(routes))


def plain_moving(move: SiteMove) -> SiteAssignment:
    """Ingress as wanted, serving as wanted plus old keys that somebody may still send."""
    before = {r.key: r for r in (move.before.routes if move.before else ())}
    routes = []
    for final in move.final.routes:
        groups = final.groups
        if not groups:
            policy = _policy(move.final, final.key)
            groups = _kept_groups(move, before.get(final.key), policy)
        routes.append(replace(final, groups=groups))
    return replace(move.final, groups=_held_targets(move), routes=tuple(routes))


def _policy(assignment: SiteAssignment, key: RouteKey) -> ResidencyPolicy | None:
    return next((p for p in assignment.policies if p.policy_id == key.residency_policy_id), None)


def _kept_groups(
    move: SiteMove, old: Route | None, policy: ResidencyPolicy | None
) -> tuple[GroupShare, ...]:
    """The old serving groups that still run, if the new law and the new services allow them."""
    if old is None or policy is None:
        return ()
    if not may_process(policy, country=move.final.country, tags=move.final.residency_tags):
        return ()
    variants = dict(move.final.services).get(old.key.service_id, ())
    alive = {c.group.group_id for c in move.changes if c.alive and c.group.variant_id in variants}
    weights = {
        g.group_id: Fraction(g.basis_points)
        for g in old.groups
        if g.group_id in alive and g.basis_points
    }
    if not weights:
        return ()
    parts = split_bp(weights)
    return tuple(GroupShare(group_id=g, basis_points=parts[g]) for g in sorted(parts))


def _is_lawful(move: SiteMove, old: Route, policy: ResidencyPolicy | None) -> bool:
    """Whether the old ingress role of a key may go on under the new law."""
    if policy is None:
        return False
    places = {p.site_id: (p.country, p.residency_tags) for p in move.final.peers}
    places[move.site_id] = (move.final.country, move.final.residency_tags)
    return may_transit(policy, country=move.final.country) and all(
        share.site_id in places
        and may_process(policy, country=places[share.site_id][0], tags=places[share.site_id][1])
        and all(may_transit(policy, country=c) for c in share.transit_countries)
        for share in (*old.shares, *old.backups)
    )
