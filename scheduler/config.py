"""What a control plane is started with. Facts only; `scheduler.main` reads them from its command
line.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sites.units import require_between, require_positive


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerConfig:
    """One control plane.

    Ports: 0 takes, for the front door, the port of the last run in this state folder (agents that
    still run dial it) or else a free one; for the API a free one. `hubs_per_actor` 0: by the size
    of the fleet. Times are those of `HubConfig` and `CycleConfig`.
    """

    state_dir: Path
    fleet_paths: tuple[Path, ...]
    host: str = "127.0.0.1"
    control_port: int = 0
    api_port: int = 0
    hubs_per_actor: int = 0
    tick_ms: int = 100
    stale_after_ms: int = 1_000
    unreachable_after_ms: int = 3_000
    lost_after_ms: int = 5_000
    auto_replan: bool = True

    def __post_init__(self) -> None:
        for port in ("control_port", "api_port"):
            require_between(getattr(self, port), low=0, high=65_535, field=f"server: {port}")
        for name in ("tick_ms", "stale_after_ms", "unreachable_after_ms", "lost_after_ms"):
            require_positive(getattr(self, name), field=f"server: {name}")

    @property
    def server_dir(self) -> Path:
        """The server's own files: addresses, logs."""
        return self.state_dir / "server"

    @property
    def ledger_dir(self) -> Path:
        """The ledger."""
        return self.state_dir / "ledger"

    @property
    def pki_dir(self) -> Path:
        """The authority's folder."""
        return self.state_dir / "pki"

    @property
    def address_path(self) -> Path:
        """Where agents find the front door: one line, ``host:port``."""
        return self.server_dir / "front_door.address"
