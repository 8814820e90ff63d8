"""Two schedules side by side: what all hours cost and draw, what starts, stops, waits and is shed,
and whether the difference is more than the search's own error.

Compares, decides nothing; how figures are written is `compare`'s. Either side may have no schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import fsum

from optimizer.compare import COST_TERMS, G_PER_KG, Figure, figure_lines, proof_lines
from optimizer.figures import draw_total_w
from optimizer.outcome import SolveStatus
from optimizer.schedule import PERIOD_H, DayOutcome, DaySchedule, PeriodPlan
from optimizer.supplies import emission_g_per_h
from sites.units import S_PER_H, W_PER_KW, WHOLE_BP

_Measure = Callable[[DaySchedule], float | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class DayComparison:
    """Figures of two schedules of the same hours, and what the difference in cost proves.

    The best schedule after costs between `least_usd` and `most_usd` more than the best before, by
    the bounds of both; None where a side has no schedule or no bound.
    """

    before_status: SolveStatus
    after_status: SolveStatus
    figures: tuple[Figure, ...]
    least_usd: float | None
    most_usd: float | None

    @property
    def within_gaps(self) -> bool:
        """Whether the difference in cost is no more than the two gaps together."""
        least, most = self.least_usd, self.most_usd
        return least is not None and most is not None and least <= 0 <= most


def compare_days(before: DayOutcome, after: DayOutcome) -> DayComparison:
    """Set two outcomes side by side."""
    one, other = before.schedule, after.schedule
    return DayComparison(
        before_status=before.status,
        after_status=after.status,
        figures=tuple(_figures(one, other)),
        least_usd=_further(other, one),
        most_usd=None if (back := _further(one, other)) is None else -back,
    )


def _further(one: DaySchedule | None, other: DaySchedule | None) -> float | None:
    """The least any schedule of one side costs, less what the other side's costs (USD)."""
    if one is None or other is None or one.bound_usd is None:
        return None
    return min(one.bound_usd, one.cost_usd) - other.cost_usd


def _figures(before: DaySchedule | None, after: DaySchedule | None) -> Iterator[Figure]:
    def figure(
        name: str, unit: str, measure: _Measure, lower_is_better: bool | None = True
    ) -> Figure:
        return Figure(
            name=name,
            unit=unit,
            before=None if before is None else measure(before),
            after=None if after is None else measure(after),
            lower_is_better=lower_is_better,
        )

    yield figure("cost", "USD", lambda s: s.cost_usd)
    for name, term in COST_TERMS:
        one = figure(f"  {name}", "USD", _term(term))
        if one.before or one.after:
            yield one
    yield figure("bound", "USD", lambda s: s.bound_usd, None)
    yield figure("gap", "%", lambda s: None if s.gap is None else s.gap * 100, None)
    yield figure("drawn", "kWh", _over_hours(lambda h: draw_total_w(h.plan) / W_PER_KW))
    yield figure("emission", "kg", _over_hours(_emission_kg_per_h))
    yield figure("started", "", _changed(1), None)
    yield figure("stopped", "", _changed(-1), None)
    yield figure("deferred", "req", _deferred_requests, None)
    yield figure("unserved", "req", _over_hours(lambda h: _shed_rps(h) * S_PER_H))


def _term(name: str) -> _Measure:
    return _over_hours(lambda hour: float(getattr(hour.plan.cost, name)))


def _over_hours(rate: Callable[[PeriodPlan], float]) -> _Measure:
    """The sum over all hours of what is so much an hour."""
    return lambda schedule: fsum(rate(one) * PERIOD_H for one in schedule.periods)


def _emission_kg_per_h(hour: PeriodPlan) -> float:
    return emission_g_per_h(hour.problem, hour.plan.supplies) / G_PER_KG


def _changed(sign: int) -> _Measure:
    """Replicas started (+1) or stopped (-1) over all hours."""
    return lambda schedule: fsum(
        max(0, sign * change) for one in schedule.periods for change in changes_of(one)
    )


def changes_of(hour: PeriodPlan) -> list[int]:
    """Of every group with replicas before or in an hour: how many more it has in it."""
    ran = {r.group.group_id: r.replicas for r in hour.problem.running}
    runs = {g.group.group_id: g.replicas for g in hour.plan.groups}
    return [runs.get(g, 0) - ran.get(g, 0) for g in sorted({*ran, *runs})]


def _deferred_requests(schedule: DaySchedule) -> float:
    return fsum(d.rate_rps * S_PER_H for d in schedule.deferrals)


def _shed_rps(hour: PeriodPlan) -> float:
    rates = {c.class_id: hour.problem.rate_rps(c) for c in hour.problem.classes}
    return fsum(rates[s.class_id] * s.basis_points / WHOLE_BP for s in hour.plan.shed)


def day_comparison_lines(found: DayComparison) -> Iterator[tuple[str, Figure | None]]:
    """The comparison as lines, each with its figure (None: not a figure), columns aligned."""
    yield from figure_lines(found.figures, before=found.before_status, after=found.after_status)
    least, most = found.least_usd, found.most_usd
    if least is not None and most is not None:
        for text in proof_lines(least, most, what="schedule"):
            yield text, None
        return
    cost = found.figures[0]
    if cost.change is not None:
        yield (
            "Nothing proven: a schedule has no bound, so the difference may be the search's own",
            None,
        )
