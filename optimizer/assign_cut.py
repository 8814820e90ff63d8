"""Every site's routes under one plan, those of an earlier cut taken over where they still hold.

Decides which routes have to be worked out: where law, sites and links are the same, only those of
services whose placement a site can see changed, and those the plan itself speaks of. What is taken
over is the same object, so whoever compares or checks routes can tell at a glance. What a route
says is `assign_routes`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from optimizer.assign_routes import RouteBook
from optimizer.problem import Problem
from sites.assignment import Route, RouteKey

Pair = tuple[str, str]
"""A service and a policy: tenants aside, what a route is asked by."""

Places = dict[Pair, list[tuple[int, RouteKey]]]
"""Where the keys of each pair stand in a site's routes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RouteCut:
    """The routes of every site, by site id, in the order of `keys`, and the book they are from.

    `made` counts the routes worked out or copied for another tenant; the others were taken over.
    """

    book: RouteBook
    keys: tuple[RouteKey, ...]
    routes: Mapping[str, tuple[Route, ...]]
    made: int


def cut_routes(
    book: RouteBook, keys: tuple[RouteKey, ...], *, earlier: RouteCut | None = None
) -> RouteCut:
    """What `book` says of every site and each of `keys` (sorted).

    Equal to a cut without an `earlier` one, whatever plan that was of.
    """
    if earlier is not None and not _stands(earlier, book, keys):
        earlier = None
    keys = earlier.keys if earlier else keys  # the same objects, as in the routes taken over
    places = _places(keys)
    at = {key: n for n, key in enumerate(keys)}
    fleet = book.problem.fleet.sites
    stale = (
        _take_offers(book, earlier.book) if earlier else {s.site_id: list(places) for s in fleet}
    )
    told = _told(book, *([earlier.book] if earlier else []))
    routes, made = {}, 0
    for site in sorted(fleet, key=lambda s: s.site_id):
        before = earlier.routes[site.site_id] if earlier else ()
        new: dict[int, Route] = {}
        for pair in stale.get(site.site_id, ()):
            now = book.offer(site, places[pair][0][1])
            if earlier is None or now != earlier.book.offer(site, now.key):
                new |= {n: now.under(key) for n, key in places[pair]}
        for key in told.get(site.site_id, ()):
            route = book.route(site, key)
            new[at[key]] = before[at[key]] if before and route == before[at[key]] else route
        routes[site.site_id] = _replaced(before, new)
        made += len(new)
    return RouteCut(book=book, keys=keys, routes=routes, made=made)


def _stands(earlier: RouteCut, book: RouteBook, keys: tuple[RouteKey, ...]) -> bool:
    """Whether what is lawful, and what may be asked for, is what it was at the earlier cut."""
    return _law(earlier.book.problem) == _law(book.problem) and earlier.keys == keys


def _law(problem: Problem) -> tuple[object, ...]:
    """All that lawful paths and places follow from."""
    places = tuple((s.site_id, s.country, s.residency_tags) for s in problem.fleet.sites)
    return (problem.policies, problem.fleet.links, places)


def _places(keys: tuple[RouteKey, ...]) -> Places:
    places: Places = {}
    for n, key in enumerate(keys):
        places.setdefault((key.service_id, key.residency_policy_id), []).append((n, key))
    return places


def _take_offers(book: RouteBook, before: RouteBook) -> dict[str, list[Pair]]:
    """Give `book` the paths, and the offers nothing about which changed; the others by site id."""
    book.reached.update(before.reached)
    stale: dict[str, list[Pair]] = {}
    for service_id, offers in before.offers.items():
        moved = _moved(book, before, service_id)
        known = book.offers.setdefault(service_id, {})
        for (site_id, policy_id), offer in offers.items():
            if site_id in moved or not moved.isdisjoint(book.reached[site_id, policy_id]):
                stale.setdefault(site_id, []).append((service_id, policy_id))
            else:
                known[site_id, policy_id] = offer
    return stale


def _moved(book: RouteBook, before: RouteBook, service_id: str) -> set[str]:
    """Sites where what is placed for a service, or may be counted on, is not what it was."""
    sites = {s.site_id for s in book.problem.fleet.sites}
    now, then = book.standing.get(service_id), before.standing.get(service_id)
    assert now is not None and then is not None, "keys, so services, are the same"
    return {
        site_id
        for site_id in sites
        if now.get(site_id) != then.get(site_id)
        or book.placed.get((site_id, service_id)) != before.placed.get((site_id, service_id))
    }


def _told(*books: RouteBook) -> dict[str, set[RouteKey]]:
    """Keys of which a plan itself says something at a site, by site id."""
    told: dict[str, set[RouteKey]] = {}
    for book in books:
        for site_id, key in (*book.entries, *book.planned):
            told.setdefault(site_id, set()).add(key)
    return told


def _replaced(before: tuple[Route, ...], new: Mapping[int, Route]) -> tuple[Route, ...]:
    """`before` with the `new` routes in their places; these alone where it was empty."""
    if not before:
        return tuple(new[n] for n in sorted(new))
    if all(route is before[n] for n, route in new.items()):
        return before
    now = list(before)
    for n, route in new.items():
        now[n] = route
    return tuple(now)
