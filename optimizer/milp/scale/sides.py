"""Limits on arcs that prices of the large search do not know: links, replica caps, cordons.

Decides what one row of each sums up and what an arc pays where those rows have prices. Few of them
ever bind, so an LP takes up those that a point breaks. Whoever keeps a finished plan within the
links is `trim`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.milp.arrays_rows import merged_bounds
from optimizer.milp.scale.catalogue import ComponentArcs
from optimizer.milp.scale.frame import Frame, Positions
from optimizer.tables import NOWHERE, Floats
from optimizer.tabulate_routes import path_links
from sites.units import BITS_PER_BYTE

_OVER = 1e-9
_PAIRS = 500_000
"""Paths looked at side by side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """What a row limits: the row family and subject of the formulation."""

    code: str
    subject: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """Entry i: arc `arc[i]`, whole class on it, takes `value[i]` of side `side[i]`."""

    side: Positions
    arc: Positions
    value: Floats


class Sides:
    """All such rows of a problem: links (Mbit/s), replica caps and groups at cordoned sites
    (replicas). `limit[side]` is what each allows.
    """

    def __init__(self, frame: Frame) -> None:
        tables = frame.tables
        self.frame = frame
        self.links = len(tables.links.ids)
        self._megabits = frame.rate * tables.classes.bytes_per_request * BITS_PER_BYTE / 1e6
        self._held = np.flatnonzero(tables.sites.cordoned[frame.site])
        self._held_rank = np.full(frame.groups, NOWHERE, dtype=np.intp)
        self._held_rank[self._held] = np.arange(len(self._held))
        self.caps = len(frame.caps.bound_most)
        self.limit: Floats = np.concatenate(
            [tables.links.bandwidth_mbps, frame.caps.bound_most, frame.running[self._held]]
        )

    def side(self, at: int) -> Side | None:
        """What the row at a position limits; None for a cordon, of which there is no unit more."""
        if at < self.links:
            return Side(code="link_bandwidth", subject=self.frame.tables.links.ids[at])
        if at < self.links + self.caps:
            bounds = merged_bounds(self.frame.tables.problem).items()
            capped = [key for key, bound in bounds if bound.most is not None]
            return Side(code="replica_cap", subject="/".join(capped[at - self.links]))
        return None

    def terms(self, arcs: ComponentArcs) -> Terms:
        """What each arc of a table of all classes takes of each row."""
        frame = self.frame
        replicas = arcs.busy / frame.rateable[arcs.group]
        heavy = np.flatnonzero(self._megabits[arcs.row] > 0)
        pair, link = path_links(
            frame.tables.routes,
            frame.tables.links,
            route=frame.tables.classes.route[arcs.row[heavy]],
            site=frame.site[arcs.group[heavy]],
        )
        bound, held = frame.caps.bound[arcs.group], self._held_rank[arcs.group]
        capped, still = np.flatnonzero(bound != NOWHERE), np.flatnonzero(held != NOWHERE)
        first = self.links + self.caps
        return Terms(
            side=np.concatenate([link, self.links + bound[capped], first + held[still]]).astype(
                np.intp
            ),
            arc=np.concatenate([heavy[pair], capped, still]),
            value=np.concatenate(
                [self._megabits[arcs.row[heavy[pair]]], replicas[capped], replicas[still]]
            ),
        )

    def broken(self, terms: Terms, part: Floats) -> NDArray[np.bool_]:
        """Which rows a point breaks."""
        taken = np.bincount(terms.side, terms.value * part[terms.arc], len(self.limit))
        found: NDArray[np.bool_] = taken > self.limit * (1 + _OVER) + _OVER
        return found

    def replica_usd_per_h(self, price: Floats) -> Floats:
        """What a replica of each group pays, rows having prices (USD/h per unit of their limit)."""
        links, caps = self.links, self.caps
        paid = np.zeros(self.frame.groups)
        bound = self.frame.caps.bound
        paid += np.where(bound != NOWHERE, np.append(price[links : links + caps], 0.0)[bound], 0.0)
        paid[self._held] += price[links + caps :]
        return paid

    def toll_usd_per_h(self, arcs: ComponentArcs, tolls: Floats | None) -> Floats | float:
        """What a whole class pays over each arc for the links it crosses, at `tolls`."""
        if tolls is None:
            return 0.0
        cls = arcs.classes[arcs.row]
        route = self.frame.tables.classes.route[cls]
        paid: Floats = self._megabits[cls] * tolls[route, self.frame.site[arcs.group]]
        return paid

    def tolls(self, price: Floats) -> Floats | None:
        """USD/h per Mbit/s over each route to each site, rows having prices; None: all for free."""
        links, routes = self.frame.tables.links, self.frame.tables.routes
        usd_per_h = price[: self.links]
        if not usd_per_h.any():
            return None
        tolls = np.zeros(routes.via_link.shape)
        row, here = np.nonzero(routes.via_link != NOWHERE)
        for first in range(0, len(row), _PAIRS):
            some = slice(first, first + _PAIRS)
            pair, link = path_links(routes, links, route=row[some], site=here[some])
            tolls[row[some], here[some]] = np.bincount(pair, usd_per_h[link], len(row[some]))
        return tolls
