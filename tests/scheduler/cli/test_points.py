"""points: import, show, estimate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scheduler.fleet_problem import read_problem

HEADER = (
    "accelerator,count,framework,model,in_out_tokens,batch,latency_s,total_tok_s,output_tok_s\n"
)
OWN = HEADER + "".join(
    f"Nvidia H100 GPU,1,vLLM,meta-llama/Meta-Llama-3-8B,512,{batch},1,{2 * rate},{rate}\n"
    for batch, rate in ((1, 125), (16, 1700), (64, 5200))
)
ASKED = ("--model", "llama-3.1-8b", "--accelerator", "H100")


def test_own_measurements_become_a_fleet_file_that_loads(hinterland, demo, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text(OWN)
    result = hinterland("points", "import", "own.csv", "--out", "points.yaml")
    assert (result.code, result.err) == (0, "")
    assert result.out == "points.yaml: 1 serving points of 3 measurements\n"
    catalog = read_problem((demo, tmp_path / "points.yaml")).catalog
    (point,) = [p for p in catalog.serving_points if p.variant_id == "llama-3.1-8b-bf16"]
    assert (point.point_id, point.concurrency) == ("llama-3.1-8b-bf16@h100-x1", 64)
    assert not point.estimated
    rate = 512 / point.replica_seconds(input_tokens=512, output_tokens=512)
    assert rate == pytest.approx(5200, rel=2e-3)
    assert "Argonne" in point.source
    first = (tmp_path / "points.yaml").read_bytes()
    hinterland("points", "import", "own.csv", "--out", "points.yaml")
    assert (tmp_path / "points.yaml").read_bytes() == first


def test_bad_tables_are_refused_whole_and_nothing_is_written(hinterland, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text(OWN.replace(",1700", ",x").replace(",125", ",-1"))
    result = hinterland("points", "import", "own.csv", "--out", "points.yaml")
    assert result.code == 1
    assert "own.csv:2:9: error: output_tok_s: -1" in result.err
    assert "own.csv:3:9: error: output_tok_s: 'x' is not a number" in result.err
    assert not (tmp_path / "points.yaml").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            OWN.replace("Nvidia H100 GPU", "h1000"),
            "own.csv:2:1: error: accelerator: 'h1000' has no specification here; "
            'did you mean "h100"?',
        ),
        (
            OWN.replace("Meta-Llama-3-8B,512,16", "our-own,512,16"),
            "own.csv:3:4: error: model: 'our-own' has no architecture here; `hinterland points",
        ),
        (
            "accelerator,model,precision,framework,input_tokens,output_tokens,concurrency,"
            "output_tok_s,ttft_ms,itl_ms,source\nH100,Llama-3.1-8B,fp7,own,9,9,1,93,,,lab\n",
            "own.csv:2:3: error: precision: 'fp7' has no size per parameter here",
        ),
        ("a,b\n1,2\n", "fits no known format"),
    ],
)
def test_what_has_no_specification_is_named(hinterland, tmp_path: Path, text, said) -> None:
    (tmp_path / "own.csv").write_text(text)
    result = hinterland("points", "import", "own.csv", "--out", "points.yaml")
    assert result.code == 1
    assert said in result.err
    assert not (tmp_path / "points.yaml").exists()


def test_times_nobody_meets_leave_nothing_to_write(hinterland, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text(OWN)
    result = hinterland("points", "import", "own.csv", "--tpot", "1ms", "--out", "points.yaml")
    assert result.code == 1
    assert "limit 1 ms" in result.err
    assert "raise --ttft and --tpot" in result.err


def test_estimate_says_figures_percentile_and_origin(hinterland) -> None:
    result = hinterland(
        "points", "estimate", *ASKED, "--count", "1", "--input-tokens", "150",
        "--output-tokens", "395", "--ttft", "500ms", "--tpot", "50ms",
    )  # fmt: skip
    assert (result.code, result.err) == (0, "")
    assert "(measured)" in result.out
    assert "percentile 99" in result.out
    assert "ML.ENERGY" in result.out
    data = json.loads(hinterland("-o", "json", "points", "estimate", *ASKED).out)
    assert data["serving_point"]["variant_id"] == "llama-3.1-8b-bf16"
    assert data["serving_point"]["tpot_ms"] <= 100


def test_estimate_refuses_with_limit_and_remedy(hinterland) -> None:
    large = ("--model", "llama-3.1-70b", "--accelerator", "h100")
    result = hinterland("points", "estimate", *large)
    assert result.code == 3
    assert "memory" in result.err
    assert "use more accelerators" in result.err
    assert hinterland("points", "estimate", *ASKED, "--tpot", "50").code == 64
    result = hinterland("points", "estimate", "--model", "llama-3.1-8", "--accelerator", "h100")
    assert 'did you mean "llama-3.1-8b"' in result.err


def test_show_lists_measured_groups_and_known_names(hinterland) -> None:
    result = hinterland("points", "show", "--model", "qwen3-8b")
    assert result.code == 0
    assert [line.split()[1] for line in result.out.splitlines()[1:]] == ["b200", "h100"]
    data = json.loads(hinterland("-o", "json", "points", "show", "--names").out)
    assert "mi300x" in data["accelerators"]
    assert "fp8" in data["precisions"]
