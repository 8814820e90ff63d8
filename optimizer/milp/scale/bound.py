"""What no plan can undercut: components in whole replicas, at prices of what they share.

Valid at any prices: what a component pays for shared limits beyond their worth is given back in
`Frame.dual_offset`. The linear relaxation's bound is the same sum with replicas in parts.
"""

from __future__ import annotations

from collections.abc import Callable

from optimizer.milp.scale.catalogue import component_arcs
from optimizer.milp.scale.component import price_bound
from optimizer.milp.scale.frame import Frame, Positions, Prices
from optimizer.milp.scale.workers import Workers

_NEAR = 3
_MARGIN = 0.1
_GAP = 0.002
_NODES = 5


def bound_by_components(
    frame: Frame, prices: Prices, workers: Workers, *, is_over: Callable[[], bool]
) -> float:
    """A proven bound (USD/h); components whose turn comes too late count with parts of replicas."""

    def one(classes: Positions) -> float:
        nodes, near = (1, 0) if is_over() else (_NODES, _NEAR)
        arcs = component_arcs(frame, classes)
        bound, perfect = price_bound(
            frame, arcs, prices, near=near, margin=_MARGIN, gap=_GAP, nodes=nodes
        )
        return max(bound, perfect)

    return sum(workers.map(one, frame.components)) + frame.dual_offset(prices)
