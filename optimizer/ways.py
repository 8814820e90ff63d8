"""Lawful shortest ways over a fleet's links, the checker's own reading; see `optimizer.reach`.

Decides which way data takes between two sites under a residency policy. Dijkstra by RTT; of equal
ways the first found stays, links tried in order of id. A search goes only as far as what is asked
for and goes on from there when more is asked. Policies that may cross the same countries share one.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from sites.fleet import Fleet, Link
from sites.residency import ResidencyPolicy, may_transit

_Rule = frozenset[str]
"""The countries among a fleet's that data may cross."""

_Hop = tuple[float, str, Link]
"""RTT of a link (ms), the site it leads to, the link."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """One lawful shortest path: site ids from ingress to target, its links, their RTT and price.

    `transit_countries` are those between, in order of travel, both ends' countries left out.
    """

    sites: tuple[str, ...]
    links: tuple[Link, ...]
    rtt_ms: float
    transit_countries: tuple[str, ...]

    @property
    def price_usd_per_gb(self) -> float:
        """Price of a GB over all links of the path."""
        return sum(link.price_usd_per_gb for link in self.links)


class Ways:
    """All lawful shortest ways of one fleet, each worked out when first asked for."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._links = _by_site(fleet.links)
        self._countries = sorted(
            {s.country for s in fleet.sites} | {c for k in fleet.links for c in k.transit_countries}
        )
        self._rules: dict[str, _Rule] = {}
        self._hops: dict[_Rule, dict[str, tuple[_Hop, ...]]] = {}
        self._searches: dict[tuple[_Rule, str], _Search] = {}
        self._of_policy: dict[tuple[str, str], _Search | None] = {}

    def rtt_ms(self, policy: ResidencyPolicy, *, source: str, target: str) -> float | None:
        """RTT of the lawful shortest way between two sites (ms), None if there is none.

        Policies of one id are taken to be one policy.
        """
        search = self._search(policy, source)
        return None if search is None else search.rtt_ms(target)

    def way(self, policy: ResidencyPolicy, *, source: str, target: str) -> Way | None:
        """The lawful shortest way between two sites, None if there is none."""
        search = self._search(policy, source)
        if search is None or search.rtt_ms(target) is None:
            return None
        if target not in search.ways:
            search.ways[target] = self._way(search, target)
        return search.ways[target]

    def _search(self, policy: ResidencyPolicy, source: str) -> _Search | None:
        """The search from a site, None where data may not even enter its country."""
        key = (policy.policy_id, source)
        if key not in self._of_policy:
            rule = self._rule(policy)
            if self._fleet.site(source).country not in rule:
                self._of_policy[key] = None
            else:
                self._of_policy[key] = self._searches.setdefault(
                    (rule, source), _Search(source, hops=self._hops_under(rule))
                )
        return self._of_policy[key]

    def _rule(self, policy: ResidencyPolicy) -> _Rule:
        if policy.policy_id not in self._rules:
            open_to = (c for c in self._countries if may_transit(policy, country=c))
            self._rules[policy.policy_id] = frozenset(open_to)
        return self._rules[policy.policy_id]

    def _hops_under(self, rule: _Rule) -> Callable[[str], tuple[_Hop, ...]]:
        """Which links of a site may be crossed, their countries and the far end's all open."""
        known = self._hops.setdefault(rule, {})

        def hops(site_id: str) -> tuple[_Hop, ...]:
            if site_id not in known:
                known[site_id] = tuple(
                    (link.rtt_ms, there, link)
                    for link, there in self._links.get(site_id, ())
                    if self._fleet.site(there).country in rule
                    and rule.issuperset(link.transit_countries)
                )
            return known[site_id]

        return hops

    def _way(self, search: _Search, target: str) -> Way:
        rtt_ms, links = search.rtt_ms(target), search.links(target)
        assert rtt_ms is not None, "asked for only where there is a way"
        sites, crossed = [search.source], list[str]()
        for link in links:
            sites.append(link.site_b if link.site_a == sites[-1] else link.site_a)
            crossed += [*link.transit_countries, self._fleet.site(sites[-1]).country]
        ends = {self._fleet.site(search.source).country, self._fleet.site(target).country}
        return Way(
            sites=tuple(sites),
            links=links,
            rtt_ms=rtt_ms,
            transit_countries=tuple(c for c in dict.fromkeys(crossed) if c not in ends),
        )


class _Search:
    """Dijkstra from one site, taken up again where it stopped. `ways` are those already told."""

    def __init__(self, source: str, *, hops: Callable[[str], tuple[_Hop, ...]]) -> None:
        self.source = source
        self.ways: dict[str, Way] = {}
        self._hops = hops
        self._settled: dict[str, float] = {}
        self._best = {source: 0.0}
        self._came: dict[str, tuple[str, Link]] = {}
        self._heap: list[tuple[float, int, str]] = [(0.0, 0, source)]
        self._pushed = 0

    def rtt_ms(self, target: str) -> float | None:
        """RTT to a site (ms), None if it cannot be reached."""
        if target not in self._settled:
            self._settle(target)
        return self._best.get(target)

    def links(self, target: str) -> tuple[Link, ...]:
        """Links to a site that `rtt_ms` was asked for, from the source on."""
        back: list[Link] = []
        here = target
        while here != self.source:
            here, link = self._came[here]
            back.append(link)
        return tuple(reversed(back))

    def _settle(self, target: str) -> None:
        """Go on until no site still to be looked at is nearer than the target is known to be: only
        a shorter way replaces a known one.
        """
        settled, best, heap = self._settled, self._best, self._heap
        while heap and heap[0][0] < best.get(target, inf):
            rtt_ms, _, here = heapq.heappop(heap)
            if here in settled:
                continue
            settled[here] = rtt_ms
            for link_ms, there, link in self._hops(here):
                reached_ms = rtt_ms + link_ms
                if reached_ms < best.get(there, inf):
                    self._pushed += 1
                    best[there], self._came[there] = reached_ms, (here, link)
                    heapq.heappush(heap, (reached_ms, self._pushed, there))


def _by_site(links: tuple[Link, ...]) -> dict[str, tuple[tuple[Link, str], ...]]:
    beside: dict[str, list[tuple[Link, str]]] = {}
    for link in sorted(links, key=lambda k: k.link_id):
        beside.setdefault(link.site_a, []).append((link, link.site_b))
        beside.setdefault(link.site_b, []).append((link, link.site_a))
    return {site_id: tuple(ends) for site_id, ends in beside.items()}
