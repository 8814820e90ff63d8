"""What rendering a gateway needs besides the assignment, and what it yields. Facts only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from agents.credentials import SiteCredentials
from sites.units import require_positive


class ReplicaAddress(NamedTuple):
    """A ready replica and where its OpenAI-style HTTP server listens."""

    replica_id: str
    host: str
    port: int


@dataclass(frozen=True, kw_only=True, slots=True)
class GatewayPaths:
    """Where a gateway's files lie. `folder` belongs to the gateway alone."""

    folder: Path
    credentials: SiteCredentials

    @property
    def bootstrap(self) -> Path:
        """What Envoy is started with."""
        return self.folder / "bootstrap.json"

    @property
    def admin_address(self) -> Path:
        """Where Envoy writes the loopback address of its admin port."""
        return self.folder / "admin_address"

    @property
    def access_log(self) -> Path:
        """One JSON line per answered request: the source of all execution records."""
        return self.folder / "access.jsonl"

    @property
    def log(self) -> Path:
        """Envoy's own warnings."""
        return self.folder / "envoy.log"

    def resource(self, name: str) -> Path:
        """File of one kind of dynamic resource (``listeners``, ``clusters``, ...)."""
        return self.folder / f"{name}.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class GatewayTuning:
    """Times (ms), sizes (bytes) and counts of a gateway.

    `health_interval_ms` is the pace of probes between gateways, stretched so that one gateway
    sends at most `health_checks_per_s`. `retries` are attempts after the first; together they
    never exceed `retry_budget_percent` of the requests in flight, or `retry_burst`, whichever is
    more. `idle_timeout_ms` ends an attempt on which nothing moves (a model may think that long).
    """

    health_interval_ms: int = 200
    health_timeout_ms: int = 500
    health_checks_per_s: int = 250
    unhealthy_after: int = 2
    connect_timeout_ms: int = 500
    ping_interval_ms: int = 500
    ping_timeout_ms: int = 1_000
    idle_timeout_ms: int = 300_000
    retries: int = 2
    retry_budget_percent: float = 20.0
    retry_burst: int = 64
    ejection_ms: int = 1_000
    request_bytes_max: int = 4 * 1024 * 1024
    response_bytes_max: int = 16 * 1024 * 1024
    retry_after_s: int = 2

    def __post_init__(self) -> None:
        for name in self.__slots__:
            require_positive(getattr(self, name), field=f"gateway: {name}")


def version_of(resources: Sequence[object]) -> str:
    """Version Envoy reports for these resources: ``sha256:`` and a digest of their JSON.

    Only ever compared on one machine, and on the way of every switch, so not canonical JSON.
    """
    return file_of(resources)[0]


def file_of(resources: Sequence[object]) -> tuple[str, bytes]:
    """(version, content of the file that Envoy reads) of these resources; written out only once,
    for a large fleet's routes take 20 MB.
    """
    listed = json.dumps(resources, sort_keys=True, separators=(",", ":"))
    version = "sha256:" + hashlib.sha256(listed.encode()).hexdigest()
    return version, f'{{"resources":{listed},"version_info":"{version}"}}'.encode()


KINDS = (
    "secret_own",
    "secret_trust",
    "clusters",
    "routes_client",
    "routes_peer",
    "listeners",
)
"""Everything Envoy reads again while it runs, in the order in which it may change."""


def digest_of(versions: Mapping[str, str]) -> str:
    """Digest of a configuration, given the version of every kind."""
    return version_of([versions[kind] for kind in KINDS])


@dataclass(frozen=True, kw_only=True, slots=True)
class GatewayFiles:
    """A whole gateway configuration: file name (without ``.json``) -> Envoy resources.

    Each dynamic kind is a list of resources; `digest` names what they say together.
    """

    bootstrap: dict[str, object]
    secret_own: tuple[dict[str, object], ...]
    secret_trust: tuple[dict[str, object], ...]
    clusters: tuple[dict[str, object], ...]
    routes_client: tuple[dict[str, object], ...]
    routes_peer: tuple[dict[str, object], ...]
    listeners: tuple[dict[str, object], ...]

    @property
    def digest(self) -> str:
        """Digest of everything that can change while Envoy runs."""
        return digest_of({kind: version_of(getattr(self, kind)) for kind in KINDS})
