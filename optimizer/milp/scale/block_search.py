"""The proven least cost of one block: its relaxation over all groups, then whole replicas where
classes have few sites to go to.

Decides which groups get columns. The relaxation grows by groups whose replicas would pay until
none does. Whole replicas stand for the groups that narrow classes reach, and those the relaxation
uses; what all others could do is bought at prices at which none of their replicas earns more than
it costs (`fall_back_usd_per_h`), so leaving them out proves too little at worst. Arc rows
``x_dr <= cover_dr n_r`` are added where a point breaks them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np
from numpy.typing import NDArray

from optimizer.milp.scale import lp
from optimizer.milp.scale.block import (
    Block,
    Earned,
    Worth,
    cover_worth,
    earned,
    fall_back_usd_per_h,
    proven_usd_per_h,
)
from optimizer.milp.scale.catalogue import cheapest
from optimizer.milp.scale.frame import Positions
from optimizer.milp.scale.rounding import Fills, fill_cuts
from optimizer.milp.support import ONLY_THE_BOUND
from optimizer.tables import Floats
from sites.errors import FatalError

_AMPLE = 2.0
_BROKEN = 1e-4
_PAYS = 1e-6
_COVERS = 1e-9
_SUPPORT = 1e-6
_ROUNDS = 10
_STEP = 1e-3
"""What a round has to add to a bound for another, relative, if that is so near the relaxation: at
102 classes of 600 sites 5 rounds prove 0.03 % less than 10.
"""
_FIRST_ARCS = 1
_NARROW = (10, 8, 6, 4, 3, 2, 1)
_MOST_ARCS = 4_000
"""Arcs of a search in whole replicas: with 16 000 all components of 200 sites took 6.5 s, not 4.5,
and proved 0.03 % more.
"""

# without presolve HiGHS 1.15.1 called a region optimal at three times its optimum
_SEARCH: dict[str, Any] = {**ONLY_THE_BOUND, "presolve": "on"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Relaxed:
    """A block's relaxation: its bound (USD/h) with the worths and earnings that prove it, the
    groups it came to, and its replicas of each group of the block.
    """

    bound_usd_per_h: float
    worth: Worth
    each: Earned
    replicas: Floats


class _Formulation:
    """Columns: part of a class on each arc of the chosen groups, shed, replicas, exposed, total
    cover of a class; then, if others are `bought`, their traffic, cover, cover after a loss.
    """

    def __init__(
        self, block: Block, chosen: NDArray[np.bool_], taken: NDArray[np.bool_], links: Positions
    ) -> None:
        """Over the arcs `taken` of the groups `chosen`, with arc rows of `links` among them."""
        self.block = block
        self.at = np.flatnonzero(chosen[block.place] & taken)
        self.group = np.flatnonzero(chosen)
        self.row = block.arcs.row[self.at]
        rank = np.cumsum(chosen) - 1
        self.place = rank[block.place[self.at]]
        self.safe = np.flatnonzero(chosen[block.safe_place])
        staying = block.loss_row[~block.moved]
        self.summed = np.unique(staying)
        counts = (len(self.at), block.classes, len(self.group), len(block.loss_row))
        self.first = np.concatenate([[0], np.cumsum([*counts, len(self.summed)])]).astype(np.intp)
        self.rows = lp.RowBuilder()
        self._own_rows()
        self._loss_rows(rank)
        self._need_rows(rank, chosen)
        self.first_cut = self.rows.count
        each, some = np.searchsorted(self.at, links), np.arange(len(links))
        place, cover = self.place[each], block.cover[links]
        entries = [(some, each, np.ones(len(each))), (some, self.first[2] + place, -cover)]
        self.rows.block(-lp.INF, 0.0, entries=entries, count=len(each))
        cost = [block.flow_usd_per_h[self.at], block.shed_usd_per_h]
        cost += [block.replica_usd_per_h[self.group], block.exposed_usd_per_h[block.loss_row]]
        self.cost = [*cost, np.zeros(len(self.summed))]
        upper = [np.full(self.first[2], _AMPLE), block.most[self.group]]
        upper += [np.full(len(block.loss_row), _AMPLE), np.full(len(self.summed), lp.INF)]
        self.upper = upper

    def _own_rows(self) -> None:
        """Every class is served or shed; no replica above its ceiling; whole replicas cover."""
        block, classes = self.block, np.arange(self.block.classes)
        arcs, shed = np.arange(len(self.at)), self.first[1] + classes
        ones, some = np.ones(len(classes)), np.arange(len(self.group))
        replica = self.first[2] + some
        served = [(self.row, arcs, np.ones(len(arcs))), (classes, shed, ones)]
        self.rows.block(1.0, 1.0, entries=served, count=len(classes))
        rated = -block.rateable[self.group]
        busy = [(self.place, arcs, block.arcs.busy[self.at]), (some, replica, rated)]
        self.rows.block(-lp.INF, 0.0, entries=busy, count=len(some))
        covered = (self.row, self.first[2] + self.place, block.cover[self.at])
        self.rows.block(1.0, lp.INF, entries=[covered, (classes, shed, ones)], count=len(classes))

    def _loss_rows(self, rank: Positions) -> None:
        """As in `master`: what all sites cover less what the lost one does, or the safe arcs."""
        block, first = self.block, self.first
        count = len(block.loss_row)
        row, moved = block.loss_row, block.moved
        total = np.full(block.classes, -1)
        total[self.summed] = np.arange(len(self.summed))
        key = np.full((block.classes, block.sites), -1)
        stay, gone = np.flatnonzero(~moved), np.flatnonzero(moved)
        key[row[stay], block.loss_site[stay]] = stay
        hit = key[self.row, block.site[block.place[self.at]]]
        lost = np.flatnonzero(hit >= 0)
        of_class = np.full(block.classes, -1)
        of_class[row[gone]] = gone
        safe_hit = of_class[block.safe_row[self.safe]]
        then = np.flatnonzero(safe_hit >= 0)
        safe = self.safe[then]
        cover = block.cover[self.at]
        each = np.arange(count)
        entries = [
            (stay, first[4] + total[row[stay]], np.ones(len(stay))),
            (hit[lost], first[2] + self.place[lost], -cover[lost]),
            (safe_hit[then], first[2] + rank[block.safe_place[safe]], block.safe_cover[safe]),
            (each, first[1] + row, np.ones(count)),
            (each, first[3] + each, np.ones(count)),
        ]
        self.rows.block(1.0, lp.INF, entries=entries, count=count)
        mine = np.flatnonzero(total[self.row] >= 0)
        some = np.arange(len(self.summed))
        entries = [
            (total[self.row[mine]], first[2] + self.place[mine], -cover[mine]),
            (some, first[4] + some, np.ones(len(some))),
        ]
        self.rows.block(-lp.INF, 0.0, entries=entries, count=len(some))

    def _need_rows(self, rank: Positions, chosen: NDArray[np.bool_]) -> None:
        needs, first = self.block.needs, self.first
        here, shed = np.flatnonzero(chosen[needs.replicas.at]), needs.shed
        cut, at, value = needs.replicas.cut[here], needs.replicas.at[here], needs.replicas.value
        entries = [
            (cut, first[2] + rank[at], value[here]),
            (shed.cut, first[1] + shed.at, shed.value),
        ]
        self.rows.block(needs.lower, lp.INF, entries=entries, count=len(needs.lower))

    def fill(self, cuts: Fills) -> None:
        """Add cuts of single groups; their positions are the block's arcs and places."""
        count = len(cuts.lower)
        place = np.searchsorted(self.group, cuts.group)
        arc = np.searchsorted(self.at, cuts.arcs.at)
        entries = [
            (np.arange(count), self.first[2] + place, np.ones(count)),
            (cuts.arcs.cut, arc, -cuts.arcs.value),
        ]
        self.rows.block(cuts.lower, lp.INF, entries=entries, count=count)

    def point(self, values: Floats) -> tuple[Floats, Floats]:
        """Parts on all arcs of the block and replicas of all its groups."""
        part, replicas = np.zeros(self.block.arcs.count), np.zeros(len(self.block.group))
        part[self.at] = values[: self.first[1]]
        replicas[self.group] = values[self.first[2] : self.first[3]]
        return part, replicas

    def bought(self, worth: Worth, price: Floats, chosen: NDArray[np.bool_]) -> lp.Rows:
        """The rows with columns for what groups that are not `chosen` could do; `price` of theirs
        per class.
        """
        block = self.block
        can = np.isfinite(price)
        after = np.zeros(block.classes, dtype=np.bool_)
        after[block.safe_row[~chosen[block.safe_place]]] = True
        some = np.flatnonzero(can)
        row = block.loss_row
        loss = np.flatnonzero(np.where(block.moved, after[row], can[row]))
        cover_row = block.classes + len(self.group)
        loss_row = cover_row + block.classes
        need = np.arange(len(worth.need))
        need_row = self.first_cut - len(need)
        place = np.concatenate([some, cover_row + some, loss_row + loss, need_row + need])
        rows = self.rows.rows()
        self.cost += [price[some], worth.cover[some], worth.loss[loss], worth.need]
        self.upper.append(np.ones(len(place) - len(need)))
        self.upper.append(block.needs.lower)
        column = self.first[5] + np.arange(len(place))
        return lp.Rows(
            row=np.concatenate([rows.row, place]),
            column=np.concatenate([rows.column, column]),
            value=np.concatenate([rows.value, np.ones(len(place))]),
            lower=rows.lower,
            upper=rows.upper,
        )

    def made(self, rows: lp.Rows, *, whole: bool) -> Any:
        """As HiGHS takes it."""
        replicas = self.first[2] + np.arange(len(self.group)) if whole else None
        return lp.make(
            cost=np.concatenate(self.cost),
            upper=np.concatenate(self.upper),
            rows=rows,
            whole=replicas,
        )


def relaxed(
    block: Block, support: Positions, known: NDArray[np.bool_], *, is_over: Callable[[], bool]
) -> Relaxed:
    """The relaxation: its best bound, begun from groups of `support`, `known` arcs (a mask) and
    each class's cheapest. There is no other round after `is_over`.
    """
    chosen = np.isin(block.group, support)
    full = block.flow_usd_per_h + (block.replica_usd_per_h / block.rateable)[block.place] * (
        block.arcs.busy
    )
    first = cheapest(block.arcs, full, _FIRST_ARCS)
    chosen[block.place[first]] = True
    taken = known | first
    linked = np.zeros(block.arcs.count, dtype=np.bool_)
    best: Relaxed | None = None
    fill, cuts = block.arcs.busy / block.rateable[block.place], list[Fills]()
    for _ in range(_ROUNDS):
        formulation = _Formulation(block, chosen, taken, np.flatnonzero(linked))
        for some in cuts:
            formulation.fill(some)
        values, worth = _solved(formulation)
        each = earned(block, worth)
        bound = proven_usd_per_h(block, worth, each)
        part, replicas = formulation.point(values)
        cost = float(np.concatenate(formulation.cost) @ values)
        last = -np.inf if best is None else best.bound_usd_per_h
        if best is None or bound > best.bound_usd_per_h:
            best = Relaxed(bound_usd_per_h=bound, worth=worth, each=each, replicas=replicas)
        broken = part > block.cover * replicas[block.place] + _BROKEN
        cuts.append(fill_cuts(block.place, fill, part, replicas))
        pays = each.usd_per_h < -_PAYS
        more = pays[block.place] & ~taken & _earning(block, worth, each)
        near = best.bound_usd_per_h >= cost - _STEP * abs(cost)
        slow = best.bound_usd_per_h - last <= _STEP * abs(cost)
        grows = bool(more.any()) or bool((pays & ~chosen).any())
        grows |= bool((broken & ~linked).any()) or len(cuts[-1].lower) > 0
        if (near and slow) or not grows or is_over():
            break
        chosen, taken, linked = chosen | pays, taken | more, linked | broken
    assert best is not None, "at least one round"
    return best


def _earning(block: Block, worth: Worth, each: Earned) -> NDArray[np.bool_]:
    """Mask of the arcs by which a replica of their group earns."""
    profit = worth.demand[block.arcs.row] - block.flow_usd_per_h
    carries = (profit > 0) & (profit >= each.last_usd_per_h[block.place] * block.arcs.busy)
    found: NDArray[np.bool_] = carries | (cover_worth(block, worth) > _COVERS)
    return found


def _solved(formulation: _Formulation) -> tuple[Floats, Worth]:
    answer = lp.solve(formulation.made(formulation.rows.rows(), whole=False))
    assert answer.values is not None, "shedding everything is always possible"
    classes, groups = formulation.block.classes, len(formulation.group)
    first = formulation.first
    sizes = classes, groups, classes, len(formulation.block.loss_row), first[5] - first[4]
    ends = np.cumsum([*sizes, len(formulation.block.needs.lower)])
    demand, _, cover, loss, _, need, _ = np.split(answer.row_duals, ends)
    worth = Worth(
        demand=demand,
        cover=np.maximum(0.0, cover),
        loss=np.maximum(0.0, loss),
        need=np.maximum(0.0, need),
    )
    return answer.values, worth


def searched(
    block: Block,
    found: Relaxed,
    *,
    gap_usd_per_h: float,
    nodes: int,
    is_over: Callable[[], bool],
) -> float:
    """A bound (USD/h) in whole replicas of the groups it can afford, -inf if it can afford none."""
    chosen = _affordable(block, found)
    if chosen is None:
        return -np.inf
    price = fall_back_usd_per_h(block, found.worth, found.each, chosen)
    every, none = np.ones(block.arcs.count, dtype=np.bool_), np.zeros(0, dtype=np.intp)
    formulation = _Formulation(block, chosen, every, none)
    rows = formulation.bought(found.worth, price, chosen)
    model = formulation.made(rows, whole=True)
    bound = _root_bound(model, gap_usd_per_h=gap_usd_per_h, nodes=nodes, is_over=is_over)
    earns = np.where(chosen, 0.0, np.minimum(0.0, found.each.usd_per_h)) @ block.most
    return bound + float(earns)


def _root_bound(
    model: Any, *, gap_usd_per_h: float, nodes: int, is_over: Callable[[], bool]
) -> float:
    """What a search for nothing but its bound proves (USD/h) until `is_over`; -inf if nothing."""
    highs = lp.opened(model)
    lp.interruptible(highs, is_over)
    options = {**_SEARCH, "mip_max_nodes": nodes, "mip_abs_gap": gap_usd_per_h, "mip_rel_gap": 0.0}
    for name, value in options.items():
        if highs.setOptionValue(name, value) == highspy.HighsStatus.kError:
            raise FatalError(f"HiGHS could not set {name}; report the problem that causes it")
    if highs.run() == highspy.HighsStatus.kError:
        raise FatalError("HiGHS could not run a block; report the problem that causes it")
    bound = float(highs.getInfo().mip_dual_bound)
    return bound if np.isfinite(bound) else -np.inf


def _affordable(block: Block, found: Relaxed) -> NDArray[np.bool_] | None:
    """Groups the relaxation uses or one replica of which would earn (a second would not), with all
    that classes of as many sites reach as fits.
    """
    seen = np.zeros((block.classes, block.sites), dtype=np.bool_)
    seen[block.arcs.row, block.site[block.place]] = True
    reach = seen.sum(axis=1)
    used = (found.replicas > _SUPPORT) | (found.each.usd_per_h < -_PAYS)
    for few in _NARROW:
        chosen = used.copy()
        chosen[block.place[(reach <= few)[block.arcs.row]]] = True
        chosen &= block.most > 0
        if 0 < chosen[block.place].sum() <= _MOST_ARCS:
            return chosen
    return None
