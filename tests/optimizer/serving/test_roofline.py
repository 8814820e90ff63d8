"""What physics demands of the roofline, whatever the efficiencies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.serving.fit import Effects, keys
from optimizer.serving.library import shipped
from optimizer.serving.roofline import (
    Case,
    Efficiency,
    output_tok_s,
    prefill_s,
    served_step_s,
    shape_of,
    slots,
    step_s,
    token_s,
)

LIBRARY = shipped()
CASES = st.builds(
    Case,
    accelerator=st.sampled_from(sorted(LIBRARY.accelerators)).map(LIBRARY.accelerators.__getitem__),
    architecture=st.sampled_from(sorted(LIBRARY.models)).map(LIBRARY.models.__getitem__),
    precision=st.sampled_from(["bf16", "fp8", "w4a16", "mxfp4"]),
    accelerators=st.sampled_from([1, 2, 4, 8, 16]),
    input_tokens=st.floats(1, 30_000),
    output_tokens=st.floats(1, 8_000),
    concurrency=st.floats(1, 512),
    together=st.just(True),
)


def fitted(case: Case, effects: Effects = LIBRARY.effects) -> Efficiency:
    felt = keys(case, framework="vllm-2025")
    return Efficiency(*(np.array([effects.term(t, felt)]) for t in Efficiency._fields))


def rate(case: Case) -> float:
    return float(output_tok_s(shape_of([case]), fitted(case))[0])


@settings(deadline=None, max_examples=60)
@given(case=CASES, factor=st.floats(1.01, 8))
def test_faster_hardware_is_never_slower(case: Case, factor: float) -> None:
    for name in ("bandwidth_gb_s", "bf16_tflops", "link_gb_s"):
        spec = case.accelerator
        better = replace(spec, **{name: getattr(spec, name) * factor})
        assert rate(replace(case, accelerator=better)) >= rate(case) * (1 - 1e-12)


@settings(deadline=None, max_examples=60)
@given(case=CASES, factor=st.floats(1.01, 8))
def test_a_larger_batch_takes_longer_and_yields_no_less(case: Case, factor: float) -> None:
    larger = replace(case, concurrency=(case.concurrency or 1.0) * factor)
    small, large = (step_s(shape_of([one]), fitted(one))[0] for one in (case, larger))
    assert large >= small * (1 - 1e-12)
    if case.architecture.experts == 1:
        assert rate(larger) >= rate(case) * (1 - 1e-9)


@settings(deadline=None, max_examples=60)
@given(case=CASES, factor=st.floats(1.01, 8))
def test_longer_prompts_take_longer(case: Case, factor: float) -> None:
    longer = replace(case, input_tokens=case.input_tokens * factor)
    one = np.ones(1)
    assert prefill_s(shape_of([longer]), fitted(case), batch=one) >= prefill_s(
        shape_of([case]), fitted(case), batch=one
    )
    assert rate(longer) <= rate(case) * (1 + 1e-12)


@settings(deadline=None, max_examples=60)
@given(case=CASES)
def test_more_accelerators_never_hold_less(case: Case) -> None:
    assert slots(replace(case, accelerators=2 * case.accelerators)) >= slots(case)


def test_a_step_reads_the_weights_once() -> None:
    """Worked by hand: 8.03e9 parameters x 2 B over 0.5 x 3.35e12 B/s, everything else free."""
    case = Case(
        accelerator=LIBRARY.accelerators["h100"],
        architecture=LIBRARY.models["llama-3.1-8b"],
        precision="bf16",
        accelerators=1,
        input_tokens=1e-9,
        output_tokens=1e-9,
        concurrency=1.0,
    )
    free = np.array([50.0])
    eff = Efficiency(np.log([0.5]), free, free, free, -free, -free, -free, free, -free)
    assert step_s(shape_of([case]), eff)[0] == pytest.approx(2 * 8.03e9 / (0.5 * 3.35e12))


def test_handing_out_tokens_costs_the_host_alike_on_any_chip() -> None:
    """100 requests of 0.1 ms each: 10 ms a step more where the case is served, else nothing."""
    case = Case(
        accelerator=LIBRARY.accelerators["h100"],
        architecture=LIBRARY.models["llama-3.1-8b"],
        precision="bf16",
        accelerators=1,
        input_tokens=200.0,
        output_tokens=200.0,
        concurrency=100.0,
    )
    eff = fitted(case)._replace(stream_s=np.log([1e-4]))
    for chip in ("h100", "l4"):
        served = shape_of([replace(case, accelerator=LIBRARY.accelerators[chip], together=True)])
        offline = served._replace(served=np.zeros(1))
        assert served_step_s(served, eff) - step_s(served, eff) == pytest.approx(0.01)
        assert served_step_s(offline, eff) == pytest.approx(step_s(offline, eff))
        assert token_s(served, eff) == pytest.approx(served.batch / output_tok_s(served, eff))


def test_every_expert_is_read_by_a_large_batch_and_few_by_one_token() -> None:
    mixtral = LIBRARY.models["mixtral-8x7b"]
    assert mixtral.expert_b == pytest.approx(45.1, abs=0.1)
    alone = (mixtral.parameters_b - mixtral.expert_b) + mixtral.expert_b * 2 / 8
    assert alone == pytest.approx(mixtral.active_b)
