"""An explanation as plain lines: shed traffic, cheaper sites ruled out, one class in full.

Decides wording and order only; the figures are `explain`'s.
"""

from __future__ import annotations

from collections import defaultdict

from optimizer.explanation import (
    Choice,
    ClassExplanation,
    Explanation,
    Exposure,
    Fix,
    Rejection,
    Shed,
)
from optimizer.plan import RejectReason
from optimizer.stock import Tight

REJECTED_SHOWN = 3
"""Cheaper sites listed in a plan's summary; the rest is counted."""

BINDING_SHOWN = 20
"""Full limits listed in a plan's summary; the rest is counted."""

_BP_PER_PERCENT = 100
_COUNTRIES_SHOWN = 4
_CLASSES_SHOWN = 3
_SHARED = frozenset(RejectReason) - {RejectReason.PRICE}
_SCALES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def shed_lines(explanation: Explanation) -> tuple[str, ...]:
    """One line per class that is not wholly served, the dearest first: who, how much, why, fix."""
    hurt = [(one.shed.usd_per_h, one) for one in explanation.classes if one.shed]
    hurt.sort(key=lambda pair: (-pair[0], pair[1].class_id))
    return tuple(_shed_text(one, one.shed) for _, one in hurt if one.shed)


def rejected_lines(
    explanation: Explanation, *, limit: int | None = REJECTED_SHOWN
) -> tuple[str, ...]:
    """Sites that would have been cheaper but are ruled out, the greatest saving first.

    Classes of one service and policy kept from a site by one reason share a line. `limit` None
    lists them all; otherwise what is left out is counted.
    """
    found: dict[tuple[str, str, str, str], list[tuple[float, ClassExplanation, Rejection]]]
    found = defaultdict(list)
    for one in explanation.classes:
        dearest = max((c.usd_per_mtok for c in one.choices), default=0.0)
        for no in one.rejections:
            if no.usd_per_mtok is None or no.reason == RejectReason.PRICE:
                continue
            if no.usd_per_mtok < dearest:
                saving = (dearest - no.usd_per_mtok) * one.mtok_per_h
                key = (one.service_id, one.residency_policy_id, no.site_id, no.reason)
                found[key].append((saving, one, no))
    ranked = sorted(
        found.values(), key=lambda same: (-sum(one[0] for one in same), same[0][1].class_id)
    )
    shown = ranked if limit is None else ranked[:limit]
    lines = [_rejected_text([(one, no) for _, one, no in same]) for same in shown]
    if len(shown) < len(ranked):
        lines.append(f"Rejected: {len(shown)} of {len(ranked)} shown (--full shows all)")
    return tuple(lines)


def _rejected_text(same: list[tuple[ClassExplanation, Rejection]]) -> str:
    one, no = same[0]
    who = one.class_id if len(same) == 1 else f"{one.service_id}, {len(same)} classes"
    return (
        f"Rejected: {who} → {no.site_id} ({_usd(no.usd_per_mtok or 0.0)}/Mtok): {_because(no, one)}"
    )


def binding_lines(
    explanation: Explanation, *, limit: int | None = BINDING_SHOWN
) -> tuple[str, ...]:
    """The limits the plan uses up. `limit` None lists them all; else the rest is counted."""
    full = explanation.binding
    shown = full if limit is None else full[:limit]
    lines = [
        f"Full: {t.subject}: {t.name} {_amount(t.needed, t.unit)} of {_amount(t.limit, t.unit)}"
        for t in shown
    ]
    if len(shown) < len(full):
        lines.append(f"Full: {len(shown)} of {len(full)} shown (--full shows all)")
    return tuple(lines)


def left_out_lines(explanation: Explanation) -> tuple[str, ...]:
    """That a large plan explains only some classes, if it does."""
    if not explanation.left_out:
        return ()
    told = len(explanation.classes)
    return (
        f"Explained: {told} of {told + explanation.left_out} classes, those shed; "
        "--why CLASS explains any other",
    )


def loss_lines(explanation: Explanation) -> tuple[str, ...]:
    """What the loss of any one site would do to protected traffic; nothing where none is asked."""
    lines = [_exposed_text(one) for one in explanation.exposed]
    if explanation.survives:
        lines.append("Survives: any one site may be lost, protected classes stay served")
    return tuple(lines)


def _exposed_text(one: Exposure) -> str:
    named = ", ".join(one.class_ids[:_CLASSES_SHOWN])
    more = len(one.class_ids) - _CLASSES_SHOWN
    return (
        f"Exposed: losing {one.lost_site_id} would leave {one.rate_rps:.3g} req/s unserved of "
        f"protected {named}{f' and {more} more' if more > 0 else ''}"
    )


def class_lines(one: ClassExplanation) -> tuple[str, ...]:
    """Everything about one class: where it is served, why not elsewhere, what is shed."""
    head = (
        f"{one.class_id}: service {one.service_id}, policy {one.residency_policy_id}, "
        f"p{one.percentile:g} TTFT within {one.ttft_limit_ms:g} ms"
    )
    lines = [head, *(_choice_text(choice, one) for choice in one.choices)]
    lines += [f"  not {no.site_id}: {_because(no, one)}{_price(no)}" for no in one.rejections]
    if one.shed:
        lines.append(f"  {_shed_text(one, one.shed)}")
    return tuple(lines)


def _choice_text(choice: Choice, one: ClassExplanation) -> str:
    part = f"{choice.basis_points / _BP_PER_PERCENT:g}%"
    return (
        f"  {part} at {choice.site_id}: {choice.variant_id}  {_usd(choice.usd_per_mtok)}/Mtok  "
        f"p{one.percentile:g} {choice.ttft_ms:.0f}/{one.ttft_limit_ms:g} ms"
    )


def _price(no: Rejection) -> str:
    if no.usd_per_mtok is None or no.reason == RejectReason.PRICE:
        return ""
    return f"; would cost {_usd(no.usd_per_mtok)}/Mtok"


def _because(no: Rejection, one: ClassExplanation) -> str:
    """The reason with its figures."""
    if no.reason == RejectReason.PRICE:
        return f"price {_usd(no.actual)}/Mtok against {_usd(no.limit)}/Mtok"
    actual, limit = _show(no.actual, no.unit), _show(no.limit, no.unit)
    if no.reason in _LAW_CODES:
        return f"{no.reason} {actual}, policy {one.residency_policy_id}: {_few_countries(limit)}"
    variant = f" of {no.variant_id}" if no.variant_id else ""
    return f"{no.reason}{variant} {actual}, limit {limit}"


def _few_countries(text: str) -> str:
    """``processed in AT,BE,…`` with a long list cut after the first few, and counted."""
    head, _, listed = text.rpartition(" ")
    codes = listed.split(",")
    if len(codes) <= _COUNTRIES_SHOWN:
        return text
    return f"{head} {','.join(codes[:_COUNTRIES_SHOWN])},… ({len(codes)} countries)"


def _usd(value: float | str) -> str:
    """Dollars with at least three significant digits."""
    if isinstance(value, str):
        return value
    return f"${value:.2f}" if abs(value) >= 1 else f"${value:.3g}"


_LAW_CODES = ("residency", "transit", "no_ingress")


def _show(value: float | str, unit: str) -> str:
    if isinstance(value, str):
        return value
    return _amount(value, unit)


def _amount(value: float, unit: str) -> str:
    """A figure with its unit: large W, bit/s and g scaled, accelerators counted."""
    if unit.startswith("×"):
        return f"{value:g}{unit}"
    if unit == "USD/h":
        return f"{_usd(value)}/h"
    if unit in {"W", "bit/s", "gCO2e/h"}:
        for scale, prefix in _SCALES:
            if abs(value) >= scale:
                return f"{value / scale:.4g} {prefix}{unit}"
    return f"{value:.4g} {unit}".rstrip()


def _shed_text(one: ClassExplanation, shed: Shed) -> str:
    who = (
        f'{shed.rate_rps:.3g} req/s of "{one.service_id}" (class {one.class_id}, '
        f"policy {one.residency_policy_id})"
    )
    if shed.fix is None:
        where = "may lawfully be served nowhere" if not shed.lawful else "can be served nowhere"
        reasons = "; ".join(f"{r.site_id}: {_because(r, one)}" for r in one.rejections)
        return f"{who} {where}: {reasons or 'no site'}"
    full = _full_sites(one)
    if not shed.fix.short_of and not full and shed.fix.usd_per_h < shed.usd_per_h:
        return (
            f"{who} is not served because of {', '.join(shed.held_by) or 'the gap searched to'}: "
            f"{_where(shed.fix)} would serve it at ${shed.fix.usd_per_h:.2f}/h, shedding it costs "
            f"${shed.usd_per_h:.2f}/h"
        )
    if not shed.fix.short_of and not full:
        return (
            f"{who} is not worth serving: cheapest is {_where(shed.fix)} at "
            f"${shed.fix.usd_per_h:.2f}/h, shedding it costs ${shed.usd_per_h:.2f}/h"
        )
    return (
        f"{who} cannot be served{': ' + full if full else ''}; cheapest fix: {_where(shed.fix)}"
        f"{_needs(shed.fix.short_of)} at ${shed.fix.usd_per_h:.2f}/h"
    )


def _full_sites(one: ClassExplanation) -> str:
    """Which sites are short of what: ``a, b are short of power``."""
    short: dict[str, list[str]] = defaultdict(list)
    for no in one.rejections:
        if no.reason in _SHARED:
            short[no.reason].append(no.site_id)
    return ", ".join(
        f"{', '.join(sites)} {'are' if len(sites) > 1 else 'is'} short of {reason}"
        for reason, sites in sorted(short.items())
    )


def _where(fix: Fix) -> str:
    if fix.replicas == 0:
        return f"the replicas of {fix.group_id}"
    plural = "s" if fix.replicas > 1 else ""
    return f"+{fix.replicas} replica{plural} of {fix.group_id}"


def _needs(short_of: tuple[Tight, ...]) -> str:
    if not short_of:
        return ""
    return " (needs " + ", ".join(f"+{_amount(t.short, t.unit)} {t.name}" for t in short_of) + ")"
