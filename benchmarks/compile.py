"""From a problem and its arcs to a model in HiGHS: our two compilers, Pyomo's interfaces, linopy.

Every compiler runs in a process of its own, on the same arcs, after one go at tier S that loads
what it imports. CPU seconds from arcs to a model HiGHS holds; memory beyond what the process held
before. Linopy's model leaves out the rows that are there for the search (surrogate, arc_link),
which is in its favour.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import Any

from benchmarks.child import in_child, peak_mib
from benchmarks.fleets.tables import data_folder
from benchmarks.fleets.tiers import TIERS, TierSize, sized
from benchmarks.report import head, line, ratio

MIDDLE = TierSize(sites=60, models=20, classes=600, gap_limit=0.01, time_limit_s=60)
SIZES = {"S": TIERS["S"], "60 sites": MIDDLE, "M": TIERS["M"]}
COMPILERS = {
    "arrays": ("S", "60 sites", "M"),
    "linopy": ("S", "60 sites", "M"),
    "pyomo, own hand-over": ("S", "60 sites"),
    "pyomo, appsi": ("S", "60 sites"),
    "pyomo, contrib.solver": ("S", "60 sites"),
}
"""Compiler -> sizes it is tried on; Pyomo at M takes minutes and many GiB."""
TIMEOUT_S = 600.0


def run() -> None:
    """Print CPU seconds and memory of every compiler, and their ratios to the arrays."""
    for size in SIZES:
        head(f"Compile tier {size}" if size in TIERS else f"Compile a fleet of {size}")
        own_s = 0.0
        for name, sizes in COMPILERS.items():
            if size not in sizes:
                continue
            if name == "linopy" and importlib.util.find_spec("linopy") is None:
                line(name, "not installed (benchmarks/requirements.lock)")
                continue
            found = in_child(
                "benchmarks.compile:measure", timeout_s=TIMEOUT_S, compiler=name, size=size
            )
            if isinstance(found, str):
                line(name, found)
                continue
            line(
                name,
                f"{found['cpu_s']:.2f} s, {found['added_mib']:.0f} MiB; {found['rows']} rows, "
                f"{found['columns']} columns",
            )
            if name == "arrays":
                own_s = found["cpu_s"]
            elif own_s:
                ratio(name, found["cpu_s"] / own_s, of="the arrays")


def measure(*, compiler: str, size: str) -> dict[str, Any]:
    """One compiler on one size (in a child process)."""
    prepare, build = _COMPILERS[compiler]
    first = sized(SIZES["S"], data=data_folder())
    build(first, prepare(first))
    problem = sized(SIZES[size], data=data_folder())
    ready = prepare(problem)
    before_mib = peak_mib()
    started = time.process_time()
    highs = build(problem, ready)
    cpu_s = time.process_time() - started
    return {
        "cpu_s": cpu_s,
        "added_mib": peak_mib() - before_mib,
        "rows": highs.getNumRow(),
        "columns": highs.getNumCol(),
    }


def _silent() -> Any:
    import highspy  # noqa: PLC0415  each compiler imports its own libraries in its own process

    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    return highs


def _take_arcs(problem: Any) -> Any:
    from optimizer.arcs import find_arcs  # noqa: PLC0415

    return find_arcs(problem).arcs


def _take_tables(problem: Any) -> Any:
    from optimizer.sweep import Sweep  # noqa: PLC0415
    from optimizer.tabulate import tabulate  # noqa: PLC0415

    tables = tabulate(problem)
    return tables, Sweep(tables).table()


def _arrays(_: Any, ready: Any) -> Any:
    from optimizer.milp.arrays import compile_arrays, hand_over  # noqa: PLC0415

    highs = _silent()
    hand_over(highs, compile_arrays(*ready))
    return highs


def _own(problem: Any, arcs: Any) -> Any:
    from optimizer.milp.formulate import formulate  # noqa: PLC0415
    from optimizer.milp.highs import compile_model  # noqa: PLC0415

    highs = _silent()
    highs.passModel(compile_model(formulate(problem, arcs)).lp)
    return highs


def _appsi(problem: Any, arcs: Any) -> Any:
    from pyomo.contrib.appsi.solvers import Highs  # noqa: PLC0415

    from optimizer.milp.formulate import formulate  # noqa: PLC0415

    solver = Highs()
    solver.set_instance(formulate(problem, arcs).model)
    return solver._solver_model


def _contrib(problem: Any, arcs: Any) -> Any:
    from pyomo.contrib.solver.solvers.highs import Highs  # noqa: PLC0415

    from optimizer.milp.formulate import formulate  # noqa: PLC0415

    solver = Highs()
    solver.set_instance(formulate(problem, arcs).model)
    return solver._solver_model


def _linopy(_: Any, ready: Any) -> Any:
    from benchmarks.linopy_peer import build  # noqa: PLC0415

    return build(*ready).to_highspy()


Step = Callable[[Any], Any]
_COMPILERS: dict[str, tuple[Step, Callable[[Any, Any], Any]]] = {
    "arrays": (_take_tables, _arrays),
    "linopy": (_take_tables, _linopy),
    "pyomo, own hand-over": (_take_arcs, _own),
    "pyomo, appsi": (_take_arcs, _appsi),
    "pyomo, contrib.solver": (_take_arcs, _contrib),
}
