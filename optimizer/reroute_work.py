"""One loss worked out: who goes where with the replicas that are left.

Decides shares only: the cheapest flows (`milp.reroute_flows`) in whole basis points, and of what
moves no more at one site than others with room could share at little more. Protected traffic that
the plan's certificate serves is served; what nobody can take is shed, at the least price.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from optimizer.milp.reroute_flows import Flows
from optimizer.reroute_fill import Fill
from optimizer.reroute_standing import Standing
from sites.units import WHOLE_BP

MOST_AT_ONE_SITE_BP = 5_000
"""Of what moves of a class no site takes more than this part of the class, where others have room
at little more."""

SPREAD_PRICE_PART = 0.01
"""What spreading may cost, as part of the price of shedding."""

_UNCHANGED_BP = 0.5
"""A class of which no share differs by more keeps its shares."""

_DUST_BP = 1e-6


def work_out(standing: Standing, lost_site_id: str, *, flows: Flows) -> Fill:
    """The flows after a loss in whole shares, spread."""
    fill = Fill(standing, lost_site_id)
    wanted = _wanted(standing, flows, lost=standing.site_at[lost_site_id])
    rows = sorted(wanted, key=lambda row: _importance(standing, row))
    for row in rows:
        fill.vacate(row)
    for row in rows:
        for group, part in wanted[row].items():
            fill.put(row, group, min(int(part + _DUST_BP), fill.rounds(row, group)))
    may_shed_bp = standing.may_shed_bp(lost_site_id)
    for row in rows:
        _fill_up(fill, row, wanted[row])
        if standing.tables.classes.protected[row]:
            _serve(fill, row, missing=fill.shed_bp(row) - int(may_shed_bp[row]))
    for row in rows:
        _spread(fill, row)
    return fill


def _importance(standing: Standing, row: int) -> tuple[bool, float, int]:
    """Who is served first when room is short: protected classes, then the dear to shed."""
    is_protected = bool(standing.tables.classes.protected[row])
    return (not is_protected, -float(standing.shed_usd_per_h[row]), row)


def _wanted(standing: Standing, flows: Flows, *, lost: int) -> dict[int, dict[int, float]]:
    """Basis points by class and group of the classes that change or enter elsewhere."""
    flowing = np.flatnonzero(flows.parts * WHOLE_BP > _DUST_BP)
    key = flows.pairs.row[flowing] * standing.groups + flows.pairs.group[flowing]
    keys, at = np.unique(key, return_inverse=True)
    flow_bp = np.bincount(at, flows.parts[flowing] * WHOLE_BP, len(keys))
    held = np.flatnonzero(standing.here.held_bp > 0)
    held_key = standing.here.row[held] * standing.groups + standing.here.group[held]
    both = np.union1d(keys, held_key)
    more_bp = np.zeros(len(both))
    more_bp[np.searchsorted(both, keys)] += flow_bp
    more_bp[np.searchsorted(both, held_key)] -= standing.here.held_bp[held]
    differs = both[np.abs(more_bp) > _UNCHANGED_BP] // standing.groups
    changes = np.union1d(differs, np.flatnonzero(standing.ingress == lost))
    wanted: dict[int, dict[int, float]] = {row: {} for row in changes.tolist()}
    for one, basis_points in zip(keys.tolist(), flow_bp.tolist(), strict=True):
        row, group = divmod(one, standing.groups)
        if row in wanted:
            wanted[row][group] = basis_points
    return wanted


def _fill_up(fill: Fill, row: int, wanted: dict[int, float]) -> None:
    """Place what rounding down left of a class: where most was cut off, then wherever it fits."""
    shares = fill.shares[row]
    missing = min(WHOLE_BP, round(sum(wanted.values()))) - sum(shares.values())
    by_remainder = sorted(wanted, key=lambda g: (shares.get(g, 0) - wanted[g], g))
    for group in by_remainder:
        if missing <= 0:
            return
        if wanted[group] > shares.get(group, 0):
            part = min(1, fill.rounds(row, group))
            fill.put(row, group, part)
            missing -= part
    for group in by_remainder:
        part = min(missing, fill.fits(row, group), fill.rounds(row, group))
        if part > 0:
            fill.put(row, group, part)
            missing -= part


def _serve(fill: Fill, row: int, *, missing: int) -> None:
    """Place the few basis points of a protected class that only rounding has room for: the plan's
    certificate counts on that room too.
    """
    if missing <= 0:
        return
    pairs = fill.standing.pairs_of(row, elsewhere=fill.enters_elsewhere(row))
    for group in pairs.group.tolist():
        part = min(missing, fill.rounds(row, group))
        if part > 0 and not fill.is_closed(group):
            fill.put(row, group, part)
            missing -= part


def _spread(fill: Fill, row: int) -> None:
    """Move part of what one site gained of a class to others with room, if that costs little
    transfer.
    """
    s, before = fill.standing, fill.standing.held_at[row]
    more = [bp - before.get(g, 0) for g, bp in fill.shares[row].items()]
    if sum(bp for bp in more if bp > 0) <= MOST_AT_ONE_SITE_BP:
        return
    gained: dict[int, int] = defaultdict(int)
    for group, basis_points in fill.shares[row].items():
        gained[s.site_at_group[group]] += max(0, basis_points - before.get(group, 0))
    site = max(gained, key=lambda one: (gained[one], one), default=-1)
    over = gained.get(site, 0) - max(MOST_AT_ONE_SITE_BP, sum(gained.values()) // 2)
    if over <= 0:
        return
    there = [g for g in fill.shares[row] if s.site_at_group[g] == site]
    most = max(there, key=lambda g: (fill.shares[row][g] - before.get(g, 0), g))
    offers = s.choices(row, elsewhere=fill.enters_elsewhere(row)).by_price
    here = next(price for price, group in offers if group == most)
    allowed = here + SPREAD_PRICE_PART * float(s.shed_usd_per_h[row])
    for price, group in offers:
        if over <= 0 or price > allowed:
            return
        if fill.free[group] <= 0 or fill.is_closed(group) or s.site_at_group[group] == site:
            continue
        part = min(over, fill.shares[row].get(most, 0), fill.fits(row, group) - 1)
        if part > 0:
            fill.put(row, most, -part)
            fill.put(row, group, part)
            over -= part
