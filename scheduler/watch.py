"""Who is lost and who is back.

Decides by two witnesses: the agent's own stream, and what the other sites' gateways, which sit on
the real data path, say of the site's gateway. A site whose agent is silent but whose gateway its
peers call healthy keeps its traffic: it only cannot be changed.
"""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.state import CycleState, SiteState

RETURN_PATIENCE = 3
"""Times `back_after_ms` that plans wait for a site whose agent has connected again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """A site to be declared lost, and on whose word."""

    site_id: str
    evidence: str


def losses(state: CycleState, now_ms: int) -> tuple[Loss, ...]:
    """Sites that are lost now and were not before, sorted.

    None while no plan is in force, and none while no site at all is reachable: then it is the
    control plane that is cut off.
    """
    if state.desired is None or not state.reachable():
        return ()
    found = []
    for site_id in state.site_ids():
        site = state.site(site_id)
        if site.is_connected or site_id in state.lost:
            continue
        evidence = _evidence(state, site, now_ms)
        if evidence:
            found.append(Loss(site_id=site_id, evidence=evidence))
    return tuple(found)


def returns(state: CycleState, now_ms: int) -> tuple[str, ...]:
    """Lost sites that serve again: connected for a while, gateway live (or never configured)."""
    return tuple(
        site_id
        for site_id in sorted(state.lost)
        if (site := state.site(site_id)).is_connected
        and now_ms - site.changed_at_ms >= state.config.back_after_ms
        and site.observation is not None
        and (site.observation.gateway.live or site.rank == (0, 0))
    )


def is_one_returning(state: CycleState, now_ms: int) -> bool:
    """Whether a lost site's agent has just connected again and may be back in a moment.

    Its gateway may have served all along by older routes: nothing they need should go meanwhile.
    """
    wait_ms = RETURN_PATIENCE * state.config.back_after_ms
    return any(
        (site := state.site(site_id)).is_connected and now_ms - site.changed_at_ms < wait_ms
        for site_id in state.lost
    )


def _evidence(state: CycleState, site: SiteState, now_ms: int) -> str:
    """Why `site`, whose agent is silent, is lost; "" if it is not (yet)."""
    if not site.heard_at_ms and now_ms - state.started_at_ms < state.config.first_contact_ms:
        return ""  # the fleet may be starting with us: not silent, only not here yet
    opinions = _opinions(state, site.site_id, now_ms)
    agent = f"agent {site.connection} ({site.connection_reason})"
    if any(opinions.values()):
        return ""
    if opinions:
        return f"{agent}; unhealthy to the gateways of {', '.join(sorted(opinions))}"
    since_ms = site.changed_at_ms or state.started_at_ms
    if now_ms - since_ms >= state.config.lost_after_ms:
        return f"{agent} for {now_ms - since_ms} ms; no other gateway has an opinion"
    return ""


def _opinions(state: CycleState, site_id: str, now_ms: int) -> dict[str, bool]:
    """What reachable sites, heard of lately, say of `site_id`'s gateway."""
    said: dict[str, bool] = {}
    for peer_id in state.reachable():
        peer = state.site(peer_id)
        fresh = now_ms - peer.heard_at_ms <= state.config.peer_fresh_ms
        if peer.observation is None or not fresh or not peer.observation.gateway.live:
            continue
        for health in peer.observation.gateway.peers:
            if health.site_id == site_id:
                said[peer_id] = health.healthy
    return said
