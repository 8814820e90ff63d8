"""The rows of the formulation: one function per family, named as in messages and golden files.

Each docstring opens with its inequality. Power is in kW, rates in requests/s, work in
replica-seconds per second (busy replicas). Latency, residency, transit, memory and the quality
floor are not rows: they decide which arcs exist (`optimizer.arcs`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from optimizer.milp.model import Formulation, kw
from optimizer.policy import GroupBound
from sites.fleet import at_period
from sites.units import BITS_PER_BYTE, WHOLE_BP


def demand_balance(f: Formulation) -> None:
    """``sum_r x[d,r] + shed[d] == rate[d]``: each class is served or shed, nothing vanishes."""

    def row(class_id: str) -> Any:
        terms = [(1.0, f.model.x[key]) for key in f.inputs.arcs_of_class[class_id]]
        terms.append((1.0, f.model.shed[class_id]))
        return f.sum_of(terms) == f.inputs.rates[class_id]

    f.rows("demand_balance", f.inputs.classes, row)


def throughput(f: Formulation) -> None:
    """``sum_d replica_seconds[d,r] * x[d,r] <= ceiling * n[r]``: no replica above the ceiling."""
    ceiling = f.inputs.problem.plan_policy.utilisation_ceiling

    def row(group_id: str) -> Any:
        terms = [
            (f.inputs.arcs[key].replica_seconds, f.model.x[key])
            for key in f.inputs.arcs_of_group[group_id]
        ]
        return f.sum_of([*terms, (-ceiling, f.model.n[group_id])]) <= 0

    f.rows("throughput", f.inputs.arcs_of_group, row)


def pool_accelerators(f: Formulation) -> None:
    """``sum_r accelerators[r] * n[r] <= count[pool]``."""
    members: dict[str, list[str]] = {}
    counts: dict[str, int] = {}
    for group_id, facts in f.inputs.groups.items():
        pool_id = f"{facts.option.site.site_id}/{facts.option.pool.pool_id}"
        members.setdefault(pool_id, []).append(group_id)
        counts[pool_id] = facts.option.pool.count

    def row(pool_id: str) -> Any:
        used = f.sum_of(
            (
                float(f.inputs.groups[g].option.group.accelerators_per_replica),
                f.model.n[g],
            )
            for g in members[pool_id]
        )
        return used <= f.room("pool_accelerators", pool_id, limit=counts[pool_id])

    f.rows("pool_accelerators", sorted(members), row)


def site_power(f: Formulation) -> None:
    """``pue * sum_r full[r] * n[r] <= budget[s]`` and
    ``pue * sum_r (idle[r] * n[r] + (full[r] - idle[r]) * busy[r]) == sum_k e[k]``.

    The hard budget is on the possible draw; the supplies cover the mean draw (row ``s/draw``), in
    which busy[r] is the left side of `throughput`. That one is an equation, not an inequality: a
    supply priced below nothing must not be credited for power nobody draws.
    """

    def possible(site_id: str) -> Any:
        site = f.inputs.sites[site_id]
        budget_kw = kw(at_period(site.power_budget_w, f.inputs.problem.period))
        draw = f.sum_of(
            (f.inputs.groups[g].possible_kw, f.model.n[g]) for g in f.inputs.groups_of_site[site_id]
        )
        return draw <= f.room("site_power", site_id, limit=budget_kw)

    def mean(site_id: str) -> Any:
        terms = []
        for group_id in f.inputs.groups_of_site[site_id]:
            facts = f.inputs.groups[group_id]
            terms.append((facts.idle_kw, f.model.n[group_id]))
            terms += [
                (facts.busy_kw * f.inputs.arcs[key].replica_seconds, f.model.x[key])
                for key in f.inputs.arcs_of_group.get(group_id, ())
            ]
        supplies = f.inputs.sites[site_id].supplies
        terms += [(-1.0, f.model.e[site_id, k.supply_id]) for k in supplies]
        return f.sum_of(terms) == 0

    rows = {site_id: (possible, site_id) for site_id in f.inputs.sites}
    rows |= {f"{site_id}/draw": (mean, site_id) for site_id in f.inputs.sites}
    f.rows("site_power", rows, lambda subject: rows[subject][0](rows[subject][1]))


def supply_limit(f: Formulation) -> None:
    """``e[k] <= limit[k]``."""
    limits = {
        f"{site_id}/{k.supply_id}": (site_id, k)
        for site_id, site in f.inputs.sites.items()
        for k in site.supplies
    }

    def row(subject: str) -> Any:
        site_id, supply = limits[subject]
        limit_kw = kw(at_period(supply.limit_w, f.inputs.problem.period))
        taken = f.sum_of([(1.0, f.model.e[site_id, supply.supply_id])])
        return taken <= f.room("supply_limit", subject, limit=limit_kw)

    f.rows("supply_limit", limits, row)


def link_bandwidth(f: Formulation) -> None:
    """``sum over arcs crossing the link of 8 * bytes[d] * x[d,r] <= bandwidth[link]``, in Mbit/s.

    Request and answer are counted together against one direction's bandwidth, which is on the
    safe side. Only links that some arc crosses have a row.
    """
    crossing: dict[str, list[tuple[float, Any]]] = {}
    for key in f.inputs.arcs:
        megabits = f.inputs.classes[key[0]].bytes_per_request * BITS_PER_BYTE / 1e6
        if megabits > 0:
            for link_id in f.inputs.link_ids(key):
                crossing.setdefault(link_id, []).append((megabits, f.model.x[key]))
    limits = {k.link_id: k.bandwidth_bps / 1e6 for k in f.inputs.problem.fleet.links}

    def row(link_id: str) -> Any:
        carried = f.sum_of(crossing[link_id])
        return carried <= f.room("link_bandwidth", link_id, limit=limits[link_id])

    f.rows("link_bandwidth", sorted(crossing), row)


def replica_change(f: Formulation) -> None:
    """``n[r] - running[r] == up[r] - down[r]``: couples a plan to what runs now."""

    def row(group_id: str) -> Any:
        terms = [
            (1.0, f.model.n[group_id]),
            (-1.0, f.model.up[group_id]),
            (1.0, f.model.down[group_id]),
        ]
        return f.sum_of(terms) == f.inputs.groups[group_id].running

    f.rows("replica_change", f.inputs.groups, row)


def _bounds(f: Formulation) -> dict[str, GroupBound]:
    """Replica bounds by ``site/variant``, without lost sites; of two for one pair, the strictest
    of each side.
    """
    policy, lost = f.inputs.problem.plan_policy, f.inputs.problem.lost_sites
    merged: dict[str, GroupBound] = {}
    for bound in sorted(policy.replica_bounds, key=lambda b: (b.site_id, b.variant_id)):
        if bound.site_id in lost:
            continue
        subject = f"{bound.site_id}/{bound.variant_id}"
        before = merged.get(subject, bound)
        caps = [b.most for b in (before, bound) if b.most is not None]
        merged[subject] = GroupBound(
            site_id=bound.site_id,
            variant_id=bound.variant_id,
            fewest=max(before.fewest, bound.fewest),
            most=min(caps) if caps else None,
        )
    return merged


def replica_floor(f: Formulation) -> None:
    """``sum_r n[r] >= fewest`` over a site's groups of one variant. A lost site owes nothing."""
    bounds = {subject: b for subject, b in _bounds(f).items() if b.fewest > 0}

    def row(subject: str) -> Any:
        placed = f.sum_of((-1.0, f.model.n[g]) for g in f.inputs.groups_within(bounds[subject]))
        return placed <= f.room("replica_floor", subject, limit=-bounds[subject].fewest)

    f.rows("replica_floor", bounds, row)


def replica_cap(f: Formulation) -> None:
    """``sum_r n[r] <= most`` over a site's groups of one variant."""
    bounds = {subject: b for subject, b in _bounds(f).items() if b.most is not None}

    def row(subject: str) -> Any:
        placed = f.sum_of((1.0, f.model.n[g]) for g in f.inputs.groups_within(bounds[subject]))
        return placed <= f.room("replica_cap", subject, limit=bounds[subject].most or 0)

    f.rows("replica_cap", bounds, row)


def spread(f: Formulation) -> None:
    """``k * sum_{r at s} x[d,r] + shed[d] <= rate[d]``: no site serves over 1/k of what is served.

    Whatever is served of a class is then served by at least k sites, without a binary per (class,
    site). It asks for more than k sites with any share, on purpose: a second site that takes one
    request in ten thousand is no spread.
    """
    subjects = {
        f"{class_id}@{site_id}": (class_id, site_id)
        for class_id, one in f.inputs.classes.items()
        if one.spread_sites > 1
        for site_id in f.inputs.serving_sites(class_id)
    }

    def row(subject: str) -> Any:
        class_id, site_id = subjects[subject]
        here = [
            (float(f.inputs.classes[class_id].spread_sites), f.model.x[key])
            for key in f.inputs.arcs_of_class[class_id]
            if f.inputs.arcs[key].group.site_id == site_id
        ]
        served = f.sum_of([*here, (1.0, f.model.shed[class_id])])
        return served <= f.room("spread", subject, limit=f.inputs.rates[class_id])

    f.rows("spread", subjects, row)


def move_limit(f: Formulation) -> None:
    """``sum_r (up[r] + down[r]) <= move_limit_replicas``: how much one plan may change."""
    limit = f.inputs.problem.plan_policy.move_limit_replicas
    subjects = [] if limit is None else ["fleet"]

    def row(subject: str) -> Any:
        moves = [(1.0, f.model.up[g]) for g in f.inputs.groups]
        moves += [(1.0, f.model.down[g]) for g in f.inputs.groups]
        return f.sum_of(moves) <= f.room("move_limit", subject, limit=limit or 0)

    f.rows("move_limit", subjects, row)


def shed_cap(f: Formulation) -> None:
    """``shed[d] <= max_shed * rate[d]``, where the policy caps shedding."""
    cap_bp = f.inputs.problem.plan_policy.max_shed_basis_points
    subjects = [] if cap_bp is None else list(f.inputs.classes)

    def row(class_id: str) -> Any:
        limit = (cap_bp or 0) / WHOLE_BP * f.inputs.rates[class_id]
        shed = f.sum_of([(1.0, f.model.shed[class_id])])
        return shed <= f.room("shed_cap", class_id, limit=limit)

    f.rows("shed_cap", subjects, row)


def site_open(f: Formulation) -> None:
    """``n[r] <= most[r] * open[s]`` and ``sum_{r at s} x[d,r] <= rate[d] * open[s]``.

    Only at sites with a fixed price. The second, one row per class and site, is implied by the
    first and `throughput` for whole replicas; it is what makes the linear relaxation tight.
    """
    rows: dict[str, tuple[list[Any], float, str]] = {}
    for site_id in f.model.open:
        for group_id in f.inputs.groups_of_site[site_id]:
            most = float(f.inputs.groups[group_id].most)
            rows[group_id] = ([f.model.n[group_id]], most, site_id)
    for key, arc in f.inputs.arcs.items():
        site_id = arc.group.site_id
        if site_id in f.model.open:
            subject = f"{key[0]}@{site_id}"
            rows.setdefault(subject, ([], f.inputs.rates[key[0]], site_id))[0].append(
                f.model.x[key]
            )

    def row(subject: str) -> Any:
        variables, most, site_id = rows[subject]
        terms = [(1.0, v) for v in variables]
        return f.sum_of([*terms, (-most, f.model.open[site_id])]) <= 0

    f.rows("site_open", rows, row)


def arc_link(f: Formulation) -> None:
    """``x[d,r] / rate[d] - n[r] <= 0``: a class is only served where a whole replica stands.

    Where a class alone could not fill one replica to the ceiling (else `throughput` says more) and
    the site has no fixed price (else `site_open` does). Implied for whole replicas; there are as
    many as arcs, so the solver gets only those its relaxation breaks (`LAZY_FAMILIES`).
    """
    ceiling = f.inputs.problem.plan_policy.utilisation_ceiling
    arcs = {
        f"{key[0]}@{key[1]}": key
        for key, arc in f.inputs.arcs.items()
        if arc.replica_seconds * f.inputs.rates[key[0]] < ceiling
        and arc.group.site_id not in f.model.open
    }

    def row(subject: str) -> Any:
        key = arcs[subject]
        part = 1.0 / f.inputs.rates[key[0]]
        return f.sum_of([(part, f.model.x[key]), (-1.0, f.model.n[key[1]])]) <= 0

    f.rows("arc_link", arcs, row)


def surrogate(f: Formulation) -> None:
    """``sum_r best[r] * ceiling * n[r] + sum_d tokens[d] * shed[d] >= sum_d tokens[d] * rate[d]``,
    divided by its right side.

    Per service and set R of groups that some class of it may use: d runs over the classes that may
    use groups of R only, r over R; best[r] is the largest tokens[d] / replica_seconds[d,r]. In
    words: the output tokens/s all those replicas could give cover what those classes ask. Implied
    by `throughput` and `demand_balance`; it hands the solver whole-replica knapsacks to cut and
    branch on.
    """
    ceiling = f.inputs.problem.plan_policy.utilisation_ceiling
    members = _confined_classes(f)

    def row(subject: str) -> Any:
        best: dict[str, float] = {}
        needed = 0.0
        shed = []
        for class_id in members[subject]:
            tokens = f.inputs.classes[class_id].output_tokens
            needed += tokens * f.inputs.rates[class_id]
            shed.append((tokens, f.model.shed[class_id]))
            for key in f.inputs.arcs_of_class[class_id]:
                rate = tokens / f.inputs.arcs[key].replica_seconds
                best[key[1]] = max(best.get(key[1], 0.0), rate)
        given = [(best[g] * ceiling, f.model.n[g]) for g in sorted(best)]
        return f.sum_of((part / needed, variable) for part, variable in given + shed) >= 1

    f.rows("surrogate", members, row)


def _confined_classes(f: Formulation) -> dict[str, list[str]]:
    """For each service and set of groups some class may use, the classes that may use no other.

    Named after the service and the first class with exactly that set.
    """
    usable: dict[str, dict[frozenset[str], list[str]]] = {}
    for class_id, one in f.inputs.classes.items():
        groups = frozenset(group_id for _, group_id in f.inputs.arcs_of_class[class_id])
        if groups:
            usable.setdefault(one.service_id, {}).setdefault(groups, []).append(class_id)
    return {
        f"{service_id}|{exactly[0]}": sorted(
            class_id for inner, ids in sets.items() if inner <= outer for class_id in ids
        )
        for service_id, sets in sorted(usable.items())
        for outer, exactly in sets.items()
    }


FAMILIES: tuple[Callable[[Formulation], None], ...] = (
    demand_balance,
    throughput,
    pool_accelerators,
    site_power,
    supply_limit,
    link_bandwidth,
    replica_change,
    replica_floor,
    replica_cap,
    spread,
    move_limit,
    shed_cap,
    site_open,
    surrogate,
    arc_link,
)
"""Every row family, in the order the model declares them."""


def add_rows(f: Formulation) -> None:
    """Declare all rows of all families."""
    for family in FAMILIES:
        family(f)
