"""Lawful shortest ways over a fleet's links, the checker's own reading; see `optimizer.reach`.

Decides which way data takes between two sites under a residency policy. Dijkstra by RTT; of equal
ways the first found stays, links tried in order of id. A search goes only as far as what is asked
for and goes on from there when more is asked. Policies that may cross the same countries share one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf

from sites.fleet import Fleet, Link
from sites.residency import ResidencyPolicy, may_transit

_Rule = frozenset[str]
"""The countries among a fleet's that data may cross."""

_Hop = tuple[float, int, int]
"""RTT of a link (ms), the positions of the site it leads to and of the link."""


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
        self._at = {site.site_id: at for at, site in enumerate(fleet.sites)}
        self._ends = [(self._at[k.site_a], self._at[k.site_b]) for k in fleet.links]
        self._links = self._by_site()
        self._countries = sorted(
            {s.country for s in fleet.sites} | {c for k in fleet.links for c in k.transit_countries}
        )
        self._rules: dict[str, _Rule] = {}
        self._hops: dict[_Rule, list[tuple[_Hop, ...]]] = {}
        self._searches: dict[tuple[_Rule, str], _Search] = {}
        self._of_policy: dict[tuple[str, str], _Search | None] = {}

    def rtt_ms(self, policy: ResidencyPolicy, *, source: str, target: str) -> float | None:
        """RTT of the lawful shortest way between two sites (ms), None if there is none.

        Policies of one id are taken to be one policy.
        """
        search = self._search(policy, source)
        return None if search is None else search.rtt_ms(self._at[target])

    def all_rtt_ms(
        self, policy: ResidencyPolicy, *, source: str, targets: Iterable[str]
    ) -> list[float]:
        """`rtt_ms` to each of some sites, inf where there is no way."""
        search = self._search(policy, source)
        if search is None:
            return [inf for _ in targets]
        best_ms = search.all_rtt_ms()
        return [best_ms[self._at[target]] for target in targets]

    def way(self, policy: ResidencyPolicy, *, source: str, target: str) -> Way | None:
        """The lawful shortest way between two sites, None if there is none."""
        search = self._search(policy, source)
        if search is None:
            return None
        way = search.ways.get(target)
        if way is None:
            rtt_ms = search.rtt_ms(self._at[target])
            if rtt_ms is None:
                return None
            way = search.ways[target] = self._way(search, self._at[target], rtt_ms=rtt_ms)
        return way

    def _search(self, policy: ResidencyPolicy, source: str) -> _Search | None:
        """The search from a site, None where data may not even enter its country."""
        key = (policy.policy_id, source)
        if key not in self._of_policy:
            rule = self._rule(policy)
            if self._fleet.site(source).country not in rule:
                self._of_policy[key] = None
            else:
                if (rule, source) not in self._searches:
                    hops = self._hops_under(rule)
                    self._searches[rule, source] = _Search(self._at[source], hops=hops)
                self._of_policy[key] = self._searches[rule, source]
        return self._of_policy[key]

    def _rule(self, policy: ResidencyPolicy) -> _Rule:
        if policy.policy_id not in self._rules:
            open_to = (c for c in self._countries if may_transit(policy, country=c))
            self._rules[policy.policy_id] = frozenset(open_to)
        return self._rules[policy.policy_id]

    def _hops_under(self, rule: _Rule) -> list[tuple[_Hop, ...]]:
        """Which links of each site may be crossed, their countries and the far end's all open."""
        if rule not in self._hops:
            is_open = [site.country in rule for site in self._fleet.sites]
            links = self._fleet.links
            self._hops[rule] = [
                tuple(
                    (links[link].rtt_ms, there, link)
                    for link, there in beside
                    if is_open[there] and rule.issuperset(links[link].transit_countries)
                )
                for beside in self._links
            ]
        return self._hops[rule]

    def _by_site(self) -> list[list[tuple[int, int]]]:
        """(link, far end) of each site's links, in order of id."""
        beside: list[list[tuple[int, int]]] = [[] for _ in self._fleet.sites]
        for link in sorted(range(len(self._ends)), key=lambda k: self._fleet.links[k].link_id):
            a, b = self._ends[link]
            beside[a].append((link, b))
            beside[b].append((link, a))
        return beside

    def _way(self, search: _Search, target: int, *, rtt_ms: float) -> Way:
        site, links = self._fleet.sites, self._fleet.links
        sites, crossed, here = [target], list[int](), target
        while here != search.source:
            link = search.came[here]
            a, b = self._ends[link]
            here = b if a == here else a
            sites.append(here)
            crossed.append(link)
        sites.reverse()
        crossed.reverse()
        countries = list[str]()
        for link, there in zip(crossed, sites[1:], strict=True):
            countries += links[link].transit_countries
            countries.append(site[there].country)
        ends = {site[search.source].country, site[target].country}
        return Way(
            sites=tuple([site[at].site_id for at in sites]),
            links=tuple([links[link] for link in crossed]),
            rtt_ms=rtt_ms,
            transit_countries=tuple([c for c in dict.fromkeys(countries) if c not in ends]),
        )


class _Search:
    """Dijkstra from one site, taken up again where it stopped. `ways` are those already told,
    `came` the last link of the way to each site seen.
    """

    def __init__(self, source: int, *, hops: list[tuple[_Hop, ...]]) -> None:
        self.source = source
        self.ways: dict[str, Way] = {}
        self.came = [-1] * len(hops)
        self._hops = hops
        self._best = [inf] * len(hops)
        self._best[source] = 0.0
        self._heap: list[tuple[float, int, int]] = [(0.0, 0, source)]
        self._pushed = 0

    def rtt_ms(self, target: int) -> float | None:
        """RTT to a site (ms), None if it cannot be reached."""
        heap, best = self._heap, self._best
        if heap and heap[0][0] < best[target]:
            self._settle(target)
        return best[target] if best[target] < inf else None

    def all_rtt_ms(self) -> list[float]:
        """RTT to every site (ms), inf where it cannot be reached."""
        if self._heap:
            self._settle(None)
        return self._best

    def _settle(self, target: int | None) -> None:
        """Go on until no site still to be looked at is nearer than the target is known to be: only
        a shorter way replaces a known one. None: until there is none.
        """
        best, came, heap, hops, pushed = self._best, self.came, self._heap, self._hops, self._pushed
        while heap and (target is None or heap[0][0] < best[target]):
            rtt_ms, _, here = heappop(heap)
            if rtt_ms > best[here]:
                continue  # a shorter way was found since
            for link_ms, there, link in hops[here]:
                reached_ms = rtt_ms + link_ms
                if reached_ms < best[there]:
                    pushed += 1
                    best[there], came[there] = reached_ms, link
                    heappush(heap, (reached_ms, pushed, there))
        self._pushed = pushed
