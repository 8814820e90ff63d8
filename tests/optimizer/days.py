"""Problems whose figures change over the day: by hand and random, for the tests of schedules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hypothesis import strategies as st

from optimizer.problem import Problem
from sites.fleet import PowerSupply, Site
from sites.traffic import TrafficClass
from tests.optimizer import builders as b


def over_day(first: Sequence[float], *, then: float) -> tuple[float, ...]:
    """24 values: some for the first hours, one for the rest."""
    return (*first, *[then] * (24 - len(first)))


def supply_at(prices: Sequence[float], *, then: float = 0.1) -> PowerSupply:
    """A grid supply whose price (USD/kWh) changes in the first hours."""
    return replace(b.supply(), price_usd_per_kwh=over_day(prices, then=then))


def class_at(
    class_id: str, rates: Sequence[float], *, deferrable_h: int = 0, **more: object
) -> TrafficClass:
    """A class with another rate (requests/s) in each of the first hours, none after them."""
    one = b.traffic_class(class_id, deferrable_h=deferrable_h, **more)  # type: ignore[arg-type]
    return replace(one, rate_rps=over_day(rates, then=0.0))


def dear_then_cheap(*, deferrable_h: int = 2, start_ms: float = 0.0) -> Problem:
    """One site; power at 10 $/kWh for two hours, then at 0.1; 10 req/s that may wait in each of
    the first two hours, and 10 req/s that may not in each of the first four.
    """
    return b.problem(
        sites=[b.site("a", supplies=[supply_at([10.0, 10.0])], pools=[b.pool(count=4)])],
        points=[b.point(start_ms=start_ms)],
        classes=[
            class_at("now", [10.0] * 4),
            class_at("later", [10.0, 10.0], deferrable_h=deferrable_h),
        ],
    )


@st.composite
def day_problems(
    draw: st.DrawFn, *, max_sites: int = 2, max_classes: int = 3, limits: bool = False
) -> Problem:
    """`builders.rich_problems` with prices, carbon, power and rates that change from hour to hour,
    and classes of which some may wait.
    """
    base = draw(b.rich_problems(max_sites=max_sites, max_classes=max_classes, limits=limits))
    classes = tuple(draw(_changing_class(c)) for c in base.classes)
    sites = tuple(draw(_changing_site(s)) for s in base.fleet.sites)
    return replace(base, fleet=replace(base.fleet, sites=sites), classes=classes)


@st.composite
def _changing_class(draw: st.DrawFn, one: TrafficClass) -> TrafficClass:
    parts = draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.7]), min_size=4, max_size=4))
    return replace(
        one,
        rate_rps=over_day([one.rate_rps[0] * part for part in parts], then=0.0),
        deferrable_h=draw(st.sampled_from([0, 0, 1, 2])),
    )


@st.composite
def _changing_site(draw: st.DrawFn, one: Site) -> Site:
    parts = draw(st.lists(st.sampled_from([0.3, 1.0, 4.0]), min_size=4, max_size=4))
    part = draw(st.sampled_from([1.0, 1.0, 0.6]))
    return replace(
        one,
        power_budget_w=over_day(
            [one.power_budget_w[0], one.power_budget_w[0] * part], then=one.power_budget_w[0]
        ),
        supplies=tuple(
            replace(
                k,
                price_usd_per_kwh=over_day(
                    [k.price_usd_per_kwh[0] * p for p in parts], then=k.price_usd_per_kwh[0]
                ),
            )
            for k in one.supplies
        ),
    )


def with_deadlines(problem: Problem, deferrable_h: Mapping[str, int]) -> Problem:
    """The same problem with other deadlines (hours by class id)."""
    return replace(
        problem,
        classes=tuple(
            replace(c, deferrable_h=deferrable_h.get(c.class_id, c.deferrable_h))
            for c in problem.classes
        ),
    )


@st.composite
def one_group_problems(draw: st.DrawFn) -> Problem:
    """One site with one group and one unlimited supply, three busy hours: small enough to try every
    number of replicas.
    """
    prices = draw(st.lists(st.sampled_from([0.1, 1.0, 6.0]), min_size=3, max_size=3))
    classes = [
        class_at(
            f"c{i}",
            draw(st.lists(st.sampled_from([0.0, 3.0, 11.0, 24.0]), min_size=3, max_size=3)),
            deferrable_h=draw(st.integers(0, 2)),
            priority=draw(st.integers(3, 9)),
        )
        for i in range(draw(st.integers(1, 2)))
    ]
    return b.problem(
        sites=[
            b.site(
                "a",
                pue=draw(st.sampled_from([1.0, 1.3])),
                supplies=[supply_at(prices)],
                pools=[b.pool(count=3, price=draw(st.sampled_from([0.5, 2.0])))],
            )
        ],
        points=[b.point(start_ms=draw(st.sampled_from([0.0, 900_000.0, 3_600_000.0, 7.2e6])))],
        classes=classes,
        running={"a/p/v/x1": draw(st.integers(1, 2))} if draw(st.booleans()) else {},
        plan_policy=replace(
            b.DEFAULT_POLICY,
            utilisation_ceiling=draw(st.sampled_from([0.8, 1.0])),
            migration_usd_per_gib=draw(st.sampled_from([0.0, 2.0])),
            shed_usd_per_mtok=draw(st.sampled_from([1.0, 50.0])),
        ),
    )
