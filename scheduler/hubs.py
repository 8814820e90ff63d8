"""Where hubs live, as a port: in Ray actors (`scheduler.ray_hubs`) or here, in this process.

In-process hubs carry simulation, and the seconds in which Ray is being started again. Decides only
which sites share an actor.
"""

from __future__ import annotations

from typing import Protocol

from sites.errors import RetryableError
from sites.hub import EdgeHub, HubConfig
from sites.hub_messages import HubEffect, HubEvent

SITES_WITH_OWN_ACTOR = 32
"""Largest fleet in which every site has an actor (a process) of its own by default."""

ACTORS_OF_LARGE_FLEETS = 4


class HubsLostError(RetryableError):
    """The hubs' state is gone or unknown; start them again and tell them what is wanted."""


class HubHost(Protocol):
    """Hosts the hubs of a fleet. One caller at a time."""

    async def start(self, site_ids: tuple[str, ...]) -> None:
        """Begin with fresh hubs of these sites. Raises HubsLostError, FatalError."""
        ...

    async def handle(
        self, batch: tuple[tuple[str, HubEvent], ...], now_ms: int
    ) -> tuple[HubEffect, ...]:
        """Hand events to their sites' hubs; effects keep each site's order. Raises
        HubsLostError.
        """
        ...

    async def stop(self) -> None:
        """Let go of everything; safe to repeat."""
        ...


class LocalHubs:
    """Hubs in this process."""

    def __init__(self, config: HubConfig) -> None:
        self._config = config
        self._hubs: dict[str, EdgeHub] = {}

    async def start(self, site_ids: tuple[str, ...]) -> None:
        self._hubs = {site_id: EdgeHub.start(site_id, self._config) for site_id in site_ids}

    async def handle(
        self, batch: tuple[tuple[str, HubEvent], ...], now_ms: int
    ) -> tuple[HubEffect, ...]:
        return tuple(
            effect
            for site_id, event in batch
            for effect in self._hubs[site_id].handle(event, now_ms)
        )

    async def stop(self) -> None:
        self._hubs = {}


def grouped(site_ids: tuple[str, ...], *, hubs_per_actor: int = 0) -> tuple[tuple[str, ...], ...]:
    """Which sites share an actor: `hubs_per_actor` each, or (0) one each in fleets of up to
    `SITES_WITH_OWN_ACTOR` and an even split over `ACTORS_OF_LARGE_FLEETS` beyond.
    """
    ordered = sorted(site_ids)
    size = hubs_per_actor
    if size == 0:
        small = len(ordered) <= SITES_WITH_OWN_ACTOR
        size = 1 if small else -(-len(ordered) // ACTORS_OF_LARGE_FLEETS)
    return tuple(tuple(ordered[i : i + size]) for i in range(0, len(ordered), size))
