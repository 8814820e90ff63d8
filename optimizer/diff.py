"""What a plan changes against the one before it, as values and as plain lines.

Decides how changes are told apart (add, change, replace, remove, unchanged); colours, and where the
lines go, are the CLI's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite

from optimizer.figures import GroupFigures, draw_total_w, group_figures, slowest_ttft_ms
from optimizer.plan import Plan, TrafficShare
from optimizer.problem import Problem
from optimizer.reach import Reach
from sites.assignment import ReplicaGroup
from sites.units import W_PER_KW

ROUTES_SHOWN = 20
"""Changed routes listed unless everything is asked for; the rest is counted, never dropped."""

_BP_PER_PERCENT = 100
_W_PER_MW = 1e6


class Mark(StrEnum):
    """What happens to a placement or a route."""

    ADD = "add"
    CHANGE = "change"
    REPLACE = "replace"
    REMOVE = "remove"
    UNCHANGED = "unchanged"

    @property
    def sign(self) -> str:
        """``+``, ``~``, ``-/+``, ``-`` or nothing, three columns wide."""
        signs = {"add": "+", "change": "~", "replace": "-/+", "remove": "-"}
        return f"{signs.get(self.value, ''):<3}"


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupChange:
    """One placement: a variant on a pool. `replaces` names the variant it takes the place of.

    `accelerators` counts those in use afterwards (before, for REMOVE). `usd_per_mtok` None: idle.
    `quality_change` is the new variant's score minus the old one's.
    """

    mark: Mark
    site_id: str
    pool_id: str
    variant_id: str
    accelerator: str
    accelerators: int
    before_replicas: int
    after_replicas: int
    usd_per_mtok: float | None = None
    ttft_ms: float = 0.0
    percentile: float = 0.0
    replaces: str = ""
    quality_change: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class SitePart:
    """Basis points of a class served at a site before and after (site "" = shed)."""

    site_id: str
    before_bp: int
    after_bp: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RouteChange:
    """One traffic class: where it is served, and its slowest TTFT (ms; 0 = nowhere)."""

    mark: Mark
    class_id: str
    parts: tuple[SitePart, ...]
    before_ttft_ms: float
    after_ttft_ms: float
    ttft_limit_ms: float
    percentile: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanDiff:
    """All changes, sorted; costs in USD/h (None before: there was no plan), draws in W."""

    groups: tuple[GroupChange, ...]
    routes: tuple[RouteChange, ...]
    before_usd_per_h: float | None
    after_usd_per_h: float
    before_draw_w: float
    after_draw_w: float

    def count(self, mark: Mark) -> int:
        """Placements and routes of one mark."""
        marks = [g.mark for g in self.groups] + [r.mark for r in self.routes]
        return marks.count(mark)

    @property
    def is_empty(self) -> bool:
        """Whether nothing changes."""
        return self.count(Mark.UNCHANGED) == len(self.groups) + len(self.routes)


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffLine:
    """One line of text and what it is about (None: a summary)."""

    text: str
    mark: Mark | None = None


def diff_plans(before: Plan | None, after: Plan, problem: Problem) -> PlanDiff:
    """Compare two plans; `problem` is what `after` answers and where figures are read.

    What `before` holds that the problem no longer knows is shown as removed, without figures.
    """
    reach = Reach(problem)
    return PlanDiff(
        groups=_group_changes(reach, before, after),
        routes=_route_changes(reach, _Routes(before), _Routes(after)),
        before_usd_per_h=None if before is None else before.cost.total_usd_per_h,
        after_usd_per_h=after.cost.total_usd_per_h,
        before_draw_w=0.0 if before is None else draw_total_w(before),
        after_draw_w=draw_total_w(after),
    )


def _replicas(plan: Plan | None) -> dict[ReplicaGroup, int]:
    return {} if plan is None else {g.group: g.replicas for g in plan.groups}


def _group_changes(reach: Reach, before: Plan | None, after: Plan) -> tuple[GroupChange, ...]:
    had, has = _replicas(before), _replicas(after)
    figures = group_figures(reach, after)
    replaced = _replacements(reach, had, has)
    gone = set(replaced.values())
    changes = [
        _group_change(reach, g, had, has, figures=figures.get(g.group_id), old=replaced.get(g))
        for g in sorted({*had, *has})
        if g not in gone
    ]
    return tuple(changes)


def _replacements(
    reach: Reach, had: dict[ReplicaGroup, int], has: dict[ReplicaGroup, int]
) -> dict[ReplicaGroup, ReplicaGroup]:
    """New group -> the group of the same model on the same pool that it takes the place of."""
    models = {v.variant_id: v.model_id for v in reach.problem.catalog.variants}

    def place(group: ReplicaGroup) -> tuple[str, str, str]:
        return group.site_id, group.pool_id, models.get(group.variant_id, group.variant_id)

    leaving = defaultdict(list)
    for group in sorted(had.keys() - has.keys()):
        leaving[place(group)].append(group)
    pairs: dict[ReplicaGroup, ReplicaGroup] = {}
    for group in sorted(has.keys() - had.keys()):
        candidates = leaving[place(group)]
        if candidates:
            pairs[group] = candidates.pop(0)
    return pairs


def _group_change(
    reach: Reach,
    group: ReplicaGroup,
    had: dict[ReplicaGroup, int],
    has: dict[ReplicaGroup, int],
    *,
    figures: GroupFigures | None,
    old: ReplicaGroup | None,
) -> GroupChange:
    earlier, later = had.get(old or group, 0), has.get(group, 0)
    pool = reach.pool(group)
    cpt = figures.usd_per_mtok if figures is not None else None
    return GroupChange(
        mark=Mark.REPLACE if old else _mark(earlier, later),
        site_id=group.site_id,
        pool_id=group.pool_id,
        variant_id=group.variant_id,
        accelerator=pool.accelerator if pool else group.pool_id,
        accelerators=group.accelerators_per_replica * (later or earlier),
        before_replicas=earlier,
        after_replicas=later,
        usd_per_mtok=cpt if cpt is not None and isfinite(cpt) else None,
        ttft_ms=figures.ttft_ms if figures is not None else 0.0,
        percentile=figures.percentile if figures is not None else 0.0,
        replaces=old.variant_id if old else "",
        quality_change=_quality(reach, group) - _quality(reach, old) if old else 0.0,
    )


def _quality(reach: Reach, group: ReplicaGroup) -> float:
    scores = {v.variant_id: v.quality for v in reach.problem.catalog.variants}
    return scores.get(group.variant_id, 0.0)


def _mark(earlier: object, later: object) -> Mark:
    if not earlier:
        return Mark.ADD
    if not later:
        return Mark.REMOVE
    return Mark.UNCHANGED if earlier == later else Mark.CHANGE


class _Routes:
    """The routes of a plan (None: of nothing) by class."""

    def __init__(self, plan: Plan | None) -> None:
        self.groups = {g.group.group_id: g.group for g in plan.groups} if plan else {}
        self.shares: dict[str, list[TrafficShare]] = defaultdict(list)
        self.parts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for share in plan.shares if plan else ():
            self.shares[share.class_id].append(share)
            self.parts[share.class_id][share.site_id] += share.basis_points
        for shed in plan.shed if plan else ():
            self.parts[shed.class_id][""] += shed.basis_points

    def parts_of(self, class_id: str) -> dict[str, int]:
        """Site ("" = shed) -> basis points of a class."""
        return dict(self.parts.get(class_id, {}))

    def slowest_ms(self, reach: Reach, class_id: str) -> float:
        """Slowest TTFT of a class; 0 if it is served nowhere."""
        return slowest_ttft_ms(reach, self.shares.get(class_id, ()), groups=self.groups)


def _route_changes(reach: Reach, before: _Routes, after: _Routes) -> tuple[RouteChange, ...]:
    return tuple(
        _route_change(reach, class_id, before, after)
        for class_id in sorted({*before.parts, *after.parts})
    )


def _route_change(reach: Reach, class_id: str, before: _Routes, after: _Routes) -> RouteChange:
    earlier, later = before.parts_of(class_id), after.parts_of(class_id)
    one = reach.classes.get(class_id)
    return RouteChange(
        mark=_mark(earlier, later),
        class_id=class_id,
        parts=tuple(
            SitePart(site_id=s, before_bp=earlier.get(s, 0), after_bp=later.get(s, 0))
            for s in sorted({*earlier, *later}, key=lambda s: (s == "", s))
        ),
        before_ttft_ms=before.slowest_ms(reach, class_id),
        after_ttft_ms=after.slowest_ms(reach, class_id),
        ttft_limit_ms=one.slo.ttft_ms if one else 0.0,
        percentile=one.slo.percentile if one else 0.0,
    )


def diff_lines(diff: PlanDiff, *, full: bool = False) -> tuple[DiffLine, ...]:
    """The diff as lines: placements, routes, cost and power, counts.

    Unchanged ones only with `full`; without it at most `ROUTES_SHOWN` routes, the others counted.
    """
    groups = [g for g in diff.groups if full or g.mark is not Mark.UNCHANGED]
    routes = [r for r in diff.routes if full or r.mark is not Mark.UNCHANGED]
    shown = routes if full else routes[:ROUTES_SHOWN]
    lines = [DiffLine(text=_group_text(g), mark=g.mark) for g in groups]
    lines += [DiffLine(text=_route_text(r), mark=r.mark) for r in shown]
    if len(shown) < len(routes):
        more = f"      … {len(shown)} of {len(routes)} changed routes shown (--full shows all)"
        lines.append(DiffLine(text=more))
    return (*lines, DiffLine(text=_cost_text(diff)), DiffLine(text=_count_text(diff, full=full)))


def _group_text(one: GroupChange) -> str:
    words = [f"  {one.mark.sign} place", one.variant_id, one.site_id]
    size = f"{one.accelerators}×{one.accelerator}"
    if one.mark is Mark.REMOVE:
        return "  ".join([*words, f"frees {size}"])
    if one.mark is Mark.REPLACE:
        words.append(_replacement_text(one))
    if one.before_replicas not in (0, one.after_replicas):
        words.append(f"{one.before_replicas}→{one.after_replicas} replicas")
    words.append(size)
    words.append("idle" if one.usd_per_mtok is None else f"${one.usd_per_mtok:.2f}/Mtok")
    if one.ttft_ms:
        words.append(f"p{one.percentile:g} {one.ttft_ms:.0f} ms")
    return "  ".join(words)


def _replacement_text(one: GroupChange) -> str:
    if one.replaces == one.variant_id:
        return "other replica size"
    return f"{one.replaces}→{one.variant_id} quality {one.quality_change:+.1%}"


def _route_text(one: RouteChange) -> str:
    parts = ", ".join(_part_text(p, one.mark) for p in one.parts)
    words = [f"  {one.mark.sign} route", one.class_id, parts]
    if one.after_ttft_ms:
        before = f"{one.before_ttft_ms:.0f}→" if _moved(one) else ""
        limit = f"/{one.ttft_limit_ms:g}" if one.ttft_limit_ms else ""
        words.append(f"p{one.percentile:g} {before}{one.after_ttft_ms:.0f}{limit} ms")
    return "  ".join(words)


def _moved(one: RouteChange) -> bool:
    return one.before_ttft_ms > 0 and round(one.before_ttft_ms) != round(one.after_ttft_ms)


def _part_text(part: SitePart, mark: Mark) -> str:
    name = part.site_id or "shed"
    if mark is Mark.ADD or part.before_bp == part.after_bp:
        return f"{name} {_percent(part.after_bp)}%"
    if mark is Mark.REMOVE:
        return f"{name} {_percent(part.before_bp)}%"
    return f"{name} {_percent(part.before_bp)}→{_percent(part.after_bp)}%"


def _percent(basis_points: int) -> str:
    return f"{basis_points / _BP_PER_PERCENT:g}"


def _cost_text(diff: PlanDiff) -> str:
    after = f"${diff.after_usd_per_h:,.2f}/h"
    if diff.before_usd_per_h is None:
        return f"Cost {after}   Power {_power(diff.after_draw_w, diff.after_draw_w)}"
    change = diff.after_usd_per_h - diff.before_usd_per_h
    part = f" ({change / diff.before_usd_per_h:+.1%})" if diff.before_usd_per_h else ""
    watts = max(diff.before_draw_w, diff.after_draw_w)
    before_w = _power(diff.before_draw_w, watts).split(" ")[0]
    return (
        f"Cost ${diff.before_usd_per_h:,.2f}/h → {after}{part}   "
        f"Power {before_w} → {_power(diff.after_draw_w, watts)}"
    )


def _power(watts: float, scale_w: float) -> str:
    if scale_w >= _W_PER_MW:
        return f"{watts / _W_PER_MW:.2f} MW"
    return f"{watts / W_PER_KW:.2f} kW" if scale_w >= W_PER_KW else f"{watts:.0f} W"


def _count_text(diff: PlanDiff, *, full: bool) -> str:
    marks: Iterable[Mark] = (Mark.ADD, Mark.CHANGE, Mark.REPLACE, Mark.REMOVE)
    counted = ", ".join(f"{diff.count(mark)} {mark.value}" for mark in marks)
    hint = "" if full or not diff.count(Mark.UNCHANGED) else " (--full)"
    return f"Plan: {counted}; {diff.count(Mark.UNCHANGED)} unchanged{hint}"
