"""Emission, tenants' budgets and what may be shed of a class brought within their limits.

Decides how dear what passes its limit gets. While a first plan is built both have the prices of the
linear relaxation and no limit: with one, whoever is placed first takes it all. Whole replicas ask
for more than the relaxation thought, so prices rise, and components are placed anew at them, until
limits are kept. What is above them after some rounds is shed: later passes find it room at sites
where others make way, which prices of one tenant do not ask of others. Where little may be shed,
that costs more than it does.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from optimizer.milp.scale.batch import Search
from optimizer.milp.scale.caps import CapPrices
from optimizer.milp.scale.cluster import Effort
from optimizer.milp.scale.frame import Frame, Positions, Prices
from optimizer.milp.scale.ledger import Ledger
from optimizer.milp.scale.plan_search import make_way, renew_components
from optimizer.milp.scale.trim import trim_caps
from optimizer.tables import Floats
from sites.units import WHOLE_BP

_ROUNDS = 4
_DOUBLE = 2.0
_FIRST = 2.0
"""Price of what is above its limit, by how far, in parts of what it costs without any."""

_WITHIN = 1e-6

_DUST = 1e-4
_SOME_REPLICAS, _TIMES_DEARER = 4.0, 20.0


def sheds_too_much(ledger: Ledger) -> Positions:
    """Classes that shed more than the plan's policy allows, the dearest first."""
    allowed = ledger.frame.tables.problem.plan_policy.max_shed_basis_points
    if allowed is None:
        return np.zeros(0, dtype=np.intp)
    beyond = np.flatnonzero(ledger.shed_part > allowed / WHOLE_BP + _DUST)
    return beyond[np.lexsort((beyond, -ledger.frame.shed_usd_per_h[beyond]))]


def keep_shed_cap(search: Search) -> None:
    """Let others make way for classes that shed too much: a few times whatever the time, since
    there is no plan otherwise.
    """
    make_way(search, lambda: sheds_too_much(search.ledger), widest=4, tries=20, at_least=4)


def shed_dearly(frame: Frame, prices: Prices) -> Frame:
    """The frame where shed traffic costs far more than its own price, and at least what some
    replicas of any group do, if the plan's policy says how much of a class may be shed: at their
    own prices a little of many classes is shed where others' moving over costs more. For the search
    of a plan, not for its bound.
    """
    allowed = frame.tables.problem.plan_policy.max_shed_basis_points
    if allowed is None or allowed >= WHOLE_BP:
        return frame
    dearest = float(frame.replica_price(prices)[frame.most > 0].max(initial=0.0))
    dear = np.where(frame.rate > 0, _SOME_REPLICAS * dearest, 0.0)
    return replace(frame, shed_usd_per_h=np.maximum(_TIMES_DEARER * frame.shed_usd_per_h, dear))


def keep_caps(search: Search, effort: Effort) -> Search:
    """Place components anew at ever higher prices of what passes its limit, then shed what still
    does; the search without prices, but with limits.
    """
    ledger = search.ledger
    for turn in range(_ROUNDS):
        over, over_kg = _over(ledger)
        if ((over <= _WITHIN).all() and over_kg <= _WITHIN) or search.is_over():
            break
        prices = ledger.frame.cap_prices
        dearer = CapPrices(
            carbon_usd_per_kg=_raised(
                np.array([prices.carbon_usd_per_kg]), np.array([over_kg]), _usd_per_kg(ledger)
            )[0],
            budget=_raised(prices.budget, over, 1.0),
        )
        search = _repriced(search, ledger.frame.at_cap_prices(dearer))
        # the first plan wastes more of everything than one whose components were placed anew
        some = None if turn == 0 else _concerned(ledger, over, over_kg)
        renew_components(search, effort=effort, some=some)
    ledger.caps_hold = True
    trim_caps(ledger)
    # limits hold now: a price would have plans stay below them
    return _repriced(search, ledger.frame.without_cap_prices())


def _repriced(search: Search, frame: Frame) -> Search:
    search.ledger.reprice(frame)
    return replace(search, frame=frame, prices=frame.price_list(search.prices.shared))


def _concerned(ledger: Ledger, over: Floats, over_kg: float) -> Positions | None:
    """The classes of tenants beyond their budget; all where the fleet emits too much."""
    if over_kg > _WITHIN:
        return None
    tenant = ledger.frame.caps.tenant
    beyond = np.append(over > _WITHIN, False)  # NOWHERE is the last
    return np.flatnonzero(beyond[tenant])


def _over(ledger: Ledger) -> tuple[Floats, float]:
    """By how much budgets and the cap on carbon are passed, relative to each."""
    caps = ledger.frame.caps
    budgets = ledger.used.charged_usd_per_h / np.maximum(caps.budget_usd_per_h, _WITHIN) - 1.0
    drawn_kw = np.maximum(0.0, ledger.used.drawn_kw)
    kg = ledger.frame.emitted_kg_per_h(drawn_kw) / max(caps.carbon_kg_per_h, _WITHIN) - 1.0
    return budgets, kg


def _raised(price: Floats, over: Floats, usual: float) -> Floats:
    raised = _DOUBLE * price + _FIRST * usual * np.minimum(1.0, over)
    return np.where(over > _WITHIN, raised, price)


def _usd_per_kg(ledger: Ledger) -> float:
    """What power costs for each kg it emits, over the fleet."""
    frame = ledger.frame
    drawn_kw = np.maximum(0.0, ledger.used.drawn_kw)
    return frame.energy_usd_per_h(drawn_kw) / max(ledger.emits(), _WITHIN)
