"""Hours of a horizon for the array compiler: period after period, joined by what couples them.

Decides what `day` and `model.start_horizon` decide for the Pyomo model: what deferral can make of a
rate, how wide each hour's groups must be, which deferrals there are. Rows and columns of an hour
are those of `arrays_period` and the families.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from math import fsum

import numpy as np

from optimizer.arcs import standby_arcs
from optimizer.milp.arrays import Matrix, compile_periods
from optimizer.milp.arrays_period import Deferrals, Moved, Period, find_placeable, lay_out
from optimizer.milp.constraints_survive import SurvivalCut
from optimizer.problem import Problem
from optimizer.sweep import ArcTable, Sweep
from optimizer.tables import ClassTable, Tables, floats, ints
from optimizer.tabulate import tabulate
from sites.traffic import Demand

Rates = Mapping[str, float]
"""Requests/s by class id."""


def compile_hours(
    hours: Sequence[Problem],
    *,
    planned: int,
    pending: Mapping[str, Mapping[int, float]] | None = None,
    cuts: Sequence[tuple[SurvivalCut, ...]] = (),
) -> Matrix:
    """The matrix of consecutive hours over all arcs: ordinary problems that differ in what changes
    over the day, the demand of each the rates born in it. Needs at least one. The first `planned`
    get whole replicas, those behind parts of some.

    `pending`: requests/s deferred before the first hour, by class id and hours ago. `cuts` of the
    first hours, made for the rates born in them.
    """
    horizon = lay_out_hours(hours, pending=pending or {}, cuts=cuts)
    return compile_periods(tuple(replace(p, in_parts=p.at >= planned) for p in horizon))


def lay_out_hours(
    hours: Sequence[Problem],
    *,
    pending: Mapping[str, Mapping[int, float]],
    cuts: Sequence[tuple[SurvivalCut, ...]] = (),
) -> tuple[Period, ...]:
    """The columns of every hour. The same groups in all, each wide enough for the busiest hour:
    what idles through an hour or loads ahead of one may be worth its price.
    """
    born = [{c.class_id: h.rate_rps(c) for c in h.classes} for h in hours]
    most = [_most_rates(hours, born, at, pending=pending) for at in range(len(hours))]
    envelope = {class_id: max(rates[class_id] for rates in most) for class_id in most[0]}
    steady = tabulate(_asking(hours[0], envelope))
    arcs = Sweep(steady).table()
    useful = _with_standby(steady, arcs)
    used = find_placeable(steady, useful).group
    parts = np.minimum(1.0, steady.groups.loading_h[used])
    ahead = float(np.max(1.0 / (1.0 - parts[parts < 1]), initial=1.0))
    wide = {class_id: rate * ahead for class_id, rate in envelope.items()}
    chain: list[Period] = []
    for at, hour in enumerate(hours):
        wider = tabulate(_asking(hour, wide))
        tables, kept = _narrowed(wider, arcs, rates=most[at])
        one = lay_out(tables, kept, placeable=find_placeable(wider, useful))
        one = replace(
            one,
            at=at,
            timed=True,
            first=chain[-1].first + chain[-1].width if chain else 0,
            asked_rps=floats(born[at][class_id] for class_id in tables.classes.ids),
            defer=_deferrals(tables, born[at], at=at, last=len(hours) - 1),
            due=Deferrals() if at else _due(tables, pending, last=len(hours) - 1),
            before=chain[-1] if chain else None,
            cuts=cuts[at] if at < len(cuts) else (),
        )
        chain.append(replace(one, moved=_moved(chain, one)))
    return tuple(chain)


def _with_standby(tables: Tables, arcs: ArcTable) -> ArcTable:
    """The arcs, and those there are once a class's site of entry is lost: they too say which groups
    are worth having and how many replicas of each. In no order. A class that asks nothing keeps no
    replica busy; its groups are there all the same.
    """
    class_at = {class_id: at for at, class_id in enumerate(tables.classes.ids)}
    group_at = {tables.group_id(at): at for at in range(tables.groups.count)}
    known = set(zip(arcs.cls.tolist(), arcs.group.tolist(), strict=True))
    more = [
        (
            class_at.get(a.class_id, 0),
            group_at[a.group.group_id],
            a.replica_seconds if a.class_id in class_at else 0.0,
        )
        for a in (standby_arcs(tables.problem) if class_at else ())
    ]
    new = [one for one in more if one[2] == 0 or one[:2] not in known]
    none = np.zeros(len(new))
    return ArcTable(
        cls=np.concatenate((arcs.cls, ints(cls for cls, _, _ in new))),
        group=np.concatenate((arcs.group, ints(group for _, group, _ in new))),
        replica_seconds=np.concatenate((arcs.replica_seconds, floats(s for _, _, s in new))),
        network_usd_per_h=np.concatenate((arcs.network_usd_per_h, none)),
        ttft_ms=np.concatenate((arcs.ttft_ms, none)),
    )


def _most_rates(
    hours: Sequence[Problem],
    born: Sequence[Rates],
    at: int,
    *,
    pending: Mapping[str, Mapping[int, float]],
) -> dict[str, float]:
    """The most that deferral can make of each class's rate in one hour."""
    rates = {}
    for one in hours[at].classes:
        parts = [born[u][one.class_id] for u in range(max(0, at - one.deferrable_h), at + 1)]
        for ago, rate in pending.get(one.class_id, {}).items():
            if at == 0 or ago + at <= one.deferrable_h:
                parts.append(rate)
        rates[one.class_id] = fsum(parts)
    return rates


def _asking(problem: Problem, rates: Rates) -> Problem:
    demand = tuple(
        Demand(class_id=class_id, period=problem.period, rate_rps=rates[class_id])
        for class_id in sorted(rates)
    )
    return replace(problem, demand=demand)


def _narrowed(tables: Tables, arcs: ArcTable, *, rates: Rates) -> tuple[Tables, ArcTable]:
    """The same fleet for other rates: classes without demand and their arcs are left out."""
    asked = floats(rates[class_id] for class_id in tables.classes.ids)
    kept = np.flatnonzero(asked > 0)
    columns = {f.name: getattr(tables.classes, f.name) for f in fields(ClassTable)}
    some = {name: column[kept] for name, column in columns.items() if name != "ids"}
    some["rate_rps"] = asked[kept]
    classes = ClassTable(ids=tuple(tables.classes.ids[at] for at in kept), **some)
    place = np.full(tables.classes.count, -1, dtype=np.int32)
    place[kept] = np.arange(len(kept), dtype=np.int32)
    mine = arcs.only(place[arcs.cls] >= 0)
    return replace(tables, classes=classes), replace(mine, cls=place[mine.cls])


def _deferrals(tables: Tables, born: Rates, *, at: int, last: int) -> Deferrals:
    """Every hour that what is born in this one may wait for, by its deadline and the horizon."""
    wait_h = {c.class_id: c.deferrable_h for c in tables.problem.classes}
    found = [
        (cls, to, born[class_id])
        for cls, class_id in enumerate(tables.classes.ids)
        if born[class_id] > 0
        for to in range(at + 1, min(at + wait_h[class_id], last) + 1)
    ]
    return Deferrals(
        cls=ints(cls for cls, _, _ in found),
        to=ints(to for _, to, _ in found),
        ago=ints(0 for _ in found),
        most_rps=floats(most for _, _, most in found),
    )


def _due(tables: Tables, pending: Mapping[str, Mapping[int, float]], *, last: int) -> Deferrals:
    """Every hour in which something deferred before the horizon may be answered."""
    wait_h = {c.class_id: c.deferrable_h for c in tables.problem.classes}
    class_at = {class_id: at for at, class_id in enumerate(tables.classes.ids)}
    found = [
        (class_at[class_id], to, ago, pending[class_id][ago])
        for class_id in sorted(pending)
        for ago in sorted(pending[class_id])
        for to in range(min(max(0, wait_h[class_id] - ago), last) + 1)
    ]
    return Deferrals(
        cls=ints(cls for cls, _, _, _ in found),
        to=ints(to for _, to, _, _ in found),
        ago=ints(ago for _, _, ago, _ in found),
        most_rps=floats(most for _, _, _, most in found),
    )


def _moved(earlier: Sequence[Period], one: Period) -> Moved:
    """What reaches an hour from those before it, and what leaves it."""
    class_at = {class_id: at for at, class_id in enumerate(one.tables.classes.ids)}
    cls, column, sign = [one.defer.cls], [one.column("defer")], [np.full(one.defer.count, -1.0)]
    for p in [*earlier, one]:
        for variable, moves in (("defer", p.defer), ("due", p.due)):
            here = np.flatnonzero(moves.to == one.at)
            names = [p.tables.classes.ids[at] for at in moves.cls[here]]
            cls.append(ints(class_at[name] for name in names))
            column.append(p.column(variable, here))
            sign.append(np.ones(len(here)))
    return Moved(cls=np.concatenate(cls), column=np.concatenate(column), sign=np.concatenate(sign))
