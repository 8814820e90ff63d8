"""Serving points: what was measured comes back, limits refuse, an SLO costs throughput."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.serving.curves import Knot, deviation, interpolate, thin
from optimizer.serving.library import shipped
from optimizer.serving.measurement import Measurement
from optimizer.serving.points import Query, estimate, serving_points
from optimizer.serving.roofline import MEMORY_USABLE
from sites.catalog import ServingPoint
from sites.errors import InvalidFactError, Violation
from sites.traffic import SloTarget

LIBRARY = shipped()


def query(**changes: object) -> Query:
    asked = Query(
        variant_id="v",
        architecture=LIBRARY.models["llama-3.1-8b"],
        precision="bf16",
        accelerator=LIBRARY.accelerators["h100"],
        accelerators=1,
        input_tokens=150.0,
        output_tokens=395.0,
        slo=SloTarget(ttft_ms=5_000, tpot_ms=1_000),
    )
    return replace(asked, **changes)  # type: ignore[arg-type]


def point(**changes: object) -> ServingPoint:
    found = estimate(query(**changes), library=LIBRARY)
    assert isinstance(found, ServingPoint), found
    return found


def rate(found: ServingPoint, *, tokens_in: float = 150.0, tokens_out: float = 395.0) -> float:
    return tokens_out / found.replica_seconds(input_tokens=tokens_in, output_tokens=tokens_out)


def measured(concurrency: float, tok_s: float, watts: float | None = None) -> Measurement:
    return Measurement(
        table="own",
        source="our lab",
        accelerator="h100",
        accelerators=1,
        model="qwen3-4b",
        precision="bf16",
        framework="vllm-2026",
        input_tokens=500.0,
        output_tokens=500.0,
        concurrency=concurrency,
        output_tok_s=tok_s,
        power_w=watts,
    )


def test_own_measurements_come_back_at_their_batch() -> None:
    own = [measured(1, 160, 300), measured(16, 1500, 450), measured(64, 4800, 640)]
    library = LIBRARY.with_measurements(own)
    asked = query(architecture=LIBRARY.models["qwen3-4b"], input_tokens=500.0, output_tokens=500.0)
    for one in own:
        assert one.concurrency and one.output_tok_s
        mean_ms = one.concurrency / one.output_tok_s * 1e3
        limit = mean_ms * dict(LIBRARY.spreads["tpot"])[99.0] * 1.0001
        slo = SloTarget(ttft_ms=60_000, tpot_ms=limit)
        found = estimate(replace(asked, slo=slo), library=library)
        assert isinstance(found, ServingPoint)
        assert found.concurrency == one.concurrency
        assert rate(found, tokens_in=500, tokens_out=500) == pytest.approx(
            one.output_tok_s, rel=2e-3
        )
        assert found.full_w == pytest.approx(one.power_w, rel=2e-3)
        assert not found.estimated
        assert "our lab" in found.source


def test_of_versions_of_an_engine_the_newest_answers() -> None:
    """0.10 comes after 0.9, though not in the alphabet."""
    own = [
        replace(measured(16, rate), framework=framework)
        for framework, rate in (("vllm-0.9-2026", 900.0), ("vllm-0.10-2026", 1500.0))
    ]
    for tables in (own, own[::-1]):
        found = LIBRARY.with_measurements(tables).group_of(
            accelerator="h100", accelerators=1, model="qwen3-4b", precision="bf16", lengths=(500, 9)
        )
        assert found is not None
        assert found.framework == "vllm-0.10-2026"


def test_measured_and_estimated_pairs_say_which_they_are() -> None:
    assert not point().estimated
    assert "measured" in point().source
    nobody = point(accelerator=LIBRARY.accelerators["h100-pcie"])
    assert nobody.estimated
    assert "roofline" in nobody.source
    far = point(input_tokens=30_000.0, output_tokens=8_000.0)
    assert far.estimated


@settings(deadline=None, max_examples=40)
@given(
    accelerator=st.sampled_from(sorted(LIBRARY.accelerators)),
    model=st.sampled_from(sorted(LIBRARY.models)),
    precision=st.sampled_from(["bf16", "fp8", "w4a16"]),
    count=st.sampled_from([1, 2, 4, 8]),
    tpot_ms=st.floats(5, 500),
    ttft_ms=st.floats(50, 5_000),
)
def test_every_point_meets_its_slo_and_fits(
    accelerator: str, model: str, precision: str, count: int, tpot_ms: float, ttft_ms: float
) -> None:
    slo = SloTarget(ttft_ms=ttft_ms, tpot_ms=tpot_ms)
    asked = query(
        architecture=LIBRARY.models[model],
        accelerator=LIBRARY.accelerators[accelerator],
        precision=precision,
        accelerators=count,
        slo=slo,
    )
    found = estimate(asked, library=LIBRARY)
    if isinstance(found, Violation):
        assert found.code in ("context", "latency", "memory")
        assert found.actual > found.limit  # type: ignore[operator]
        return
    assert found.ttft_ms <= ttft_ms * 1.001
    assert found.tpot_ms <= tpot_ms * 1.001
    spec = asked.accelerator
    assert found.memory_mib <= MEMORY_USABLE * spec.memory_mib * 1.001
    assert found.idle_w <= found.full_w <= count * spec.tdp_w * 2
    assert estimate(asked, library=LIBRARY) == found
    looser = replace(asked, slo=SloTarget(ttft_ms=2 * ttft_ms, tpot_ms=2 * tpot_ms))
    more = estimate(looser, library=LIBRARY)
    assert isinstance(more, ServingPoint)
    assert rate(more) >= rate(found) * 0.985  # the smaller of batches within a percent is taken


def test_more_memory_never_runs_fewer_at_once() -> None:
    small = LIBRARY.accelerators["h100"]
    large = replace(small, memory_gb=small.memory_gb * 2)
    one = point(input_tokens=20_000.0, output_tokens=500.0)
    two = point(input_tokens=20_000.0, output_tokens=500.0, accelerator=large)
    assert two.concurrency >= one.concurrency


def test_what_cannot_be_is_refused_with_its_figures() -> None:
    memory = estimate(query(architecture=LIBRARY.models["llama-3.1-70b"]), library=LIBRARY)
    assert isinstance(memory, Violation)
    assert (memory.code, memory.unit) == ("memory", "MiB")
    context = estimate(query(input_tokens=200_000.0), library=LIBRARY)
    assert isinstance(context, Violation)
    assert (context.code, context.limit) == ("context", 131072)
    late = estimate(query(slo=SloTarget(ttft_ms=1, tpot_ms=100)), library=LIBRARY)
    assert isinstance(late, Violation)
    assert late.code == "latency"
    assert "TTFT" in late.message()
    with pytest.raises(InvalidFactError, match="no precision"):
        query(precision="fp3")


def test_serving_points_leaves_out_what_has_none() -> None:
    asked = [query(), query(architecture=LIBRARY.models["llama-3.1-405b"])]
    assert [one.variant_id for one in serving_points(asked)] == ["v"]


def knots(*rows: tuple[float, float]) -> list[Knot]:
    return [Knot(input_tokens=t, output_tokens=t, concurrency=b, output_tok_s=1.0) for t, b in rows]


def test_deviation_is_exact_at_knots_and_between_them_bounded() -> None:
    grid = knots((100, 1), (100, 16), (1000, 1), (1000, 16))
    errors = [0.1, 0.3, -0.2, 0.0]
    for knot, error in zip(grid, errors, strict=True):
        said = deviation(grid, errors, tokens=knot.tokens, concurrency=knot.concurrency)
        assert said == pytest.approx(error)
    assert deviation(grid, errors, tokens=200, concurrency=4) == pytest.approx(0.2)
    assert deviation(grid, errors, tokens=9, concurrency=0.5) == pytest.approx(0.1)
    assert deviation(grid, errors, tokens=1e6, concurrency=1e6) == pytest.approx(0.0)


def test_interpolation_is_level_beyond_its_ends_and_merges_equal_places() -> None:
    line = [(0.0, 1.0), (1.0, 2.0), (1.0, 4.0)]
    assert [interpolate(line, at) for at in (-1, 0, 0.5, 1, 9)] == [1, 1, 2, 3, 3]


def test_thinning_keeps_what_the_rest_cannot_say() -> None:
    line = knots((100, 1), (100, 2), (100, 4), (100, 8))
    kept = thin(line, [0.0, 0.0, 0.0, 0.0], within=0.05)
    assert [k.concurrency for k in kept] == [1, 8]
    kept = thin(line, [0.0, 0.0, 0.5, 0.0], within=0.05)
    assert 4 in [k.concurrency for k in kept]
