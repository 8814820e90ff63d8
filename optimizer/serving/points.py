"""Serving points: what a replica does at a class's lengths while it meets an SLO.

Decides how many requests run at once (the most throughput whose times meet the SLO and whose cache
fits), and says whether that was measured or estimated. Curves, roofline and draw come from their
own modules.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from optimizer.serving.curves import Group, Knot, deviation, interpolate
from optimizer.serving.fit import keys
from optimizer.serving.library import Library, shipped
from optimizer.serving.power import IDLE_PART
from optimizer.serving.roofline import (
    MEMORY_USABLE,
    Array,
    Case,
    Efficiency,
    Shape,
    output_tok_s,
    prefill_s,
    prompt_s,
    shape_of,
    slots,
    step_s,
)
from optimizer.serving.specs import (
    KV_BYTES,
    MIB,
    PRECISIONS,
    AcceleratorSpec,
    Architecture,
    weights_mib,
)
from sites.catalog import ServingPoint
from sites.errors import InvalidFactError, Violation
from sites.traffic import SloTarget
from sites.units import MS_PER_S, require_positive

BATCH_MOST = 512
"""Requests at once beyond which engines gain nothing (vLLM's usual `max_num_seqs` and below)."""

GAIN_LEAST = 1.01
"""A larger batch must raise throughput by this factor to be worth its latency."""

START_S = 40.0
LOAD_MIB_S = 2_000.0
"""Start of an engine, and reading of weights: assumed, no table measures them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """What is asked: a variant of a model on so many accelerators, for such requests and SLO."""

    variant_id: str
    architecture: Architecture
    precision: str
    accelerator: AcceleratorSpec
    accelerators: int
    input_tokens: float
    output_tokens: float
    slo: SloTarget

    def __post_init__(self) -> None:
        for name in ("accelerators", "input_tokens", "output_tokens"):
            require_positive(getattr(self, name), field=f"{self.variant_id}: {name}")
        if self.precision not in PRECISIONS:
            known = ", ".join(sorted(PRECISIONS))
            raise InvalidFactError(
                f"{self.variant_id}: no precision {self.precision!r}; use one of {known}"
            )

    @property
    def subject(self) -> str:
        """How a refusal names it."""
        return f"{self.variant_id} on {self.accelerators} x {self.accelerator.accelerator}"


def serving_points(
    queries: Iterable[Query], *, library: Library | None = None
) -> tuple[ServingPoint, ...]:
    """The serving point of every query that has one, in order; the rest cannot meet their SLO."""
    known = shipped() if library is None else library
    answers = [estimate(query, library=known) for query in queries]
    return tuple(one for one in answers if isinstance(one, ServingPoint))


def estimate(
    query: Query, *, library: Library, within_measured: bool = False
) -> ServingPoint | Violation:
    """One serving point, or which limit it breaks: `memory`, `context` or `latency`.

    `within_measured`: no batch above the largest that was measured, where any was.
    """
    refusal = _refusal(query)
    if refusal is not None:
        return refusal
    group = library.group_of(
        accelerator=query.accelerator.accelerator,
        accelerators=query.accelerators,
        model=query.architecture.model,
        precision=query.precision,
        lengths=(query.input_tokens, query.output_tokens),
    )
    load = _loads(query, library, group, within_measured=within_measured)
    meets = (load.ttft_ms <= query.slo.ttft_ms) & (load.tpot_ms <= query.slo.tpot_ms)
    if not meets.any():
        return _too_slow(query, load)
    return _point(query, library, group, load, _best(load, meets))


def _refusal(query: Query) -> Violation | None:
    """A replica needs room for its weights and one request; a model reads so much at once."""
    tokens = query.input_tokens + query.output_tokens
    if tokens > query.architecture.context_tokens:
        return Violation(
            code="context",
            subject=query.subject,
            limit=float(query.architecture.context_tokens),
            actual=tokens,
            unit="tok",
            remedy="use shorter requests or a model of longer context",
        )
    needed = weights_mib(query.architecture, query.precision) + _cache_mib(query)
    limit = query.accelerators * query.accelerator.memory_mib * MEMORY_USABLE
    if needed <= limit:
        return None
    return Violation(
        code="memory",
        subject=query.subject,
        limit=round(limit),
        actual=round(needed),
        unit="MiB",
        remedy="use more accelerators per replica or a smaller precision",
    )


def _cache_mib(query: Query) -> float:
    tokens = query.input_tokens + query.output_tokens
    return tokens * query.architecture.kv_elements_per_token * KV_BYTES / MIB


@dataclass(frozen=True, kw_only=True)
class _Loads:
    """One row per batch: what a replica does with that many requests at once.

    `prompt_part`: of the replica's time that prompts take, as the roofline divides it.
    """

    batch: Array
    rate: Array
    ttft_ms: Array
    tpot_ms: Array
    prompt_part: Array
    cases: Sequence[Case]


def _loads(query: Query, library: Library, group: Group | None, *, within_measured: bool) -> _Loads:
    most = slots(_case(query, None))
    if group is not None and within_measured:
        most = min(most, max(1.0, *(k.concurrency for k in group.knots)))
    sizes = sorted({min(float(b), float(math.floor(most))) for b in _batches()})
    cases = [_case(query, size) for size in sizes]
    shape = shape_of(cases)
    eff = _efficiency(library, cases, group)
    rate = output_tok_s(shape, eff)
    prompt_part = prompt_s(shape, eff) * rate / shape.output_tokens
    if group is not None:
        rate = rate * np.exp(_deviations(library, query, group, shape))
    rate = np.maximum.accumulate(rate)
    mean_s = np.maximum.accumulate(shape.batch / rate)
    alone = shape._replace(batch=np.ones_like(shape.batch))
    first_s = prefill_s(alone, eff, batch=alone.batch) + np.exp(eff.start_s) + step_s(shape, eff)
    at = query.slo.percentile
    return _Loads(
        batch=shape.batch,
        rate=shape.batch / mean_s,
        ttft_ms=first_s * _spread(library, "ttft", at) * MS_PER_S,
        tpot_ms=mean_s * _spread(library, "tpot", at) * MS_PER_S,
        prompt_part=prompt_part,
        cases=cases,
    )


def _batches() -> list[int]:
    """Batches looked at: about 8 to each doubling."""
    steps = 8 * int(math.log2(BATCH_MOST)) + 1
    return sorted({round(2 ** (i / 8)) for i in range(steps)})


def _case(query: Query, concurrency: float | None) -> Case:
    return Case(
        accelerator=query.accelerator,
        architecture=query.architecture,
        precision=query.precision,
        accelerators=query.accelerators,
        input_tokens=query.input_tokens,
        output_tokens=query.output_tokens,
        concurrency=concurrency,
    )


def _efficiency(library: Library, cases: Sequence[Case], group: Group | None) -> Efficiency:
    spec = cases[0].accelerator
    engine = library.engine_of(spec.accelerator) if group is None else group.framework
    felt = keys(cases[0], framework=engine)
    terms = [library.effects.term(term, felt) for term in Efficiency._fields]
    return Efficiency(*(np.full(len(cases), term) for term in terms))


def _deviations(library: Library, query: Query, group: Group, shape: Shape) -> Array:
    errors = knot_errors(library, query.architecture, query.accelerator, group)
    tokens = query.input_tokens + query.output_tokens
    return np.array(
        [deviation(group.knots, errors, tokens=tokens, concurrency=float(b)) for b in shape.batch]
    )


def knot_errors(
    library: Library, architecture: Architecture, spec: AcceleratorSpec, group: Group
) -> list[float]:
    """Log of measured over roofline throughput at each knot of a group."""
    cases = [knot_case(architecture, spec, group, knot) for knot in group.knots]
    rates = output_tok_s(shape_of(cases), _efficiency(library, cases, group))
    return [
        math.log(knot.output_tok_s / float(rate))
        for knot, rate in zip(group.knots, rates, strict=True)
    ]


def knot_case(architecture: Architecture, spec: AcceleratorSpec, group: Group, knot: Knot) -> Case:
    """What ran when a knot was measured."""
    return Case(
        accelerator=spec,
        architecture=architecture,
        precision=group.precision,
        accelerators=group.accelerators,
        input_tokens=knot.input_tokens,
        output_tokens=knot.output_tokens,
        concurrency=knot.concurrency,
        together=True,
    )


def _spread(library: Library, name: str, percentile: float) -> float:
    """Factor from a mean to a percentile, level beyond those measured."""
    return math.exp(interpolate([(p, math.log(v)) for p, v in library.spreads[name]], percentile))


def _best(load: _Loads, meets: NDArray[np.bool_]) -> int:
    """Of the batches that meet the SLO the smallest that is within GAIN_LEAST of the best."""
    most = float(load.rate[meets].max())
    good = meets & (load.rate * GAIN_LEAST >= most)
    return int(np.argmax(good))


def _too_slow(query: Query, load: _Loads) -> Violation:
    first, later = float(load.ttft_ms[0]), float(load.tpot_ms[0])
    is_first = first > query.slo.ttft_ms
    return Violation(
        code="latency",
        subject=f"{query.subject}, {'TTFT' if is_first else 'TPOT'} of one request alone",
        limit=query.slo.ttft_ms if is_first else query.slo.tpot_ms,
        actual=round(first if is_first else later, 1),
        unit="ms",
        remedy="use more accelerators per replica, faster ones, or a smaller precision",
    )


def _point(
    query: Query, library: Library, group: Group | None, load: _Loads, chosen: int
) -> ServingPoint:
    batch, rate = float(load.batch[chosen]), float(load.rate[chosen])
    case = load.cases[chosen]
    measured = group is not None and group.covers(
        input_tokens=query.input_tokens, output_tokens=query.output_tokens, concurrency=batch
    )
    weights = weights_mib(query.architecture, query.precision)
    whole_s = query.output_tokens / rate  # replica-seconds of one request: prompt and output
    prompt = float(load.prompt_part[chosen]) * whole_s
    idle_w = IDLE_PART * query.accelerators * query.accelerator.tdp_w
    return ServingPoint(
        variant_id=query.variant_id,
        accelerator=query.accelerator.accelerator,
        accelerators_per_replica=query.accelerators,
        decode_tok_s=_digits(query.output_tokens / (whole_s - prompt)),
        prefill_tok_s=_digits(query.input_tokens / prompt),
        ttft_ms=_digits(float(load.ttft_ms[chosen])),
        tpot_ms=_digits(float(load.tpot_ms[chosen])),
        concurrency=max(1, int(batch)),
        idle_w=_digits(idle_w),
        full_w=_digits(max(idle_w, _draw_w(library, group, case, rate=rate, batch=batch))),
        memory_mib=_digits((weights + batch * _cache_mib(query)) / query.accelerators),
        percentile=query.slo.percentile,
        start_ms=round((START_S + weights / LOAD_MIB_S) * MS_PER_S),
        estimated=not measured,
        source=_source(query, library, group, measured=measured),
    )


def _draw_w(
    library: Library, group: Group | None, case: Case, *, rate: float, batch: float
) -> float:
    """Measured draw between measured batches, else the power model's."""
    known = [k for k in (group.knots if group else ()) if k.power_w > 0]
    modelled = library.power.draw_w(case, output_tok_s=rate)
    if not known:
        return modelled
    ratios = [
        math.log(k.power_w / library.power.draw_w(_at(case, k), output_tok_s=k.output_tok_s))
        for k in known
    ]
    tokens = case.input_tokens + case.output_tokens
    off = deviation(known, ratios, tokens=tokens, concurrency=batch)
    return modelled * math.exp(off)


def _at(case: Case, knot: Knot) -> Case:
    return replace(
        case,
        input_tokens=knot.input_tokens,
        output_tokens=knot.output_tokens,
        concurrency=knot.concurrency,
        together=True,
    )


def _source(query: Query, library: Library, group: Group | None, *, measured: bool) -> str:
    times = "TTFT, idle draw and start are estimates"
    if group is None:
        engine = library.engine_of(query.accelerator.accelerator)
        return f"estimate: roofline fitted to measurements, engine {engine}; {times}"
    how = "measured, interpolated" if measured else "estimate: scaled by roofline from measurement"
    return f"{how}: {group.source} ({group.framework}); {times}"


def _digits(value: float) -> float:
    return float(f"{value:.4g}")


def own_points(
    library: Library,
    groups: Sequence[Group],
    *,
    lengths: tuple[float, float] | None,
    slo: SloTarget,
) -> list[tuple[Group, ServingPoint | Violation]]:
    """The point (or refusal) of each measured group; `lengths` None: those of its best throughput.

    `library` must hold the groups (`Library.with_measurements`).
    """
    found = []
    for group in groups:
        best = max(group.knots, key=lambda k: (k.output_tok_s, -k.tokens))
        tokens = (best.input_tokens, best.output_tokens) if lengths is None else lengths
        query = Query(
            variant_id=f"{group.model}-{group.precision}",
            architecture=library.models[group.model],
            precision=group.precision,
            accelerator=library.accelerators[group.accelerator],
            accelerators=group.accelerators,
            input_tokens=tokens[0],
            output_tokens=tokens[1],
            slo=slo,
        )
        found.append((group, estimate(query, library=library, within_measured=True)))
    return found
