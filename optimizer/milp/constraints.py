"""The rows of the formulation: one function per family, named as in messages and golden files.

Each docstring opens with its inequality. Power is in kW, rates in requests/s, work in
replica-seconds per second (busy replicas). Rows about mixes and sums are `constraints_mix`'s, those
about lost sites `constraints_survive`'s. What rules single arcs out (latency, residency, transit,
memory, quality) is no row: it decides which arcs exist (`optimizer.arcs`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from optimizer.milp.constraints_mix import MIX_FAMILIES
from optimizer.milp.model import Formulation, kw
from optimizer.policy import GroupBound
from sites.fleet import at_period
from sites.units import BITS_PER_BYTE, WHOLE_BP


def demand_balance(f: Formulation) -> None:
    """``sum_r x[d,r,t] + shed[d,t] + sum_u defer[d,t->u] == rate[d,t] + sum_u defer[d,u->t]``.

    Each class is served, shed or, in a horizon, deferred to a later period; nothing vanishes. What
    arrives deferred is served or shed.
    """

    def row(class_id: str) -> Any:
        terms = [(1.0, f.model.x[key]) for key in f.inputs.arcs_of_class[class_id]]
        terms.append((1.0, f.model.shed[class_id]))
        rate, moved = f.asked(class_id)
        return f.sum_of([*terms, *((-sign, v) for sign, v in moved)]) == rate

    f.rows("demand_balance", f.inputs.classes, row)


def deferral_window(f: Formulation) -> None:
    """``sum_u defer[d,t->u] <= rate[d,t]``, t < u <= t + `deferrable_h`, u within the horizon.

    Only what was born in a period is deferred from it. What is pending from before the horizon
    (``class@-age``) comes due by its own deadline: ``sum_u due[d,age->u] == pending[d,age]``.
    """
    later: dict[str, list[tuple[float, Any]]] = {}
    for class_id, to in f.model.defer:
        later.setdefault(class_id, []).append((1.0, f.model.defer[class_id, to]))
    old: dict[str, tuple[float, list[tuple[float, Any]]]] = {}
    for class_id, ago, to in f.model.due:
        subject = f"{class_id}@-{ago}"
        rate = f.pending[class_id][ago]
        old.setdefault(subject, (rate, []))[1].append((1.0, f.model.due[class_id, ago, to]))

    def row(subject: str) -> Any:
        if subject in old:
            rate, terms = old[subject]
            return f.sum_of(terms) == rate
        return f.sum_of(later[subject]) <= f.born[subject]

    f.rows("deferral_window", [*later, *old], row)


def throughput(f: Formulation) -> None:
    """``sum_d replica_seconds[d,r] * x[d,r] <= ceiling * available[r] * n[r]``.

    No replica above the ceiling; one on a spot pool is there part of the time. In a horizon
    ``n[r,t] - loading[r] * up[r,t]`` stands for n[r]: what starts loads before it serves.
    """
    ceiling = f.inputs.problem.plan_policy.utilisation_ceiling

    def row(group_id: str) -> Any:
        terms = [
            (f.inputs.arcs[key].replica_seconds, f.model.x[key])
            for key in f.inputs.arcs_of_group[group_id]
        ]
        able = [(-ceiling * part, variable) for part, variable in f.able(group_id)]
        return f.sum_of([*terms, *able]) <= 0

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
    """``n[r,t] - n[r,t-1] == up[r,t] - down[r,t]``: couples a plan to what runs before it.

    In the first period that is what runs now: ``n[r] - running[r] == up[r] - down[r]``.
    """

    def row(group_id: str) -> Any:
        terms = [
            (1.0, f.model.n[group_id]),
            (-1.0, f.model.up[group_id]),
            (1.0, f.model.down[group_id]),
        ]
        if f.before is None:
            return f.sum_of(terms) == f.inputs.groups[group_id].running
        return f.sum_of([*terms, (-1.0, f.before.model.n[group_id])]) == 0

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
    """``shed[d] <= max_shed * rate[d]``, of the rate after deferral, where the policy says so."""
    cap_bp = f.inputs.problem.plan_policy.max_shed_basis_points
    subjects = [] if cap_bp is None else list(f.inputs.classes)

    def row(class_id: str) -> Any:
        part = (cap_bp or 0) / WHOLE_BP
        rate, moved = f.asked(class_id)
        terms = [(1.0, f.model.shed[class_id]), *((-part * sign, v) for sign, v in moved)]
        return f.sum_of(terms) <= f.room("shed_cap", class_id, limit=part * rate)

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
        if arc.replica_seconds * f.inputs.rates[key[0]]
        < ceiling * f.inputs.groups[key[1]].available
        and arc.group.site_id not in f.model.open
    }

    def row(subject: str) -> Any:
        key = arcs[subject]
        part = 1.0 / f.inputs.rates[key[0]]
        return f.sum_of([(part, f.model.x[key]), (-1.0, f.model.n[key[1]])]) <= 0

    f.rows("arc_link", arcs, row)


def surrogate(f: Formulation) -> None:
    """``sum_r best[r] * ceiling * available[r] * n[r] + sum_d tokens[d] * shed[d] >=
    sum_d tokens[d] * rate[d]``, divided by its right side.

    Per service and set R of groups that some class of it may use: d runs over the classes that may
    use groups of R only, r over R; best[r] is the largest tokens[d] / replica_seconds[d,r]. In
    words: the output tokens/s all those replicas could give cover what those classes ask. Implied
    by `throughput` and `demand_balance`; it hands the solver whole-replica knapsacks to cut and
    branch on. In a horizon n[r] is what has loaded and rate[d] what is left after deferral.
    """
    ceiling = f.inputs.problem.plan_policy.utilisation_ceiling
    members = _confined_classes(f)

    def row(subject: str) -> Any:
        best: dict[str, float] = {}
        most = born = 0.0
        others: list[tuple[float, Any]] = []
        for class_id in members[subject]:
            tokens = f.inputs.classes[class_id].output_tokens
            rate, moved = f.asked(class_id)
            most += tokens * f.inputs.rates[class_id]
            born += tokens * rate
            others.append((tokens, f.model.shed[class_id]))
            others += [(-tokens * sign, v) for sign, v in moved]
            for key in f.inputs.arcs_of_class[class_id]:
                per_s = tokens / f.inputs.arcs[key].replica_seconds
                best[key[1]] = max(best.get(key[1], 0.0), per_s)
        given = [(best[g] * ceiling * part, v) for g in sorted(best) for part, v in f.able(g)]
        return f.sum_of((part / most, v) for part, v in given + others) >= born / most

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
    *MIX_FAMILIES,
    move_limit,
    shed_cap,
    site_open,
    surrogate,
    arc_link,
)
"""Every row family of a period, in the order the model declares them."""

HORIZON_FAMILIES: tuple[Callable[[Formulation], None], ...] = (deferral_window,)
"""Row families that only the hours of a horizon have."""


def add_rows(f: Formulation) -> None:
    """Declare all rows of all families, for each period of the horizon the period is part of."""
    families = FAMILIES + HORIZON_FAMILIES if f.is_timed else FAMILIES
    for period in f.horizon:
        for family in families:
            family(period)
