"""The formulation's index sets and figures, taken from a problem once and sorted.

Decides which groups get variables and how far those may go. What the rows say is `constraints`'s.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from optimizer.arcs import GroupOption, fit_fault, group_options, standby_arcs
from optimizer.plan import CandidateArc
from optimizer.policy import GroupBound
from optimizer.problem import Problem
from sites.fleet import Site, at_period
from sites.traffic import TrafficClass
from sites.units import W_PER_KW

ArcKey = tuple[str, str]
"""(class id, group id)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupFacts:
    """One replica group as the formulation sees it: what runs now, and the most that may run."""

    option: GroupOption
    running: int
    most: int

    @property
    def available(self) -> float:
        """Part of the time a replica is there, between 0 and 1; below 1 only on spot pools."""
        return self.option.available

    @property
    def loading(self) -> float:
        """Time from start to ready (h)."""
        return self.option.point.start_h

    @property
    def possible_kw(self) -> float:
        """Draw of one replica at full use, cooling included (kW)."""
        return self.option.point.full_w * self.option.site.pue / W_PER_KW

    @property
    def idle_kw(self) -> float:
        """Draw of one idle replica, cooling included (kW)."""
        return self.option.point.idle_w * self.option.site.pue / W_PER_KW

    @property
    def busy_kw(self) -> float:
        """What one busy replica draws beyond an idle one, cooling included (kW)."""
        point = self.option.point
        return (point.full_w - point.idle_w) * self.option.site.pue / W_PER_KW


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """Index sets, sorted: classes with demand, arcs, groups, sites that hold a group.

    `rates` in requests/s by class id. `arcs_of_class` / `arcs_of_group` list arc keys.
    """

    problem: Problem
    classes: Mapping[str, TrafficClass]
    rates: Mapping[str, float]
    arcs: Mapping[ArcKey, CandidateArc]
    groups: Mapping[str, GroupFacts]
    sites: Mapping[str, Site]
    arcs_of_class: Mapping[str, tuple[ArcKey, ...]] = field(default_factory=dict)
    arcs_of_group: Mapping[str, tuple[ArcKey, ...]] = field(default_factory=dict)
    groups_of_site: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def groups_within(self, bound: GroupBound) -> tuple[str, ...]:
        """Ids of the groups a replica bound speaks of."""
        return tuple(
            group_id
            for group_id in self.groups_of_site.get(bound.site_id, ())
            if self.groups[group_id].option.variant.variant_id == bound.variant_id
        )

    def link_ids(self, key: ArcKey) -> tuple[str, ...]:
        """Links an arc's requests cross."""
        path = self.arcs[key].path
        return tuple("--".join(sorted(pair)) for pair in pairwise(path))


def take_inputs(
    problem: Problem, arcs: Iterable[CandidateArc], *, beyond_limits: bool = False
) -> Inputs:
    """Index sets and figures of a problem.

    `beyond_limits` lets replica counts pass the pool's and the power budget's room, for elastic
    solves that ask how much more is needed.
    """
    rates = {c.class_id: problem.rate_rps(c) for c in problem.classes}
    classes = {
        c.class_id: c
        for c in sorted(problem.classes, key=lambda c: c.class_id)
        if rates[c.class_id] > 0
    }
    kept = {
        (a.class_id, a.group.group_id): a
        for a in sorted(arcs, key=lambda a: (a.class_id, a.group.group_id))
        if a.class_id in classes
    }
    groups = _groups(problem, kept, rates=rates, beyond_limits=beyond_limits)
    by_class: dict[str, list[ArcKey]] = {class_id: [] for class_id in classes}
    by_group: dict[str, list[ArcKey]] = {}
    for key in kept:
        by_class[key[0]].append(key)
        by_group.setdefault(key[1], []).append(key)
    by_site: dict[str, list[str]] = {}
    for group_id, facts in groups.items():
        by_site.setdefault(facts.option.site.site_id, []).append(group_id)
    return Inputs(
        problem=problem,
        classes=classes,
        rates={class_id: rates[class_id] for class_id in classes},
        arcs=kept,
        groups=groups,
        sites={site_id: problem.fleet.site(site_id) for site_id in sorted(by_site)},
        arcs_of_class={c: tuple(keys) for c, keys in by_class.items()},
        arcs_of_group={g: tuple(keys) for g, keys in sorted(by_group.items())},
        groups_of_site={s: tuple(ids) for s, ids in sorted(by_site.items())},
    )


def _groups(
    problem: Problem,
    arcs: Mapping[ArcKey, CandidateArc],
    *,
    rates: Mapping[str, float],
    beyond_limits: bool,
) -> dict[str, GroupFacts]:
    """Groups that an arc, now or after a loss, a replica floor or a running replica speaks of."""
    options = group_options(problem)
    running = {r.group.group_id: r.replicas for r in problem.running if r.replicas > 0}
    floors = {(b.site_id, b.variant_id) for b in problem.plan_policy.replica_bounds if b.fewest}
    floored = {
        group_id
        for group_id, o in options.items()
        if (o.site.site_id, o.variant.variant_id) in floors and fit_fault(o) is None
    }
    useful = {key: arc.replica_seconds for key, arc in arcs.items()}
    useful |= {(a.class_id, a.group.group_id): a.replica_seconds for a in standby_arcs(problem)}
    wanted = {group_id for _, group_id in useful} | floored | (running.keys() & options.keys())
    work_s: dict[str, float] = {}
    for (class_id, group_id), busy_s in sorted(useful.items()):
        work_s[group_id] = work_s.get(group_id, 0.0) + busy_s * rates[class_id]
    return {
        group_id: GroupFacts(
            option=options[group_id],
            running=running.get(group_id, 0),
            most=_most(
                problem,
                options[group_id],
                running=running.get(group_id, 0),
                work_s=None if group_id in floored else work_s.get(group_id, 0.0),
                beyond_limits=beyond_limits,
            ),
        )
        for group_id in sorted(wanted)
    }


def _most(
    problem: Problem,
    option: GroupOption,
    *,
    running: int,
    work_s: float | None,
    beyond_limits: bool,
) -> int:
    """Most replicas of a group any sensible plan has.

    Room in the pool and under the power budget; never more than its classes could keep busy
    (`work_s` replica-seconds per second, None: unknown) unless power is sold below nothing, when
    idling pays. A cordoned site starts nothing. What runs now may stay while a move limit holds
    it.
    """
    policy = problem.plan_policy
    if fit_fault(option) is not None:
        return 0
    useful = math.inf
    if work_s is not None and not _power_pays(problem, option.site):
        useful = math.ceil(work_s / (policy.utilisation_ceiling * option.available) - 1e-9)
    room: float = option.pool.count // option.group.accelerators_per_replica
    draw_w = option.point.full_w * option.site.pue
    if draw_w > 0:
        budget_w = at_period(option.site.power_budget_w, problem.period)
        room = min(room, math.floor(budget_w / draw_w + 1e-9))
    if beyond_limits:
        room = max(room, useful if math.isfinite(useful) else room + 100)
    if option.site.cordoned:
        room = min(room, running)
    most = int(min(room, useful))
    return max(most, running) if policy.move_limit_replicas is not None else most


def _power_pays(problem: Problem, site: Site) -> bool:
    return any(at_period(s.price_usd_per_kwh, problem.period) < 0 for s in site.supplies)
