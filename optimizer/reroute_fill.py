"""Whole basis points of classes on groups after a loss, counted against every limit.

Arithmetic only: who goes where is `reroute_work`'s and `reroute_repair`'s. Each share may pass a
limit by one basis point of its class, as the checker has it; what that allows beyond a limit is for
rounding alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np

from optimizer.reroute_pairs import Positions, all_of
from optimizer.reroute_standing import Standing
from optimizer.tables import NOWHERE, Floats
from sites.units import WHOLE_BP

_DUST_BP = 1e-6
"""What is less than this part of a basis point is the error of sums."""

_DUST = 1e-9
"""A limit passed by less is kept: the error of sums."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Filled:
    """An answer kept: its listed shares, and where room and slack differ from the plan's."""

    shares: Mapping[int, Mapping[int, int]]
    keys: Positions
    free: Floats
    slack: Floats


class Fill:
    """What each class has after the loss of a site, and what that leaves of each limit."""

    def __init__(
        self, standing: Standing, lost_site_id: str, *, known: Filled | None = None
    ) -> None:
        self.standing, self.lost = standing, standing.site_at[lost_site_id]
        self._elsewhere = standing.entering_at(self.lost)
        self._left = np.where(standing.site_of == self.lost, 0.0, standing.replicas)
        self.shares: dict[int, dict[int, int]] = {}
        free, slack = standing.limits - standing.used, standing.slack.copy()
        if known is None:
            free += self._room(self._left) - self._room(standing.replicas)
        else:
            free[known.keys], slack[known.keys] = known.free, known.slack
            self.shares = {row: dict(one) for row, one in known.shares.items()}
        self.free: list[float] = free.tolist()
        self.slack: list[float] = slack.tolist()

    def filled(self) -> Filled:
        """The answer as it stands, to go on from."""
        s, free, slack = self.standing, np.array(self.free), np.array(self.slack)
        keys = np.flatnonzero((free != s.limits - s.used) | (slack != s.slack))
        shares = {row: dict(one) for row, one in self.shares.items()}
        return Filled(shares=shares, keys=keys, free=free[keys], slack=slack[keys])

    def run_fewer(self, replicas: Mapping[int, float]) -> None:
        """Let so many replicas run at some groups."""
        fewer = self._left.copy()
        groups = np.array(sorted(replicas), dtype=np.intp)
        fewer[groups] = [replicas[group] for group in groups.tolist()]
        change = self._room(fewer) - self._room(self._left)
        for key in np.flatnonzero(change).tolist():
            self.free[key] += float(change[key])
        self._left = fewer

    def _room(self, replicas: Floats) -> Floats:
        """What there is of each limit beside idle replicas."""
        s = self.standing
        room = s.limits_of(replicas)
        room[s.groups : s.groups + s.sites] -= s.idle_of(replicas)
        return room

    def over(self, key: int) -> float:
        """By how much a limit is passed beyond what rounding may (0 or less: kept)."""
        return -(self.free[key] + self.slack[key] + _DUST)

    def has(self, row: int) -> Mapping[int, int]:
        """Basis points by group that a class has at present."""
        found = self.shares.get(row)
        return self.standing.held_at[row] if found is None else found

    def is_closed(self, group: int) -> bool:
        """Whether no replica is left at a group."""
        return bool(self._left[group] == 0)

    def enters_elsewhere(self, row: int) -> bool:
        """Whether a class entered at the lost site."""
        return row in self._elsewhere

    def shed_bp(self, row: int) -> int:
        """Basis points of a class that nobody serves."""
        return WHOLE_BP - sum(self.has(row).values())

    def vacate(self, row: int) -> None:
        """Take from a class all it has as planned, once."""
        if row in self.shares:
            return
        for group, basis_points in self.standing.held_at[row].items():
            for key, each in self.standing.each_bp(row, group, elsewhere=False):
                self.free[key] += each * basis_points
                self.slack[key] -= each
        self.shares[row] = {}

    def take_up(self, row: int) -> None:
        """List a class that enters as planned with what it has: from then on it may change."""
        if row not in self.shares:
            self.shares[row] = dict(self.standing.held_at[row])

    def put(self, row: int, group: int, basis_points: int) -> None:
        """Give a listed class so much more at a group (negative: less)."""
        if basis_points == 0:
            return
        shares = self.shares[row]
        before = shares.get(group, 0)
        after = before + basis_points
        new = (after > 0) - (before > 0)
        for key, each in self.each_bp(row, group):
            self.free[key] -= each * basis_points
            self.slack[key] += each * new
        if after:
            shares[group] = after
        else:
            del shares[group]

    def each_bp(self, row: int, group: int) -> list[tuple[int, float]]:
        """What a basis point of a class uses of each limit there."""
        return self.standing.each_bp(row, group, elsewhere=row in self._elsewhere)

    def fits(self, row: int, group: int, *, beside: int = NOWHERE) -> int:
        """Most basis points of a class that the limits still have room for, rounded up; the limit
        `beside` is not looked at.
        """
        most = float(WHOLE_BP)
        for key, each in self.each_bp(row, group):
            if key != beside and self.free[key] < most * each:
                most = self.free[key] / each
        return max(0, ceil(most - _DUST_BP))

    def rounds(self, row: int, group: int) -> int:
        """Most basis points of a class that rounding may put there."""
        new = group not in self.shares[row]
        most = float(WHOLE_BP)
        for key, each in self.each_bp(row, group):
            room = self.free[key] + self.slack[key] + each * new
            if room < most * each:
                most = room / each
        return max(0, int(most + _DUST_BP))

    def room_usd_per_h(self) -> Floats:
        """What a busy replica more costs at each placed group (`Standing.room_price`), inf at the
        lost site.
        """
        s = self.standing
        listed = np.zeros(len(s.class_ids), dtype=np.bool_)
        listed[sorted(self.shares)] = True
        stays = s.here.only((s.here.held_bp > 0) & ~listed[s.here.row])
        found = [
            pairs.only(np.isin(pairs.group, sorted(shares)))
            for row, shares in self.shares.items()
            for pairs in (s.pairs_of(row, elsewhere=self.enters_elsewhere(row)),)
        ]
        price = s.room_price(all_of([stays, *found]), np.array(self.free[: s.groups]))
        price[s.site_of == self.lost] = np.inf
        return price

    def changed(self, rows: Iterable[int]) -> dict[str, dict[str, int]]:
        """Those of some listed classes that are not as planned or enter elsewhere, by id."""
        s = self.standing
        return {
            s.class_ids[row]: {
                s.group_ids[group]: basis_points
                for group, basis_points in sorted(self.shares[row].items())
            }
            for row in sorted(rows)
            if self.shares[row] != s.held_at[row] or self.enters_elsewhere(row)
        }
