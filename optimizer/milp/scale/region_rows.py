"""One tight region as rows: its narrow classes of all services in whole replicas, within its pools
and power budgets; what replicas sell to wide classes along tangents.

Decides nothing; `regions` says what the parts are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from optimizer.milp.scale import lp
from optimizer.milp.scale.frame import Frame, Positions
from optimizer.milp.scale.regions import Share
from optimizer.tables import Floats


class RegionRows:
    """Columns, share by share: parts of narrow classes, shed, replicas, work sold, what it earns,
    exposed, total cover of a class.
    """

    def __init__(self, frame: Frame, shares: list[Share], replica_usd_per_h: Floats) -> None:
        self._rows = lp.RowBuilder()
        self._cost: list[Floats] = []
        self._upper: list[Floats] = []
        self._count = 0
        self._group: list[Positions] = []
        self._column: list[Positions] = []
        for share in shares:
            self._add(share, replica_usd_per_h)
        group, column = np.concatenate(self._group), np.concatenate(self._column)
        self._within(frame.pool[group], column, frame.accelerators[group], frame.pool_count)
        self._within(frame.site[group], column, frame.possible_kw[group], frame.budget_kw)

    def made(self) -> Any:
        """As HiGHS takes it, replicas whole."""
        return lp.make(
            cost=np.concatenate(self._cost),
            upper=np.concatenate(self._upper),
            rows=self._rows.rows(),
            whole=np.concatenate(self._column),
        )

    def _within(self, key: Positions, column: Positions, takes: Floats, limit: Floats) -> None:
        keys, row = np.unique(key, return_inverse=True)
        self._rows.block(-lp.INF, limit[keys], entries=[(row, column, takes)], count=len(keys))

    def _columns(self, cost: Floats, upper: Floats | float) -> Positions:
        found = self._count + np.arange(len(cost))
        self._count += len(cost)
        self._cost.append(cost)
        self._upper.append(np.broadcast_to(np.asarray(upper, dtype=np.float64), (len(cost),)))
        return found

    def _add(self, share: Share, replica_usd_per_h: Floats) -> None:
        block, arcs = share.block, share.block.arcs
        narrow, local = np.flatnonzero(share.narrow), np.cumsum(share.narrow) - 1
        here = np.full(len(block.group), -1)
        here[share.group] = np.arange(len(share.group))
        row, place = local[arcs.row], here[block.place]
        groups = block.group[share.group]
        each, some = np.arange(len(narrow)), np.arange(len(groups))
        part = self._columns(block.flow_usd_per_h, 1.0)
        shed = self._columns(block.shed_usd_per_h[narrow], 1.0)
        own = replica_usd_per_h[groups] - share.cover_usd_per_h
        replica = self._columns(own, block.most[share.group])
        sold = self._columns(np.zeros(len(groups)), lp.INF)
        earns = self._columns(-np.ones(len(groups)), lp.INF)
        self._group.append(groups)
        self._column.append(replica)
        one, ones = np.ones(len(part)), np.ones(len(narrow))
        served = [(row, part, one), (each, shed, ones)]
        self._rows.block(1.0, 1.0, entries=served, count=len(narrow))
        covered = [(row, replica[place], block.cover), (each, shed, ones)]
        self._rows.block(1.0, lp.INF, entries=covered, count=len(narrow))
        plain = np.ones(len(groups))
        rated = (some, replica, -block.rateable[share.group])
        busy = [(place, part, arcs.busy), (some, sold, plain), rated]
        self._rows.block(-lp.INF, 0.0, entries=busy, count=len(groups))
        for slope, level in zip(share.slope, share.level, strict=True):
            entries = [(some, earns, plain), (some, sold, -slope), (some, replica, -level)]
            self._rows.block(-lp.INF, 0.0, entries=entries, count=len(groups))
        self._losses(share, shed=shed, replica=replica, row=row, place=place)

    def _losses(
        self, share: Share, *, shed: Positions, replica: Positions, row: Positions, place: Positions
    ) -> None:
        """As in `master`: what all sites cover less what the lost one does, or the safe arcs."""
        block, local = share.block, np.cumsum(share.narrow) - 1
        mine = np.flatnonzero(share.narrow[block.loss_row])
        cls, moved = local[block.loss_row[mine]], block.moved[mine]
        stay, gone = np.flatnonzero(~moved), np.flatnonzero(moved)
        exposed = self._columns(block.exposed_usd_per_h[block.loss_row[mine]], lp.INF)
        summed = np.unique(cls[stay])
        total = self._columns(np.zeros(len(summed)), lp.INF)
        rank = np.full(len(shed), -1)
        rank[summed] = np.arange(len(summed))
        key = np.full((len(shed), block.sites), -1)
        key[cls[stay], block.loss_site[mine[stay]]] = stay
        hit = key[row, block.site[block.place]]
        lost = np.flatnonzero(hit >= 0)
        of_class = np.full(len(shed), -1)
        of_class[cls[gone]] = gone
        safe = np.flatnonzero(share.narrow[block.safe_row])
        then_row = of_class[local[block.safe_row[safe]]]
        then = np.flatnonzero(then_row >= 0)
        at = np.searchsorted(share.group, block.safe_place[safe[then]])
        each = np.arange(len(mine))
        entries = [
            (stay, total[rank[cls[stay]]], np.ones(len(stay))),
            (hit[lost], replica[place[lost]], -block.cover[lost]),
            (then_row[then], replica[at], block.safe_cover[safe[then]]),
            (each, shed[cls], np.ones(len(each))),
            (each, exposed, np.ones(len(each))),
        ]
        self._rows.block(1.0, lp.INF, entries=entries, count=len(each))
        counted = np.flatnonzero(rank[row] >= 0)
        entries = [
            (rank[row[counted]], replica[place[counted]], -block.cover[counted]),
            (np.arange(len(summed)), total, np.ones(len(summed))),
        ]
        self._rows.block(-lp.INF, 0.0, entries=entries, count=len(summed))
