"""What an agent tells of its site: hello and heartbeat, from the executor's and the servers' state.

Pure. Decides how draw is estimated where nothing measures it; what is true of processes and gateway
is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from agents.replica_set import Life, Replica
from sites.assignment import SiteAssignment
from sites.telemetry import (
    GatewayObservation,
    Hello,
    PoolInventory,
    ReplicaObservation,
    SiteObservation,
)

AGENT_VERSION = "0.1.0"
FAULTS_MAX = 20
FAULT_CHARACTERS_MAX = 400


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a replica does now; `decode_tok_s` since the last reading."""

    running: int = 0
    queued: int = 0
    tokens_out_total: int = 0
    decode_tok_s: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Which site, which start of its agent, which hardware was found (empty: nobody looked)."""

    site_id: str
    instance_id: str
    inventory: tuple[PoolInventory, ...] = ()


def hello(
    identity: Identity,
    *,
    applied: SiteAssignment | None,
    applied_digest: str,
    replicas: tuple[ReplicaObservation, ...],
    last_record_sequence: int,
) -> Hello:
    """The first message of a stream."""
    epoch, version = applied.rank if applied else (0, 0)
    return Hello(
        site_id=identity.site_id,
        instance_id=identity.instance_id,
        agent_version=AGENT_VERSION,
        inventory=identity.inventory,
        epoch=epoch,
        version=version,
        assignment_digest=applied_digest,
        replicas=replicas,
        last_record_sequence=last_record_sequence,
    )


def observation(
    identity: Identity,
    *,
    sequence: int,
    observed_at_ms: int,
    applied: SiteAssignment | None,
    applied_digest: str,
    replicas: tuple[ReplicaObservation, ...],
    gateway: GatewayObservation,
    possible_draw_w: float,
    draw_w: float,
    records_spooled: int,
    faults: Iterable[str],
) -> SiteObservation:
    """A heartbeat."""
    epoch, version = applied.rank if applied else (0, 0)
    return SiteObservation(
        site_id=identity.site_id,
        instance_id=identity.instance_id,
        sequence=sequence,
        observed_at_ms=observed_at_ms,
        epoch=epoch,
        version=version,
        assignment_digest=applied_digest,
        replicas=replicas,
        gateway=gateway,
        possible_draw_w=possible_draw_w,
        draw_w=draw_w,
        draw_measured=False,
        records_spooled=records_spooled,
        faults=tuple(f[:FAULT_CHARACTERS_MAX] for f in faults)[:FAULTS_MAX],
    )


def observe_replicas(
    replicas: Iterable[Replica], *, work_of: Callable[[str], Work]
) -> tuple[ReplicaObservation, ...]:
    """Each replica with the last known work of its server."""
    seen = []
    for replica in replicas:
        work = work_of(replica.replica_id)
        seen.append(
            ReplicaObservation(
                replica_id=replica.replica_id,
                group=replica.target.group,
                state=replica.observed_state,
                running=work.running,
                queued=work.queued,
                decode_tok_s=work.decode_tok_s,
                tokens_out_total=work.tokens_out_total,
                detail=replica.detail[:FAULT_CHARACTERS_MAX],
            )
        )
    return tuple(seen)


def estimated_draw_w(
    replicas: Iterable[Replica], *, work_of: Callable[[str], Work], pue: float
) -> float:
    """W drawn now, cooling (`pue`) included: per replica with a process
    idle + min(1, running / concurrency) x (full - idle).
    """
    draw_w = 0.0
    for replica in replicas:
        if replica.life is Life.FAILED:
            continue
        point = replica.target.point
        use = min(1.0, work_of(replica.replica_id).running / point.concurrency)
        draw_w += point.idle_w + use * (point.full_w - point.idle_w)
    return pue * draw_w
