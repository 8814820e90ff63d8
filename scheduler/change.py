"""From a plan to the phases that put it into force, or to the reasons why none are safe.

Decides whether old and new replicas can stand side by side and, where they cannot, whether traffic
can wait elsewhere meanwhile. Uses the newest observations; sends nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from optimizer.plan import Plan, PlannedGroup
from optimizer.problem import Problem, RunningGroup
from optimizer.reroute import reroute, rerouted_problem
from scheduler.phases import (
    Phase,
    SiteMove,
    build_phases,
    numbered,
    reroute_phase,
    site_move,
    unfit_moves,
)
from scheduler.prefixes import SiteStart, check_prefixes
from scheduler.reconcile import GroupChange
from scheduler.state import HOLDS_HARDWARE, CycleState
from sites.assignment import SiteAssignment
from sites.assignment_json import assignment_digest
from sites.errors import Violation
from sites.fit import check_fit
from sites.telemetry import ReplicaState


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """Phases that put `plan` into force, or violations (then no phases).

    `finals` are the assignments the sites end with, lost and unreachable ones included.
    """

    problem: Problem
    plan: Plan
    finals: Mapping[str, SiteAssignment]
    phases: tuple[Phase, ...]
    violations: tuple[Violation, ...]

    @property
    def first_version(self) -> int:
        """Version of the first phase."""
        return self.phases[0].rank[1]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Aim:
    """What is to be put into force, and when."""

    state: CycleState
    problem: Problem
    plan: Plan
    now_ms: int

    def cut(self) -> dict[str, SiteAssignment]:
        """Every site's final assignment, under the first free version."""
        version = self.state.version + 1
        return self.state.cut(self.problem, self.plan, version=version, now_ms=self.now_ms)


def plan_change(state: CycleState, problem: Problem, plan: Plan, *, now_ms: int) -> Change:
    """The full change: starts, moves, drains, stops; validated against every prefix."""
    aim = _Aim(state=state, problem=problem, plan=plan, now_ms=now_ms)
    cut = aim.cut()
    moves = _moves(state, cut)
    violations: tuple[Violation, ...] = ()
    unfit = unfit_moves(moves)
    if not unfit:
        phases = build_phases(moves, state.config)
    else:
        phases, violations = _by_elsewhere(aim, moves, unfit)
    return _finished(aim, cut, phases, violations)


def reroute_change(state: CycleState, problem: Problem, plan: Plan, *, now_ms: int) -> Change:
    """The urgent change of a failover: one phase, routes only."""
    aim = _Aim(state=state, problem=problem, plan=plan, now_ms=now_ms)
    cut = aim.cut()
    moves = _moves(state, cut)
    phases = (reroute_phase(moves, state.config),) if moves else ()
    return _finished(aim, cut, phases, ())


def starts_of(state: CycleState) -> tuple[SiteStart, ...]:
    """Every site that serves now, as the prefix check wants it."""
    return tuple(
        SiteStart(
            site_id=site_id,
            in_force=state.site(site_id).in_force,
            fresh=state.site(site_id).rank == (0, 0),
            ready=state.site(site_id).counts(ReplicaState.READY),
            alive=state.site(site_id).counts(*HOLDS_HARDWARE),
        )
        for site_id in state.site_ids()
        if site_id not in state.lost
    )


def is_same_content(one: SiteAssignment | None, other: SiteAssignment) -> bool:
    """Whether two assignments want the same, whatever their rank, times and ancestry."""
    return one is not None and _content(one) == _content(other)


def _content(assignment: SiteAssignment) -> SiteAssignment:
    wanted = tuple(t for t in assignment.groups if t.replicas)
    return replace(
        assignment,
        epoch=0,
        version=0,
        issued_at_ms=0,
        expires_at_ms=0,
        parent_digest="",
        plan_digest="",
        groups=wanted,
    )


def _moves(state: CycleState, cut: Mapping[str, SiteAssignment]) -> tuple[SiteMove, ...]:
    return tuple(site_move(state.site(s), cut[s]) for s in state.reachable() if s in cut)


def _finished(
    aim: _Aim,
    cut: Mapping[str, SiteAssignment],
    phases: tuple[Phase, ...],
    violations: tuple[Violation, ...],
) -> Change:
    state = aim.state
    phases = _with_parents(state, numbered(phases, first_version=state.version + 1))
    if phases and not violations:
        violations = check_prefixes(phases, starts=starts_of(state))
        fits = [check_fit(a) for phase in phases for a in phase.assignments]
        violations = (*violations, *(v for found in fits for v in found))
    version = phases[-1].rank[1] if phases else state.version + 1
    last = {a.site_id: a for a in (phases[-1].assignments if phases else ())}
    finals = {s: last.get(s) or replace(a, version=version) for s, a in sorted(cut.items())}
    return Change(
        problem=aim.problem,
        plan=aim.plan,
        finals=finals,
        phases=() if violations else phases,
        violations=_each_once(violations),
    )


def _each_once(violations: Iterable[Violation]) -> tuple[Violation, ...]:
    return tuple(dict.fromkeys(violations))


def _with_parents(state: CycleState, phases: tuple[Phase, ...]) -> tuple[Phase, ...]:
    """Name in each assignment the digest of the one it follows at its site."""
    parents = {s: state.site(s).digest_in_force() for s in state.site_ids()}
    done = []
    for number, phase in enumerate(phases):
        assignments = tuple(
            replace(a, parent_digest=parents.get(a.site_id, "")) for a in phase.assignments
        )
        if number + 1 < len(phases):
            parents |= {a.site_id: assignment_digest(a) for a in assignments}
        done.append(replace(phase, assignments=assignments))
    return tuple(done)


def _by_elsewhere(
    aim: _Aim,
    moves: tuple[SiteMove, ...],
    unfit: Mapping[str, tuple[Violation, ...]],
) -> tuple[tuple[Phase, ...], tuple[Violation, ...]]:
    """First the sites that do not fit shrink while traffic waits elsewhere, then they grow."""
    state, problem, plan = aim.state, aim.problem, aim.plan
    staged = {
        c.group.group_id: RunningGroup(group=c.group, replicas=replicas)
        for m in moves
        for c in m.changes
        if (replicas := _staged_replicas(c, shrinks=m.site_id in unfit))
    }
    groups = tuple(staged[g] for g in sorted(staged))
    waiting = reroute(problem, plan, lost_sites=(), running=groups)
    worse = _sheds_more(waiting, than=(plan, state.desired.plan if state.desired else plan))
    if worse:
        return (), (*(v for s in sorted(unfit) for v in unfit[s]), *worse)
    cut = state.cut(
        rerouted_problem(problem, plan, lost_sites=(), running=groups),
        replace(
            waiting,
            groups=tuple(PlannedGroup(group=g.group, replicas=g.replicas) for g in groups),
        ),
        version=state.version + 1,
        now_ms=aim.now_ms,
        plan_digest=plan.plan_digest,
    )
    first = tuple(replace(m, final=cut[m.site_id], changes=_until(m, staged)) for m in moves)
    second = tuple(replace(m, before=cut[m.site_id], changes=_after(m, staged)) for m in moves)
    phases = (
        *(replace(p, name=f"elsewhere-{p.name}") for p in build_phases(first, state.config)),
        *build_phases(second, state.config),
    )
    return phases, ()


def _staged_replicas(change: GroupChange, *, shrinks: bool) -> int:
    if shrinks:
        return min(change.ready, change.wanted)
    return max(change.ready, change.wanted)


def _until(move: SiteMove, staged: Mapping[str, RunningGroup]) -> tuple[GroupChange, ...]:
    return tuple(replace(c, wanted=_replicas(c, staged)) for c in move.changes)


def _after(move: SiteMove, staged: Mapping[str, RunningGroup]) -> tuple[GroupChange, ...]:
    return tuple(
        replace(c, ready=_replicas(c, staged), alive=_replicas(c, staged)) for c in move.changes
    )


def _replicas(change: GroupChange, staged: Mapping[str, RunningGroup]) -> int:
    held = staged.get(change.group.group_id)
    return held.replicas if held else 0


def _sheds_more(waiting: Plan, *, than: tuple[Plan, ...]) -> tuple[Violation, ...]:
    """Classes that would be shed more than they are now or will be under the new plan."""
    allowed: dict[str, int] = {}
    for plan in than:
        for one in plan.shed:
            allowed[one.class_id] = max(allowed.get(one.class_id, 0), one.basis_points)
    return tuple(
        Violation(
            code="no_make_before_break",
            subject=f'class "{one.class_id}" while replicas are exchanged',
            limit=allowed.get(one.class_id, 0),
            actual=one.basis_points,
            unit="bp shed",
            remedy="no other site has room meanwhile: plan in two steps or free hardware first",
        )
        for one in waiting.shed
        if one.basis_points > allowed.get(one.class_id, 0)
    )
