"""The formulation as a Pyomo model: variables here, rows in `constraints`, costs in `objective`.

Deterministic: everything is declared over sorted ids, so equal problems write equal LP files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import pyomo.environ as pyo
from pyomo.core.expr.numeric_expr import LinearExpression
from pyomo.repn.plugins.lp_writer import LPWriter

from optimizer.milp.inputs import Inputs
from sites.units import W_PER_KW

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
class Formulation:
    """A Pyomo model under construction or finished, with what it was made from.

    Variables (`model` attributes): n replicas per group (integer); up, down replicas started and
    stopped; x requests/s per arc; shed requests/s per class; e kW per (site, supply); open per
    site with a fixed price (0/1); excess per elastic row.
    """

    inputs: Inputs
    model: Any
    elasticity: Elasticity
    limits: dict[RowKey, float] = field(default_factory=dict)

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


def start_formulation(inputs: Inputs, elasticity: Elasticity) -> Formulation:
    """Declare the variables with their bounds; no row, no objective yet."""
    model = pyo.ConcreteModel(name="hinterland")
    groups, rates = inputs.groups, inputs.rates
    model.nothing = pyo.Var(bounds=(0, 0))
    model.n = pyo.Var(
        list(groups), domain=pyo.NonNegativeIntegers, bounds=lambda _, g: (0, groups[g].most)
    )
    model.up = pyo.Var(list(groups), bounds=lambda _, g: (0, groups[g].most))
    model.down = pyo.Var(list(groups), bounds=lambda _, g: (0, groups[g].running))
    model.x = pyo.Var(list(inputs.arcs), bounds=lambda _, d, __: (0, rates[d]))
    model.shed = pyo.Var(list(inputs.classes), bounds=lambda _, d: (0, rates[d]))
    model.e = pyo.Var(
        [(s.site_id, k.supply_id) for s in inputs.sites.values() for k in s.supplies],
        domain=pyo.NonNegativeReals,
    )
    priced = [s.site_id for s in inputs.sites.values() if s.fixed_price_usd_per_h > 0]
    model.open = pyo.Var(priced, domain=pyo.Binary)
    model.excess = pyo.Var(pyo.Any, dense=False, domain=pyo.NonNegativeReals)
    return Formulation(inputs=inputs, model=model, elasticity=elasticity)


def lp_text(formulation: Formulation, *, family: str | None = None) -> str:
    """The model in CPLEX LP format with readable names; with `family`, that row family alone and
    no objective.
    """
    model = formulation.model
    hidden = []
    if family is not None:
        rows = model.component_objects(pyo.Constraint, active=True)
        hidden = [row for row in rows if row.local_name != family]
        hidden += list(model.component_objects(pyo.Objective, active=True))
        model.no_cost = pyo.Objective(expr=1.0 * model.nothing)
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
