"""Keeps a finished search within the links' bandwidth, which its prices do not know.

Decides only what gives way: traffic over a link that is asked for too much is cut in proportion and
shed. On fleets whose links have room this changes nothing.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from optimizer.milp.scale.ledger import Change, Ledger
from optimizer.tabulate_routes import path_links
from sites.units import BITS_PER_BYTE

_WITHIN = 1 - 1e-7


def trim_links(ledger: Ledger) -> None:
    """Cut every class's flows so that no link carries more than its bandwidth."""
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
    part = kept[mine]
    some = flows.only(mine)
    scaled = replace(
        some, part=some.part * part, busy=some.busy * part, usd_per_h=some.usd_per_h * part
    )
    empty = np.zeros(0, dtype=np.intp)
    ledger.put(Change(classes=cut, group=empty, replicas=np.zeros(0), flows=scaled))
