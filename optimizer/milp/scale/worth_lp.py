"""The relaxation over all arcs, solved to its optimum and open for one unit more of a limit.

Decides when it is solved: no arc left out costs less than its class pays, no row left out is
broken. What it counts: replicas in parts, each filled to the ceiling; pools, power budgets,
supplies, links, tenants' budgets, the cap on carbon, replica caps, cordons. What it leaves out
makes it cheaper: whole replicas, losses of sites, spread, means, floors, moves, fixed prices.
Which limits are worth asking about is `worth`'s.

Duality, for whatever prices a solve ends with: all rows but each class's own taken up at their
prices, each class takes its cheapest arc. That sum bounds the optimum from below (`bound`) and is
linear in every limit, with the limit's price as its slope; so a unit more saves at most the price
and what lies between the LP's cost and the bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

import numpy as np

from optimizer.milp.scale import lp
from optimizer.milp.scale.caps import CapPrices
from optimizer.milp.scale.catalogue import ComponentArcs, cheapest, component_arcs, transfer
from optimizer.milp.scale.frame import Frame, Positions, Prices, RoomPrices
from optimizer.milp.scale.price_lp import Relaxation, lp_kinds, lp_over, union
from optimizer.milp.scale.sides import Sides
from optimizer.milp.scale.workers import Workers
from optimizer.tables import Floats

_ROUNDS = 60
"""Far more than were ever needed: 2 000 sites took 17."""
_ADDED_ARCS = 5
_BETTER = 3e-7
"""USD/h that an arc left out has to save its class: more than what HiGHS lets a dual price err."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Solved:
    """The optimum: its cost, the bound its prices prove (USD/h), and those prices: USD/h per unit
    of each row's, side's and supply's limit, by position.
    """

    cost_usd_per_h: float
    bound_usd_per_h: float
    usd_per_h: Mapping[Part, Floats]

    @property
    def open_usd_per_h(self) -> float:
        """What lies between cost and bound: rounding, once nothing is left out that helps."""
        return max(0.0, self.cost_usd_per_h - self.bound_usd_per_h)


class Part(Enum):
    """Where a limit stands in the LP: a row of every LP, a side's row, a supply's column."""

    ROW = auto()
    SIDE = auto()
    SUPPLY = auto()


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A limit: which part of the LP, and its position among those (of a supply: in the stack)."""

    of: Part
    at: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Duals:
    shared: Prices
    caps: CapPrices
    demand: Floats
    side: Floats


class WorthLp:
    """The LP in HiGHS. `held` are the sides with rows, in their order behind the other rows."""

    def __init__(self, frame: Frame, relaxation: Relaxation, workers: Workers) -> None:
        assert relaxation.basis is not None, "a relaxation that was solved"
        self.frame, self._workers, self.sides = frame, workers, Sides(frame)
        self.held: Positions = np.zeros(0, dtype=np.intp)
        self._arcs = relaxation.arcs
        columns, rows = relaxation.basis.columns, relaxation.basis.rows
        if not frame.caps.are_priced:
            rows = (*rows[:8], lp.kind(np.zeros(0, dtype=np.intp), lp.BASIC), rows[9])
        none = lp.kind(np.zeros(0, dtype=np.intp), lp.BASIC)
        self._basis = lp.Basis(columns=columns, rows=(*rows, none))
        self._highs: Any = None
        classes, sites = len(frame.rate), len(frame.budget_kw)
        self.first_pool = classes
        self.first_power = classes + len(frame.pool_count)
        self._first_draw = self.first_power + sites
        self.first_budget = self._first_draw + sites
        self.carbon = self.first_budget + len(frame.caps.budget_usd_per_h)
        self.first_side = self.carbon + bool(np.isfinite(frame.caps.carbon_kg_per_h))

    def solve(self, is_over: Callable[[], bool]) -> Solved | None:
        """The optimum over all arcs; None if `is_over` came before it was found."""
        for _ in range(_ROUNDS):
            self._open(is_over)
            if not lp.run(self._highs):
                return None
            columns, rows = self._kinds()
            self._basis = lp.basis_of(self._highs, columns=columns, rows=rows)
            if self._hold_broken():
                continue
            duals = self._duals(np.array(self._highs.getSolution().row_dual))
            bound, wanted = self._sweep(duals)
            if not self._take_in(wanted):
                return self._solved(duals, bound)
            if is_over():
                return None
        return None

    def cost_with(
        self, limit: Place, *, more: float, enough_usd_per_h: float, is_over: Callable[[], bool]
    ) -> float | None:
        """The optimum with so much more of a limit (USD/h); None if `is_over` came first.

        Begins at the optimum without, whatever was asked before. Arcs left out are looked for only
        while it costs more than `enough_usd_per_h`.
        """
        for _ in range(_ROUNDS):
            if is_over():
                return None
            columns, rows = self._kinds()
            lp.begin(self._highs, self._basis, columns=columns, rows=rows)
            self._raise(limit, more)
            if not lp.run(self._highs):
                return None
            cost = float(self._highs.getInfo().objective_function_value)
            duals = self._duals(np.array(self._highs.getSolution().row_dual))
            is_enough = cost <= enough_usd_per_h
            if not self._hold_broken() and (is_enough or not self._take_in(self._sweep(duals)[1])):
                self._raise(limit, 0.0)
                return cost
            self._open(is_over)
        return None

    def _raise(self, limit: Place, more: float) -> None:
        """Let the open LP have so much more of a limit than the problem says."""
        if limit.of is Part.SUPPLY:
            column = self._arcs.count + len(self.frame.rate) + limit.at
            limit_kw = float(self.frame.stack.limit_kw.ravel()[limit.at])
            self._highs.changeColBounds(column, 0.0, limit_kw + more)
            return
        row = limit.at
        if limit.of is Part.SIDE:
            row = self.first_side + int(np.searchsorted(self.held, limit.at))
        self._highs.changeRowBounds(row, -lp.INF, self._limits[row] + more)

    def _take_in(self, wanted: list[ComponentArcs]) -> bool:
        """Whether arcs are new to the LP; it has them from now on."""
        count = self._arcs.count
        self._arcs = union(self.frame, [self._arcs, *wanted])
        return self._arcs.count > count

    def _hold_broken(self) -> bool:
        """Whether the last point breaks rows that are left out; they are held from now on."""
        part = np.array(self._highs.getSolution().col_value)[: self._arcs.count]
        broken = self.sides.broken(self._terms, part)
        broken[self.held] = False
        self.held = np.union1d(self.held, np.flatnonzero(broken)).astype(np.intp)
        return bool(broken.any())

    def _open(self, is_over: Callable[[], bool]) -> None:
        frame, arcs, sides = self.frame, self._arcs, self.sides
        self._highs = lp.opened(lp_over(frame, arcs, frame.shed_usd_per_h, capped=True))
        self._terms = sides.terms(arcs)
        rank = np.full(len(sides.limit), -1)
        rank[self.held] = np.arange(len(self.held))
        row = rank[self._terms.side]
        mine = row >= 0
        more = lp.RowBuilder()
        entries = [(row[mine], self._terms.arc[mine], self._terms.value[mine])]
        more.block(-lp.INF, sides.limit[self.held], entries=entries, count=len(self.held))
        if len(self.held):
            lp.add_rows(self._highs, more.rows())
        columns, rows = self._kinds()
        lp.begin(self._highs, self._basis, columns=columns, rows=rows)
        lp.interruptible(self._highs, is_over)

    def _kinds(self) -> tuple[tuple[lp.Kind, ...], tuple[lp.Kind, ...]]:
        columns, rows = lp_kinds(self.frame, self._arcs, capped=True)
        return columns, (*rows, lp.kind(self.held, lp.BASIC))

    @property
    def _limits(self) -> Floats:
        """The upper limit of each row that has a price."""
        frame, caps = self.frame, self.frame.caps
        carbon = [caps.carbon_kg_per_h] if np.isfinite(caps.carbon_kg_per_h) else []
        return np.concatenate(
            [
                np.ones(len(frame.rate)),
                frame.pool_count,
                frame.budget_kw,
                np.zeros(len(frame.budget_kw)),
                caps.budget_usd_per_h,
                np.array(carbon),
                self.sides.limit[self.held],
            ]
        )

    def _duals(self, dual: Floats) -> _Duals:
        frame, price = self.frame, np.maximum(0.0, -dual)
        side = np.zeros(len(self.sides.limit))
        side[self.held] = price[self.first_side :]
        replica, none = self.sides.replica_usd_per_h(side), np.zeros(len(frame.budget_kw))
        return _Duals(
            shared=Prices(
                pool=price[self.first_pool : self.first_power],
                power=price[self.first_power : self._first_draw],
                energy=-dual[self._first_draw : self.first_budget],
                room=RoomPrices(replica=replica, site=none),
            ),
            caps=CapPrices(
                carbon_usd_per_kg=float(price[self.carbon : self.first_side].sum()),
                budget=price[self.first_budget : self.carbon],
            ),
            demand=dual[: self.first_pool],
            side=side,
        )

    def _sweep(self, duals: _Duals) -> tuple[float, list[ComponentArcs]]:
        """The bound at prices (USD/h), and arcs that cost less than their class pays."""
        frame, prices = self.frame, duals.shared
        dear = replace(frame, cap_prices=duals.caps)
        full = dear.replica_price(prices) / dear.rateable
        work = full + dear.busy_kw * prices.energy[dear.site]
        tolls = self.sides.tolls(duals.side)

        def one(classes: Positions) -> tuple[float, ComponentArcs]:
            arcs = component_arcs(dear, classes)
            price = transfer(dear, arcs) + arcs.busy * work[arcs.group]
            price = price + self.sides.toll_usd_per_h(arcs, tolls)
            least = arcs.least(price, otherwise=dear.shed_usd_per_h[classes])
            paid = duals.demand[classes][arcs.row]
            good = price < paid - _BETTER
            few = arcs.only(good)
            return float(least.sum()), few.only(cheapest(few, price[good], _ADDED_ARCS))

        found = self._workers.map(one, frame.components)
        total = sum(least for least, _ in found)
        return total + self._taken_up(duals), [wanted for _, wanted in found]

    def _taken_up(self, duals: _Duals) -> float:
        """What limits and supplies add to the bound at prices (USD/h)."""
        frame, prices = self.frame, duals.shared
        limits = prices.limits_usd_per_h(frame.pool_count, frame.budget_kw)
        limits += frame.caps.given_back_usd_per_h(duals.caps) + float(duals.side @ self.sides.limit)
        earned = self._supply_usd_per_h(duals) * frame.stack.limit_kw
        return -float(earned.sum()) - limits

    def _supply_usd_per_h(self, duals: _Duals) -> Floats:
        """What a kW of each supply earns at prices (USD/h)."""
        stack = self.frame.stack
        dear = stack.usd_per_kwh + duals.caps.carbon_usd_per_kg * stack.kg_per_kwh
        earned: Floats = np.maximum(0.0, duals.shared.energy[:, None] - dear)
        return earned

    def _solved(self, duals: _Duals, bound: float) -> Solved:
        prices, none = duals.shared, np.zeros(len(self.frame.budget_kw))
        carbon = [duals.caps.carbon_usd_per_kg] if self.first_side > self.carbon else []
        rows = [np.zeros(self.first_pool), prices.pool, prices.power, none]
        return Solved(
            cost_usd_per_h=float(self._highs.getInfo().objective_function_value),
            bound_usd_per_h=bound,
            usd_per_h={
                Part.ROW: np.concatenate([*rows, duals.caps.budget, np.array(carbon)]),
                Part.SIDE: duals.side,
                Part.SUPPLY: self._supply_usd_per_h(duals).ravel(),
            },
        )
