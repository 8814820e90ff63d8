"""What was seen at a site: an agent's hello and its periodic observation. Facts only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sites.assignment import ReplicaGroup
from sites.units import require_id, require_nonnegative


class ReplicaState(StrEnum):
    """Life of a replica. LOADING draws power and memory already; DRAINING takes nothing new."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplicaObservation:
    """One replica. `running` / `queued` are requests; `decode_tok_s` the rate since the last
    report.
    """

    replica_id: str
    group: ReplicaGroup
    state: ReplicaState
    running: int = 0
    queued: int = 0
    decode_tok_s: float = 0.0
    tokens_out_total: int = 0
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerHealth:
    """What this site's gateway thinks of another site's gateway, on the real path."""

    site_id: str
    healthy: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class RouteCount:
    """Requests of one route since the gateway started, by where they went."""

    route_id: str
    serving_site_id: str
    requests_total: int
    errors_total: int


@dataclass(frozen=True, kw_only=True, slots=True)
class GatewayObservation:
    """The site's Envoy. `live` is false while it cannot be reached."""

    live: bool
    requests_total: int = 0
    errors_total: int = 0
    retries_total: int = 0
    peers: tuple[PeerHealth, ...] = ()
    routes: tuple[RouteCount, ...] = ()
    routes_digest: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolInventory:
    """Accelerators an agent really found in a pool."""

    pool_id: str
    accelerator: str
    count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Hello:
    """First message of an agent's stream: who it is and what already runs there.

    `instance_id` changes with every agent start. (`epoch`, `version`) is the applied rank, (0, 0)
    if none. `last_record_sequence` is the newest execution record in the spool (-1 if none).
    """

    site_id: str
    instance_id: str
    agent_version: str
    inventory: tuple[PoolInventory, ...]
    epoch: int
    version: int
    assignment_digest: str
    replicas: tuple[ReplicaObservation, ...]
    last_record_sequence: int = -1

    def __post_init__(self) -> None:
        require_id(self.site_id, field="site_id")


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteObservation:
    """Everything an agent sees, sent as its heartbeat.

    `possible_draw_w` counts running, loading and draining replicas at full use, cooling included;
    `draw_w` is the draw now (`draw_measured` false: estimated from serving points and running
    load).
    """

    site_id: str
    instance_id: str
    sequence: int
    observed_at_ms: int
    epoch: int
    version: int
    assignment_digest: str
    replicas: tuple[ReplicaObservation, ...]
    gateway: GatewayObservation
    possible_draw_w: float
    draw_w: float
    draw_measured: bool = False
    records_spooled: int = 0
    faults: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_id(self.site_id, field="site_id")
        require_nonnegative(self.sequence, field="sequence")
        require_nonnegative(self.possible_draw_w, field="possible_draw_w")
