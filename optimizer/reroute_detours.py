"""For every single loss where all traffic goes, as a value: looked up, repaired, no solver.

Hands out answers that `reroute_table` worked out, in this process or in another. An answer is a
`Detour`, the classes that change; `optimizer.reroute` puts it into a whole plan, and answers for
several losses at once.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from optimizer.problem import RunningGroup
from optimizer.reroute_fill import Fill, Filled
from optimizer.reroute_repair import Repair
from optimizer.reroute_standing import Standing
from optimizer.tables import Floats
from sites.units import WHOLE_BP


@dataclass(frozen=True, kw_only=True, slots=True)
class Detour:
    """What changes when `lost_site_id` is lost: all of what each class listed then has, in basis
    points by group; what is missing of 10 000 is shed. Classes not listed keep their shares.

    `dearer_usd_per_h` is what mending it may have cost at most, against the flows solved anew for
    the replicas seen (but for power, which is little of it).
    """

    lost_site_id: str
    shares: Mapping[str, Mapping[str, int]]
    dearer_usd_per_h: float = 0.0

    def shed_bp(self, class_id: str) -> int:
        """Basis points of a listed class that are shed."""
        return WHOLE_BP - sum(self.shares[class_id].values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """A detour with what a repair goes on from: how full it leaves limits, what room costs, and
    what a busy replica less at each placed group costs at least, whoever yields (USD/h).
    """

    detour: Detour
    filled: Filled
    room: Floats
    worth: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Detours:
    """Every loss of one plan of one problem, for the replicas `standing` counts on.

    Equal questions have equal answers, in whatever process. `by_site` holds each `Known` as bytes:
    a process that answers other things meanwhile takes in the table of a large fleet at once, and
    opens what it needs.
    """

    standing: Standing
    by_site: Mapping[str, bytes]

    def answer(
        self, lost_site_id: str, *, running: tuple[RunningGroup, ...] | None = None
    ) -> Detour:
        """The answer to a loss with the replicas seen `running` (None: as counted on).

        Where fewer run, what no longer fits there moves on; more are not used. Raises KeyError for
        no site.
        """
        known: Known = pickle.loads(self.by_site[lost_site_id])
        return repaired(self.standing, known, lost_site_id, running=running)


def repaired(
    standing: Standing,
    known: Known,
    lost_site_id: str,
    *,
    running: tuple[RunningGroup, ...] | None,
) -> Detour:
    """A known answer, mended where fewer replicas run than it counts on."""
    if running is None:
        return known.detour
    lost = standing.site_at[lost_site_id]
    fewer = {
        at: float(seen)
        for at, (seen, there) in enumerate(
            zip(standing.seen(running), standing.replicas.tolist(), strict=True)
        )
        if seen < there and standing.site_at_group[at] != lost
    }
    if not fewer:
        return known.detour
    mended = Fill(standing, lost_site_id, known=known.filled)
    moved = Repair(mended, room=known.room).mend(fewer)
    shares = dict(known.detour.shares)
    for row in moved:
        shares.pop(standing.class_ids[row], None)
    shares |= mended.changed(moved)
    shares |= standing.idle_at(group for group, left in fewer.items() if left == 0)
    return Detour(
        lost_site_id=lost_site_id,
        shares=dict(sorted(shares.items())),
        dearer_usd_per_h=_dearer(mended, known, fewer, moved=moved),
    )


def _dearer(
    mended: Fill, known: Known, fewer: Mapping[int, float], *, moved: Iterable[int]
) -> float:
    """What classes that moved cost more than in the known answer, less what the missing replicas
    cost any answer: prices of a linear problem bound it with other limits too.
    """
    s, before = mended.standing, known.filled.shares
    cost = 0.0
    for row in moved:
        cost += _usd_per_h(mended, row, mended.shares[row])
        cost -= _usd_per_h(mended, row, before.get(row, s.held_at[row]))
    for group, left in fewer.items():
        missing = float(s.replicas[group]) - left
        cost -= float(known.worth[group] * s.usable[group]) * missing
    return max(0.0, cost)


def _usd_per_h(fill: Fill, row: int, shares: Mapping[int, int]) -> float:
    """Transfer and shedding of a class with some shares; protected traffic is guarded."""
    choices = fill.standing.choices(row, elsewhere=fill.enters_elsewhere(row))
    cost = choices.shed_usd_per_h * (WHOLE_BP - sum(shares.values()))
    for group, basis_points in shares.items():
        cost += float(choices.price[choices.place[group][0]]) * basis_points
    return cost / WHOLE_BP
