"""The process that is Ray's driver and nothing else; `scheduler.ray_hubs` starts and asks it.

Ray ends its driver's process when its head has been gone for a minute (measured: exit status 1, no
Python code runs), and it prints to standard output. So the driver is a process of its own, which
the control plane can lose. It answers one request at a time over an inherited socket, and ends when
that closes.

    python -m scheduler.ray_host FD TEMP_DIR
"""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection
from typing import Any

import psutil
import ray
from ray.exceptions import RayError

from sites.actor import start_hub_actor
from sites.hub import HubConfig
from sites.hub_messages import HubEvent

OBJECT_STORE_BYTES = 100 * 1024 * 1024
_HEAD_PROCESSES = frozenset({"gcs_server", "raylet"})


class HubActors:
    """The actors of a fleet and which site's hub is in which."""

    def __init__(self, groups: tuple[tuple[str, ...], ...], config: HubConfig) -> None:
        self._actors = [start_hub_actor(group, config) for group in groups]
        self._actor_of = {site: index for index, group in enumerate(groups) for site in group}

    def handle(
        self, batch: tuple[tuple[str, HubEvent], ...], now_ms: int, *, timeout_s: float
    ) -> tuple[Any, ...]:
        """One call per actor that has events; effects in the order of the actors."""
        parts: dict[int, list[tuple[str, HubEvent]]] = {}
        for site_id, event in batch:
            parts.setdefault(self._actor_of[site_id], []).append((site_id, event))
        calls = [
            self._actors[index].handle.remote(tuple(part), now_ms)
            for index, part in sorted(parts.items())
        ]
        return tuple(effect for part in ray.get(calls, timeout=timeout_s) for effect in part)

    def ping(self, *, timeout_s: float) -> None:
        """Wait until every actor answers."""
        ray.get([a.handle.remote((), 0) for a in self._actors], timeout=timeout_s)

    def stop(self) -> None:
        """End the actors."""
        for actor in self._actors:
            ray.kill(actor)


def head_processes() -> tuple[psutil.Process, ...]:
    """The processes of Ray's head: direct calls to actors outlive them and would hide their end."""
    return tuple(c for c in psutil.Process().children() if c.name() in _HEAD_PROCESSES)


def is_alive(process: psutil.Process) -> bool:
    """Whether a child still runs (one that ended stays as a zombie until it is waited for)."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def serve(connection: Connection) -> None:
    """Answer requests, ``(verb, *arguments)`` -> ``(verdict, value)``, until the other end
    closes.
    """
    head = head_processes()
    actors: HubActors | None = None
    while True:
        try:
            verb, *arguments = connection.recv()
        except EOFError:
            return
        try:
            if not all(is_alive(process) for process in head):
                connection.send(("lost", "Ray's head process is gone"))
                continue
            if verb == "start":
                if actors is not None:
                    actors.stop()
                groups, config, timeout_s = arguments
                actors = HubActors(groups, config)
                actors.ping(timeout_s=timeout_s)
                connection.send(("ok", ()))
            else:
                assert actors is not None, "the first request is a start"
                batch, now_ms, timeout_s = arguments
                connection.send(("ok", actors.handle(batch, now_ms, timeout_s=timeout_s)))
        except RayError as fault:  # any of Ray's: whichever it is, the hubs' state is unknown now
            connection.send(("lost", f"{type(fault).__name__}: {str(fault).splitlines()[0]}"))


def main() -> None:
    """Start Ray, say so, serve. Any failure ends the process; its log says why."""
    handle, temp_dir = int(sys.argv[1]), sys.argv[2]
    connection = Connection(handle)
    ray.init(
        "local",
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        object_store_memory=OBJECT_STORE_BYTES,
        _temp_dir=temp_dir,
    )
    try:
        connection.send(("ready", ()))
        serve(connection)
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
