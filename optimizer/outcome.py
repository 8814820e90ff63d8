"""What a solve came to. A plan that stopped on its budget never calls itself optimal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from optimizer.plan import CandidateArc, Plan, PrunedArc


class Progress(Protocol):
    """Who is told how a search goes, now and then and from any thread; answers nothing."""

    def stands(self, *, cost_usd_per_h: float, bound_usd_per_h: float) -> None:
        """What the best plan so far costs (inf: there is none), what any plan costs at least
        (-inf: not known).
        """
        ...

    def stopping(self) -> None:
        """An interrupt was heard; the search comes to an end with what it has."""
        ...


class Untold:
    """Progress that nobody hears of."""

    def stands(self, *, cost_usd_per_h: float, bound_usd_per_h: float) -> None:
        """Nothing."""

    def stopping(self) -> None:
        """Nothing."""


class SolveStatus(StrEnum):
    """OPTIMAL: gap within the limit asked for. LIMIT: a plan, budget spent. INFEASIBLE: proven.

    NO_PLAN: budget spent before any plan was found. FAULT: the solver's point failed the checker.
    """

    OPTIMAL = "optimal"
    LIMIT = "limit"
    INFEASIBLE = "infeasible"
    NO_PLAN = "no_plan"
    FAULT = "fault"


@dataclass(frozen=True, kw_only=True, slots=True)
class Relaxation:
    """Part of a way to make an infeasible problem feasible: a limit, by how much, at what price.

    Those of one `way` are needed together; any one way is enough. Ways count from 0, the cheapest.
    """

    code: str
    subject: str
    limit: float
    needed: float
    unit: str
    price_usd_per_h: float
    remedy: str
    way: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class RowPrices:
    """What a relaxation with rows for whole replicas found limits and rows to be worth (USD/h).

    Limits as in `SharedPrices`. By class each of its requests/s (`demand`) and the cover of all of
    it (`cover`), by class and lost site its cover then (`loss`). A need is of some classes, rounded
    by a group; a room is of a site, its budget divided by so many kW.
    """

    pool_usd_per_h: Mapping[str, float]
    power_usd_per_kw_h: Mapping[str, float]
    energy_usd_per_kwh: Mapping[str, float]
    demand_usd_per_h_per_rps: Mapping[str, float]
    cover_usd_per_h: Mapping[str, float]
    loss_usd_per_h: Mapping[tuple[str, str], float]
    need_usd_per_h: Mapping[tuple[tuple[str, ...], str], float]
    room_usd_per_h: Mapping[tuple[str, float], float]


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedPrices:
    """What a large search found the shared limits to be worth, where the next one of a similar
    problem may begin: an accelerator by pool (``site/pool``, USD/h), a kW of possible draw and the
    next kWh by site; and the ids of the groups worth having. `rows` are prices of another
    relaxation, with rows for whole replicas, where there was time for it.
    """

    pool_usd_per_h: Mapping[str, float]
    power_usd_per_kw_h: Mapping[str, float]
    energy_usd_per_kwh: Mapping[str, float]
    group_ids: frozenset[str]
    rows: RowPrices | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """Plan (or why there is none), bound, and the arcs that were and were not considered.

    `solve_s` and `build_s` are wall seconds measured by the shell that ran the solve; they are not
    part of the plan or its digest. `prices` are for the next search, from the large search only.
    Where `only_at` names sites the relaxations are what the classes need that no others may answer.
    """

    status: SolveStatus
    plan: Plan | None
    arcs: tuple[CandidateArc, ...]
    pruned: tuple[PrunedArc, ...]
    bound_usd_per_h: float
    nodes: int = 0
    build_s: float = 0.0
    solve_s: float = 0.0
    message: str = ""
    relaxations: tuple[Relaxation, ...] = ()
    only_at: tuple[str, ...] = ()
    prices: SharedPrices | None = None

    @property
    def ways(self) -> tuple[tuple[Relaxation, ...], ...]:
        """The relaxations by way: all of one way are needed, any one way is enough."""
        numbers = sorted({one.way for one in self.relaxations})
        return tuple(tuple(r for r in self.relaxations if r.way == n) for n in numbers)
