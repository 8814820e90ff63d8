"""What an explanation of a plan holds: per class where, why not elsewhere, what is shed.

Facts only. They are found by `explain` and worded by `explain_text`.
"""

from __future__ import annotations

from dataclasses import dataclass

from optimizer.stock import Tight


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Where part of a class is served: share, CPT on full replicas (USD/Mtok), TTFT (ms)."""

    group_id: str
    site_id: str
    variant_id: str
    basis_points: int
    usd_per_mtok: float
    ttft_ms: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejection:
    """Why a site does not serve a class. `usd_per_mtok` None: nothing there could answer it.

    `reason` is a code of `PruneReason` or `RejectReason`; limit and actual are its figures.
    """

    site_id: str
    variant_id: str
    reason: str
    limit: float | str
    actual: float | str
    unit: str
    usd_per_mtok: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Fix:
    """The cheapest way to serve what is shed: so many replicas more, what they need, their price.

    `short_of` are the limits in the way, each with what is missing.
    """

    group_id: str
    site_id: str
    replicas: int
    short_of: tuple[Tight, ...]
    usd_per_h: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Shed:
    """What of a class is not served: rate, part, the price it pays, and the cheapest fix if any.

    `held_by` names what the plan policy, the class or an operator put in the way of that fix.
    """

    rate_rps: float
    basis_points: int
    usd_per_h: float
    lawful: bool
    fix: Fix | None
    held_by: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassExplanation:
    """One class: chosen, rejected (one entry per site not chosen), shed; its output tokens/h."""

    class_id: str
    service_id: str
    residency_policy_id: str
    ttft_limit_ms: float
    percentile: float
    mtok_per_h: float
    choices: tuple[Choice, ...]
    rejections: tuple[Rejection, ...]
    shed: Shed | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Exposure:
    """Protected traffic that the loss of one site would leave unserved (classes, req/s)."""

    lost_site_id: str
    class_ids: tuple[str, ...]
    rate_rps: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """Classes with demand, by id, the limits the plan uses up (tightest first), and what the loss
    of a site would leave unserved.

    `left_out` counts classes that a large plan leaves unexplained; `survives` says that the plan
    carries an answer to every loss and that none leaves protected traffic unserved.
    """

    classes: tuple[ClassExplanation, ...]
    binding: tuple[Tight, ...]
    exposed: tuple[Exposure, ...] = ()
    survives: bool = False
    left_out: int = 0
