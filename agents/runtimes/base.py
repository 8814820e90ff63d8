"""The port every engine implements: how to launch a server for a replica, how to read its metrics.

Decides nothing about when replicas run (`agents.executor`) nor about processes (`agents.replicas`
starts what a runtime describes). All engines serve the OpenAI API over HTTP on one local port.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from agents.collectors.prometheus import ServerMetrics
from sites.assignment import GroupTarget


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """A command line and the paths to ask the server on. An empty path means: cannot be asked.

    The server is ready when a GET of `health_path` answers 200. `slots_path` gives busy slots where
    the engine has such a page.
    """

    argv: tuple[str, ...]
    health_path: str
    metrics_path: str = ""
    slots_path: str = ""


class Runtime(Protocol):
    """One engine."""

    @property
    def name(self) -> str:
        """What ``--runtime`` calls it."""
        ...

    def launch(self, target: GroupTarget, *, host: str, port: int) -> Launch:
        """How to serve one replica of `target` on ``host:port``.

        Raises RefusedError if the variant's artifact is not at this site or is not the one the
        catalog names.
        """
        ...

    def read_metrics(self, text: str) -> ServerMetrics | None:
        """The server's numbers from its metrics page; None if the page is not understood."""
        ...

    def read_busy_slots(self, text: str) -> int | None:
        """Requests at work from the slots page; None if the page is not understood."""
        ...
