"""Which replica groups may answer a class, class by class, from `Tables`: `arcs` for large fleets.

Decides by the rules of `optimizer.arcs` (law, path, quality, context, percentile, TPOT, TTFT, KV
room) with one array expression per rule, and keeps no reason for what it rules out. A fleet's arcs
are never all held at once: a caller asks for a class, takes what it needs and goes on. Groups and
their figures are prepared once per (service, residency policy).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from optimizer.arcs import MIX_TTFT_PARTS
from optimizer.tables import NOWHERE, Floats, Ints, Tables, floats, ints
from sites.units import BYTES_PER_GB, S_PER_H


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassArcs:
    """The candidate arcs of one class: group positions, ascending, and figures of each.

    `replica_seconds` of one request (s), `network_usd_per_h` of one request/s, `ttft_ms`.
    """

    group: Ints
    replica_seconds: Floats
    network_usd_per_h: Floats
    ttft_ms: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class ArcTable:
    """Arcs of many classes, by class, then group: positions and the figures of `ClassArcs`."""

    cls: Ints
    group: Ints
    replica_seconds: Floats
    network_usd_per_h: Floats
    ttft_ms: Floats

    @property
    def count(self) -> int:
        """How many arcs."""
        return len(self.cls)

    def only(self, kept: NDArray[np.bool_] | NDArray[np.intp]) -> ArcTable:
        """Some of the arcs, by mask or by ascending positions."""
        return ArcTable(**{f.name: getattr(self, f.name)[kept] for f in fields(self)})


@dataclass(frozen=True, kw_only=True, slots=True)
class _Lawful:
    """Groups that fit, of variants a service allows, at sites a policy allows.

    `kind` is what a class sees of a group beside its site: a position among the pairs of a serving
    point (`points`) and room for KV cache (`kv_room_bytes`) that occur. `has_kv`: some replica
    could hold too little KV cache for its concurrency.
    """

    group: Ints
    site: NDArray[np.intp]
    kind: NDArray[np.intp]
    points: NDArray[np.intp]
    kv_room_bytes: Floats
    kv_bytes_per_token: Floats
    has_kv: bool


_NO_ARCS = ClassArcs(
    group=ints(()), replica_seconds=floats(()), network_usd_per_h=floats(()), ttft_ms=floats(())
)


class Sweep:
    """Answers `arcs_of` for one set of tables. Holds what (service, policy) pairs share, and the
    arcs of the first classes asked for, up to `kept_arcs` (28 bytes each) in all.
    """

    def __init__(self, tables: Tables, *, kept_arcs: int = 0) -> None:
        self.tables = tables
        self._left = kept_arcs
        self._kind = _kinds(tables)
        self._kept: dict[int, ClassArcs] = {}
        self._of_service: dict[int, _Lawful] = {}
        self._lawful: dict[tuple[int, int], _Lawful] = {}

    def arcs_of(self, at: int) -> ClassArcs:
        """Candidate arcs of the class at a position: the pairs `find_arcs` keeps."""
        known = self._kept.get(at)
        if known is not None:
            return known
        found = self._arcs_of(at)
        if len(found.group) <= self._left:
            self._left -= len(found.group)
            self._kept[at] = found
        return found

    def _arcs_of(self, at: int) -> ClassArcs:
        tables, classes = self.tables, self.tables.classes
        route = int(classes.route[at])
        if route == NOWHERE:
            return _NO_ARCS
        lawful = self._groups(int(classes.service[at]), int(classes.policy[at]))
        site_ms = classes.access_ms[at] + tables.routes.rtt_ms[route]
        site_ms += tables.problem.plan_policy.queueing_ms_at_ceiling
        kind_ms, points = self._kind_ttft_ms(at, lawful), lawful.points
        busy_s = classes.input_tokens[at] / tables.points.prefill_tok_s[points]
        busy_s += classes.output_tokens[at] / tables.points.decode_tok_s[points]
        if lawful.has_kv:
            slots = self._slots(at, lawful)
            kind_ms[slots < 1] = np.inf
            busy_s *= tables.points.concurrency[points] / np.maximum(1.0, slots)
        ttft_ms = site_ms.take(lawful.site)
        ttft_ms += kind_ms.take(lawful.kind)
        kept = np.flatnonzero(ttft_ms <= self._limit_ms(at))
        usd_per_h = tables.routes.usd_per_gb[route] * (
            classes.bytes_per_request[at] / BYTES_PER_GB * S_PER_H
        )
        return ClassArcs(
            group=lawful.group[kept],
            replica_seconds=busy_s.take(lawful.kind[kept]),
            network_usd_per_h=usd_per_h.take(lawful.site[kept]),
            ttft_ms=ttft_ms[kept],
        )

    def table(self, classes: Iterable[int] | None = None) -> ArcTable:
        """All arcs of some classes (ascending positions; None: of every class) in one table."""
        wanted = range(self.tables.classes.count) if classes is None else list(classes)
        found = [self.arcs_of(at) for at in wanted]
        counts = [len(f.group) for f in found]
        return ArcTable(
            cls=np.repeat(ints(wanted), counts),
            group=np.concatenate([ints(()), *(f.group for f in found)]),
            replica_seconds=np.concatenate([floats(()), *(f.replica_seconds for f in found)]),
            network_usd_per_h=np.concatenate([floats(()), *(f.network_usd_per_h for f in found)]),
            ttft_ms=np.concatenate([floats(()), *(f.ttft_ms for f in found)]),
        )

    def _limit_ms(self, at: int) -> float:
        limit_ms = float(self.tables.classes.slo_ttft_ms[at])
        return limit_ms * MIX_TTFT_PARTS if self.tables.classes.over_mix[at] else limit_ms

    def _kind_ttft_ms(self, at: int, lawful: _Lawful) -> Floats:
        """TTFT of the serving point of each kind (ms), inf for those the class may not use."""
        classes, points, variants = self.tables.classes, self.tables.points, self.tables.variants
        variant = points.variant[lawful.points]
        usable = points.percentile[lawful.points] >= classes.slo_percentile[at]
        usable &= points.tpot_ms[lawful.points] <= classes.slo_tpot_ms[at]
        usable &= variants.quality[variant] >= classes.quality_floor[at]
        usable &= variants.context_tokens[variant] >= classes.longest_tokens[at]
        return np.where(usable, points.ttft_ms[lawful.points], np.inf)

    def _slots(self, at: int, lawful: _Lawful) -> Floats:
        """Requests a replica of each kind holds at a time (`ServingPoint.slots`)."""
        room = lawful.kv_room_bytes
        request = self.tables.classes.kv_tokens[at] * lawful.kv_bytes_per_token
        concurrency = self.tables.points.concurrency[lawful.points]
        enough = room >= concurrency * request
        held = np.divide(room, request, out=np.zeros(len(room)), where=request > 0)
        return np.where(enough, concurrency, held)

    def _groups(self, service: int, policy: int) -> _Lawful:
        key = (service, policy)
        if key not in self._lawful:
            if service not in self._of_service:
                self._of_service[service] = self._answering(service)
            whole = self._of_service[service]
            lawful = self.tables.lawful[policy][whole.site]
            self._lawful[key] = whole if lawful.all() else _narrowed(whole, lawful)
        return self._lawful[key]

    def _answering(self, service: int) -> _Lawful:
        """Groups that fit, of variants the service allows."""
        groups, points, variants = self.tables.groups, self.tables.points, self.tables.variants
        allowed = np.zeros(len(variants.ids), dtype=np.bool_)
        allowed[self.tables.service_variants[service]] = True
        group = np.flatnonzero(groups.fits & allowed[groups.variant])
        _, first, kind = np.unique(self._kind[group], return_index=True, return_inverse=True)
        used, room = groups.point[group[first]], groups.kv_room_bytes[group[first]]
        kv_bytes = variants.kv_bytes_per_token[points.variant[used]]
        return _Lawful(
            group=group.astype(np.int32),
            site=groups.site[group].astype(np.intp),
            kind=kind.astype(np.intp),
            points=used.astype(np.intp),
            kv_room_bytes=room,
            kv_bytes_per_token=kv_bytes,
            has_kv=bool(kv_bytes.any() or (room < 0).any()),
        )


def _kinds(tables: Tables) -> NDArray[np.intp]:
    """A number for each group, the same for groups of one serving point and room for KV cache."""
    rooms, room = np.unique(tables.groups.kv_room_bytes, return_inverse=True)
    kinds: NDArray[np.intp] = tables.groups.point.astype(np.intp) * max(1, len(rooms)) + room
    return kinds


def _narrowed(whole: _Lawful, kept: NDArray[np.bool_]) -> _Lawful:
    return _Lawful(
        group=whole.group[kept],
        site=whole.site[kept],
        kind=whole.kind[kept],
        points=whole.points,
        kv_room_bytes=whole.kv_room_bytes,
        kv_bytes_per_token=whole.kv_bytes_per_token,
        has_kv=whole.has_kv,
    )
