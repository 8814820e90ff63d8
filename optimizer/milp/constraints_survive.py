"""The row family of N-1: what a plan's replicas must be able to carry after any one loss.

Each row is a Benders cut that a loss produced (`milp.survive`): it says, as a function of the
replicas placed and the traffic shed, what that loss would at least cost. Which cuts there are is
decided there, round by round.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyomo.environ as pyo

from optimizer.milp.model import Formulation


@dataclass(frozen=True, kw_only=True, slots=True)
class SurvivalCut:
    """``sum risk[s,p] + sum_r per_replica[r] * n[r] + sum_d per_rps[d] * shed[d] >= least``, USD/h.

    Over `parts` p of the traffic: services that no replica group joins are told apart, because
    many small cuts bind sooner than one large one. `per_replica` by group id, in USD/h; `per_rps`
    by class id, in USD/h per request/s not served anyway. Holds for every plan of the problem it
    was made for.
    """

    lost_site_id: str
    parts: tuple[str, ...]
    per_replica: Mapping[str, float]
    per_rps: Mapping[str, float]
    least: float

    def risk_usd_per_h(self, *, n: Mapping[str, float], shed: Mapping[str, float]) -> float:
        """What the cut says the loss costs at least with these replicas and this shed traffic."""
        given = sum(worth * n.get(g, 0.0) for g, worth in sorted(self.per_replica.items()))
        given += sum(price * shed.get(d, 0.0) for d, price in sorted(self.per_rps.items()))
        return max(0.0, self.least - given)


def survive_one(f: Formulation, cuts: Iterable[SurvivalCut]) -> None:
    """``sum_p risk[s,p] + sum_r mu[r] * usable[r] * n[r] + sum_d pi[d] * shed[d]
    >= sum_d pi[d] * rate[d]`` over groups r not at s and protected classes d of the parts p, less
    what links and supplies would cap.

    `risk[s,p]` (USD/h, in the objective) is what the loss of site s would leave of the protected
    traffic of part p, at `exposure_part` of its shed price; pi[d] and mu[r] are the shadow prices
    of serving that traffic with the replicas of the other sites, once for each plan a loss broke.
    Declares `risk` and adds it to the objective; call once, on a finished formulation.
    """
    numbered: dict[str, SurvivalCut] = {}
    for cut in cuts:
        count = sum(1 for other in numbered.values() if other.lost_site_id == cut.lost_site_id)
        numbered[f"{cut.lost_site_id}#{count}"] = cut
    index = sorted({(cut.lost_site_id, part) for cut in numbered.values() for part in cut.parts})
    f.model.risk = pyo.Var(index, domain=pyo.NonNegativeReals)

    def row(subject: str) -> object:
        cut = numbered[subject]
        terms = [(1.0, f.model.risk[cut.lost_site_id, part]) for part in cut.parts]
        terms += [(worth, f.model.n[g]) for g, worth in sorted(cut.per_replica.items()) if worth]
        terms += [(price, f.model.shed[d]) for d, price in sorted(cut.per_rps.items()) if price]
        return f.sum_of(terms) >= cut.least

    f.rows("survive_one", numbered, row)
    f.root.cost.expr = f.root.cost.expr + f.sum_of((1.0, f.model.risk[key]) for key in index)
