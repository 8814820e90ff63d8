"""Pairs of a class and a placed group that may answer it, as arrays; facts only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from optimizer.tables import Flags, Floats

Positions = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """Pairs by class, then group: positions, and figures for the whole class at that group.

    `busy` are the replicas it keeps busy, `usd_per_h` its transfer; `held_bp` is what the plan
    puts there. `elsewhere`: the class enters at its next ingress.
    """

    row: Positions
    group: Positions
    busy: Floats
    usd_per_h: Floats
    held_bp: Floats
    elsewhere: Flags

    @property
    def count(self) -> int:
        """How many pairs."""
        return len(self.row)

    def only(self, chosen: Positions | Flags | slice) -> Pairs:
        """The pairs at some positions, of a mask or of a slice."""
        return Pairs(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})


@dataclass(frozen=True, kw_only=True, slots=True)
class Uses:
    """What pairs use of limits: `each` of limit `key` by the whole class, for the pair `pair`."""

    pair: Positions
    key: Positions
    each: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """Where one class could go, by group: replicas the whole class keeps busy there, its transfer
    there (USD/h); `by_price` the same, cheapest first, with the group. `place` finds a group's
    place, what the class loses at least by leaving it with the room that the plan leaves, and what
    shedding it there costs (USD/h per busy replica). `shed_usd_per_h` is shedding all of it.
    """

    group: Positions
    busy: Floats
    price: Floats
    by_price: tuple[tuple[float, int], ...]
    place: Mapping[int, tuple[int, float, float]]
    shed_usd_per_h: float


def all_of(parts: list[Pairs]) -> Pairs:
    """The pairs of all parts, one after the other."""
    none = np.zeros(0)
    empty = Pairs(
        row=none.astype(np.intp),
        group=none.astype(np.intp),
        busy=none,
        usd_per_h=none,
        held_bp=none,
        elsewhere=none.astype(np.bool_),
    )
    every = [empty, *parts]
    columns = {f.name: [getattr(one, f.name) for one in every] for f in fields(Pairs)}
    return Pairs(**{name: np.concatenate(column) for name, column in columns.items()})
