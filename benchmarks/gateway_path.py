"""The gateway path beside calling the model server directly: added latency, throughput kept.

The model server is a simulated one that answers after a fixed 20 ms, so that what differs between
the paths is the gateways: one Envoy twice (client and peer listener) for a local answer, two Envoys
and mutual TLS for a remote one.
"""

from __future__ import annotations

import statistics
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.embedded import running_fleet
from benchmarks.fleets import fast_demo
from benchmarks.report import head, line, ratio, spread
from scheduler.demo.operator import Operator
from scheduler.embedded import EmbeddedFleet

ROUNDS = 150
THREADS = 8
THROUGHPUT_S = 4.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Door:
    """One way to the same answer."""

    name: str
    url: str
    model: str
    headers: dict[str, str]

    def ask(self, client: httpx.Client) -> None:
        """One short completion; raises if it does not succeed."""
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": "hi"}],
            "max_tokens": 1,
        }
        client.post(self.url, json=body, headers=self.headers).raise_for_status()


def run() -> None:
    """Print latency of three doors measured in turn, and throughput of the first two."""
    head("Gateway path against the model server itself")
    with running_fleet(write_fleet=warsaw_answered_elsewhere) as (fleet, operator):
        doors = _doors(fleet, operator)
        taken = _latencies_ms(doors)
        for door in doors:
            line(f"{door.name}: latency", spread(taken[door.name], unit="ms"))
        base = statistics.median(taken[doors[0].name])
        for door in doors[1:]:
            added = statistics.median(taken[door.name]) - base
            line(f"{door.name}: added", f"{added:.2f} ms")
            ratio(f"{door.name}: latency", (base + added) / base, of="direct")
        rates = [(door, _throughput_rps(door)) for door in doors]
        for door, rate in rates:
            line(f"{door.name}: throughput, {THREADS} clients", f"{rate:.0f} requests/s")
        for door, rate in rates[1:]:
            ratio(f"{door.name}: throughput", rate / rates[0][1], of="direct")


def warsaw_answered_elsewhere(folder: Path) -> Path:
    """The fast demo fleet where no replica may stand at one site: its clients pass two gateways."""
    target = fast_demo(folder)
    path, bounds = target / "models.yaml", "  replicaBounds:\n"
    text = path.read_text(encoding="utf-8")
    assert text.count(bounds) == 1, f"{path.name} no longer says {bounds!r} once"
    none = "    - {site: waw-1, variant: smollm2-135m-q4, most: 0}\n"
    path.write_text(text.replace(bounds, bounds + none), encoding="utf-8")
    return target


def _doors(fleet: EmbeddedFleet, operator: Operator) -> tuple[Door, ...]:
    view = operator.view()
    assert view.plan is not None
    whole = [s for s in view.plan.shares if s.basis_points == 10_000]
    local = next(s for s in whole if s.ingress_site_id == s.site_id)
    remote = max(
        (s for s in view.plan.shares if s.ingress_site_id != s.site_id),
        key=lambda s: s.basis_points,
    )
    classes = {c.class_id: c for c in view.problem.classes}
    replica = next(r for r in fleet.site_processes(local.site_id) if r.name.startswith("replica/"))
    doors = [
        Door(
            name="direct",
            url=f"http://127.0.0.1:{replica.port}/v1/chat/completions",
            model=classes[local.class_id].service_id,
            headers={},
        )
    ]
    for name, share in (("local gateway", local), ("two gateways, mTLS", remote)):
        one = classes[share.class_id]
        gateway = view.problem.fleet.site(share.ingress_site_id).gateway
        assert gateway is not None
        key = operator.api_key(one.tenant_id)
        doors.append(
            Door(
                name=name,
                url=f"http://{gateway.client_address}/v1/chat/completions",
                model=one.service_id,
                headers={"authorization": f"Bearer {key}"},
            )
        )
    return tuple(doors)


def _latencies_ms(doors: tuple[Door, ...]) -> dict[str, list[float]]:
    """In turn, so that drift of the machine hits all alike."""
    taken: dict[str, list[float]] = {door.name: [] for door in doors}
    with httpx.Client(timeout=30, trust_env=False) as client:
        for number in range(ROUNDS + 10):
            for door in doors:
                started = time.perf_counter()
                door.ask(client)
                if number >= 10:
                    taken[door.name].append((time.perf_counter() - started) * 1_000)
    return taken


def _throughput_rps(door: Door) -> float:
    counts = [0] * THREADS
    stop_at = time.perf_counter() + THROUGHPUT_S

    def work(number: int) -> None:
        with httpx.Client(timeout=30, trust_env=False) as client:
            while time.perf_counter() < stop_at:
                door.ask(client)
                counts[number] += 1

    threads = [threading.Thread(target=work, args=(n,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / THROUGHPUT_S
