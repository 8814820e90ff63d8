"""Which configuration the gateway is to run, one change in flight at a time. Pure.

Decides when routes are published (again) and which assignment counts as applied. Rendering and
applying is the gateway's; which replicas are ready is the executor's to say.
"""

from __future__ import annotations

from agents.executor_messages import ApplyRoutes, RoutesApplied, RoutesRejected
from sites.assignment import SiteAssignment

ROUTES_RETRY_MS = 1_000

Ready = tuple[tuple[str, tuple[str, ...]], ...]


class RoutePublisher:
    """Owned by the executor. `applied` is what the gateway runs, `wanted` what it should run."""

    def __init__(self, applied: SiteAssignment | None) -> None:
        self.applied = applied
        self.wanted = applied
        self.fault = ""
        self._in_flight: ApplyRoutes | None = None
        self._token = 0
        self._is_stale = False
        self._retry_at_ms: int | None = None

    def publish(self, ready: Ready) -> tuple[ApplyRoutes, ...]:
        """Ask for the wanted routes over these replicas, now or after the change in flight."""
        if self.wanted is None:
            return ()
        if self._in_flight is not None:
            self._is_stale = True
            return ()
        self._token += 1
        self._is_stale = False
        self._retry_at_ms = None
        self._in_flight = ApplyRoutes(token=self._token, assignment=self.wanted, ready=ready)
        return (self._in_flight,)

    def is_due(self, now_ms: int) -> bool:
        """Whether to publish (again) without a new reason: replicas changed meanwhile, or the
        gateway refused before.
        """
        if self._in_flight is not None:
            return False
        is_retry = self._retry_at_ms is not None and now_ms >= self._retry_at_ms
        return self._is_stale or is_retry

    def settle(
        self, event: RoutesApplied | RoutesRejected, *, now_ms: int
    ) -> tuple[ApplyRoutes | None, bool]:
        """What the answer was to (None: to nothing asked now), and whether an assignment became
        applied with it.
        """
        asked = self._in_flight
        if asked is None or event.token != asked.token:
            return None, False
        self._in_flight = None
        if isinstance(event, RoutesRejected):
            self.fault = f"gateway: {event.detail}"
            self._retry_at_ms = now_ms + ROUTES_RETRY_MS
            if self.wanted is not None and self.wanted.rank == asked.assignment.rank:
                self.wanted = self.applied
            return asked, False
        self.fault = ""
        is_new = self.applied is None or asked.assignment.rank > self.applied.rank
        if is_new:
            self.applied = asked.assignment
            if self.wanted is None or self.wanted.rank < self.applied.rank:
                self.wanted = self.applied
        return asked, is_new
