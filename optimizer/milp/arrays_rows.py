"""The rows of `constraints` as arrays: one function per family, named and meant as there.

A family answers its rows as entries (row, column, value) with lower and upper limits and a name for
each row, made only when somebody asks. Power is in kW, rates in requests/s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.milp.arrays_period import Period, Places
from optimizer.policy import GroupBound
from optimizer.problem import Problem
from optimizer.tables import NOWHERE, Floats, Ints
from optimizer.tabulate_routes import path_links, runs
from sites.units import BITS_PER_BYTE, W_PER_KW, WHOLE_BP

_UINT16_MAX = 65_535

Term = tuple[Places, Ints, Floats | float]
"""Entries of some rows: row within the family, column, value (or one value for all)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """The rows of one family: entries sorted by row, limits, and each row's subject."""

    family: str
    row: NDArray[np.int_]
    column: Ints
    value: Floats
    lower: Floats
    upper: Floats
    subject: Callable[[int], str]

    @property
    def count(self) -> int:
        """How many rows."""
        return len(self.lower)


def rows_of(
    family: str,
    terms: list[Term],
    *,
    limit: Floats,
    subject: Callable[[int], str],
    sense: str = "<=",
) -> Rows:
    """Rows ``sum of terms <= limit`` (or ``==``, ``>=``); terms may come in any order."""
    row = np.concatenate([np.asarray(r, dtype=np.intp) for r, _, _ in terms])
    column = np.concatenate([c for _, c, _ in terms])
    value = np.concatenate([np.broadcast_to(v, len(r)) for r, _, v in terms])
    if np.any(row[1:] < row[:-1]):
        order = _order(row, among=len(limit))
        row, column, value = row[order], column[order], value[order]
    unlimited = np.full(len(limit), np.inf)
    return Rows(
        family=family,
        row=row,
        column=column,
        value=value,
        lower=-unlimited if sense == "<=" else limit,
        upper=unlimited if sense == ">=" else limit,
        subject=subject,
    )


def _order(keys: Places, *, among: int) -> NDArray[np.intp]:
    """What sorts keys below `among`, equals as they stand."""
    # numpy sorts 16-bit keys by counting, several times as fast as wider ones
    return np.argsort(keys.astype(np.uint16) if among <= _UINT16_MAX else keys, kind="stable")


def ranked(values: Places, *, among: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The distinct values, ascending, and the place of each value among them.

    Values lie between 0 and `among`; no sort, unlike `np.unique`.
    """
    seen = np.zeros(among, dtype=np.bool_)
    seen[values] = True
    return np.flatnonzero(seen), (np.cumsum(seen) - 1)[values]


def no_rows(family: str) -> Rows:
    """A family of which a period has none."""
    none = np.zeros(0, dtype=np.int32)
    return rows_of(family, [(none, none, 0.0)], limit=np.zeros(0), subject=str)


def shed_and_moved(
    p: Period, *, shed: Floats | float = 1.0, moved: Floats | float = -1.0
) -> list[Term]:
    """Entries of every class's row: `shed` x shed, `moved` x what arrives less what leaves.

    Values by class position, or one for all.
    """
    classes = p.tables.classes.count
    part = np.broadcast_to(moved, classes)[p.moved.cls] * p.moved.sign
    return [
        (np.arange(classes), p.column("shed"), shed),
        (p.moved.cls, p.moved.column, part),
    ]


def able(p: Period, *, row: Places, local: Places, value: Floats) -> list[Term]:
    """Entries ``value * available * n`` of groups at `local`; in a horizon less what loads."""
    groups = p.tables.groups
    at = p.placeable.group[local]
    part = value * groups.available[at]
    terms: list[Term] = [(row, p.column("n", local), part)]
    if p.timed:
        loading = np.minimum(1.0, groups.loading_h[at])
        starts = loading > 0
        terms.append((row[starts], p.column("up", local[starts]), (-part * loading)[starts]))
    return terms


def demand_balance(p: Period) -> Rows:
    """``sum_r x[d,r,t] + shed[d,t] + sum_u defer[d,t->u] == rate[d,t] + sum_u defer[d,u->t]``."""
    terms: list[Term] = [(p.arcs.cls, p.column("x"), 1.0)]
    terms += shed_and_moved(p)
    ids = p.tables.classes.ids
    return rows_of("demand_balance", terms, limit=p.asked_rps, sense="==", subject=lambda i: ids[i])


def deferral_window(p: Period) -> tuple[Rows, Rows]:
    """``sum_u defer[d,t->u] <= rate[d,t]``, t < u <= t + `deferrable_h`, u within the horizon, and
    ``sum_u due[d,age->u] == pending[d,age]`` for what was deferred before the horizon.
    """
    ids = p.tables.classes.ids
    cls, row = ranked(p.defer.cls, among=p.tables.classes.count)
    leaving = rows_of(
        "deferral_window",
        [(row, p.column("defer"), 1.0)],
        limit=p.asked_rps[cls],
        subject=lambda i: ids[cls[i]],
    )
    asked = np.stack([p.due.cls, p.due.ago])
    _, at, old = np.unique(asked, axis=1, return_index=True, return_inverse=True)
    pending = rows_of(
        "deferral_window",
        [(old.reshape(-1), p.column("due"), 1.0)],
        limit=p.due.most_rps[at],
        sense="==",
        subject=lambda i: f"{ids[p.due.cls[at[i]]]}@-{p.due.ago[at[i]]}",
    )
    return leaving, pending


def throughput(p: Period) -> Rows:
    """``sum_d replica_seconds[d,r] * x[d,r] <= ceiling * available[r] * n[r]``.

    Only groups with an arc have a row.
    """
    order = p.by_group
    local, row = ranked(p.local[p.arcs.group[order]], among=p.groups)
    ceiling = p.tables.problem.plan_policy.utilisation_ceiling
    terms: list[Term] = [(row, p.column("x", order), p.arcs.replica_seconds[order])]
    terms += able(p, row=np.arange(len(local)), local=local, value=np.full(len(local), -ceiling))
    return rows_of(
        "throughput",
        terms,
        limit=np.zeros(len(local)),
        subject=lambda i: p.tables.group_id(int(p.placeable.group[local[i]])),
    )


def pool_accelerators(p: Period) -> Rows:
    """``sum_r accelerators[r] * n[r] <= count[pool]``."""
    groups, pools = p.tables.groups, p.tables.pools
    pool, row = ranked(groups.pool[p.placeable.group], among=len(pools.ids))
    used = groups.accelerators[p.placeable.group].astype(np.float64)
    return rows_of(
        "pool_accelerators",
        [(row, p.column("n"), used)],
        limit=pools.count[pool].astype(np.float64),
        subject=lambda i: pools.ids[pool[i]],
    )


def site_power(p: Period) -> tuple[Rows, Rows]:
    """``pue * sum_r full[r] * n[r] <= budget[s]`` and
    ``pue * sum_r (idle[r] * n[r] + (full[r] - idle[r]) * busy[r]) == sum_k e[k]``.

    The first of the two sets of rows is the budget's, the second (``s/draw``) the mean draw's.
    """
    groups, sites = p.tables.groups, p.tables.sites
    row = np.searchsorted(p.site, groups.site[p.placeable.group])
    possible = rows_of(
        "site_power",
        [(row, p.column("n"), p.of_groups(groups.possible_kw))],
        limit=sites.budget_w[p.site] / W_PER_KW,
        subject=lambda i: sites.ids[p.site[i]],
    )
    order, supply_site = p.by_group, p.tables.supplies.site[p.supply]
    group = p.arcs.group[order]
    drawn = groups.busy_kw[group] * p.arcs.replica_seconds[order]
    mean = rows_of(
        "site_power",
        [
            (row, p.column("n"), p.of_groups(groups.idle_kw)),
            (np.searchsorted(p.site, groups.site[group]), p.column("x", order), drawn),
            (np.searchsorted(p.site, supply_site), p.column("e"), -1.0),
        ],
        limit=np.zeros(len(p.site)),
        sense="==",
        subject=lambda i: f"{sites.ids[p.site[i]]}/draw",
    )
    return possible, mean


def supply_limit(p: Period) -> Rows:
    """``e[k] <= limit[k]``."""
    supplies = p.tables.supplies
    return rows_of(
        "supply_limit",
        [(np.arange(len(p.supply)), p.column("e"), 1.0)],
        limit=supplies.limit_kw[p.supply],
        subject=lambda i: supplies.ids[p.supply[i]],
    )


def link_bandwidth(p: Period) -> Rows:
    """``sum over arcs crossing the link of 8 * bytes[d] * x[d,r] <= bandwidth[link]``, in Mbit/s.

    Only links that some arc with bytes crosses have a row.
    """
    classes, links, routes = p.tables.classes, p.tables.links, p.tables.routes
    sites = len(p.tables.sites.ids)
    sent = np.flatnonzero(classes.bytes_per_request[p.arcs.cls] > 0)
    cls, site = p.arcs.cls[sent], p.tables.groups.site[p.arcs.group[sent]]
    way, of_arc = ranked(
        classes.route[cls].astype(np.intp) * sites + site, among=len(routes.source) * sites
    )
    by_way = sent[_order(of_arc, among=len(way))]
    arcs = np.bincount(of_arc, minlength=len(way))
    first = np.cumsum(arcs) - arcs
    taken, crossed = path_links(routes, links, route=way // sites, site=way % sites)
    link, row = ranked(crossed, among=len(links.ids))
    order = _order(row, among=len(link))
    row, taken = row[order], taken[order]
    arc = by_way[runs(first[taken], arcs[taken])]
    megabits = classes.bytes_per_request * BITS_PER_BYTE / 1e6
    return rows_of(
        "link_bandwidth",
        [(np.repeat(row, arcs[taken]), p.column("x", arc), megabits[p.arcs.cls[arc]])],
        limit=links.bandwidth_mbps[link],
        subject=lambda i: links.ids[link[i]],
    )


def replica_change(p: Period) -> Rows:
    """``n[r,t] - n[r,t-1] == up[r,t] - down[r,t]``; in the first period against what runs now."""
    row = np.arange(p.groups)
    terms: list[Term] = [
        (row, p.column("n"), 1.0),
        (row, p.column("up"), -1.0),
        (row, p.column("down"), 1.0),
    ]
    limit = p.of_groups(p.tables.groups.running).astype(np.float64)
    if p.before is not None:
        limit = np.zeros(p.groups)
        terms.append((row, p.before.column("n"), -1.0))
    return rows_of(
        "replica_change",
        terms,
        limit=limit,
        sense="==",
        subject=lambda i: p.tables.group_id(int(p.placeable.group[i])),
    )


def merged_bounds(problem: Problem) -> dict[tuple[str, str], GroupBound]:
    """Replica bounds by (site, variant), without lost sites; of two, the strictest of each side."""
    lost = problem.lost_sites
    merged: dict[tuple[str, str], GroupBound] = {}
    for bound in problem.plan_policy.replica_bounds:
        if bound.site_id not in lost:
            key = (bound.site_id, bound.variant_id)
            other = merged.get(key, bound)
            caps = [b.most for b in (other, bound) if b.most is not None]
            merged[key] = GroupBound(
                site_id=bound.site_id,
                variant_id=bound.variant_id,
                fewest=max(other.fewest, bound.fewest),
                most=min(caps) if caps else None,
            )
    return {key: merged[key] for key in sorted(merged)}


def _bounded(p: Period, family: str, limits: dict[tuple[str, str], int], *, sign: float) -> Rows:
    if not limits:
        return no_rows(family)
    groups = p.tables.groups
    terms: list[Term] = []
    for row, (site_id, variant_id) in enumerate(limits):
        site = _position(p.tables.sites.ids, site_id)
        variant = _position(p.tables.variants.ids, variant_id)
        of_site = p.of_groups(groups.site) == site
        local = np.flatnonzero(of_site & (p.of_groups(groups.variant) == variant))
        terms.append((np.full(len(local), row), p.column("n", local), sign))
    subjects = list(limits)
    return rows_of(
        family,
        terms,
        limit=np.array([sign * limits[key] for key in subjects], dtype=np.float64),
        subject=lambda i: "/".join(subjects[i]),
    )


def _position(ids: tuple[str, ...], one: str) -> int:
    return ids.index(one) if one in ids else NOWHERE


def replica_floor(p: Period) -> Rows:
    """``sum_r n[r] >= fewest`` over a site's groups of one variant (both sides negated)."""
    merged = merged_bounds(p.tables.problem)
    limits = {key: b.fewest for key, b in merged.items() if b.fewest > 0}
    return _bounded(p, "replica_floor", limits, sign=-1.0)


def replica_cap(p: Period) -> Rows:
    """``sum_r n[r] <= most`` over a site's groups of one variant."""
    merged = merged_bounds(p.tables.problem)
    limits = {key: b.most for key, b in merged.items() if b.most is not None}
    return _bounded(p, "replica_cap", limits, sign=1.0)


def move_limit(p: Period) -> Rows:
    """``sum_r (up[r] + down[r]) <= move_limit_replicas``."""
    limit = p.tables.problem.plan_policy.move_limit_replicas
    if limit is None:
        return no_rows("move_limit")
    row = np.zeros(p.groups, dtype=np.intp)
    return rows_of(
        "move_limit",
        [(row, p.column("up"), 1.0), (row, p.column("down"), 1.0)],
        limit=np.array([float(limit)]),
        subject=lambda _: "fleet",
    )


def shed_cap(p: Period) -> Rows:
    """``shed[d] <= max_shed * rate[d]``, of the rate after deferral, where the policy says so."""
    cap_bp = p.tables.problem.plan_policy.max_shed_basis_points
    if cap_bp is None:
        return no_rows("shed_cap")
    part = cap_bp / WHOLE_BP
    ids = p.tables.classes.ids
    return rows_of(
        "shed_cap",
        shed_and_moved(p, moved=-part),
        limit=part * p.asked_rps,
        subject=lambda i: ids[i],
    )
