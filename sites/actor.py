"""The Ray shell around hubs: one actor hosts some sites' `EdgeHub`s. Decides nothing.

The only file of `sites` that knows Ray. One call carries a batch of events, because a call costs
about as much for one event as for hundreds.
"""

from __future__ import annotations

from typing import Any

import ray

from sites.hub import EdgeHub, HubConfig
from sites.hub_messages import HubEffect, HubEvent

HubBatch = tuple[tuple[str, HubEvent], ...]
"""Events with the site whose hub each is for, in order."""


class HubGroup:
    """The hubs of some sites behind one door; what the actor is, without Ray."""

    def __init__(self, site_ids: tuple[str, ...], config: HubConfig) -> None:
        self._hubs = {site_id: EdgeHub.start(site_id, config) for site_id in site_ids}

    def handle(self, batch: HubBatch, now_ms: int) -> tuple[HubEffect, ...]:
        """Hand each event to its hub; all effects, in order."""
        return tuple(
            effect
            for site_id, event in batch
            for effect in self._hubs[site_id].handle(event, now_ms)
        )


def start_hub_actor(site_ids: tuple[str, ...], config: HubConfig) -> Any:
    """Start an actor that hosts the hubs of `site_ids`; returns its Ray handle.

    It takes no CPU of Ray's accounting (hubs wait most of the time) and is never restarted by Ray:
    its state is rebuilt by whoever started it, which therefore must know that it was lost.
    """
    options = {"num_cpus": 0, "max_restarts": 0, "max_task_retries": 0}
    return ray.remote(**options)(HubGroup).remote(site_ids, config)
