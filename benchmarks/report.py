"""How benchmarks measure and print: medians with their range, and the ratio to a peer or limit."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence


def seconds_of(work: Callable[[], object], *, runs: int, warm_ups: int = 1) -> list[float]:
    """Wall seconds of each of `runs` calls, after `warm_ups` that do not count."""
    for _ in range(warm_ups):
        work()
    taken = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return taken


def spread(values: Sequence[float], *, unit: str, digits: int = 2) -> str:
    """``median (min-max) unit, n runs``."""
    middle = statistics.median(values)
    return (
        f"{middle:.{digits}f} {unit} ({min(values):.{digits}f}-{max(values):.{digits}f}, "
        f"{len(values)} runs)"
    )


def head(title: str) -> None:
    """Start a benchmark's lines."""
    print(f"\n## {title}", flush=True)


def line(name: str, text: str) -> None:
    """One figure."""
    print(f"  {name:<44} {text}", flush=True)


def ratio(name: str, value: float, *, of: str) -> None:
    """One ratio: the figure that carries over between machines."""
    print(f"  {name:<44} {value:.3g} x {of}", flush=True)


def machine() -> None:
    """What this ran on."""
    cores = len(os.sched_getaffinity(0))
    print(f"# {platform.platform()}, Python {platform.python_version()}, {cores} cores", flush=True)
