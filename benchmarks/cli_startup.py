"""Start-up of the command: `hinterland --help` beside a bare interpreter and its own libraries.

The peers are the same interpreter doing nothing, and importing what the command must not import.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

from benchmarks.report import head, line, ratio, seconds_of, spread

RUNS = 9


def run() -> None:
    """Print wall times of three commands and their ratios."""
    head("Start-up of the CLI")
    commands = {
        "hinterland --help": [sys.executable, "-m", "scheduler.cli", "--help"],
        "python -c pass": [sys.executable, "-c", "pass"],
        "python -c 'import ray, pyomo.environ'": [
            sys.executable,
            "-c",
            "import ray, pyomo.environ",
        ],
    }
    medians = {}
    for name, command in commands.items():
        taken = seconds_of(lambda c=command: _quiet(c), runs=RUNS)  # type: ignore[misc]
        medians[name] = statistics.median(taken)
        line(name, spread(taken, unit="s"))
    own, bare, heavy = medians.values()
    ratio("--help", own / bare, of="a bare interpreter")
    ratio("--help", own / heavy, of="importing Ray and Pyomo")


def _quiet(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)
