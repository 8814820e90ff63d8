"""Each table format read into measurements, and what bad tables come to."""

from __future__ import annotations

import pytest

from optimizer.serving.formats import FORMATS, read_tables
from optimizer.serving.measurement import Measurement
from optimizer.serving.table import MeasurementFileError

RUN = "suite,tier,run,accelerator,count,mem_gb,tp,pp,model,params_b,precision,framework,"
RUN += "framework_version,date,"
H100 = "A,verified,run-1,NVIDIA H100 80GB HBM3,8,79.6,2,1,meta-llama/Meta-Llama-3-8B-Instruct,8.0,"
H100 += "BF16,vLLM,0.7.3,2026-04-14,"
TIMES = "ttft_ms_p50,ttft_ms_p90,ttft_ms_p99,tpot_ms_p50,tpot_ms_p90,tpot_ms_p99"
BATCH = "accelerator,count,framework,model,in_out_tokens,batch,latency_s,total_tok_s,"

TABLES = {
    "accelmark-offline": f"{RUN}concurrency,output_tok_s,total_tok_s,power_w_avg\n"
    f"{H100}32,7900,,\n",
    "accelmark-online": f"{RUN}target_qps,achieved_qps,{TIMES},sla_ttft_ms,sla_met,max_valid_qps\n"
    f"{H100}5,5,100,200,300,20,22,30,500,True,5\n{H100}99,99,1,2,3,4,5,6,500,False,5\n",
    "accelmark-interactive": f"{RUN}{TIMES}\n{H100}30,40,50,8,9,10\n",
    "accelmark-sustained": f"{RUN}concurrency,output_tok_s,throttle_ratio\n{H100}8,562.5,0.97\n",
    "ml-energy": "task,model,total_params_b,active_params_b,precision,gpu,num_gpus,tp,dp,ep,"
    "max_num_seqs,avg_batch,avg_output_tokens,output_tok_s,itl_p50_ms,itl_p90_ms,itl_p95_ms,"
    "itl_p99_ms,avg_power_w,energy_j_per_output_token,energy_j_per_request\n"
    "gpqa,Qwen/Qwen3-14B,14,14,bfloat16,B200,1,1,1,1,8,8.0,7026.2,234.06,1,2,3,4,319.8,1.366,9\n",
    "argonne": f"{BATCH}output_tok_s\nNvidia A100 GPU,2,vLLM,Qwen/Qwen2-7B,128,16,2.3,1782,891\n",
    "argonne-power": f"{BATCH}avg_power_w\n"
    "Nvidia H100 GPU,1,TensorRT-LLM,meta-llama/Llama-2-7b-hf,1024,16,11.6,2000,400\n",
    "argonne-ttft": "accelerator,count,framework,model,input_tokens,output_tokens,batch,ttft_s,"
    "e2e_latency_s\nAMD MI300X GPU,1,vLLM,meta-llama/Llama-2-7b-hf,1024,1,16,2.25,\n",
    "splitwise": "model,hardware,tensor_parallel,prompt_size,batch_size,token_size,prompt_ms,"
    "token_ms,e2e_ms,avg_power_frac_tdp,peak_power_frac_tdp,repeats,source\n"
    "llama2-70b,h100-80gb,8,512,2,128,131,37,4823,,,5,splitwise-sim\n",
    "helix": "model,accelerator,phase,tokens,ms_per_layer\n"
    "llama1_30b,a100,decode,2.0,0.9\nllama2_70b,t4x4,prompt,100,2\n",
    "trtllm-throughput": "model,accelerator,precision,parallelism,num_gpus,input_tokens,"
    "output_tokens,batch,output_tok_s_per_gpu,source\n"
    "gpt-oss-120b,H100,FP8,DEP4,4,1000,1000,,4685,trtllm perf-overview 03e27c7\n"
    "LLaMA 70B,A100,FP16,TP4,4,128,128,,500,trtllm performance.md 138f96d\n",
    "trtllm-first-token": "model,accelerator,precision,tp,input_tokens,ttft_ms_batch1\n"
    "LLaMA 70B,H100 SXM,FP8,4,128,26\n",
    "edge": "accelerator,model,precision,framework,input_tokens,output_tokens,concurrency,"
    "output_tok_s,ttft_ms,itl_ms,source\n"
    "H100,Llama-3.1-8B,16-bit,Koyeb GPU benchmarks,,,8,688,,,x\n",
}

# accelerator, count, model, precision, framework; input, output, at once; rate, ttft, tpot; watts
GOLDEN = {
    "accelmark-offline": [
        ("h100", 2, "llama-3.1-8b", "bf16", "vllm-0.7-2026", 265, 350, 100, 7900, None, None, None)
    ],
    "accelmark-online": [
        ("h100", 2, "llama-3.1-8b", "bf16", "vllm-0.7-2026", 265, 350, 34.0997, None, t, p, None)
        for t, p in ((100, 20), (200, 22), (300, 30))
    ],
    "accelmark-interactive": [
        ("h100", 2, "llama-3.1-8b", "bf16", "vllm-0.7-2026", 265, 350, 1, None, t, p, None)
        for t, p in ((30, 8), (40, 9), (50, 10))
    ],
    "accelmark-sustained": [
        ("h100", 2, "llama-3.1-8b", "bf16", "vllm-0.7-2026", 265, 350, 8, 562.5, None, None, None)
    ],
    "ml-energy": [
        ("b200", 1, "qwen3-14b", "bf16", "vllm-2025", 250, 7026.2, 8, 234.06, None, None, 319.8)
    ],
    "argonne": [
        ("a100-40gb", 2, "qwen2.5-7b", "bf16", "vllm-2024", 128, 128, 16, 891, None, None, None)
    ],
    "argonne-power": [
        ("h100", 1, "llama-2-7b", "bf16", "tensorrt-llm-2024", 1024, 1024, 16, 1000, None, None,
         400)
    ],
    "argonne-ttft": [
        ("mi300x", 1, "llama-2-7b", "bf16", "vllm-2024", 1024, 1, 16, None, 2250, None, None)
    ],
    "splitwise": [
        ("h100", 8, "llama-2-70b", "bf16", "splitwise-sim-2023", 512, 128, 2, None, 131, 37, None)
    ],
    "helix": [
        ("a100-40gb", 1, "llama-30b", "bf16", "helix-2024", 763, 1, 2, None, None, 54, None),
        ("t4", 4, "llama-2-70b", "bf16", "helix-2024", 100, 1, 1, None, 160, None, None),
    ],
    "trtllm-throughput": [
        ("h100", 4, "gpt-oss-120b", "fp8", "tensorrt-llm-2025", 1000, 1000, None, 18740, None, None,
         None)
    ],
    "trtllm-first-token": [
        ("h100", 4, "llama-2-70b", "fp8", "tensorrt-llm-2023", 128, 1, 1, None, 26, None, None)
    ],
    "edge": [
        ("h100", 1, "llama-3.1-8b", "bf16", "koyeb-2024", 128, 128, 8, 688, None, None, None)
    ],
}  # fmt: skip


def read(text: str | bytes, *, format_name: str = "") -> tuple[Measurement, ...]:
    content = text.encode() if isinstance(text, str) else text
    return read_tables([("t.csv", content)], format_name=format_name)


def faults(text: str | bytes, *, format_name: str = "") -> list[str]:
    with pytest.raises(MeasurementFileError) as caught:
        read(text, format_name=format_name)
    return str(caught.value).splitlines()


def figures(one: Measurement) -> tuple[object, ...]:
    return (
        *one.group,
        one.input_tokens,
        one.output_tokens,
        one.concurrency,
        one.output_tok_s,
        one.ttft_ms,
        one.tpot_ms,
        one.power_w,
    )


def test_every_format_has_a_golden_table() -> None:
    assert sorted(TABLES) == sorted(GOLDEN) == sorted(one.name for one in FORMATS)


@pytest.mark.parametrize("name", sorted(TABLES))
def test_a_table_reads_as_its_golden_measurements_guessed_or_named(name: str) -> None:
    guessed = read(TABLES[name])
    assert [one.table for one in guessed] == [name] * len(GOLDEN[name])
    for one, golden in zip(guessed, GOLDEN[name], strict=True):
        assert figures(one) == pytest.approx(golden)
    assert read(TABLES[name], format_name=name) == guessed


def test_percentiles_of_the_times_are_kept() -> None:
    assert [m.percentile for m in read(TABLES["accelmark-interactive"])] == [50, 90, 99]
    assert [m.percentile for m in read(TABLES["ml-energy"])] == [0]


def test_energy_per_token_is_read_or_follows_from_the_draw() -> None:
    assert [m.energy_j_per_token for m in read(TABLES["ml-energy"])] == [1.366]
    assert [m.energy_j_per_token for m in read(TABLES["argonne-power"])] == [0.4]


def test_every_fault_is_named_at_once_with_its_place() -> None:
    good = TABLES["argonne"].splitlines()
    bad = [
        good[0],
        good[1].replace(",891", ",-4"),
        good[1].replace(",16,", ",many,").replace("Qwen/Qwen2-7B", ""),
        good[1] + ",9",
        good[1].replace("Nvidia A100 GPU,2", "Nvidia A100 GPU,2.5"),
        good[1].replace(",891", ",nan"),
    ]
    said = faults("\n".join(bad))
    assert said == [
        "t.csv:2:9: error: output_tok_s: -4 must be finite and above 0",
        "t.csv:3:4: error: model: is empty; give a name",
        "t.csv:3:6: error: batch: 'many' is not a number",
        "t.csv:4:1: error: has 10 cells, the header 9",
        "t.csv:5:2: error: count: 2.5 is not a whole number from 1 to 4096",
        "t.csv:6:9: error: output_tok_s: nan must be finite and above 0",
    ]


def test_a_bad_file_keeps_the_good_one_out_too() -> None:
    pair = [("good.csv", TABLES["argonne"].encode()), ("bad.csv", b"a,b\n1,2\n")]
    with pytest.raises(MeasurementFileError) as caught:
        read_tables(pair)
    assert {one.file for one in caught.value.faults} == {"bad.csv"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no header"),
        (b"\xff\xfe\x00", "no header"),
        (b"a,b\n1,2\n", "fits no known format"),
        (b"a,a\n1,2\n", "is there twice"),
        (TABLES["argonne"].encode() + b"\xff\xff\n", "is not UTF-8"),
        (TABLES["argonne"].splitlines()[0].encode(), "no row of this argonne table"),
        (TABLES["argonne"].encode() + b'x,"unclosed\n', "no CSV"),
        (TABLES["argonne"].replace("Nvidia A100 GPU", "!!!").encode(), "not an identifier"),
        (TABLES["helix"].replace("llama1_30b", "llama9").encode(), "number of layers"),
        (TABLES["accelmark-online"].replace("True", "maybe").encode(), "neither True nor False"),
    ],
)
def test_what_is_no_table_is_refused_in_one_sentence(content: bytes, said: str) -> None:
    lines = faults(content)
    assert said in "\n".join(lines)
    assert all(line.startswith("t.csv:") for line in lines)


def test_an_unknown_or_unfitting_format_is_refused() -> None:
    assert 'did you mean "argonne"' in faults(TABLES["argonne"], format_name="argone")[0]
    assert "also has column" in faults(TABLES["argonne"], format_name="helix")[0]


def online(suite: str, *, rate_rps: float, tpot_ms: float) -> float:
    run = f"{suite}{H100[1:]}{rate_rps},{rate_rps},100,200,300,{tpot_ms},99,99,500,True,5\n"
    found = read(TABLES["accelmark-online"].splitlines()[0] + "\n" + run)[0].concurrency
    assert found is not None
    return found


@pytest.mark.parametrize(("suite", "requests"), [("A", 300), ("B", 200), ("F", 300)])
@pytest.mark.parametrize(("rate_rps", "tpot_ms"), [(0.1, 20), (10, 30), (25, 60), (100, 40)])
def test_a_run_of_so_many_requests_never_holds_more_at_once(
    suite: str, requests: int, rate_rps: float, tpot_ms: float
) -> None:
    """Against a count, arrival by arrival, of who is there at once while each request lives."""
    tokens = 210 if suite == "F" else 350
    life_s = (100 + tokens * tpot_ms) / 1e3
    starts = [i / rate_rps for i in range(requests)]
    met = [sum(max(0.0, life_s - abs(one - other)) for other in starts) / life_s for one in starts]
    counted = sum(met) / len(met)
    said = online(suite, rate_rps=rate_rps, tpot_ms=tpot_ms)
    assert said == pytest.approx(max(1.0, counted), rel=0.15, abs=0.6)
    assert said <= requests


def test_suites_have_their_own_lengths_and_queues() -> None:
    head = TABLES["accelmark-offline"].splitlines()[0]
    found = read(head + "\n" + "".join(f"{suite}{H100[1:]}8,7900,,\n" for suite in "ABDEF"))
    said = [(one.input_tokens, one.output_tokens, one.concurrency) for one in found]
    usual = (265, 350, 100)
    assert said == [usual, usual, (28_640, 256, 50), (265, 350, 150), (103, 210, 200)]


def test_a_quantised_offline_run_is_another_engine_than_a_served_one() -> None:
    """AccelMark's offline W4A16 runs force the plain GPTQ kernel; its servers pick their own."""
    offline, sustained = (
        read(TABLES[name].replace(",BF16,", ",W4A16,"))[0].framework
        for name in ("accelmark-offline", "accelmark-sustained")
    )
    assert (offline, sustained) == ("gptq-vllm-0.7-2026", "vllm-0.7-2026")


def test_users_that_wait_do_not_count_as_served_at_once() -> None:
    """301 tok/s of 150 tokens after 1 080 ms at 61.7 ms a token: 20.7 at once, not 64 users."""
    row = "A10G,Meta-Llama-3-8B,FP16,vLLM 0.4.3,550,150,64,301,1080,61.7,x\n"
    head = TABLES["edge"].splitlines()[0]
    assert read(f"{head}\n{row}")[0].concurrency == pytest.approx(20.74, abs=0.01)
    few = row.replace(",64,301,", ",4,301,")
    assert read(f"{head}\n{few}")[0].concurrency == 4


def test_own_names_import_as_identifiers() -> None:
    own = TABLES["argonne"].replace("Nvidia A100 GPU", "Our Card (v2)").replace("Qwen2-7B", "My_LM")
    assert read(own)[0].group[:3] == ("our-card-v2", 2, "my-lm")
