"""The formulation as a Pyomo model: variables here, rows in `constraints`, costs in `objective`.

One period is a model of its own; each period of a horizon is a block of one model. Deterministic:
everything is declared over sorted ids, so equal problems write equal LP files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import pyomo.environ as pyo
from pyomo.core.expr.numeric_expr import LinearExpression
from pyomo.repn.plugins.lp_writer import LPWriter

from optimizer.milp.inputs import GroupFacts, Inputs
from sites.units import W_PER_KW

Pending = Mapping[str, Mapping[int, float]]
"""Deferred before a horizon began and not answered yet: requests/s by class id and by how many
periods before the first it was asked for.
"""

RowKey = tuple[str, str]
"""(row family, subject), e.g. ``("pool_accelerators", "bruges/h100")``."""

ELASTIC_FAMILIES = (
    "pool_accelerators",
    "site_power",
    "supply_limit",
    "link_bandwidth",
    "replica_floor",
    "replica_cap",
    "spread",
    "move_limit",
    "shed_cap",
)
"""Row families whose limit a person can change; each may be given slack or made elastic."""

COUNTED_FAMILIES = frozenset({"pool_accelerators", "replica_floor", "replica_cap", "move_limit"})
"""Elastic families whose excess is a whole number."""


LAZY_FAMILIES = frozenset({"arc_link"})
"""Families implied by the others for whole replicas, of which a search takes what it needs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Elasticity:
    """What gives way: `slack` is added to a row's limit for nothing; rows of `families` get an
    excess variable that may cost something or be minimised.
    """

    slack: Mapping[RowKey, float] = field(default_factory=dict)
    families: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class PeriodInputs:
    """One period of a horizon before it has variables.

    `inputs.rates` are the most that deferral can make of each class's rate here; of it `born`
    (requests/s) is asked for in this period and may be deferred. `elasticity` as for one period.
    """

    inputs: Inputs
    born: Mapping[str, float]
    elasticity: Elasticity = field(default_factory=Elasticity)


@dataclass(frozen=True, kw_only=True, slots=True)
class Formulation:
    """One period under construction or finished, with what it was made from.

    Variables (`model` attributes): n replicas per group (integer); up, down replicas started and
    stopped; x requests/s per arc; shed requests/s per class; defer requests/s per (class, later
    period), in the first period of a horizon also due per (class, periods since it was asked for,
    period); e kW per (site, supply); open per site with a fixed price (0/1); excess per elastic
    row. `model` is the period's block of `root`, the Pyomo model of all periods; of a steady
    state it is the root itself.
    """

    inputs: Inputs
    model: Any
    root: Any
    elasticity: Elasticity
    born: Mapping[str, float]
    pending: Pending = field(default_factory=dict)
    at: int = 0
    limits: dict[RowKey, float] = field(default_factory=dict)
    _periods: list[Formulation] = field(default_factory=list, repr=False, compare=False)

    @property
    def horizon(self) -> tuple[Formulation, ...]:
        """All periods of the model in order; this one alone where there is one."""
        return tuple(self._periods)

    @property
    def before(self) -> Formulation | None:
        """The period before this one in the horizon; None for the first."""
        return self._periods[self.at - 1] if self.at else None

    @property
    def is_timed(self) -> bool:
        """Whether this period is an hour of a horizon; else it stands for a steady state."""
        return self.model is not self.root

    def asked(self, class_id: str) -> tuple[float, list[tuple[float, Any]]]:
        """What a class asks of this period (requests/s): a constant, and the signed deferrals."""
        terms = [
            (1.0, earlier.model.defer[class_id, self.at])
            for earlier in self._periods[: self.at]
            if (class_id, self.at) in earlier.model.defer
        ]
        first = self._periods[0]
        terms += [
            (1.0, first.model.due[class_id, ago, self.at])
            for ago in first.pending.get(class_id, {})
            if (class_id, ago, self.at) in first.model.due
        ]
        later = range(self.at + 1, len(self._periods))
        terms += [
            (-1.0, self.model.defer[class_id, to])
            for to in later
            if (class_id, to) in self.model.defer
        ]
        return self.born.get(class_id, 0.0), terms

    def able(self, group_id: str) -> list[tuple[float, Any]]:
        """Replicas of a group that serve in this period, on average.

        A replica started in an hour of a horizon serves only once it has loaded; in a steady state
        everything has.
        """
        facts = self.inputs.groups[group_id]
        terms = [(facts.available, self.model.n[group_id])]
        loading = loading_part(facts)
        if self.is_timed and loading > 0:
            terms.append((-facts.available * loading, self.model.up[group_id]))
        return terms

    def room(self, family: str, subject: str, *, limit: float) -> Any:
        """The limit of a row as the formulation has it: plus slack, plus excess if elastic."""
        key = (family, subject)
        self.limits[key] = limit
        total: Any = limit + self.elasticity.slack.get(key, 0.0)
        if family in self.elasticity.families:
            total = total + self.model.excess[key]
        return total

    def sum_of(self, terms: Iterable[tuple[float, Any]]) -> Any:
        """A linear expression; an empty one is a variable fixed at 0, so that rows stay rows."""
        pairs = list(terms)
        if not pairs:
            return 1.0 * self.model.nothing
        coefficients, variables = zip(*pairs, strict=True)
        return LinearExpression(
            constant=0.0, linear_coefs=list(coefficients), linear_vars=list(variables)
        )

    def rows(self, family: str, subjects: Iterable[str], rule: Callable[[str], Any]) -> None:
        """Declare one row per subject; a rule answers the row's relation for a subject."""
        index = list(subjects)
        row = pyo.Constraint(index, rule=lambda _, subject: rule(subject))
        self.model.add_component(family, row)


def loading_part(facts: GroupFacts) -> float:
    """Part of a period of one hour that a replica spends loading after its start, at most 1."""
    return min(1.0, facts.loading)


def start_formulation(inputs: Inputs, elasticity: Elasticity) -> Formulation:
    """One period: declare the variables with their bounds; no row, no objective yet."""
    model = pyo.ConcreteModel(name="hinterland")
    formulation = Formulation(
        inputs=inputs, model=model, root=model, elasticity=elasticity, born=inputs.rates
    )
    formulation._periods.append(formulation)
    _declare(formulation, last=0)
    return formulation


def start_horizon(
    periods: Sequence[PeriodInputs], *, pending: Pending | None = None
) -> tuple[Formulation, ...]:
    """Periods of one hour each, one after the other: one block of variables per period.

    Every period must have the same groups; what is `pending` is answered by its deadline or by the
    end. A cordoned site starts nothing in any of them. One
    period alone is an hour too: what starts in it loads first.
    """
    root = pyo.ConcreteModel(name="hinterland")
    root.period = pyo.Block(range(len(periods)))
    chain: list[Formulation] = []
    for at, one in enumerate(periods):
        chain.append(
            Formulation(
                inputs=one.inputs,
                model=root.period[at],
                root=root,
                elasticity=one.elasticity,
                born=one.born,
                pending=pending or {},
                at=at,
                _periods=chain,
            )
        )
    for formulation in chain:
        _declare(formulation, last=len(chain) - 1)
        for group_id, facts in formulation.inputs.groups.items():
            if facts.option.site.cordoned:
                formulation.model.up[group_id].setub(0)
    return tuple(chain)


def _declare(f: Formulation, *, last: int) -> None:
    model, inputs = f.model, f.inputs
    groups, rates = inputs.groups, inputs.rates
    before = groups if f.before is None else f.before.inputs.groups
    model.nothing = pyo.Var(bounds=(0, 0))
    model.n = pyo.Var(
        list(groups), domain=pyo.NonNegativeIntegers, bounds=lambda _, g: (0, groups[g].most)
    )
    model.up = pyo.Var(list(groups), bounds=lambda _, g: (0, groups[g].most))
    model.down = pyo.Var(
        list(groups), bounds=lambda _, g: (0, before[g].most if f.at else groups[g].running)
    )
    model.x = pyo.Var(list(inputs.arcs), bounds=lambda _, d, __: (0, rates[d]))
    model.shed = pyo.Var(list(inputs.classes), bounds=lambda _, d: (0, rates[d]))
    model.defer = pyo.Var(
        [
            (class_id, to)
            for class_id, one in inputs.classes.items()
            if f.born.get(class_id, 0.0) > 0
            for to in range(f.at + 1, min(f.at + one.deferrable_h, last) + 1)
        ],
        bounds=lambda _, d, __: (0, f.born[d]),
    )
    pending = {} if f.at else f.pending
    model.due = pyo.Var(
        [
            (class_id, ago, to)
            for class_id, rates_by_age in pending.items()
            for ago in rates_by_age
            for to in range(min(max(0, inputs.classes[class_id].deferrable_h - ago), last) + 1)
        ],
        bounds=lambda _, d, ago, __: (0, pending[d][ago]),
    )
    model.e = pyo.Var(
        [(s.site_id, k.supply_id) for s in inputs.sites.values() for k in s.supplies],
        domain=pyo.NonNegativeReals,
    )
    priced = [s.site_id for s in inputs.sites.values() if s.fixed_price_usd_per_h > 0]
    model.open = pyo.Var(priced, domain=pyo.Binary)
    model.excess = pyo.Var(pyo.Any, dense=False, domain=pyo.NonNegativeReals)


def lp_text(formulation: Formulation, *, family: str | None = None) -> str:
    """The model in CPLEX LP format with readable names; with `family`, that row family alone and
    no objective.
    """
    model = formulation.root
    hidden = []
    if family is not None:
        rows = model.component_objects(pyo.Constraint, active=True)
        hidden = [row for row in rows if row.local_name != family]
        hidden += list(model.component_objects(pyo.Objective, active=True))
        model.no_cost = pyo.Objective(expr=1.0 * formulation.model.nothing)
    for part in hidden:
        part.deactivate()
    text = StringIO()
    LPWriter().write(model, text, symbolic_solver_labels=True)
    for part in hidden:
        part.activate()
    if family is not None:
        model.del_component(model.no_cost)
    return text.getvalue()


def kw(watts: float) -> float:
    """W as kW; power rows and supplies are in kW so that figures stay near 1 (HiGHS scaling)."""
    return watts / W_PER_KW
