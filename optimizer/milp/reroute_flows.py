"""The cheapest flows after the loss of a site: the whole fleet's, with the replicas there are.

Decides parts of classes. One linear problem over all classes is solved for no loss at all; each
loss closes the lost site's pairs, lets classes that entered there enter elsewhere, and goes on from
the same vertex, so that no answer hangs on which losses were asked for before. Only pairs that may
pay are columns; the others are priced, and join where they would save something. Rounding is
`reroute_fill`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from optimizer.milp.flows import OpenProgram, Program, Vertex
from optimizer.reroute_pairs import Pairs, Positions, all_of
from optimizer.reroute_standing import Standing
from optimizer.tables import NOWHERE, Flags, Floats
from sites.units import WHOLE_BP

_MOVING_PART = 3e-4
"""What moving a class where it could stay costs, as part of the price of shedding it: traffic of
others moves to spare shedding, not for cheaper power or transfer."""

_SAVING_PART = 3e-4
"""A pair joins where the whole class would save more there, as part of its price of shedding."""

_OVERFULL = 1e-9
"""A limit passed by less, as part of what there is of it, is one kept."""

_CHEAPEST = 4
"""So many of the cheapest pairs of each class are columns from the start."""

_MORE_PAIRS = 30
"""So many more pairs of a class join in a round."""

_ROUNDS = 40
"""Pairs join in so many rounds at most; what is then found is lawful all the same."""

_LINK_ROUNDS = 8
"""Links are looked at in so many rounds at most; rounding keeps those that are still passed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Flows:
    """Parts of classes on pairs after a loss; a pair may be listed twice. `worth_usd_per_h` is what
    a busy replica less at each placed group costs at least, whoever yields in the end.
    """

    pairs: Pairs
    parts: Floats
    worth_usd_per_h: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class _Case:
    """What a loss makes different: its site, closed groups, who enters elsewhere, which part of
    each class may be shed at its price.
    """

    site: int | None
    closed: Flags
    moved: Flags
    spared: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """Where a problem was left: the pairs of its columns, positions of those that came to move to,
    links looked at, values, prices of rows, vertex.
    """

    pairs: Pairs
    known: Positions
    links: Positions
    values: Floats
    duals: Floats
    program: OpenProgram


class RerouteFlows:
    """The flows of one plan; `after` answers for a loss. Raises FatalError if the solver errs."""

    def __init__(self, standing: Standing) -> None:
        self.standing = s = standing
        self._most_used = np.maximum(s.limits, s.used)
        over = s.is_short & (s.used > s.limits + s.slack)[: s.groups]
        self._most_used[: s.groups][over] = s.limits[: s.groups][over]
        self._protected = np.flatnonzero(s.tables.classes.protected)
        self._stay = np.flatnonzero(s.here.held_bp > 0)
        self._core = self._cheapest()
        self._links = np.zeros(0, dtype=np.intp)
        self._vertex: Vertex | None = None
        supplies = len(s.tables.supplies.ids)
        self._fixed_columns = len(s.class_ids) + len(self._protected) + supplies
        found = self._settled(
            _Case(
                site=None,
                closed=s.replicas == 0,
                moved=np.zeros(len(s.class_ids), dtype=np.bool_),
                spared=s.may_shed_bp("") / WHOLE_BP,
            )
        )
        self._core, self._links = found.known, found.links
        self._vertex = found.program.vertex()

    def after(self, lost_site_id: str) -> Flows:
        """The flows after a loss. Raises FatalError if the solver errs."""
        s = self.standing
        site = s.site_at[lost_site_id]
        found = self._settled(
            _Case(
                site=site,
                closed=(s.site_of == site) | (s.replicas == 0),
                moved=s.ingress == site,
                spared=s.may_shed_bp(lost_site_id) / WHOLE_BP,
            )
        )
        return Flows(
            pairs=found.pairs,
            parts=found.values[self._fixed_columns :],
            worth_usd_per_h=np.maximum(0.0, -self._busy(found.duals)),
        )

    def _busy(self, duals: Floats) -> Floats:
        """The prices of the rows of groups."""
        first = len(self.standing.class_ids) + self.standing.sites
        return duals[first : first + self.standing.groups]

    def _price(self, pairs: Pairs) -> Floats:
        """Transfer, and what moving there costs (USD/h of the whole class)."""
        moving = _MOVING_PART * self.standing.shed_usd_per_h
        price: Floats = pairs.usd_per_h + moving[pairs.row]
        return price

    def _cheapest(self) -> Positions:
        """The few cheapest pairs of each class, and those the plan uses."""
        here = self.standing.here
        order = np.lexsort((self._price(here), here.row))
        rank = np.empty(here.count, dtype=np.intp)
        rank[order] = np.arange(here.count) - np.searchsorted(here.row, here.row)
        return np.flatnonzero((rank < _CHEAPEST) | (here.held_bp > 0))

    def _settled(self, case: _Case) -> _Found:
        """Pairs and links join until none pays or is passed."""
        here, entering = self.standing.here, self._entering(case)
        known, links, start = self._core, self._links, self._vertex
        for _ in range(_LINK_ROUNDS):
            first = self._pairs(known[: len(self._core)], entering, known[len(self._core) :])
            program = OpenProgram(self._program(case, first, links=links), start)
            values, duals = program.solve()
            for _ in range(_ROUNDS):
                more = self._paying(case, duals, known=known, links=links)
                if not len(more):
                    break
                program.add(self._columns(case, here.only(more), links=links))
                known = np.concatenate((known, more))
                values, duals = program.solve()
            pairs = self._pairs(known[: len(self._core)], entering, known[len(self._core) :])
            passed = self._passed(pairs, values[self._fixed_columns :], links=links)
            if not len(passed):
                break
            start, links = program.vertex(), np.concatenate((links, passed))
        return _Found(
            pairs=pairs, known=known, links=links, values=values, duals=duals, program=program
        )

    def _entering(self, case: _Case) -> Pairs:
        """Pairs of the classes that enter elsewhere."""
        then = self.standing.next
        return then.only(case.moved[then.row] & ~case.closed[then.group])

    def _pairs(self, core: Positions, entering: Pairs, joining: Positions) -> Pairs:
        """The pairs of the columns: shares that stay, pairs to move to, pairs from where classes
        enter then, pairs that joined. In this order, so that a vertex of fewer pairs fits.
        """
        here = self.standing.here
        return all_of([here.only(self._stay), here.only(core), entering, here.only(joining)])

    def _program(self, case: _Case, pairs: Pairs, *, links: Positions) -> Program:
        """min sum price y + sum shed u + sum guard v + sum price e  where
        sum_r y[d,r] + u[d] + v[d] == 1,  sum busy_kw y - sum_k e[k] == -idle[s],  and what y uses
        of each group and link is at most what there is.
        """
        s, supplies = self.standing, self.standing.tables.supplies
        classes, guarded = np.arange(len(s.class_ids)), np.arange(len(self._protected))
        supply = np.arange(len(supplies.ids))
        flows = self._columns(case, pairs, links=links)
        stay = slice(len(self._stay))
        flows.prices[stay] = pairs.usd_per_h[stay]
        flows.most[stay] *= pairs.held_bp[stay] / WHOLE_BP
        idle = s.idle_of(np.where(case.closed, 0.0, s.replicas))
        row = (classes, self._protected, len(classes) + supplies.site, flows.row)
        column = (
            classes,
            len(classes) + guarded,
            len(classes) + len(guarded) + supply,
            self._fixed_columns + flows.column,
        )
        served = np.ones(len(classes) + len(guarded))
        each = (served, np.full(len(supply), -1.0), flows.each)
        price = (s.shed_usd_per_h, s.guard_usd_per_h[self._protected], s.usd_per_kwh, flows.prices)
        most = (case.spared, np.ones(len(guarded)), self._supplied(case.site), flows.most)
        return Program(
            prices=np.concatenate(price),
            most=np.concatenate(most),
            row=np.concatenate(row).astype(np.intp),
            column=np.concatenate(column).astype(np.intp),
            each=np.concatenate(each),
            exact=np.concatenate((np.ones(len(classes)), -idle)),
            most_used=np.concatenate((self._most_used[: s.groups], self._most_used[links])),
        )

    def _columns(self, case: _Case, pairs: Pairs, *, links: Positions) -> Program:
        """Columns of pairs, numbered from 0, with their entries in all rows; closed at a lost site
        and for classes that no longer enter so.
        """
        s, at = self.standing, np.arange(pairs.count)
        is_open = ~case.closed[pairs.group] & (pairs.elsewhere == case.moved[pairs.row])
        first_group = len(s.class_ids) + s.sites
        crossing, link, mbit = self._crossing(pairs, links)
        row = (
            pairs.row,
            len(s.class_ids) + s.site_of[pairs.group],
            first_group + pairs.group,
            first_group + s.groups + link,
        )
        each = (np.ones(len(at)), pairs.busy * s.busy_kw[pairs.group], pairs.busy, mbit)
        return Program(
            prices=self._price(pairs),
            most=is_open.astype(np.float64),
            row=np.concatenate(row).astype(np.intp),
            column=np.concatenate((at, at, at, crossing)).astype(np.intp),
            each=np.concatenate(each),
            exact=np.zeros(0),
            most_used=np.zeros(0),
        )

    def _supplied(self, site: int | None) -> Floats:
        """What each supply may give (kW), none at a lost site. What a site draws beyond all of them
        by its idle replicas and the rounding of shares, its dearest may.
        """
        s, supplies = self.standing, self.standing.tables.supplies
        limit_kw = supplies.limit_kw.copy()
        most = self._most_used[s.groups : s.groups + s.sites]
        beyond = np.maximum(0.0, most - np.bincount(supplies.site, limit_kw, s.sites))
        dearest = np.zeros(s.sites, dtype=np.intp)
        order = np.lexsort((s.usd_per_kwh, supplies.site))
        dearest[supplies.site[order]] = order
        limit_kw[dearest] += beyond
        limit_kw[supplies.site == (NOWHERE if site is None else site)] = 0.0
        return limit_kw

    def _crossing(self, pairs: Pairs, links: Positions) -> tuple[Positions, Positions, Floats]:
        """(pair, which of the links, Mbit/s of the whole class) where pairs cross some links."""
        none = np.zeros(0, dtype=np.intp)
        if not len(links):
            return none, none, np.zeros(0)
        uses = self.standing.uses(pairs)
        which = np.full(len(self.standing.limits), NOWHERE)
        which[links] = np.arange(len(links))
        link = which[uses.key]
        crosses = link != NOWHERE
        return uses.pair[crosses], link[crosses], uses.each[crosses]

    def _paying(
        self, case: _Case, duals: Floats, *, known: Positions, links: Positions
    ) -> Positions:
        """Pairs not among the known that would save something at prices of rows, the few best of
        each class.
        """
        s, here = self.standing, self.standing.here
        classes = len(s.class_ids)
        worth, kw = duals[:classes], duals[classes : classes + s.sites]
        per_busy = self._busy(duals) + s.busy_kw * kw[s.site_of]
        saved = worth[here.row] + here.busy * per_busy[here.group] - self._price(here)
        saved[known] = 0.0
        saved[case.closed[here.group] | case.moved[here.row]] = 0.0
        least = _SAVING_PART * s.shed_usd_per_h[here.row]
        found = np.flatnonzero(saved > least)
        pair, link, mbit = self._crossing(here.only(found), links)
        paid = mbit * duals[classes + s.sites + s.groups + link]
        saved[found] += np.bincount(pair, paid, len(found))
        found = found[saved[found] > least[found]]
        order = found[np.lexsort((-saved[found], here.row[found]))]
        row = here.row[order]
        rank = np.arange(len(order)) - np.searchsorted(row, row)
        return np.sort(order[rank < _MORE_PAIRS])

    def _passed(self, pairs: Pairs, parts: Floats, *, links: Positions) -> Positions:
        """Links not looked at so far that parts on pairs pass."""
        s, some = self.standing, np.flatnonzero(parts > 0)
        uses = s.uses(pairs.only(some))
        used = np.bincount(uses.key, uses.each * parts[some][uses.pair], len(s.limits))
        is_passed = used > self._most_used + _OVERFULL * np.maximum(1.0, s.limits)
        is_passed[: s.groups + s.sites] = False
        is_passed[links] = False
        return np.flatnonzero(is_passed)
