"""What a plan stands on when a site is lost: who is where, who could go where, at what price.

Facts worked out once per plan, as arrays. A pair is a class and a placed group that may answer it.
A class whose ingress is lost enters elsewhere, where it has other pairs. Limits are numbered:
placed groups (busy replicas), then sites (kW drawn), then links (Mbit/s).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from optimizer.plan import Plan
from optimizer.problem import Problem, RunningGroup
from optimizer.reroute_pairs import Choices, Pairs, Positions, Uses, all_of
from optimizer.sweep import Sweep
from optimizer.tables import NOWHERE, Floats, Tables
from optimizer.tabulate import tabulate
from optimizer.tabulate_classes import at_next_ingress
from optimizer.tabulate_routes import links_of_path, path_links
from sites.units import BITS_PER_BYTE, WHOLE_BP

_BITS_PER_MBIT = 1e6

ROOM_PART = 0.05
"""A group with so much of a replica free has room; less does not count when choosing."""

_LEAST_BUSY = 1e-12
"""Classes that keep nothing busy count as if they kept so much of a replica."""

_ABOVE_OTHERS = 10.0
"""How many times what any other traffic is worth that its room could serve a protected class is."""

_CACHES = frozenset({"_each_bp", "_choices", "_entering_at", "_tenants", "_ways"})


class Standing:
    """One plan of one problem, its traffic and what it leaves free.

    Answers count on the replicas seen `running` (None: as planned), but on no more than planned. Of
    each limit: `limits`, what there is for traffic and idle replicas; `used`, what the plan's uses;
    `slack`, by how much its shares may pass it, being whole basis points.
    """

    def __init__(
        self, problem: Problem, plan: Plan, *, running: tuple[RunningGroup, ...] | None = None
    ) -> None:
        planned = tuple(RunningGroup(group=g.group, replicas=g.replicas) for g in plan.groups)
        self.tables = tables = tabulate(replace(problem, running=planned))
        self.placed = np.flatnonzero(tables.groups.running > 0)
        self.group_ids = tuple(tables.group_id(int(at)) for at in self.placed)
        self.group_at = {group_id: at for at, group_id in enumerate(self.group_ids)}
        self.class_ids = tables.classes.ids
        self.class_at = {class_id: at for at, class_id in enumerate(self.class_ids)}
        self.site_of = tables.groups.site[self.placed].astype(np.intp)
        self.site_at_group: list[int] = self.site_of.tolist()
        self.busy_kw = self._of_groups(tables.groups.busy_kw)
        self.idle_kw = self._of_groups(tables.groups.idle_kw)
        ceiling = problem.plan_policy.utilisation_ceiling
        self.usable = ceiling * self._of_groups(tables.groups.available)
        self.groups, self.sites = len(self.placed), len(tables.sites.ids)
        self.site_at = {site_id: at for at, site_id in enumerate(tables.sites.ids)}
        self.usd_per_kwh = tables.supplies.usd_per_kwh + tables.supplies.carbon_usd_per_kwh
        self.shed_usd_per_h = tables.classes.shed_usd_per_h_per_rps * tables.classes.rate_rps
        self._take_shares(plan)
        self._next_tables = at_next_ingress(tables)
        self.here = self._pairs(tables, elsewhere=False)
        self.next = self._pairs(self._next_tables, elsewhere=True)
        self._take_traffic()
        self._take_guard()
        self._count(running)

    def seeing(self, running: tuple[RunningGroup, ...]) -> Standing:
        """The same plan with the replicas seen now, as if made anew; the facts are shared."""
        found = Standing.__new__(Standing)
        vars(found).update(vars(self))
        found._count(running)
        return found

    def _count(self, running: tuple[RunningGroup, ...] | None) -> None:
        """Take what hangs on how many replicas run."""
        planned = self._of_groups(self.tables.groups.running)
        seen = planned if running is None else np.array(self.seen(running), dtype=np.float64)
        self.replicas, self.is_short = np.minimum(seen, planned), seen < planned
        self.limits = self.limits_of(self.replicas)
        self.used = self._traffic.copy()
        self.used[self.groups : self.groups + self.sites] += self.idle_of(self.replicas)
        held = self.here.only(self.here.held_bp > 0)
        self.room_usd_per_h = self.room_price(held, (self.limits - self.used)[: self.groups])
        self._choices: dict[tuple[int, bool], Choices] = {}
        self._tenants: dict[int, list[tuple[int, float, float]]] = {}

    def __getstate__(self) -> dict[str, object]:
        """What is handed to another process: no caches, they are quicker made than carried."""
        return {name: value for name, value in vars(self).items() if name not in _CACHES}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._forget()

    def warm(self) -> None:
        """Work out what a repair will want to know, so that the first is as quick as the next."""
        for row in range(len(self.class_ids)):
            self.choices(row, elsewhere=False)
            for group in self.held_at[row]:
                self.each_bp(row, group, elsewhere=False)
        for group in range(self.groups):
            self.tenants(group)

    def seen(self, running: tuple[RunningGroup, ...]) -> list[int]:
        """Replicas seen of each placed group."""
        found = {one.group.group_id: one.replicas for one in running}
        return [found.get(group_id, 0) for group_id in self.group_ids]

    def limits_of(self, replicas: Floats) -> Floats:
        """What there is of each limit with so many replicas per placed group.

        Where they idle beyond all supplies already, what they draw then.
        """
        supplies = self.tables.supplies
        supplied = np.bincount(supplies.site, supplies.limit_kw, self.sites)
        power = np.maximum(supplied, self.idle_of(replicas))
        return np.concatenate((replicas * self.usable, power, self.tables.links.bandwidth_mbps))

    def idle_of(self, replicas: Floats) -> Floats:
        """What so many replicas per placed group draw idle, by site (kW)."""
        return _sums(self.site_of, replicas * self.idle_kw, self.sites)

    def entering_at(self, site: int) -> frozenset[int]:
        """Positions of the classes that enter at a site as planned."""
        if site not in self._entering_at:
            found = np.flatnonzero(self.ingress == site).tolist()
            self._entering_at[site] = frozenset(found)
        return self._entering_at[site]

    def losses(self) -> tuple[str, ...]:
        """Sites whose loss changes anything, sorted: some class stands or enters there."""
        sites = np.union1d(self.site_of, self.ingress[self.ingress != NOWHERE])
        ids = {self.tables.sites.ids[at] for at in sites.tolist()}
        return tuple(sorted(ids | set(self.idle_classes)))

    def idle_at(self, groups: Iterable[int]) -> dict[str, dict[str, int]]:
        """Classes without demand at some groups, as an answer lists them where nothing is left."""
        return {c: {} for at in groups for c in self._idle_groups.get(self.group_ids[at], ())}

    def pairs_of(self, row: int, *, elsewhere: bool) -> Pairs:
        """The pairs of one class, entering as planned or at its next ingress."""
        pairs, first = (self.next, self._first_next) if elsewhere else (self.here, self._first)
        return pairs.only(slice(first[row], first[row + 1]))

    def choices(self, row: int, *, elsewhere: bool) -> Choices:
        """Where a class could go, entering as planned or at its next ingress; kept once found."""
        found = self._choices.get((row, elsewhere))
        if found is None:
            pairs, shed = self.pairs_of(row, elsewhere=elsewhere), float(self.guard_usd_per_h[row])
            busy = np.maximum(pairs.busy, _LEAST_BUSY)
            cost = pairs.usd_per_h + busy * self.room_usd_per_h[pairs.group]
            order = np.argsort(cost, kind="stable")[:2].tolist()
            first, then = ([min(shed, float(cost[at])) for at in order] + [shed, shed])[:2]
            least = np.full(pairs.count, first)
            least[order[:1]] = then
            loses, worth = ((least - pairs.usd_per_h) / busy).tolist(), (shed / busy).tolist()
            found = Choices(
                group=pairs.group,
                busy=busy,
                price=pairs.usd_per_h,
                by_price=tuple(
                    sorted(zip(pairs.usd_per_h.tolist(), pairs.group.tolist(), strict=True))
                ),
                shed_usd_per_h=shed,
                place={
                    group: (at, loses[at], worth[at])
                    for at, group in enumerate(pairs.group.tolist())
                },
            )
            self._choices[row, elsewhere] = found
        return found

    def tenants(self, group: int) -> list[tuple[int, float, float]]:
        """Classes that the plan puts at a group, with what `Choices.place` says of it."""
        found = self._tenants.get(group)
        if found is None:
            found = [
                (row, *self.choices(row, elsewhere=False).place[group][1:])
                for row in self.holders[group]
            ]
            self._tenants[group] = found
        return found

    def each_bp(self, row: int, group: int, *, elsewhere: bool) -> list[tuple[int, float]]:
        """(limit, what a basis point of a class uses of it) at a group; kept once worked out."""
        key = (row, group, elsewhere)
        found = self._each_bp.get(key)
        if found is None:
            pairs, first = (self.next, self._first_next) if elsewhere else (self.here, self._first)
            start = int(first[row])
            at = start + int(np.searchsorted(pairs.group[start : first[row + 1]], group))
            busy, site = float(pairs.busy[at]) / WHOLE_BP, int(self.site_of[group])
            kw, mbit = busy * float(self.busy_kw[group]), float(self._mbit(row)) / WHOLE_BP
            found = [(group, busy)] if busy > 0 else []
            found += [(self.groups + site, kw)] if kw > 0 else []
            found += [(link, mbit) for link in self._way(row, site, elsewhere) if mbit > 0]
            self._each_bp[key] = found
        return found

    def _way(self, row: int, site: int, elsewhere: bool) -> tuple[int, ...]:
        """The limits of the links that a class crosses to a site."""
        tables = self._next_tables if elsewhere else self.tables
        key = (int(tables.classes.route[row]), site, elsewhere)
        found = self._ways.get(key)
        if found is None:
            first = self.groups + self.sites
            crossed = links_of_path(tables.routes, tables.links, route=key[0], site=site)
            found = tuple(first + link for link in crossed)
            self._ways[key] = found
        return found

    def uses(self, pairs: Pairs) -> Uses:
        """Everything pairs use."""
        at, site = np.arange(pairs.count), self.site_of[pairs.group]
        crossing, link = self._links_of(pairs)
        return Uses(
            pair=np.concatenate((at, at, crossing)),
            key=np.concatenate(
                (pairs.group, self.groups + site, self.groups + self.sites + link)
            ).astype(np.intp),
            each=np.concatenate(
                (
                    pairs.busy,
                    pairs.busy * self.busy_kw[pairs.group],
                    self._mbit(pairs.row[crossing]),
                )
            ),
        )

    def _links_of(self, pairs: Pairs) -> tuple[Positions, Positions]:
        """(pair, link) where pairs with bytes to send cross links."""
        pair: list[Positions] = []
        crossed: list[Positions] = []
        for tables, is_so in (
            (self.tables, ~pairs.elsewhere),
            (self._next_tables, pairs.elsewhere),
        ):
            some = np.flatnonzero(is_so & (self._mbit(pairs.row) > 0))
            taken, link = path_links(
                tables.routes,
                tables.links,
                route=tables.classes.route[pairs.row[some]],
                site=self.site_of[pairs.group[some]],
            )
            pair.append(some[taken])
            crossed.append(link.astype(np.intp))
        return np.concatenate(pair), np.concatenate(crossed)

    def may_shed_bp(self, lost_site_id: str) -> Floats:
        """What of each class may be shed after a loss: of protected ones what the plan sheds or
        leaves exposed, of others all.
        """
        protected = self.tables.classes.protected
        may = np.where(protected, self.shed_bp, float(WHOLE_BP))
        for row, basis_points in self.exposed.get(lost_site_id, ()):
            may[row] += basis_points
        return np.minimum(float(WHOLE_BP), may)

    def _take_guard(self) -> None:
        """What shedding costs protected classes that need not be shed (USD/h): more than any other
        traffic is worth that their room could serve. Others: what shedding them costs.
        """
        others = ~self.tables.classes.protected[self.here.row] & (self.here.busy > 0)
        worth = self.shed_usd_per_h[self.here.row[others]] / self.here.busy[others]
        busiest = np.zeros(len(self.class_ids))
        np.maximum.at(busiest, self.here.row, self.here.busy)
        guard = _ABOVE_OTHERS * (self.shed_usd_per_h + busiest * worth.max(initial=0.0))
        protected = self.tables.classes.protected
        self.guard_usd_per_h = np.where(protected, guard, self.shed_usd_per_h)

    def room_price(self, held: Pairs, free: Floats) -> Floats:
        """What a busy replica more costs at each placed group (USD/h) beside those who hold it:
        nothing where there is room, else shedding who is cheapest to shed there; inf where there is
        nobody or no replica.
        """
        price = np.full(self.groups, np.inf)
        worth = self.guard_usd_per_h[held.row] / np.maximum(held.busy, _LEAST_BUSY)
        np.minimum.at(price, held.group, worth)
        price[free > ROOM_PART] = 0.0
        price[self.replicas == 0] = np.inf
        return price

    def _mbit(self, rows: Positions | int) -> Floats:
        classes = self.tables.classes
        bytes_per_s = classes.rate_rps[rows] * classes.bytes_per_request[rows]
        mbit: Floats = bytes_per_s * (BITS_PER_BYTE / _BITS_PER_MBIT)
        return mbit

    def _of_groups(self, column: NDArray[np.generic]) -> Floats:
        return np.asarray(column[self.placed], dtype=np.float64)

    def _take_shares(self, plan: Plan) -> None:
        """What classes hold and shed (bp), by class and loss; shares of classes without demand are
        only known by name.
        """
        self.held: dict[str, dict[str, int]] = defaultdict(dict)
        self.idle_classes: dict[str, set[str]] = defaultdict(set)
        self._idle_groups: dict[str, set[str]] = defaultdict(set)
        for share in plan.shares:
            if share.class_id in self.class_at:
                self.held[share.class_id][share.group_id] = share.basis_points
            else:
                self.idle_classes[share.site_id].add(share.class_id)
                self.idle_classes[share.ingress_site_id].add(share.class_id)
                self._idle_groups[share.group_id].add(share.class_id)
        self.shed_bp = np.zeros(len(self.class_ids))
        for one in plan.shed:
            if one.class_id in self.class_at:
                self.shed_bp[self.class_at[one.class_id]] = one.basis_points
        self.exposed: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for risk in plan.exposed:
            if risk.class_id in self.class_at:
                found = (self.class_at[risk.class_id], risk.basis_points)
                self.exposed[risk.lost_site_id].append(found)

    def _pairs(self, tables: Tables, *, elsewhere: bool) -> Pairs:
        """All pairs on placed groups, of classes that enter as the tables say."""
        sweep, rate = Sweep(tables), tables.classes.rate_rps
        local = np.full(tables.groups.count, NOWHERE)
        local[self.placed] = np.arange(self.groups)
        parts = []
        for at, class_id in enumerate(self.class_ids):
            arcs = sweep.arcs_of(at)
            kept = np.flatnonzero(local[arcs.group] != NOWHERE)
            group = local[arcs.group[kept]]
            held_bp = np.zeros(len(kept))
            for group_id, basis_points in self.held.get(class_id, {}).items():
                held_bp[group == self.group_at[group_id]] = basis_points
            parts.append(
                Pairs(
                    row=np.full(len(kept), at),
                    group=group,
                    busy=arcs.replica_seconds[kept] * rate[at],
                    usd_per_h=arcs.network_usd_per_h[kept] * rate[at],
                    held_bp=held_bp,
                    elsewhere=np.full(len(kept), elsewhere),
                )
            )
        return all_of(parts)

    def _take_traffic(self) -> None:
        classes = np.arange(len(self.class_ids) + 1)
        self._first = np.searchsorted(self.here.row, classes)
        self._first_next = np.searchsorted(self.next.row, classes)
        self._forget()
        self.held_at = self._held_at()
        self.holders: list[list[int]] = [[] for _ in self.group_ids]
        for row, shares in enumerate(self.held_at):
            for group in shares:
                self.holders[group].append(row)
        self.ingress = np.append(self.tables.routes.source, NOWHERE)[self.tables.classes.route]
        pairs = self.here.only(self.here.held_bp > 0)
        uses = self.uses(pairs)
        parts = pairs.held_bp[uses.pair] / WHOLE_BP
        limits = self.groups + self.sites + len(self.tables.links.bandwidth_mbps)
        self._traffic = _sums(uses.key, uses.each * parts, limits)
        self.slack = _sums(uses.key, uses.each / WHOLE_BP, limits)

    def _forget(self) -> None:
        """Empty the caches (`_CACHES` names them)."""
        self._each_bp: dict[tuple[int, int, bool], list[tuple[int, float]]] = {}
        self._choices = {}
        self._entering_at: dict[int, frozenset[int]] = {}
        self._tenants = {}
        self._ways: dict[tuple[int, int, bool], tuple[int, ...]] = {}

    def _held_at(self) -> list[dict[int, int]]:
        """Basis points by group of each class, as planned."""
        found: list[dict[int, int]] = [{} for _ in self.class_ids]
        pairs = self.here.only(self.here.held_bp > 0)
        held_bp = pairs.held_bp.astype(np.intp).tolist()
        for row, group, basis_points in zip(
            pairs.row.tolist(), pairs.group.tolist(), held_bp, strict=True
        ):
            found[row][group] = basis_points
        return found


def _sums(key: Positions, each: Floats, count: int) -> Floats:
    """The sum of what has each key, from 0 to `count`."""
    return np.bincount(key, each, count).astype(np.float64)
