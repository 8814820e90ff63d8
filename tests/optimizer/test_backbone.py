"""Lawful paths: never through an unlawful country, always the shortest that is left."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.backbone import Backbone, LawfulPath, ingress_of, lawful_accesses
from optimizer.reach import Reach
from sites.fleet import Fleet
from sites.residency import ResidencyPolicy, may_transit
from tests.optimizer import builders as b

COUNTRIES = ("DE", "FR", "CH", "US")
EU_WITH_CH = ResidencyPolicy(
    policy_id="eu-ch", processing_countries=("DE", "FR"), transit_countries=("CH",)
)
POLICIES = (b.ANYWHERE, b.EU_ONLY, EU_WITH_CH)


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    ids = "abcdef"[: draw(st.integers(1, 6))]
    pairs = list(itertools.combinations(ids, 2))
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    return Fleet(
        sites=tuple(b.site(one, country=draw(st.sampled_from(COUNTRIES))) for one in ids),
        links=tuple(
            b.link(
                x,
                y,
                rtt_ms=draw(st.integers(0, 9)),
                price=draw(st.integers(0, 3)),
                transit=draw(st.sampled_from([(), ("CH",), ("US",)])),
            )
            for x, y in chosen
        ),
    )


def shortest_by_enumeration(
    fleet: Fleet, policy: ResidencyPolicy, source: str, target: str
) -> float | None:
    """The least RTT over all simple lawful paths, tried one by one."""
    between = [s.site_id for s in fleet.sites if s.site_id not in {source, target}]
    links = {frozenset((k.site_a, k.site_b)): k for k in fleet.links}
    best: float | None = None
    for count in range(len(between) + 1):
        for middle in itertools.permutations(between, count):
            route = [source] if source == target else [source, *middle, target]
            hops = [links.get(frozenset(pair)) for pair in itertools.pairwise(route)]
            if any(hop is None for hop in hops):
                continue
            crossed = [fleet.site(s).country for s in route]
            crossed += [c for hop in hops if hop for c in hop.transit_countries]
            if all(may_transit(policy, country=c) for c in crossed):
                rtt = sum(hop.rtt_ms for hop in hops if hop)
                best = rtt if best is None else min(best, rtt)
    return best


@given(fleet=fleets(), policy=st.sampled_from(POLICIES))
@settings(max_examples=60, deadline=None)
def test_paths_are_exactly_the_shortest_lawful_ones(fleet: Fleet, policy: ResidencyPolicy) -> None:
    backbone = Backbone(fleet)
    for source, target in itertools.product((s.site_id for s in fleet.sites), repeat=2):
        path = backbone.path(policy, source=source, target=target)
        assert (path.rtt_ms if path else None) == shortest_by_enumeration(
            fleet, policy, source, target
        )
        if path is not None:
            assert (path.sites[0], path.sites[-1]) == (source, target)
            assert all(may_transit(policy, country=c) for c in path.transit_countries)


@given(fleet=fleets(), policy=st.sampled_from(POLICIES))
@settings(max_examples=60, deadline=None)
def test_the_checkers_own_reading_agrees(fleet: Fleet, policy: ResidencyPolicy) -> None:
    ids = [s.site_id for s in fleet.sites]
    markets = (b.market(accesses=dict.fromkeys(ids[:1], 1.0)),)
    whole = b.problem(sites=fleet.sites, links=fleet.links, markets=markets, policies=(*POLICIES,))
    reach = Reach(whole)
    for source in ids:
        ours = Backbone(fleet).paths_from(policy, source)
        ways = {t: reach.paths.way(policy, source=source, target=t) for t in ids}
        theirs = {target: way for target, way in ways.items() if way is not None}
        assert sorted(ours) == sorted(theirs)
        for target, path in ours.items():
            assert path.sites == theirs[target].sites
            assert path.transit_countries == theirs[target].transit_countries
            assert path.price_usd_per_gb == theirs[target].price_usd_per_gb


def test_a_shorter_unlawful_way_is_passed_over() -> None:
    fleet = Fleet(
        sites=(b.site("a"), b.site("b", country="FR"), b.site("c", country="CH")),
        links=(
            b.link("a", "c", rtt_ms=1.0),
            b.link("b", "c", rtt_ms=1.0),
            b.link("a", "b", rtt_ms=30.0, price=0.2, transit=("DE",)),
        ),
    )

    assert Backbone(fleet).path(b.EU_ONLY, source="a", target="b") == LawfulPath(
        sites=("a", "b"), links=("a--b",), rtt_ms=30.0, price_usd_per_gb=0.2, transit_countries=()
    )
    through = Backbone(fleet).path(EU_WITH_CH, source="a", target="b")
    assert through is not None
    assert (through.sites, through.transit_countries) == (("a", "c", "b"), ("CH",))


def test_the_way_to_oneself_is_empty() -> None:
    here = Backbone(Fleet(sites=(b.site("a"),))).path(b.EU_ONLY, source="a", target="a")

    assert here is not None
    assert (here.sites, here.links, here.rtt_ms) == (("a",), (), 0.0)


def test_nothing_leaves_a_country_the_data_may_not_enter() -> None:
    fleet = Fleet(sites=(b.site("a", country="US"), b.site("b")), links=(b.link("a", "b"),))

    assert Backbone(fleet).paths_from(b.EU_ONLY, "a") == {}
    assert Backbone(fleet).path(b.EU_ONLY, source="b", target="a") is None


def test_a_class_enters_at_the_nearest_access_that_is_lawful_and_not_lost() -> None:
    sites = [b.site("a", country="US"), b.site("b"), b.site("c", country="FR")]
    market = b.market(accesses={"a": 1.0, "b": 2.0, "c": 3.0})
    strict = b.traffic_class(policy_id="eu")
    whole = b.problem(sites=sites, markets=[market], classes=[strict])
    without_b = b.problem(sites=sites, markets=[market], classes=[strict], lost=["b"])
    lost = b.problem(sites=sites, markets=[market], classes=[strict], lost=["b", "c"])

    assert [a.site_id for a in lawful_accesses(whole, strict)] == ["b", "c"]
    access = ingress_of(without_b, strict)
    assert access is not None and access.site_id == "c"
    assert ingress_of(lost, strict) is None
