"""The shipped library and the published errors against the public tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from optimizer.serving import library as library_module
from optimizer.serving.condense import Fitted, condensed, fit_tables, main, tables_in, text_of
from optimizer.serving.fit import Problem
from optimizer.serving.report import BEGIN, END, accelerators_left_out, report, tables_of

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "serving-points.md"
SHIPPED = Path(library_module.__file__).parent / "data" / library_module.DATA_FILE

IN_AIM, OUT_AIM = 0.15, 0.30


@pytest.fixture(scope="module")
def fitted(data_dir: Path) -> Fitted:
    return fit_tables(tables_in(data_dir))


def flat(value: object, path: str = "") -> dict[str, object]:
    if isinstance(value, dict):
        return {k: v for key, one in value.items() for k, v in flat(one, f"{path}/{key}").items()}
    if isinstance(value, list):
        return {k: v for i, one in enumerate(value) for k, v in flat(one, f"{path}/{i}").items()}
    return {path: value}


def test_the_shipped_file_is_what_the_tables_give(fitted: Fitted) -> None:
    """Figures to a fit's last digit: another processor's sums may round it the other way."""
    fresh = flat(json.loads(text_of(condensed(fitted))))
    kept = flat(json.loads(SHIPPED.read_text("utf-8")))
    near = {k for k, v in {**fresh, **kept}.items() if isinstance(v, float) and abs(v) < 2e-3}
    assert set(fresh) ^ set(kept) <= near  # effects that round to nothing are left out
    for path in set(fresh) & set(kept):
        one, other = fresh[path], kept[path]
        if path.startswith(("/effects", "/power", "/spreads")):
            assert one == pytest.approx(other, abs=2e-3), path
        else:
            assert one == other, path


def test_the_shipped_file_is_small_sorted_and_sourced() -> None:
    text = SHIPPED.read_text("utf-8")
    assert len(text) < 300_000
    data = json.loads(text)
    names = [tuple(one[k] for k in ("accelerator", "accelerators", "model", "precision",
                                    "framework")) for one in data["groups"]]  # fmt: skip
    assert names == sorted(set(names))
    assert all(one["source"] for one in data["groups"])
    assert all(one["source"] for one in (*data["accelerators"], *data["models"]))
    assert all(one["licence"] for one in data["sources"])
    assert text == text_of(data)


def percents(table: str) -> dict[str, list[float]]:
    """Every row of the page's tables: name (with its table) -> its percentages."""
    found: dict[str, list[float]] = {}
    part = 0
    for line in table.strip().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        part += not line.strip()
        values = [float(cell[:-2]) for cell in cells if cell.endswith(" %")]
        if values:
            found[f"{part} {cells[0]}"] = values
    return found


def test_hardware_left_out_is_met_within_the_aim_and_as_published(fitted: Fitted) -> None:
    said = percents(PAGE.read_text("utf-8").split(BEGIN)[1].split(END)[0])
    published = said["0 out: accelerator left out, throughput"]
    line = accelerators_left_out(fitted)
    assert line.median <= OUT_AIM
    assert 100 * line.median <= published[0] * 1.005 + 0.1


@pytest.mark.slow
def test_errors_are_not_above_the_published_ones(fitted: Fitted) -> None:
    page = PAGE.read_text("utf-8")
    published = percents(page.split(BEGIN)[1].split(END)[0])
    now = report(fitted)
    fresh = percents(tables_of(now))
    assert set(fresh) == set(published)
    assert len(fresh) > 90
    for name, values in fresh.items():
        for value, said in zip(values, published[name], strict=True):
            assert value <= said * 1.005 + 0.1, (name, value, said)
    summary = {line.name: line for line in now.summary}
    assert summary["in: measured point left out, throughput"].median <= IN_AIM
    for kind in ("throughput", "time of a decode step", "time per output token"):
        assert summary[f"in: pair left out, {kind}"].median <= IN_AIM
        assert summary[f"out: accelerator left out, {kind}"].median <= OUT_AIM
        assert summary[f"out: family left out, {kind}"].median <= OUT_AIM
    assert summary["in: pair left out, time to first token"].median <= IN_AIM
    assert summary["out: accelerator left out, time to first token"].median <= OUT_AIM


@pytest.mark.slow
@pytest.mark.parametrize(
    ("accelerator", "model", "kind"),
    [("mi300x", "", "rate"), ("h20-141gb", "llama-3.1-8b", "tpot")],
)
def test_leaving_out_is_fitting_anew_without(
    fitted: Fitted, accelerator: str, model: str, kind: str
) -> None:
    """The published errors step on from the whole fit; a fit from nothing says the same.

    Checked where little else is like what is left out.
    """
    problem = fitted.problem
    measured = [one.measurement for one in problem.observed]
    out = np.array([m.accelerator == accelerator and model in m.model for m in measured])
    shown = out & np.array([one.kind == kind for one in problem.observed])
    quick = problem.left_out(fitted.beta, [out])[shown]
    rest = Problem([o for o, gone in zip(problem.observed, out, strict=True) if not gone])
    effects = rest.effects(rest.solve())
    beta = np.array([effects.values.get(t, {}).get((lv, k), 0.0) for t, lv, k in problem.columns])
    whole = (problem.said(beta) - problem.value)[shown]
    assert np.median(np.abs(np.expm1(whole))) == pytest.approx(
        np.median(np.abs(np.expm1(quick))), abs=0.01
    )


def test_wrong_use_of_the_generator_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 64
    assert "usage" in capsys.readouterr().err
