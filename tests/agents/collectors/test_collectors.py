"""Metrics pages of each server family, as those servers write them, and pages of nobody."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.collectors import any_server, llama_cpp, sglang, trtllm, vllm
from agents.collectors.prometheus import ServerMetrics, parse

LLAMA = """\
# HELP llamacpp:tokens_predicted_total Number of generation tokens processed
# TYPE llamacpp:tokens_predicted_total counter
llamacpp:tokens_predicted_total 12
llamacpp:tokens_predicted_seconds_total 0.109605
# HELP llamacpp:requests_processing Number of requests processing
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 1
llamacpp:requests_deferred 2
"""
VLLM = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 1.0
vllm:num_requests_waiting{engine="0",model_name="m"} 7.0
vllm:generation_tokens_total{engine="0",model_name="m"} 1.25e+03
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.5
"""
SGLANG = """\
sglang:num_running_reqs{model_name="m"} 5.0
sglang:num_queue_reqs{model_name="m"} 6.0
sglang:generation_tokens_total{model_name="m"} 7.0
"""
TRTLLM = """\
trtllm_num_requests_running{model_name="m"} 2
trtllm_num_requests_waiting{model_name="m"} 1
"""


def metrics(running: int, queued: int, tokens: int) -> ServerMetrics:
    return ServerMetrics(running=running, queued=queued, tokens_out_total=tokens)


@pytest.mark.parametrize(
    ("read", "page", "expected"),
    [
        (llama_cpp.read, LLAMA, metrics(1, 2, 12)),
        (vllm.read, VLLM, metrics(4, 7, 1_250)),
        (sglang.read, SGLANG, metrics(5, 6, 7)),
        (trtllm.read, TRTLLM, metrics(2, 1, 0)),
    ],
)
def test_each_family_reads_its_own_page(read: object, page: str, expected: ServerMetrics) -> None:
    assert read(page) == expected
    assert any_server.read(page) == expected
    others = {llama_cpp.read, vllm.read, sglang.read, trtllm.read} - {read}
    assert [other(page) for other in others] == [None] * 3


def test_busy_slots() -> None:
    page = '[{"id":0,"is_processing":false},{"id":1,"is_processing":true},{"id":2}]'
    assert llama_cpp.busy_slots(page) == 1
    for other in ("", "{}", "[1]", '{"error": {"code": 501}}', "[" * 9_999):
        assert llama_cpp.busy_slots(other) is None


@given(st.text())
def test_no_page_breaks_the_reader(page: str) -> None:
    assert all(math.isfinite(v) for v in parse(page).values())
    any_server.read(page)
    llama_cpp.busy_slots(page)


@given(st.text(alphabet='abc:_{}="1.e+-NaInf \n#', max_size=200))
def test_nearly_right_pages_do_not_either(page: str) -> None:
    assert all(math.isfinite(v) for v in parse(page).values())


def test_nan_and_infinity_are_left_out() -> None:
    assert parse('a NaN\nb +Inf\nc 1\nc{x="} y"} 2 1700000000\n') == {"c": 3.0}
