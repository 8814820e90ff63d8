"""Which way a class's data may travel: where it enters and the lawful shortest paths from there.

Decides ingress and paths from facts alone. Which of the reachable sites may process the data and
answer in time is `arcs`'s question. A lost or cordoned site still passes traffic on: it is lost as
a place to enter and to compute, its cables are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import networkx as nx

from optimizer.problem import Problem
from sites.fleet import Fleet, Link, MarketAccess
from sites.residency import ResidencyPolicy, may_transit
from sites.traffic import TrafficClass
from sites.units import require_nonnegative


@dataclass(frozen=True, kw_only=True, slots=True)
class LawfulPath:
    """A path over the backbone that one residency policy allows.

    `sites` are site ids, source first (one id when source is target). `links` are the ids of the
    links crossed, in order. `rtt_ms` and `price_usd_per_gb` are sums over them. `transit_countries`
    are the countries crossed, in order of travel, the countries of both ends left out.
    """

    sites: tuple[str, ...]
    links: tuple[str, ...]
    rtt_ms: float
    price_usd_per_gb: float
    transit_countries: tuple[str, ...]

    def __post_init__(self) -> None:
        require_nonnegative(self.rtt_ms, field="path: rtt_ms")


class Backbone:
    """All lawful shortest paths of one fleet, computed once per (policy, source)."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._links = {frozenset((k.site_a, k.site_b)): k for k in fleet.links}
        self._graphs: dict[ResidencyPolicy, nx.Graph[str]] = {}
        self._paths: dict[tuple[ResidencyPolicy, str], Mapping[str, LawfulPath]] = {}

    def paths_from(self, policy: ResidencyPolicy, source: str) -> Mapping[str, LawfulPath]:
        """The shortest (by RTT) lawful path to every site reachable from `source`, by site id.

        Empty where data under `policy` may not even enter `source`'s country. Raises KeyError for
        a site the fleet has not.
        """
        key = (policy, source)
        if key not in self._paths:
            self._paths[key] = self._search(policy, source)
        return self._paths[key]

    def path(self, policy: ResidencyPolicy, *, source: str, target: str) -> LawfulPath | None:
        """The shortest lawful path between two sites, or None.

        Counted as crossed: both ends' countries, those of the sites between, and each link's
        transit countries. The path from a site to itself has no link and 0 ms. Raises KeyError for
        a source the fleet has not.
        """
        return self.paths_from(policy, source).get(target)

    def _search(self, policy: ResidencyPolicy, source: str) -> Mapping[str, LawfulPath]:
        if not may_transit(policy, country=self._fleet.site(source).country):
            return {}
        graph = self._lawful_graph(policy)
        routes = nx.single_source_dijkstra_path(graph, source, weight="rtt_ms")
        return {target: self._describe(routes[target]) for target in sorted(routes)}

    def _lawful_graph(self, policy: ResidencyPolicy) -> nx.Graph[str]:
        if policy not in self._graphs:
            graph: nx.Graph[str] = nx.Graph()
            for site in sorted(self._fleet.sites, key=lambda s: s.site_id):
                if may_transit(policy, country=site.country):
                    graph.add_node(site.site_id)
            for link in sorted(self._fleet.links, key=lambda k: k.link_id):
                lawful = all(may_transit(policy, country=c) for c in link.transit_countries)
                if lawful and link.site_a in graph and link.site_b in graph:
                    graph.add_edge(link.site_a, link.site_b, rtt_ms=link.rtt_ms)
            self._graphs[policy] = graph
        return self._graphs[policy]

    def _describe(self, route: list[str]) -> LawfulPath:
        hops = [self._links[frozenset(pair)] for pair in pairwise(route)]
        return LawfulPath(
            sites=tuple(route),
            links=tuple(link.link_id for link in hops),
            rtt_ms=sum(link.rtt_ms for link in hops),
            price_usd_per_gb=sum(link.price_usd_per_gb for link in hops),
            transit_countries=self._crossed(route, hops),
        )

    def _crossed(self, route: list[str], hops: list[Link]) -> tuple[str, ...]:
        ends = {self._fleet.site(route[0]).country, self._fleet.site(route[-1]).country}
        crossed: list[str] = []
        for link, reached in zip(hops, route[1:], strict=True):
            crossed += [*link.transit_countries, self._fleet.site(reached).country]
        return tuple(c for c in dict.fromkeys(crossed) if c not in ends)


def lawful_accesses(problem: Problem, traffic_class: TrafficClass) -> tuple[MarketAccess, ...]:
    """Sites where a class may enter, nearest first: not lost, and in a country it may cross."""
    policy = problem.residency(traffic_class.residency_policy_id)
    market = next(m for m in problem.fleet.markets if m.market_id == traffic_class.market_id)
    return tuple(
        access
        for access in market.by_distance()
        if access.site_id not in problem.lost_sites
        and may_transit(policy, country=problem.fleet.site(access.site_id).country)
    )


def ingress_of(problem: Problem, traffic_class: TrafficClass) -> MarketAccess | None:
    """The access a class enters at: the first of `lawful_accesses`, or None."""
    accesses = lawful_accesses(problem, traffic_class)
    return accesses[0] if accesses else None
