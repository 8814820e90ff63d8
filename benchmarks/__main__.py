"""`python -m benchmarks [NAME ...]`: run all benchmarks, or those named."""

from __future__ import annotations

import importlib
import os
import sys

from benchmarks.report import head, line, machine

NAMES = (
    "cli_startup",
    "plan_europe",
    "compile",
    "scale",
    "facility",
    "melange",
    "reroute",
    "gateway_path",
    "switch_time",
    "site_loss",
    "memory",
)
NEED_DATA = ("compile", "scale", "facility", "melange", "reroute")


def main() -> int:
    """Run the benchmarks named on the command line, or all of them."""
    wanted = sys.argv[1:] or list(NAMES)
    unknown = [name for name in wanted if name not in NAMES]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 64
    machine()
    for name in wanted:
        if name in NEED_DATA and not os.environ.get("HINTERLAND_DATA"):
            head(name)
            line("left out", "set HINTERLAND_DATA to the folder of the public reference data")
            continue
        importlib.import_module(f"benchmarks.{name}").run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
