"""All lawful shortest paths a problem's classes need, worked out for many sources at once.

Decides by the same rule as `backbone`: smallest RTT, and of equals the path Dijkstra's search with
links in order of their ids finds first. Distances come from rounds of relaxation over all sources
side by side; the search's own order is then replayed step by step to tell which of several equally
short paths it would have kept. Which site may process what is not asked here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.tables import NOWHERE, Flags, Floats, Ints, LinkTable, RouteTable, ints

_BLOCK = 128
"""Sources relaxed side by side: enough to keep numpy busy, few enough to stay in the cache."""

Positions = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Graph:
    """Directed edges of the lawful part of the backbone, by start site, then link id.

    `first[s]:first[s+1]` are the edges that leave site s.
    """

    first: Positions
    target: Positions
    link: Positions
    rtt_ms: Floats
    usd_per_gb: Floats

    @property
    def sites(self) -> int:
        """How many sites, all of them lawful."""
        return len(self.first) - 1


def find_routes(
    links: LinkTable, sources: Mapping[int, Iterable[int]], *, open_sites: Flags, open_links: Flags
) -> tuple[RouteTable, dict[tuple[int, int], int]]:
    """Routes of every crossing rule from its sources, and the row of each (rule, source).

    `open_sites[rule, site]` and `open_links[rule, link]` say what a rule's data may cross; a link
    is open only with both its ends. A source must be open. Rows are sorted by rule and source.
    """
    wanted = [(rule, source) for rule in sorted(sources) for source in sorted(set(sources[rule]))]
    shape = (len(wanted), open_sites.shape[1])
    routes = RouteTable(
        source=ints(source for _, source in wanted),
        rtt_ms=np.full(shape, np.inf),
        usd_per_gb=np.zeros(shape),
        via_link=np.full(shape, NOWHERE, dtype=np.int32),
    )
    first = 0
    for rule in sorted(sources):
        count = len(set(sources[rule]))
        sites = np.flatnonzero(open_sites[rule])
        graph = _lawful_graph(links, sites=sites, usable=open_links[rule])
        found = _routes_from(graph, np.searchsorted(sites, routes.source[first : first + count]))
        rows = slice(first, first + count)
        routes.rtt_ms[rows, sites], routes.usd_per_gb[rows, sites], routes.via_link[rows, sites] = (
            found
        )
        first += count
    return routes, {key: row for row, key in enumerate(wanted)}


def _lawful_graph(links: LinkTable, *, sites: Positions, usable: Flags) -> _Graph:
    kept = np.flatnonzero(usable)
    start = np.searchsorted(sites, np.concatenate((links.site_a[kept], links.site_b[kept])))
    target = np.searchsorted(sites, np.concatenate((links.site_b[kept], links.site_a[kept])))
    link = np.concatenate((kept, kept))
    order = np.lexsort((link, start))
    return _Graph(
        first=np.searchsorted(start[order], np.arange(len(sites) + 1)),
        target=target[order],
        link=link[order],
        rtt_ms=links.rtt_ms[link[order]],
        usd_per_gb=links.usd_per_gb[link[order]],
    )


def _routes_from(graph: _Graph, sources: Positions) -> tuple[Floats, Floats, Ints]:
    """RTT (ms), price of a GB (USD) and last link, from each source (row) to each site (column)."""
    blocks = [sources[at : at + _BLOCK] for at in range(0, len(sources), _BLOCK)]
    rtt_ms = np.concatenate([_distances(graph, block) for block in blocks])
    return rtt_ms, *_replay(graph, sources, rtt_ms)


def _distances(graph: _Graph, sources: Positions) -> Floats:
    """Smallest RTT (ms) from each source (row) to each site (column); inf where none leads.

    The j-th edges into all sites that have so many are relaxed at once, sites with most edges
    first so that they are a prefix.
    """
    degree = np.diff(graph.first)
    ranked = np.argsort(-degree, kind="stable")
    rank = np.empty_like(ranked)
    rank[ranked] = np.arange(len(ranked))
    layers = []
    for j in range(int(degree.max(initial=0))):
        edges = graph.first[ranked[: int(np.count_nonzero(degree > j))]] + j
        layers.append((rank[graph.target[edges]], graph.rtt_ms[edges][:, None]))
    reached = np.full((graph.sites, len(sources)), np.inf)
    reached[rank[sources], np.arange(len(sources))] = 0.0
    for _ in range(graph.sites):
        before = reached.copy()
        for beside, rtt_ms in layers:
            head = reached[: len(beside)]
            np.minimum(head, reached[beside] + rtt_ms, out=head)
        if np.array_equal(before, reached):
            break
    return np.ascontiguousarray(reached[rank].T)


def _replay(graph: _Graph, sources: Positions, rtt_ms: Floats) -> tuple[Floats, Ints]:
    """Price of a GB (USD) over the path a search keeps to each site, and its last link.

    Sites settle by RTT, equals in the order they were first reached at that RTT (`turn`); the first
    edge to reach a site at its RTT stays. Places are row x sites + site.
    """
    row = np.arange(len(sources)) * graph.sites
    reached_ms, degree = rtt_ms.ravel(), np.diff(graph.first)
    order = np.ascontiguousarray(np.argsort(rtt_ms, axis=1, kind="stable").T)
    order += row
    end = _ends_of_ties(reached_ms[order])
    never = graph.sites * (len(graph.link) + 1)
    turn = np.full(rtt_ms.size, never, dtype=np.int64)
    turn[row + sources] = -1
    via_link = np.full(rtt_ms.size, NOWHERE, dtype=np.int32)
    usd_per_gb = np.zeros(rtt_ms.size)
    settled = np.zeros(len(row), dtype=np.intp)
    waiting = np.isfinite(rtt_ms).sum(axis=1) - 1
    for step in range(graph.sites):
        live = np.flatnonzero(waiting)  # who has reached all sites has nothing left to tell
        if len(live) == 0:
            break
        late = live[settled[live] <= step]
        _settle_earliest(order, step, rows=late, settled=settled, end=end, turn=turn, never=never)
        start = order[step, live]
        site = start - row[live]
        edge = runs(graph.first[site], degree[site])
        there = np.repeat(row[live], degree[site]) + graph.target[edge]
        new = np.flatnonzero(turn[there] == never)
        edge, there, start = edge[new], there[new], np.repeat(start, degree[site])[new]
        tight = reached_ms[start] + graph.rtt_ms[edge] == reached_ms[there]
        edge, there, start = edge[tight], there[tight], start[tight]
        via_link[there] = graph.link[edge]
        usd_per_gb[there] = usd_per_gb[start] + graph.usd_per_gb[edge]
        turn[there] = step * (len(graph.link) + 1) + edge
        waiting -= np.bincount(there // graph.sites, minlength=len(row))
    return usd_per_gb.reshape(rtt_ms.shape), via_link.reshape(rtt_ms.shape)


def _ends_of_ties(sorted_ms: Floats) -> Positions:
    """For each place of each row (column) the place after the last of the same RTT."""
    count = len(sorted_ms)
    here = np.arange(1, count + 1)[:, None]
    is_last = np.ones(sorted_ms.shape, dtype=np.bool_)
    is_last[:-1] = sorted_ms[1:] != sorted_ms[:-1]
    ends = np.where(is_last, here, count)
    return np.minimum.accumulate(ends[::-1], axis=0)[::-1]


def _settle_earliest(
    order: Positions,
    step: int,
    *,
    rows: Positions,
    settled: Positions,
    end: Positions,
    turn: Positions,
    never: int,
) -> None:
    """Bring the tied sites of some rows (columns of `order`) that stand from place `step` on into
    the order of their turns; `settled` notes how far that is right.

    Turns only grow, so an order once made stays right up to the last site that had a turn; those
    behind it are reached later, over links of no length.
    """
    rows = rows[end[step, rows] > step + 1]
    if len(rows) == 0:
        return
    count = end[step, rows] - step
    place, row = runs(np.full(len(rows), step), count), np.repeat(rows, count)
    sites = order[place, row]
    order[place, row] = sites[np.lexsort((turn[sites], row))]
    settled[rows] = step + np.bincount(row[turn[sites] < never], minlength=len(settled))[rows]


def runs(first: Positions, count: Positions) -> Positions:
    """``first[i], first[i] + 1, ...`` (`count[i]` of them) for each i, one after the other."""
    before = np.cumsum(count) - count
    found: Positions = np.arange(int(count.sum())) + np.repeat(first - before, count)
    return found


def path_links(
    routes: RouteTable, links: LinkTable, *, route: Ints | Positions, site: Ints | Positions
) -> tuple[Positions, Ints]:
    """Links crossed by many (route, site) pairs: (which pair, link), the last hops first.

    Every pair must have a path. One round per hop of the longest path.
    """
    pair, here = np.arange(len(site)), site.astype(np.intp)
    route = route.astype(np.intp)
    pairs: list[Positions] = []
    crossed: list[Ints] = []
    while len(pair):
        link = routes.via_link[route, here]
        moving = link != NOWHERE
        pair, route, here, link = pair[moving], route[moving], here[moving], link[moving]
        pairs.append(pair)
        crossed.append(link)
        here = (links.site_a[link] + links.site_b[link] - here).astype(np.intp)
    return np.concatenate(pairs or [pair]), np.concatenate(crossed or [np.zeros(0, np.int32)])


def links_of_path(routes: RouteTable, links: LinkTable, *, route: int, site: int) -> list[int]:
    """As `path_links` of one pair, which by arrays takes fifty times as long."""
    found: list[int] = []
    while (link := int(routes.via_link[route, site])) != NOWHERE:
        found.append(link)
        site = int(links.site_a[link]) + int(links.site_b[link]) - site
    return found
