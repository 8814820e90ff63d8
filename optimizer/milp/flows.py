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


def cheapest_flows(
    flows: Sequence[Flow],
    *,
    limits: Mapping[RowKey, float],
    shed_price: Mapping[str, float],
    wanted: Mapping[str, int] | None = None,
    give_way: Mapping[RowKey, tuple[float, float]] | None = None,
) -> dict[str, dict[str, float]]:
    """Basis points by class and group that cost the least, shedding at `shed_price` per point.

    min sum price * y + sum shed_price * u  where  sum_r y[d,r] + u[d] == wanted[d]  (10 000 unless
    told) and what y uses of each limit is at most that, and what `give_way` (amount, price of each)
    adds to it. Raises FatalError if the solver errs.
    """
    classes = sorted(shed_price)
    row_of = {("class", c): at for at, c in enumerate(classes)}
    entries: list[list[tuple[int, float]]] = []
    for flow in flows:
        column = [(row_of["class", flow.class_id], 1.0)]
        for key, each in flow.uses.items():
            if limits[key] < UNLIMITED:
                column.append((row_of.setdefault(key, len(row_of)), each))
        entries.append(sorted(column))
    entries += [[(at, 1.0)] for at in range(len(classes))]
    keys = sorted(row_of, key=row_of.__getitem__)
    asked = [float(WHOLE_BP if wanted is None else wanted[c]) for c in classes]
    gives = give_way or {}
    # others that overfill a limit by their rounding give that up first
    least = [max(-gives[k][0] if k in gives else 0.0, limits[k]) for k in keys[len(classes) :]]
    upper = np.array(asked + least)
    lower = np.where(np.arange(len(keys)) < len(classes), upper, -highspy.kHighsInf)
    prices = np.array([f.price for f in flows] + [shed_price[c] for c in classes])
    more = [(key, *gives[key]) for key in keys if key in gives]
    entries += [[(row_of[key], -1.0)] for key, _, _ in more]
    prices = np.concatenate((prices, [price for _, _, price in more]))
    most = np.concatenate(
        (np.full(len(prices) - len(more), float(WHOLE_BP)), [amount for _, amount, _ in more])
    )
    values = _solved(entries, prices, most=most, lower=lower, upper=upper)
    parts: dict[str, dict[str, float]] = defaultdict(dict)
    for flow, value in zip(flows, values, strict=False):
        if value > 0:
            parts[flow.class_id][flow.group_id] = value
    return dict(parts)


def _solved(
    entries: Sequence[Sequence[tuple[int, float]]],
    prices: Floats,
    *,
    most: Floats,
    lower: Floats,
    upper: Floats,
) -> list[float]:
    highs = highspy.Highs()
    for name, value in (("output_flag", False), ("threads", 1), ("solver", "simplex")):
        highs.setOptionValue(name, value)
    start = np.cumsum([0, *map(len, entries)]).astype(np.int32)
    rows = np.array([row for column in entries for row, _ in column], dtype=np.int32)
    each = np.array([value for column in entries for _, value in column])
    count = len(entries)
    status = highs.passModel(
        count,
        len(upper),
        len(rows),
        int(highspy.MatrixFormat.kColwise),
        int(highspy.ObjSense.kMinimize),
        0.0,
        prices,
        np.zeros(count),
        most,
        lower,
        upper,
        start,
        rows,
        each,
        np.zeros(count, dtype=np.int32),
    )
    if status == highspy.HighsStatus.kError:
        raise FatalError("HiGHS could not take the flows of a reroute")
    highs.run()
    if highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        raise FatalError("HiGHS could not solve the flows of a reroute")
    return [float(v) for v in highs.getSolution().col_value]
