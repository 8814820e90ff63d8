"""The rows that are there for the search, as arrays: fixed prices of sites, surrogates, arc links.

One function per family, named and meant as in `constraints`. Sets of groups are compared as bit
masks, one per service, so that a service with hundreds of classes takes milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.milp.arrays_period import Period
from optimizer.milp.arrays_rows import Rows, Term, able, no_rows, rows_of
from optimizer.tables import Floats, floats, ints


def site_open(p: Period) -> tuple[Rows, Rows]:
    """``n[r] <= most[r] * open[s]`` and ``sum_{r at s} x[d,r] <= rate[d] * open[s]``."""
    if len(p.priced) == 0:
        return no_rows("site_open"), no_rows("site_open")
    sites = p.tables.sites
    priced = np.zeros(len(sites.ids), dtype=np.bool_)
    priced[p.priced] = True
    group_site = p.of_groups(p.tables.groups.site)
    local = np.flatnonzero(priced[group_site])
    row = np.arange(len(local))
    opens = p.column("open", np.searchsorted(p.priced, group_site[local]))
    held = rows_of(
        "site_open",
        [(row, p.column("n", local), 1.0), (row, opens, -p.placeable.most[local].astype(float))],
        limit=np.zeros(len(local)),
        subject=lambda i: p.tables.group_id(int(p.placeable.group[local[i]])),
    )
    site = p.tables.groups.site[p.arcs.group]
    arc = np.flatnonzero(priced[site])
    pair, row = np.unique(
        p.arcs.cls[arc].astype(np.int64) * len(sites.ids) + site[arc], return_inverse=True
    )
    cls, at = pair // len(sites.ids), pair % len(sites.ids)
    opens = p.column("open", np.searchsorted(p.priced, at))
    served = rows_of(
        "site_open",
        [
            (row, p.column("x", arc), 1.0),
            (np.arange(len(pair)), opens, -p.tables.classes.rate_rps[cls]),
        ],
        limit=np.zeros(len(pair)),
        subject=lambda i: f"{p.tables.classes.ids[cls[i]]}@{sites.ids[at[i]]}",
    )
    return held, served


def arc_link(p: Period) -> Rows:
    """``x[d,r] / rate[d] - n[r] <= 0``, where a class cannot fill a replica and no site opens."""
    rate = p.tables.classes.rate_rps[p.arcs.cls]
    groups, sites = p.tables.groups, p.tables.sites
    usable = p.tables.problem.plan_policy.utilisation_ceiling * groups.available[p.arcs.group]
    unpriced = sites.fixed_usd_per_h[groups.site[p.arcs.group]] <= 0
    arc = np.flatnonzero((p.arcs.replica_seconds * rate < usable) & unpriced)
    row = np.arange(len(arc))
    local = p.local[p.arcs.group[arc]]
    ids = p.tables.classes.ids
    return rows_of(
        "arc_link",
        [(row, p.column("x", arc), 1.0 / rate[arc]), (row, p.column("n", local), -1.0)],
        limit=np.zeros(len(arc)),
        subject=lambda i: (
            f"{ids[p.arcs.cls[arc[i]]]}@{p.tables.group_id(int(p.arcs.group[arc[i]]))}"
        ),
    )


def survive_one(p: Period) -> Rows:
    """``sum_p risk[s,p] + sum_r worth[r] * n[r] + sum_d price[d] * shed[d] >= least``: what a loss
    would at least cost, one row per cut. In a horizon `least` counts the rates before deferral:
    what leaves an hour need not outlive its losses, what arrives must.
    """
    if not p.cuts:
        return no_rows("survive_one")
    local = {p.tables.group_id(int(at)): place for place, at in enumerate(p.placeable.group)}
    class_at = {class_id: at for at, class_id in enumerate(p.tables.classes.ids)}
    risk_at = {key: at for at, key in enumerate(p.risks)}
    terms: list[Term] = []
    names: list[str] = []
    for row, cut in enumerate(p.cuts):
        groups = [local[g] for g, worth in sorted(cut.per_replica.items()) if worth]
        worths = [worth for _, worth in sorted(cut.per_replica.items()) if worth]
        classes = [class_at[d] for d, price in sorted(cut.per_rps.items()) if price]
        paid = [price for _, price in sorted(cut.per_rps.items()) if price]
        risk = [risk_at[cut.lost_site_id, part] for part in sorted(set(cut.parts))]
        terms += [
            (np.full(len(risk), row), p.column("risk", ints(risk)), 1.0),
            (np.full(len(groups), row), p.column("n", ints(groups)), floats(worths)),
            (np.full(len(classes), row), p.column("shed", ints(classes)), floats(paid)),
        ]
        if len(p.moved.cls):
            price = np.zeros(p.tables.classes.count)
            price[classes] = paid
            moved = np.flatnonzero(price[p.moved.cls])
            part = -price[p.moved.cls[moved]] * p.moved.sign[moved]
            terms.append((np.full(len(moved), row), p.moved.column[moved], part))
        earlier = sum(1 for other in p.cuts[:row] if other.lost_site_id == cut.lost_site_id)
        names.append(f"{cut.lost_site_id}#{earlier}")
    return rows_of(
        "survive_one",
        terms,
        limit=floats(cut.least for cut in p.cuts),
        sense=">=",
        subject=lambda i: names[i],
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _GroupSet:
    """A set of groups (`local` places) that some classes of a service may use, and no others.

    `best[i]` is the largest output tokens / replica_seconds of those classes at `local[i]`, which
    is group `bit[i]` of all that the service uses.
    """

    classes: NDArray[np.intp]
    mask: int
    bit: NDArray[np.intp]
    local: NDArray[np.intp]
    best: Floats


def surrogate(p: Period) -> Rows:
    """``sum_r best[r] * ceiling * available[r] * n[r] + sum_d tokens[d] * shed[d] >=
    sum_d tokens[d] * rate[d]``, divided by the most its right side can be.

    Per service and set R of groups that some class of it may use; d over the classes that may use
    groups of R only.
    """
    names: list[str] = []
    terms: list[Term] = []
    limit: list[float] = []
    for service, sets in enumerate(_group_sets(p)):
        for outer in sets:
            inner = [s for s in sets if len(s.bit) <= len(outer.bit) and s.mask & ~outer.mask == 0]
            classes = np.sort(np.concatenate([s.classes for s in inner]))
            most = float((_tokens(p, classes) * p.tables.classes.rate_rps[classes]).sum())
            terms += _given(p, len(names), outer, inner=inner, most=most)
            terms += _not_asked(p, len(names), classes, most=most)
            limit.append(float((_tokens(p, classes) * p.asked_rps[classes]).sum()) / most)
            first = p.tables.classes.ids[outer.classes[0]]
            names.append(f"{p.tables.service_ids[service]}|{first}")
    if not names:
        return no_rows("surrogate")
    return rows_of(
        "surrogate", terms, limit=np.array(limit), sense=">=", subject=lambda i: names[i]
    )


def _tokens(p: Period, classes: NDArray[np.intp]) -> Floats:
    return p.tables.classes.output_tokens[classes]


def _given(
    p: Period, row: int, outer: _GroupSet, *, inner: list[_GroupSet], most: float
) -> list[Term]:
    best = np.zeros(int(outer.bit[-1]) + 1)
    for one in inner:
        best[one.bit] = np.maximum(best[one.bit], one.best)
    ceiling = p.tables.problem.plan_policy.utilisation_ceiling
    rows = np.full(len(outer.local), row)
    return able(p, row=rows, local=outer.local, value=best[outer.bit] * ceiling / most)


def _not_asked(p: Period, row: int, classes: NDArray[np.intp], *, most: float) -> list[Term]:
    tokens = _tokens(p, classes) / most
    terms: list[Term] = [(np.full(len(classes), row), p.column("shed", classes), tokens)]
    if len(p.moved.cls):
        moved = np.flatnonzero(np.isin(p.moved.cls, classes))
        part = p.tables.classes.output_tokens[p.moved.cls[moved]] / most * p.moved.sign[moved]
        terms.append((np.full(len(moved), row), p.moved.column[moved], -part))
    return terms


def _group_sets(p: Period) -> list[list[_GroupSet]]:
    """For each service the distinct sets of groups its classes may use, by first class."""
    classes = p.tables.classes
    starts = np.searchsorted(p.arcs.cls, np.arange(classes.count + 1))
    local = p.local[p.arcs.group]
    found: list[dict[bytes, list[int]]] = [{} for _ in p.tables.service_ids]
    for at, service in enumerate(classes.service.tolist()):
        mine = local[starts[at] : starts[at + 1]]
        if len(mine):
            found[service].setdefault(mine.tobytes(), []).append(at)
    return [_of_service(p, sets, local=local, starts=starts) for sets in found]


def _of_service(
    p: Period,
    sets: dict[bytes, list[int]],
    *,
    local: NDArray[np.int32],
    starts: NDArray[np.intp],
) -> list[_GroupSet]:
    members = [np.frombuffer(key, dtype=np.int32).astype(np.intp) for key in sets]
    if not members:
        return []
    every = np.unique(np.concatenate(members))
    answer = []
    for mine, classes in zip(members, sets.values(), strict=True):
        bits = np.zeros(len(every), dtype=np.bool_)
        bit = np.searchsorted(every, mine)
        bits[bit] = True
        best = np.zeros(len(mine))
        for at in classes:
            busy_s = p.arcs.replica_seconds[starts[at] : starts[at + 1]]
            np.maximum(best, p.tables.classes.output_tokens[at] / busy_s, out=best)
        answer.append(
            _GroupSet(
                classes=np.array(classes, dtype=np.intp),
                mask=int.from_bytes(np.packbits(bits).tobytes(), "big"),
                bit=bit,
                local=mine,
                best=best,
            )
        )
    return answer
