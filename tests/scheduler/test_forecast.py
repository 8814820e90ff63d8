"""The forecast: counters become rates, rates become demand of classes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.forecast import RouteRate, forecast, observed_rates, smoothed
from sites.errors import InvalidFactError
from sites.telemetry import GatewayObservation, RouteCount, SiteObservation
from tests.optimizer import builders as b

ANY = "chat|t|any"


def seen(at_ms: int, total: int, *, instance: str = "i", site_id: str = "a") -> SiteObservation:
    count = RouteCount(route_id=ANY, serving_site_id="a", requests_total=total, errors_total=0)
    return SiteObservation(
        site_id=site_id,
        instance_id=instance,
        sequence=at_ms,
        observed_at_ms=at_ms,
        epoch=1,
        version=1,
        assignment_digest="",
        replicas=(),
        gateway=GatewayObservation(live=True, routes=(count,)),
        possible_draw_w=0.0,
        draw_w=0.0,
    )


def test_a_rate_is_requests_over_time() -> None:
    assert observed_rates(seen(1_000, 10), seen(3_000, 50)) == (
        RouteRate(site_id="a", route_id=ANY, rate_rps=20.0),
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (seen(1_000, 10), seen(3_000, 50, instance="other")),
        (seen(1_000, 10), seen(1_000, 50)),
        (seen(1_000, 10), seen(3_000, 9)),
    ],
)
def test_what_cannot_be_compared_says_nothing(
    before: SiteObservation, after: SiteObservation
) -> None:
    assert observed_rates(before, after) == ()


def test_observations_of_two_sites_are_never_compared() -> None:
    with pytest.raises(InvalidFactError, match="a and b"):
        observed_rates(seen(1, 1), seen(2, 2, site_id="b"))


@given(st.floats(0, 1e6), st.lists(st.floats(0, 1e6), max_size=20))
def test_a_smoothed_rate_stays_between_what_was_seen(first: float, more: list[float]) -> None:
    rates: dict[tuple[str, str], float] = {}
    for rate in (first, *more):
        rates = smoothed(rates, [RouteRate(site_id="a", route_id=ANY, rate_rps=rate)])
    assert min(first, *more, first) * (1 - 1e-9) <= rates[("a", ANY)]
    assert rates[("a", ANY)] <= max(first, *more, first) * (1 + 1e-9)


def test_classes_of_one_route_share_what_was_counted_by_their_stated_rates() -> None:
    problem = b.two_sites(
        classes=[b.traffic_class("c", rate_rps=30.0), b.traffic_class("d", rate_rps=10.0)]
    )
    demand = forecast(problem, {("a", ANY): 8.0, ("b", ANY): 99.0})
    assert {d.class_id: d.rate_rps for d in demand} == {"c": 6.0, "d": 2.0}
    asked = replace(problem, demand=demand)
    assert [asked.rate_rps(c) for c in asked.classes] == [6.0, 2.0]


def test_a_class_nobody_counted_keeps_its_stated_rate() -> None:
    problem = b.two_sites()
    assert forecast(problem, {}) == ()
    silent = b.two_sites(classes=[b.traffic_class("c", rate_rps=0.0)])
    assert forecast(silent, {("a", ANY): 5.0})[0].rate_rps == 5.0
