"""What one more unit of each limit would save: the values, and the lines people read.

The figures are `optimizer.milp.worth`'s, those of large fleets `optimizer.milp.scale.worth`'s; what
they mean is said there and repeated where they are shown. A limit that is not listed is worth
nothing at the margin, or less than the `SOLVED_AGAIN` that were looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sites.units import require_nonnegative

WORTH_SHOWN = 8
"""Limits listed in a plan's summary; the rest is counted."""

SOLVED_AGAIN = 24
"""Limits whose unit is granted in a solve of its own; those with the highest dual prices."""

DUST_USD_PER_H = 1e-6
"""Savings below are rounding."""

STEPS: Mapping[str, tuple[float, str]] = {
    "pool_accelerators": (1.0, "accelerator"),
    "site_power": (1.0, "kW"),
    "supply_limit": (1.0, "kW"),
    "link_bandwidth": (1_000.0, "Gbit/s"),
    "replica_floor": (1.0, "replica"),
    "replica_cap": (1.0, "replica"),
    "spread": (1.0, "req/s"),
    "move_limit": (1.0, "move"),
    "shed_cap": (1.0, "req/s"),
    "tenant_budget": (1.0, "USD/h"),
    "carbon_cap": (1.0, "kg/h"),
    "latency_mix": (0.001, "ms"),
    "quality_floor": (0.01, "point"),
}
"""Row family -> (one unit of its limit as the row counts it, the unit)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Worth:
    """One limit of a problem and what one `unit` more of it would save (USD/h).

    `code` and `subject` are the row family and its subject. `usd_per_h` is found by solving the
    linear relaxation again with the unit granted; `at_first_usd_per_h` is the rate at which its
    first bit saves, per whole unit, and never less than `usd_per_h`.

    `is_plain`: of the relaxation of large fleets, which counts no whole replicas, losses of sites,
    spread, means, floors, moves or fixed prices. A unit saves at least `usd_per_h` there and at
    most the other; where the two are more than 1 % apart it saves `usd_per_h`. That is None where
    there was no time to solve again.
    """

    code: str
    subject: str
    unit: str
    usd_per_h: float | None
    at_first_usd_per_h: float
    is_plain: bool = False

    def __post_init__(self) -> None:
        if self.usd_per_h is not None:
            require_nonnegative(
                self.usd_per_h, field=f"worth of {self.code} {self.subject}: usd_per_h"
            )
        require_nonnegative(
            self.at_first_usd_per_h,
            field=f"worth of {self.code} {self.subject}: at_first_usd_per_h",
        )


_WORDS = {
    "pool_accelerators": "one more accelerator in {subject}",
    "site_power": "one more kW of power budget at {subject}",
    "supply_limit": "one more kW of supply {subject}",
    "link_bandwidth": "one more Gbit/s on {subject}",
    "replica_floor": "one replica less on the floor of {subject}",
    "replica_cap": "one replica more under the cap of {subject}",
    "spread": "one more req/s of {subject}",
    "move_limit": "one more move than the move limit",
    "shed_cap": "one more req/s of {subject} left unserved",
    "tenant_budget": "one more $/h of budget for tenant {subject}",
    "carbon_cap": "one more kg/h under the carbon cap",
    "latency_mix": "one ms more of mean TTFT for {subject}",
    "quality_floor": "a mean quality floor 0.01 lower for {subject}",
}


def dearest_first(worths: Iterable[Worth]) -> tuple[Worth, ...]:
    """By what a unit saves, then those of which only the most it can save is known, by that."""

    def order(one: Worth) -> tuple[bool, float, str, str]:
        known = one.usd_per_h is not None
        saved = one.usd_per_h if one.usd_per_h is not None else one.at_first_usd_per_h
        return not known, -saved, one.code, one.subject

    return tuple(sorted(worths, key=order))


def worth_text(one: Worth) -> str:
    """``one more kW of power budget at b saves $0.42/h``."""
    what, at_first = _WORDS[one.code].format(subject=one.subject), _usd(one.at_first_usd_per_h)
    if one.usd_per_h is None:
        return f"{what} saves at most {at_first}/h"
    saved = _usd(one.usd_per_h)
    if saved == at_first:
        return f"{what} saves {saved}/h"
    return f"{what} saves {saved}/h (its first part at the rate of {at_first}/h)"


_PARTS = "Worth is the relaxation's, with parts of replicas; --what-if plans for sure"
_PLAIN = (
    "Worth is a relaxation's: parts of replicas, no losses, spread, means, floors, moves; "
    "--what-if plans for sure"
)
_UNKNOWN = "Worth: not known, its relaxation takes longer than the plan's time limit"


def worth_lines(
    worths: Iterable[Worth] | None, *, limit: int | None = WORTH_SHOWN
) -> tuple[str, ...]:
    """One line per limit, the dearest first; `limit` None lists them all, else the rest is
    counted. `worths` None: they were not found in time.
    """
    if worths is None:
        return (_UNKNOWN,)
    found = tuple(worths)
    shown = found if limit is None else found[:limit]
    lines = [f"Worth: {worth_text(one)}" for one in shown]
    if len(shown) < len(found):
        lines.append(f"Worth: {len(shown)} of {len(found)} shown (--full shows all)")
    if found:
        lines.append(_PLAIN if found[0].is_plain else _PARTS)
    return tuple(lines)


def _usd(value: float) -> str:
    """Dollars with at least three significant digits."""
    return f"${value:,.2f}" if abs(value) >= 0.9995 else f"${value:.3g}"
