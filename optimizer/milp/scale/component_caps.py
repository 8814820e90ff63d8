"""Rows of a `Kernel` for limits over the fleet and for what classes ask of their mix.

Decides nothing; what others take of a limit is taken off it, and one that is broken already may
stay as it is.
"""

from __future__ import annotations

import numpy as np

from optimizer.milp.scale import lp
from optimizer.milp.scale.component import Kernel
from optimizer.milp.scale.ledger import Ledger, Use
from optimizer.milp.scale.mixes import excess, spreads
from optimizer.tables import NOWHERE


def cap(kernel: Kernel, ledger: Ledger, others: Use) -> None:
    """Tenants' budgets, the cap on carbon, caps on replicas, the move limit."""
    caps = ledger.frame.caps
    if ledger.caps_hold and len(caps.budget_usd_per_h):
        _budgets(kernel, ledger, others)
    if np.isfinite(ledger.most_kg_per_h()):
        _carbon(kernel, ledger, others)
    if len(caps.bound_most):
        _counts(kernel, ledger, others)
    if np.isfinite(caps.moves):
        _moves(kernel, ledger)


def _budgets(kernel: Kernel, ledger: Ledger, others: Use) -> None:
    """``sum_dr charged[d,r] part[d,r] <= budget[t]``."""
    caps, arcs = ledger.frame.caps, kernel.arcs
    tenant = caps.tenant[arcs.classes[arcs.row]]
    mine = np.flatnonzero(tenant != NOWHERE)
    ranks, row = np.unique(tenant[mine], return_inverse=True)
    charged = caps.charged_usd_per_h(
        arcs.group[mine], busy=arcs.busy[mine], network_usd_per_h=arcs.network_usd_per_h[mine]
    )
    left = np.maximum(0.0, (ledger.most_charged_usd_per_h() - others.charged_usd_per_h)[ranks])
    kernel.rows.block(-lp.INF, left, entries=[(row, mine, charged)], count=len(ranks))


def _carbon(kernel: Kernel, ledger: Ledger, others: Use) -> None:
    """``sum_k carbon[k] e[k] <= cap``, over the supplies beyond what others draw."""
    frame = ledger.frame
    emits = frame.stack.kg_per_kwh[kernel.supplied].ravel()
    left = ledger.most_kg_per_h() - frame.least_kg_per_h(np.maximum(0.0, others.drawn_kw))
    none, column = np.zeros(len(emits), dtype=np.intp), np.arange(len(emits))
    entries = [(none, kernel.first_supply + column, emits)]
    kernel.rows.block(-lp.INF, max(0.0, left), entries=entries, count=1)


def _counts(kernel: Kernel, ledger: Ledger, others: Use) -> None:
    """``sum_r n[r] <= most`` over a site's groups of one variant."""
    caps = ledger.frame.caps
    bound = caps.bound[kernel.group]
    mine = np.flatnonzero(bound != NOWHERE)
    ranks, row = np.unique(bound[mine], return_inverse=True)
    left = np.maximum(caps.bound_most, ledger.used.capped)[ranks] - others.capped[ranks]
    entries = [(row, kernel.first_replica + mine, np.ones(len(mine)))]
    kernel.rows.block(-lp.INF, np.maximum(0.0, left), entries=entries, count=len(ranks))


def _moves(kernel: Kernel, ledger: Ledger) -> None:
    """``sum_r |n[r] - running[r]| <= move_limit``: n less twice what stays of what runs."""
    caps, group = ledger.frame.caps, kernel.group
    left = max(caps.moves, ledger.moved) - ledger.moved_beside(group)
    left -= float(ledger.frame.running[group].sum())
    each, none = np.arange(len(group)), np.zeros(len(group), dtype=np.intp)
    replica = kernel.first_replica + each
    ones = np.ones(len(group))
    entries = [(none, replica, ones), (none, replica + len(group), -2.0 * ones)]
    kernel.rows.block(-lp.INF, left, entries=entries, count=1)


def mix(kernel: Kernel) -> None:
    """``k sum_{r at s} part[d,r] + shed[d] <= 1`` for sites and zones; means of at most 0 above
    what is asked for.
    """
    frame, arcs = kernel.frame, kernel.arcs
    cls = arcs.classes[arcs.row]
    for wanted, place_of, count in spreads(frame):
        some = np.flatnonzero(wanted[cls] > 1)
        key, row = np.unique(
            arcs.row[some] * count + place_of[frame.site[arcs.group[some]]], return_inverse=True
        )
        shed = arcs.count + key // count
        entries = [
            (row, some, wanted[cls[some]].astype(np.float64)),
            (np.arange(len(key)), shed, np.ones(len(key))),
        ]
        kernel.rows.block(-lp.INF, 1.0, entries=entries, count=len(key))
    for which, above in excess(frame, cls, arcs.group):
        rows, row = np.unique(arcs.row[which], return_inverse=True)
        kernel.rows.block(-lp.INF, 0.0, entries=[(row, which, above)], count=len(rows))
