"""One component's problem as a small MIP: whole replicas, all else as prices or as room.

Two readings of one kernel. Over `Prices` the shared limits cost something and bind nothing: its
proven optimum, summed over components, bounds any plan (`bound`). Within `Room` the shared limits
are hard, what others take already taken off: its point is a component's part of a plan (`place`).

Only a few groups get columns. In the bound everything left out is offered to each class as one
uncapacitated arc at the least it could cost on perfectly filled replicas, so leaving out proves too
little at worst, never too much.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from optimizer.milp.scale import lp
from optimizer.milp.scale.catalogue import (
    ComponentArcs,
    cheapest,
    cheapest_sites,
    flow_price,
    full_price,
)
from optimizer.milp.scale.frame import Frame, Positions, Prices
from optimizer.milp.scale.ledger import Change, Flows, Ledger, Use
from optimizer.milp.scale.survival import survival_rows
from optimizer.tables import Floats

_USELESS = 1e-9
_ARCS_PER_NEAR = 5
_DUST = 1e-7
_SPARE_SITES = 3


def price_bound(
    frame: Frame,
    arcs: ComponentArcs,
    prices: Prices,
    *,
    near: int,
    margin: float,
    gap: float,
    nodes: int,
) -> tuple[float, float]:
    """Least a component can cost at prices (USD/h), proven, and on perfectly filled replicas.

    `near` cheapest arcs of each class within `margin` of its least price say which groups get
    columns.
    """
    full = full_price(frame, arcs, frame.work_price(prices))
    shed = frame.shed_usd_per_h[arcs.classes]
    least = arcs.least(full, otherwise=shed)
    close = cheapest(arcs, full, near) & (full <= (least + np.abs(least) * margin)[arcs.row])
    included = np.zeros(frame.groups, dtype=np.bool_)
    included[arcs.group[close]] = True
    inside = included[arcs.group]
    elsewhere = shed.copy()
    np.minimum.at(elsewhere, arcs.row[~inside], full[~inside])
    flow = flow_price(frame, arcs, prices)
    kept = inside & (flow < elsewhere[arcs.row])
    few = arcs.only(kept)
    replica = frame.replica_price(prices)
    perfect = float(least.sum())
    if few.count == 0:
        return perfect, perfect
    group = np.unique(few.group)
    made = _Kernel(
        frame,
        few,
        flow[kept],
        group=group,
        shed_usd_per_h=elsewhere,
        base=np.zeros(len(group)),
    )
    # what a replica earns at such prices stands in the dual offset
    answer = made.solve(np.maximum(0.0, replica[group]), gap=gap, nodes=nodes)
    return max(answer.bound, perfect), perfect


def place(
    ledger: Ledger,
    arcs: ComponentArcs,
    *,
    prices: Prices,
    support: Positions,
    weight: float,
    spare: bool,
    near: int,
    gap: float,
    nodes: int,
) -> Change | None:
    """The cheapest answer for some classes while all others stand; None if the search finds none.

    Replicas pay their own price and `weight` times the prices of what they take from others.
    `spare`: leave room for the loss of a site. `support` names arcs that always count as near:
    class x groups + group, ascending.
    """
    frame = ledger.frame
    current = ledger.flows_of(arcs.classes)
    few = arcs.only(_choose(ledger, arcs, prices=prices, near=near, support=support))
    group = np.unique(np.concatenate([few.group, current.group]))
    left, base = ledger.others(arcs.classes, group)
    made = _Kernel(
        frame,
        few,
        few.network_usd_per_h,
        group=group,
        shed_usd_per_h=frame.shed_usd_per_h[arcs.classes],
        base=base,
    )
    made.within(left)
    if spare:
        made.survive_one()
    shared = frame.accelerators[group] * prices.pool[frame.pool[group]]
    shared += frame.possible_kw[group] * prices.power[frame.site[group]]
    replica = frame.fixed_usd_per_h[group] + frame.start_usd_per_h[group] + weight * shared
    start = (made.first_replica + np.arange(len(group)), ledger.replicas[group])
    answer = made.solve(replica, gap=gap, nodes=nodes, start=start)
    return None if answer.values is None else made.change(answer.values)


def _choose(
    ledger: Ledger, arcs: ComponentArcs, *, prices: Prices, near: int, support: Positions
) -> NDArray[np.bool_]:
    """Arcs to groups that some class likes best of those with room, and to those used now."""
    frame = ledger.frame
    current = ledger.flows_of(arcs.classes)
    mine = np.unique(current.group)
    left, _ = ledger.others(arcs.classes, mine)
    fits = frame.accelerators <= (frame.pool_count - left.accelerators)[frame.pool] + 1e-9
    fits &= frame.possible_kw <= (frame.budget_kw - left.possible_kw)[frame.site] + 1e-9
    fits &= frame.most > 0
    fits |= ledger.replicas > 0
    usable = fits[arcs.group] & (arcs.busy > _USELESS)
    full = np.where(usable, full_price(frame, arcs, frame.work_price(prices)), np.inf)
    included = np.zeros(frame.groups, dtype=np.bool_)
    included[arcs.group[cheapest(arcs, full, near) & usable]] = True
    included[mine] = True
    spare = cheapest_sites(frame, arcs, full, _SPARE_SITES) & (_protected(frame, arcs) > 0) & usable
    relaxed = np.isin(arcs.classes[arcs.row] * frame.groups + arcs.group, support) & usable
    included[arcs.group[spare | relaxed]] = True
    few = np.where(included[arcs.group] & usable, full, np.inf)
    kept = np.isfinite(few) & cheapest(arcs, few, _ARCS_PER_NEAR * near)
    key = arcs.row * frame.groups + arcs.group
    here = np.searchsorted(arcs.classes, current.cls) * frame.groups + current.group
    kept |= spare | relaxed | (np.isin(key, here) & (arcs.busy > _USELESS))
    return kept


def _protected(frame: Frame, arcs: ComponentArcs) -> Floats:
    flag: Floats = frame.tables.classes.protected[arcs.classes][arcs.row].astype(np.float64)
    return flag


class _Kernel:
    """Columns: part of a class on each arc, shed, replicas, replicas that run already, supplies."""

    def __init__(
        self,
        frame: Frame,
        arcs: ComponentArcs,
        flow_usd_per_h: Floats,
        *,
        group: Positions,
        shed_usd_per_h: Floats,
        base: Floats,
    ) -> None:
        self.frame, self.arcs, self._flow = frame, arcs, flow_usd_per_h
        self.group, self.place = group, np.searchsorted(group, arcs.group)
        self._base = base
        self._shed = shed_usd_per_h
        self._classes, self._groups = len(arcs.classes), len(self.group)
        self.first_replica = arcs.count + self._classes
        self._running = np.minimum(frame.running[self.group], frame.most[self.group])
        self._first_supply = self.first_replica + 2 * self._groups
        self._exposed_price: Floats = np.zeros(0)
        self._supply_price: Floats = np.zeros(0)
        self._supply_kw: Floats = np.zeros(0)
        work = np.bincount(self.place, arcs.busy, self._groups) + base
        useful = np.ceil(work / frame.rateable[self.group] - 1e-9)
        spare = np.bincount(self.place, _protected(frame, arcs), self._groups) > 0
        self._most = np.minimum(frame.most[self.group], useful + spare)
        self._rows = lp.RowBuilder()
        self._own_rows()

    def _own_rows(self) -> None:
        """Every class is served or shed; no replica above its ceiling; kept replicas stand."""
        arcs, at, group = self.arcs, np.arange(self.arcs.count), np.arange(self._groups)
        classes = np.arange(self._classes)
        replica = self.first_replica + group
        rateable = self.frame.rateable[self.group]
        ones = np.ones(arcs.count)
        served = [(arcs.row, at, ones), (classes, arcs.count + classes, np.ones(self._classes))]
        self._rows.block(1.0, 1.0, entries=served, count=self._classes)
        busy = [(self.place, at, arcs.busy), (group, replica, -rateable)]
        self._rows.block(-lp.INF, -self._base, entries=busy, count=self._groups)
        kept = np.flatnonzero(self._running > 0)
        each, one = np.arange(len(kept)), np.ones(len(kept))
        stands = [(each, replica[kept] + self._groups, one), (each, replica[kept], -one)]
        self._rows.block(-lp.INF, 0.0, entries=stands, count=len(kept))

    def within(self, others: Use) -> None:
        """Hard shared limits: pools, budgets, and supplies beyond what others draw."""
        frame, group = self.frame, self.group
        replica = self.first_replica + np.arange(self._groups)
        pools, pool = np.unique(frame.pool[group], return_inverse=True)
        taken = [(pool, replica, frame.accelerators[group])]
        left = np.maximum(0.0, (frame.pool_count - others.accelerators)[pools])
        self._rows.block(-lp.INF, left, entries=taken, count=len(pools))
        sites, site = np.unique(frame.site[group], return_inverse=True)
        possible = [(site, replica, frame.possible_kw[group])]
        left = np.maximum(0.0, (frame.budget_kw - others.possible_kw)[sites])
        self._rows.block(-lp.INF, left, entries=possible, count=len(sites))
        limit = frame.stack.limit_kw[sites]
        before = np.cumsum(limit, axis=1) - limit
        left = np.clip(
            before + limit - np.maximum(before, others.drawn_kw[sites, None]), 0.0, limit
        )
        self._supply_kw = left.ravel()
        self._supply_price = frame.stack.usd_per_kwh[sites].ravel()
        supply = self._first_supply + np.arange(left.size)
        supply_site = np.repeat(np.arange(len(sites)), limit.shape[1])
        busy_kw = self.arcs.busy * frame.busy_kw[self.arcs.group]
        draw = [
            (site, replica, frame.idle_kw[group]),
            (site[self.place], np.arange(self.arcs.count), busy_kw),
            (supply_site, supply, np.full(left.size, -1.0)),
        ]
        self._rows.block(0.0, 0.0, entries=draw, count=len(sites))

    def survive_one(self) -> None:
        """``sum_{r not at s} rateable[r] / busy[d,r] * n[r] + exposed[d,s] >= 1``: replicas at the
        other sites could take a protected class whole if s is lost.

        Necessary, not sufficient: other protected classes want the same replicas. Over all
        protected classes of the component the same holds for their work (`all`). Unprotected
        traffic gives way.
        """
        for cover in survival_rows(self.frame, self.arcs, self._shed):
            first = self._first_supply + len(self._supply_kw) + len(self._exposed_price)
            count = len(cover.exposed_usd_per_h)
            each = np.arange(count)
            column = self.first_replica + np.searchsorted(self.group, cover.group)
            entries = [
                (cover.row, column, cover.value),
                (each, first + each, np.ones(count)),
            ]
            self._rows.block(1.0, lp.INF, entries=entries, count=count)
            price = cover.exposed_usd_per_h
            self._exposed_price = np.concatenate([self._exposed_price, price])

    def solve(
        self,
        replica_usd_per_h: Floats,
        *,
        gap: float,
        nodes: int,
        start: tuple[NDArray[np.intp], Floats] | None = None,
    ) -> lp.Answer:
        """Search; replicas that run already are spared their start only within a room."""
        kept = np.where(self._running > 0, self.frame.start_usd_per_h[self.group], 0.0)
        spared = -kept if len(self._supply_kw) else np.zeros(self._groups)
        parts = [self._flow, self._shed, replica_usd_per_h, spared, self._supply_price]
        ones = np.ones(self.arcs.count + self._classes)
        whole = np.ones(len(self._exposed_price))
        made = lp.make(
            cost=np.concatenate([*parts, self._exposed_price]),
            upper=np.concatenate([ones, self._most, self._running, self._supply_kw, whole]),
            rows=self._rows.rows(),
            whole=self.first_replica + np.arange(self._groups),
        )
        seed = self.frame.tables.problem.plan_policy.seed
        return lp.solve(made, gap=gap, nodes=nodes, seed=seed, start=start)

    def change(self, values: Floats) -> Change:
        """What a point stands for: whole replicas, flows above dust."""
        arcs = self.arcs
        replicas = np.round(values[self.first_replica : self.first_replica + self._groups])
        part = values[: arcs.count]
        used = (part > _DUST) & (replicas[self.place] > 0)
        flows = Flows(
            cls=arcs.classes[arcs.row[used]],
            group=arcs.group[used],
            part=part[used],
            busy=part[used] * arcs.busy[used],
            usd_per_h=part[used] * arcs.network_usd_per_h[used],
        )
        return Change(classes=arcs.classes, group=self.group, replicas=replicas, flows=flows)
