"""The cheapest way to serve a few classes with the replicas that stand, as one linear problem.

Decides parts of classes only; which classes may move, where to and at what price is the caller's
(`reroute_table`). In basis points of each class, so that figures stay near 1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import highspy
import numpy as np
from numpy.typing import NDArray

from optimizer.survive import UNLIMITED, RowKey
from sites.errors import FatalError
from sites.units import WHOLE_BP

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Flow:
    """A pair that may carry traffic: its price (USD/h per basis point) and what that uses."""

    class_id: str
    group_id: str
    price: float
    uses: Mapping[RowKey, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """A linear problem: columns from 0 to `most` at `prices`, entries `each` at (row, column); the
    first rows add up to `exact`, the rest to `most_used` at most.
    """

    prices: Floats
    most: Floats
    row: NDArray[np.intp]
    column: NDArray[np.intp]
    each: Floats
    exact: Floats
    most_used: Floats


def cheapest_flows(
    flows: Sequence[Flow], *, limits: Mapping[RowKey, float], shed_price: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """Basis points by class and group that cost the least, shedding at `shed_price` per point.

    min sum price * y + sum shed_price * u  where  sum_r y[d,r] + u[d] == 10 000  and what y uses of
    each limit is at most that. Raises FatalError if the solver errs.
    """
    classes = sorted(shed_price)
    row_of = {("class", c): at for at, c in enumerate(classes)}
    entries: list[tuple[int, int, float]] = []
    for column, flow in enumerate(flows):
        entries.append((row_of["class", flow.class_id], column, 1.0))
        for key, each in flow.uses.items():
            if limits[key] < UNLIMITED:
                entries.append((row_of.setdefault(key, len(row_of)), column, each))
    entries += [(at, len(flows) + at, 1.0) for at in range(len(classes))]
    row, columns, values = zip(*entries, strict=True) if entries else ((), (), ())
    keys = sorted(row_of, key=row_of.__getitem__)[len(classes) :]
    prices = np.array([f.price for f in flows] + [shed_price[c] for c in classes])
    program = Program(
        prices=prices,
        most=np.full(len(prices), float(WHOLE_BP)),
        row=np.array(row, dtype=np.intp),
        column=np.array(columns, dtype=np.intp),
        each=np.array(values, dtype=np.float64),
        exact=np.full(len(classes), float(WHOLE_BP)),
        most_used=np.array([max(0.0, limits[key]) for key in keys]),
    )
    parts: dict[str, dict[str, float]] = defaultdict(dict)
    for flow, value in zip(flows, solved(program)[0].tolist(), strict=False):
        if value > 0:
            parts[flow.class_id][flow.group_id] = value
    return dict(parts)


def solved(program: Program) -> tuple[Floats, Floats]:
    """The value of each column and the price of each row. Raises FatalError if the solver errs."""
    highs = highspy.Highs()
    for name, value in (("output_flag", False), ("threads", 1), ("solver", "simplex")):
        highs.setOptionValue(name, value)
    count, exact = len(program.prices), len(program.exact)
    order = np.lexsort((program.row, program.column))
    upper = np.concatenate((program.exact, program.most_used))
    lower = np.where(np.arange(len(upper)) < exact, upper, -highspy.kHighsInf)
    status = highs.passModel(
        count,
        len(upper),
        len(order),
        int(highspy.MatrixFormat.kColwise),
        int(highspy.ObjSense.kMinimize),
        0.0,
        program.prices,
        np.zeros(count),
        program.most,
        lower,
        upper,
        np.searchsorted(program.column[order], np.arange(count + 1)).astype(np.int32),
        program.row[order].astype(np.int32),
        program.each[order],
        np.zeros(count, dtype=np.int32),
    )
    if status == highspy.HighsStatus.kError:
        raise FatalError("HiGHS could not take the flows of a reroute")
    highs.run()
    if highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        raise FatalError("HiGHS could not solve the flows of a reroute")
    solution = highs.getSolution()
    return np.array(solution.col_value), np.array(solution.row_dual)
