"""Keeps a finished search within the links' bandwidth, which its prices do not know, and within
the caps that it had no time to keep.

Decides only what gives way and is shed: traffic over a link that is asked for too much and that of
a fleet that emits too much in proportion, of a tenant beyond its budget the classes whose charge
costs least to shed. Mostly this changes nothing.
"""

from __future__ import annotations

import numpy as np

from optimizer.milp.scale.frame import Positions
from optimizer.milp.scale.ledger import Change, Flows, Ledger
from optimizer.tabulate_routes import path_links
from sites.units import BITS_PER_BYTE

_WITHIN = 1 - 1e-7
_SLACK = 1e-6
_HALVINGS = 30


def trim(ledger: Ledger) -> None:
    """Cut flows so that links, budgets and the cap on carbon are kept."""
    _trim_links(ledger)
    trim_caps(ledger)


def trim_caps(ledger: Ledger) -> None:
    """Cut flows so that budgets and the cap on carbon are kept."""
    _trim_budgets(ledger)
    _trim_carbon(ledger)


def _trim_budgets(ledger: Ledger) -> None:
    """Of each tenant beyond its budget the classes that cost least to shed for what they count."""
    frame, caps = ledger.frame, ledger.frame.caps
    over = ledger.used.charged_usd_per_h - caps.budget_usd_per_h
    for tenant in np.flatnonzero(over > 0).tolist():
        classes = np.flatnonzero(caps.tenant == tenant)
        flows = ledger.flows_of(classes)
        each = caps.charged_usd_per_h(
            flows.group, busy=flows.busy, network_usd_per_h=flows.usd_per_h
        )
        charged = np.bincount(np.searchsorted(classes, flows.cls), each, len(classes))
        served = (1.0 - ledger.shed_part[classes]) * frame.shed_usd_per_h[classes]
        order = np.lexsort((classes, served / np.maximum(charged, 1e-12)))
        before = np.cumsum(charged[order]) - charged[order]
        cut = np.zeros(len(classes))
        most = np.maximum(charged[order], 1e-12)
        cut[order] = np.clip((over[tenant] * (1 + _SLACK) - before) / most, 0.0, 1.0)
        kept = (1.0 - cut)[np.searchsorted(classes, flows.cls)]
        _put(ledger, classes, flows.only(np.flatnonzero(kept > 0)).times(kept[kept > 0]))


def _trim_carbon(ledger: Ledger) -> None:
    """All traffic cut alike, and the replicas that it then leaves without work: the most of it that
    keeps the cap.
    """
    frame, cap = ledger.frame, ledger.frame.caps.carbon_kg_per_h
    if ledger.emits() <= cap * (1 + _SLACK):
        return
    every, flows = np.arange(len(frame.rate)), ledger.all_flows()
    busy = np.bincount(flows.group, flows.busy, frame.groups)

    def left(part: float) -> Change:
        needed = np.maximum(np.ceil(part * busy / frame.rateable - _SLACK), frame.least)
        replicas = np.minimum(ledger.replicas, needed)
        group = np.flatnonzero(replicas < ledger.replicas)
        stands = np.flatnonzero(replicas[flows.group] > 0)
        return Change(
            classes=every,
            group=group,
            replicas=replicas[group],
            flows=flows.only(stands).times(part),
        )

    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        drawn_kw = ledger.with_change(left(middle))[0].drawn_kw
        kept = frame.least_kg_per_h(np.maximum(0.0, drawn_kw)) <= cap
        low, high = (middle, high) if kept else (low, middle)
    ledger.put(left(low))


def _put(ledger: Ledger, classes: Positions, flows: Flows) -> None:
    empty = np.zeros(0, dtype=np.intp)
    ledger.put(Change(classes=classes, group=empty, replicas=np.zeros(0), flows=flows))


def _trim_links(ledger: Ledger) -> None:
    frame, tables = ledger.frame, ledger.frame.tables
    flows = ledger.flows_of(np.arange(len(frame.rate)))
    if len(flows.cls) == 0:
        return
    classes = tables.classes
    pair, link = path_links(
        tables.routes,
        tables.links,
        route=classes.route[flows.cls],
        site=frame.site[flows.group].astype(np.int32),
    )
    megabits = frame.rate * classes.bytes_per_request * BITS_PER_BYTE / 1e6
    carried = (megabits[flows.cls] * flows.part)[pair]
    asked = np.bincount(link, carried, len(tables.links.ids))
    room = tables.links.bandwidth_mbps
    fill = np.where(asked > room, room / np.maximum(asked, 1e-12) * _WITHIN, 1.0)
    kept = np.ones(len(flows.cls))
    np.minimum.at(kept, pair, fill[link])
    cut = np.unique(flows.cls[kept < 1])
    if len(cut) == 0:
        return
    mine = np.flatnonzero(np.isin(flows.cls, cut))
    _put(ledger, cut, flows.only(mine).times(kept[mine]))
