"""What one more unit of each limit would save: the values, and the lines people read.

The figures are `optimizer.milp.worth`'s; what they mean is said there and repeated where they are
shown. A limit that is not listed is worth nothing at the margin.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sites.units import require_nonnegative

WORTH_SHOWN = 8
"""Limits listed in a plan's summary; the rest is counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Worth:
    """One limit of a problem and what one `unit` more of it would save (USD/h).

    `code` and `subject` are the row family and its subject. `usd_per_h` is found by solving the
    linear relaxation again with the unit granted; `at_first_usd_per_h` is the rate at which its
    first bit saves, per whole unit, and never less than `usd_per_h`.
    """

    code: str
    subject: str
    unit: str
    usd_per_h: float
    at_first_usd_per_h: float

    def __post_init__(self) -> None:
        require_nonnegative(self.usd_per_h, field=f"worth of {self.code} {self.subject}: usd_per_h")
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


def worth_text(one: Worth) -> str:
    """``one more kW of power budget at b saves $0.42/h``."""
    what = _WORDS[one.code].format(subject=one.subject)
    saved, at_first = _usd(one.usd_per_h), _usd(one.at_first_usd_per_h)
    if saved == at_first:
        return f"{what} saves {saved}/h"
    return f"{what} saves {saved}/h (its first part at the rate of {at_first}/h)"


def worth_lines(worths: Iterable[Worth], *, limit: int | None = WORTH_SHOWN) -> tuple[str, ...]:
    """One line per limit, the dearest first; `limit` None lists them all, else the rest is
    counted.
    """
    found = tuple(worths)
    shown = found if limit is None else found[:limit]
    lines = [f"Worth: {worth_text(one)}" for one in shown]
    if len(shown) < len(found):
        lines.append(f"Worth: {len(shown)} of {len(found)} shown (--full shows all)")
    if found:
        lines.append("Worth is the relaxation's, with parts of replicas; --what-if plans for sure")
    return tuple(lines)


def _usd(value: float) -> str:
    """Dollars with at least three significant digits."""
    return f"${value:,.2f}" if abs(value) >= 1 else f"${value:.3g}"
