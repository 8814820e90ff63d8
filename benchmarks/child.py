"""Runs one function of a benchmark in a process of its own: its peak memory is its own, and a peer
that crashes or runs away takes nothing with it.
"""

from __future__ import annotations

import importlib
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

MIB_PER_KIB = 1 / 1024
_STATUS = Path("/proc/self/status")


def in_child(target: str, *, timeout_s: float, **arguments: Any) -> dict[str, Any] | str:
    """What ``module:function`` answered with `peak_mib` of its process; a sentence if it failed.

    The function takes and returns what JSON can say.
    """
    command = [sys.executable, "-m", "benchmarks.child", target, json.dumps(arguments)]
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        return f"not within {timeout_s:g} s"
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"failed ({done.returncode}): {last[:200]}"
    answer = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(answer, dict)
    return answer


def main() -> int:
    """Entry of the child: call the function, print its answer and the peak memory."""
    module, _, function = sys.argv[1].partition(":")
    answer = getattr(importlib.import_module(module), function)(**json.loads(sys.argv[2]))
    print(json.dumps({**answer, "peak_mib": peak_mib()}))
    return 0


def peak_mib() -> float:
    """The most memory this process has held: on Linux as its own map of memory says, since the
    maximum that `getrusage` tells there counts what the parent held when it made the process.
    """
    if _STATUS.exists():
        for row in _STATUS.read_text(encoding="utf-8", errors="replace").splitlines():
            if row.startswith("VmHWM:"):
                return int(row.split()[1]) * MIB_PER_KIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MIB_PER_KIB


if __name__ == "__main__":
    sys.exit(main())
