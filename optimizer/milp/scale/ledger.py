"""What stands, who flows where, what is left of the shared limits, and what all of it costs.

Arithmetic only. `Ledger` holds the plan being built as arrays over all groups and per-class flows.
Freeing some classes leaves the others' traffic as a base on each group. Which classes to free is
`plan_search`'s question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.milp.scale.catalogue import ComponentArcs
from optimizer.milp.scale.exposure import Exposure
from optimizer.milp.scale.frame import Frame, Positions
from optimizer.tables import NOWHERE, Floats

UNPLACED = 1e-5
"""Part of a class above which it counts as unserved: less is rounding (a basis point is ten times
that) and worth no replica.
"""
_SLACK = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Flows:
    """Traffic of some classes: part of class `cls` on `group`; `busy` and `usd_per_h` of that part
    (replicas it keeps busy, its transfer).
    """

    cls: Positions
    group: Positions
    part: Floats
    busy: Floats
    usd_per_h: Floats

    def only(self, kept: NDArray[np.intp] | slice) -> Flows:
        """The flows at some positions."""
        return Flows(
            cls=self.cls[kept],
            group=self.group[kept],
            part=self.part[kept],
            busy=self.busy[kept],
            usd_per_h=self.usd_per_h[kept],
        )

    def times(self, part: Floats | float) -> Flows:
        """So much of every flow."""
        return Flows(
            cls=self.cls,
            group=self.group,
            part=self.part * part,
            busy=self.busy * part,
            usd_per_h=self.usd_per_h * part,
        )


def flows_over(arcs: ComponentArcs, part: Floats, used: Positions) -> Flows:
    """The flows of `part` over the arcs at positions `used`."""
    some, group = part[used], arcs.group[used]
    return Flows(
        cls=arcs.classes[arcs.row[used]],
        group=group,
        part=some,
        busy=some * arcs.busy[used],
        usd_per_h=some * arcs.network_usd_per_h[used],
    )


def joined(parts: Sequence[Flows]) -> Flows:
    """All flows of some (at least one), one after the other."""
    return Flows(
        cls=np.concatenate([one.cls for one in parts]),
        group=np.concatenate([one.group for one in parts]),
        part=np.concatenate([one.part for one in parts]),
        busy=np.concatenate([one.busy for one in parts]),
        usd_per_h=np.concatenate([one.usd_per_h for one in parts]),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A new answer for some classes: replicas of the groups it speaks of, all their flows."""

    classes: Positions
    group: Positions
    replicas: Floats
    flows: Flows


@dataclass(frozen=True, kw_only=True, slots=True)
class Use:
    """Taken of the shared limits: accelerators by pool, possible kW and drawn kW by site, what
    counts in each tenant's budget, replicas under each cap.
    """

    accelerators: Floats
    possible_kw: Floats
    drawn_kw: Floats
    charged_usd_per_h: Floats
    capped: Floats

    def plus(self, other: Use, *, times: float = 1.0) -> Use:
        """The sum of two, the other `times` over."""
        return Use(
            accelerators=self.accelerators + times * other.accelerators,
            possible_kw=self.possible_kw + times * other.possible_kw,
            drawn_kw=self.drawn_kw + times * other.drawn_kw,
            charged_usd_per_h=self.charged_usd_per_h + times * other.charged_usd_per_h,
            capped=self.capped + times * other.capped,
        )


def standing(frame: Frame, group: Positions, replicas: Floats) -> Use:
    """What replicas of some groups take (a group may occur twice)."""
    caps, sites, site = frame.caps, len(frame.budget_kw), frame.site[group]
    capped = np.flatnonzero(caps.bound[group] != NOWHERE)
    rank = caps.bound[group[capped]]
    pools = len(frame.pool_count)
    return Use(
        accelerators=_sums(frame.pool[group], replicas * frame.accelerators[group], pools),
        possible_kw=_sums(site, replicas * frame.possible_kw[group], sites),
        drawn_kw=_sums(site, replicas * frame.idle_kw[group], sites),
        charged_usd_per_h=np.zeros(len(caps.budget_usd_per_h)),
        capped=_sums(rank, replicas[capped], len(caps.bound_most)),
    )


def is_open(frame: Frame, used: Use) -> NDArray[np.bool_]:
    """By site, whether a replica stands there."""
    stands = _sums(frame.pool_site, used.accelerators, len(frame.budget_kw))
    found: NDArray[np.bool_] = stands > _SLACK
    return found


def flowing(frame: Frame, flows: Flows) -> Use:
    """What traffic takes over replicas that stand."""
    caps, sites = frame.caps, len(frame.budget_kw)
    tenant = caps.tenant[flows.cls]
    mine = np.flatnonzero(tenant != NOWHERE)
    charged = caps.charged_usd_per_h(
        flows.group[mine], busy=flows.busy[mine], network_usd_per_h=flows.usd_per_h[mine]
    )
    drawn = flows.busy * frame.busy_kw[flows.group]
    return Use(
        accelerators=np.zeros(len(frame.pool_count)),
        possible_kw=np.zeros(sites),
        drawn_kw=_sums(frame.site[flows.group], drawn, sites),
        charged_usd_per_h=_sums(tenant[mine], charged, len(caps.budget_usd_per_h)),
        capped=np.zeros(len(caps.bound_most)),
    )


def _sums_at(group: Positions, of: Positions, value: Floats) -> Floats:
    """Sums of values at some groups (ascending), of what is there."""
    at = np.minimum(np.searchsorted(group, of), max(0, len(group) - 1))
    there = np.flatnonzero(group[at] == of) if len(group) else at[:0]
    return _sums(at[there], value[there], len(group))


def _sums(position: Positions, value: Floats, count: int) -> Floats:
    total: Floats = np.bincount(position, value, count).astype(np.float64)
    return total


class Ledger:
    """The plan being built. Its cost counts what is exposed to the loss of a site, and what
    emission and charges are worth at the caps' prices. `moved` is how many replicas start or stop.
    Unless `caps_hold`, emission and charges cost their price and have no limit.
    """

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.replicas = np.zeros(frame.groups)
        self.busy = np.zeros(frame.groups)
        self.shed_part = np.ones(len(frame.rate))
        none, empty = np.zeros(0), np.zeros(0, dtype=np.intp)
        self._no_flows = Flows(cls=empty, group=empty, part=none, busy=none, usd_per_h=none)
        self._flows: dict[int, Flows] = {}
        self._transfer, self._hardware = 0.0, 0.0
        self.moved = float(frame.running.sum())
        self.caps_hold = True
        self.used = flowing(frame, self._no_flows)
        self.exposure = Exposure(frame)

    def flows_of(self, classes: Positions) -> Flows:
        """The flows of some classes."""
        found = [self._flows.get(int(at), self._no_flows) for at in classes]
        return joined([*found, self._no_flows])

    def all_flows(self) -> Flows:
        """Every flow, class by class."""
        return self.flows_of(np.array(sorted(self._flows), dtype=np.intp))

    def others(self, classes: Positions, group: Positions) -> tuple[Use, Floats]:
        """What is taken without some classes' flows and some groups' replicas; and the others'
        busy replicas on those groups.
        """
        freed = self.flows_of(classes)
        own = flowing(self.frame, freed).plus(standing(self.frame, group, self.replicas[group]))
        left = self.used.plus(own, times=-1.0)
        base = self.busy[group] - _sums_at(group, freed.group, freed.busy)
        return left, np.where(base > 1e-9, base, 0.0)

    def with_change(self, change: Change) -> tuple[Use, float]:
        """What would be taken and what all would cost (USD/h) with a change."""
        freed, used = self.flows_of(change.classes), self._used_with(change)
        transfer = self._transfer - self._toll(freed) + self._toll(change.flows)
        shed = self.shed_part.copy()
        shed[change.classes] = _unserved(change)
        more = change.replicas - self.replicas[change.group]
        exposed = self.exposure.after_usd_per_h(change.group, more, shed=shed)
        hardware = self._hardware + self._more_hardware(change)
        return used, self._cost(hardware, shed, used, transfer) + exposed

    def _used_with(self, change: Change) -> Use:
        was = flowing(self.frame, self.flows_of(change.classes))
        becomes = flowing(self.frame, change.flows)
        more = change.replicas - self.replicas[change.group]
        stands = standing(self.frame, change.group, more)
        return self.used.plus(was, times=-1.0).plus(becomes).plus(stands)

    def _toll(self, flows: Flows) -> float:
        toll = self.frame.toll_usd_per_h(
            flows.cls, flows.group, busy=flows.busy, network_usd_per_h=flows.usd_per_h
        )
        return float(toll.sum())

    def _more_hardware(self, change: Change) -> float:
        """What a change adds to the price of replicas and starts (USD/h)."""
        frame, group = self.frame, change.group
        now, then = (
            replicas * frame.fixed_usd_per_h[group]
            + np.maximum(0.0, replicas - frame.running[group]) * frame.start_usd_per_h[group]
            for replicas in (self.replicas[group], change.replicas)
        )
        return float((then - now).sum())

    def fits(self, change: Change) -> bool:
        """Whether a change keeps the limits and rated work of its groups."""
        return not self.lacking(change).any() and self.keeps_caps(change)

    def keeps_caps(self, change: Change) -> bool:
        """Whether a change keeps the limits over the whole fleet, or mends those broken now."""
        frame, caps = self.frame, self.frame.caps
        if caps.are_none:
            return True
        used = self._used_with(change)
        if (used.charged_usd_per_h > self.most_charged_usd_per_h() + _SLACK).any():
            return False
        if (used.capped > np.maximum(caps.bound_most, self.used.capped) + _SLACK).any():
            return False
        if self.moved + self._more_moves(change) > max(caps.moves, self.moved) + _SLACK:
            return False
        if not np.isfinite(self.most_kg_per_h()):
            return True
        return frame.least_kg_per_h(used.drawn_kw) <= self.most_kg_per_h() * (1 + _SLACK) + _SLACK

    def most_charged_usd_per_h(self) -> Floats:
        """What each tenant with a budget may be charged: its budget, or what it is now."""
        if not self.caps_hold:
            return np.full(len(self.frame.caps.budget_usd_per_h), np.inf)
        most: Floats = np.maximum(self.frame.caps.budget_usd_per_h, self.used.charged_usd_per_h)
        return most

    def most_kg_per_h(self) -> float:
        """What a plan may emit: the cap, or what it does now."""
        return max(self.frame.caps.carbon_kg_per_h, self.emits()) if self.caps_hold else np.inf

    def emits(self) -> float:
        """What all that is drawn emits at least (kg/h): where that keeps the cap, a plan can."""
        return self.frame.least_kg_per_h(np.maximum(0.0, self.used.drawn_kw))

    def reprice(self, frame: Frame) -> None:
        """Emission and charges cost what they do in another frame of the problem from now on."""
        self.frame = frame
        self._transfer = self._toll(self.all_flows())

    def moved_beside(self, group: Positions) -> float:
        """Replicas started or stopped beside those of some groups."""
        own = np.abs(self.replicas[group] - self.frame.running[group])
        return self.moved - float(own.sum())

    def _more_moves(self, change: Change) -> float:
        running, now = self.frame.running[change.group], self.replicas[change.group]
        return float((np.abs(change.replicas - running) - np.abs(now - running)).sum())

    def lacking(self, change: Change) -> NDArray[np.bool_]:
        """Sites where a change would break a limit or the rated work of a group."""
        used, frame = self._used_with(change), self.frame
        lacking: NDArray[np.bool_] = used.possible_kw > frame.budget_kw + 1e-6
        lacking |= used.drawn_kw > frame.stack.limit_kw.sum(axis=1) + 1e-6
        full = used.accelerators > frame.pool_count + 1e-6
        lacking[frame.site[full[frame.pool]]] = True
        _, base = self.others(change.classes, change.group)
        carried = base + _sums_at(change.group, change.flows.group, change.flows.busy)
        rated = change.replicas * frame.rateable[change.group]
        over = carried > rated * (1 + 1e-7) + 1e-7
        lacking[frame.site[change.group[over]]] = True
        return lacking

    def put(self, change: Change) -> None:
        """Make a change."""
        freed, flows = self.flows_of(change.classes), change.flows
        self.used = self._used_with(change)
        np.add.at(self.busy, flows.group, flows.busy)
        np.subtract.at(self.busy, freed.group, freed.busy)
        self._transfer += self._toll(flows) - self._toll(freed)
        self._hardware += self._more_hardware(change)
        self.moved += self._more_moves(change)
        more = change.replicas - self.replicas[change.group]
        self.replicas[change.group] = change.replicas
        self.shed_part[change.classes] = _unserved(change)
        self.exposure.put(change.group, more, shed=self.shed_part)
        order = np.argsort(flows.cls, kind="stable")
        ordered = flows.only(order)
        low = np.searchsorted(ordered.cls, change.classes, side="left")
        high = np.searchsorted(ordered.cls, change.classes, side="right")
        for at, first, last in zip(change.classes.tolist(), low, high, strict=True):
            self._flows[at] = ordered.only(slice(int(first), int(last)))

    def whole(self) -> Change:
        """All that stands and flows, as a change that brings it back."""
        return Change(
            classes=np.arange(len(self.frame.rate)),
            group=np.arange(self.frame.groups),
            replicas=self.replicas.copy(),
            flows=self.all_flows(),
        )

    def cost_usd_per_h(self) -> float:
        """What everything costs (USD/h)."""
        exposed = self.exposure.usd_per_h()
        return self._cost(self._hardware, self.shed_part, self.used, self._transfer) + exposed

    def _cost(self, hardware: float, shed: Floats, used: Use, transfer: float) -> float:
        frame = self.frame
        power = frame.energy_usd_per_h(np.maximum(0.0, used.drawn_kw))
        shed_usd_per_h = float((shed * frame.shed_usd_per_h).sum())
        return hardware + shed_usd_per_h + power + transfer + self._unborne(used)

    def _unborne(self, used: Use) -> float:
        opening = self.frame.opening
        if not opening.usd_per_h.any():
            return 0.0
        left = opening.unborne_usd_per_h(is_open(self.frame, used), used.possible_kw)
        return float(left.sum())


def _unserved(change: Change) -> Floats:
    served = np.bincount(
        np.searchsorted(change.classes, change.flows.cls), change.flows.part, len(change.classes)
    )
    left: Floats = np.clip(1.0 - served, 0.0, 1.0)
    return np.where(left < 1e-7, 0.0, left)
