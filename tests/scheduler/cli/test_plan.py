"""plan, show and diff: what people read, what is saved, and which exit code says what."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from optimizer.solve import solve
from scheduler.plan_file import read_plan

TINY = Path(__file__).with_name("tiny.yaml")

_OSLO_GRID = "\n      - {name: grid, kind: grid, limit: 10 kW, price: $0.04/kWh}\n"

GOLDEN = """\
Optimal, gap 0% (limit 1%, bound by milp), T s, state serial 0
  +   place  small-fp8  osl-1  1×l4  $0.19/Mtok  p99 116 ms
  +   place  small-fp8  rix-1  1×l4  $0.35/Mtok  p99 104 ms
  +   route  chat/clinic  rix-1 100%  p99 104/500 ms
  +   route  chat/shop  osl-1 100%  p99 116/500 ms
Cost $0.91/h   Power 148 W
Plan: 4 add, 0 change, 0 replace, 0 remove; 0 unchanged
"""


def _edited(folder: Path, *changes: tuple[str, str]) -> Path:
    text = TINY.read_text()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    path = folder / "edited.yaml"
    path.write_text(text)
    return path


def _without_times(text: str) -> str:
    return re.sub(r"\d+\.\d s,", "T s,", text)


def _core(text: str) -> str:
    """The golden lines: reasons and what binds have their own tests where they are written."""
    heads = ("Optimal", "  +", "  -", "  ~", "Cost", "Plan:")
    return "".join(line for line in text.splitlines(keepends=True) if line.startswith(heads))


def test_plan_text_is_golden(hinterland, tmp_path: Path) -> None:
    result = hinterland("plan", "-f", TINY, "--out", "p.plan")
    assert result.code == 0, result.err
    assert _core(_without_times(result.out)) == GOLDEN
    assert "hinterland apply p.plan" in result.err
    shown = hinterland("show", "p.plan")
    assert shown.out == result.out
    assert "\x1b[" not in result.out


def test_the_saved_plan_is_the_optimizers(hinterland) -> None:
    hinterland("plan", "-f", TINY, "--out", "p.plan", "--gap", "2%", "--time-limit", "60")
    saved = read_plan(Path("p.plan"))
    assert saved.problem.plan_policy.gap_limit == pytest.approx(0.02)
    assert saved.problem.plan_policy.time_limit_s == 60
    assert saved.plan == solve(saved.problem).plan
    assert (saved.binding.state_serial, saved.binding.fleet_paths) == (0, (str(TINY),))


def test_exit_code_2_only_when_asked_and_only_for_changes(hinterland, tmp_path: Path) -> None:
    assert hinterland("plan", "-f", TINY, "--detailed-exitcode", "--out", "a.plan").code == 2
    assert hinterland("diff", "a.plan", "a.plan", "--detailed-exitcode").code == 0
    other = _edited(tmp_path, ("rate: 3 req/s", "rate: 30 req/s"))
    hinterland("plan", "-f", other, "--out", "b.plan")
    changed = hinterland("diff", "a.plan", "b.plan", "--detailed-exitcode")
    assert changed.code == 2
    assert "Plan: " in changed.out and "4 unchanged" not in changed.out
    assert hinterland("diff", "a.plan", "b.plan").code == 0


def test_data_output_carries_everything(hinterland) -> None:
    hinterland("plan", "-f", TINY, "--out", "p.plan")
    data = json.loads(hinterland("plan", "-f", TINY, "-o", "json").out)
    saved = read_plan(Path("p.plan"))
    assert (data["format_version"], data["kind"], data["status"]) == (1, "plan", "optimal")
    assert data["plan_digest"] == saved.plan.plan_digest
    assert data["binding"]["problem_digest"] == saved.plan.problem_digest
    assert {one["mark"] for one in data["changes"]["groups"]} == {"add"}


def test_colour_only_where_it_is_wanted(hinterland, monkeypatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in hinterland("plan", "-f", TINY).out
    assert "\x1b[" not in hinterland("plan", "-f", TINY, "--no-color").out


def test_an_infeasible_policy_says_what_to_relax(hinterland, tmp_path: Path) -> None:
    path = _edited(
        tmp_path, ("rate: 2 req/s", "rate: 200 req/s"), ("gapLimit: 1 %", "maxShed: 0 %")
    )
    result = hinterland("plan", "-f", path, "--out", "p.plan")
    assert (result.code, result.out) == (3, "")
    assert not Path("p.plan").exists()
    assert re.search(r"pool_accelerators rix-1/gpu: 4 → 60 accelerators \(\$[\d.]+/h\)", result.err)
    data = hinterland("plan", "-f", path, "-o", "json")
    assert data.code == 3
    assert json.loads(data.out)["relaxations"][0]["subject"]


def test_a_class_no_site_may_serve_is_named(hinterland, tmp_path: Path) -> None:
    path = _edited(tmp_path, ("processingCountries: [LV]", "processingCountries: [CH]"))
    result = hinterland("plan", "-f", path, "--out", "p.plan")
    assert (result.code, result.out) == (4, "")
    assert not Path("p.plan").exists()
    assert "class chat/clinic, policy lv) may lawfully be served nowhere: rix-1: " in result.err
    assert "chat/shop" not in result.err
    data = hinterland("plan", "-f", path, "-o", "json")
    assert (data.code, json.loads(data.out)["status"]) == (4, "policy_denied")


def test_why_one_class_runs_where_it_runs(hinterland) -> None:
    hinterland("plan", "-f", TINY, "--out", "p.plan")
    why = hinterland("show", "p.plan", "--why", "chat/clinic")
    assert why.code == 0
    assert "100% at rix-1" in why.out
    assert "not osl-1: residency NO" in why.out
    unknown = hinterland("show", "p.plan", "--why", "chat/nobody")
    assert (unknown.code, unknown.out) == (1, "")
    assert "chat/clinic, chat/shop" in unknown.err


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("    pue: 1.25\n", "    peu: 1.25\n", 'did you mean "pue"'),
        ("budget: 10 kW", "budget: 10 km", "10 km"),
        ("rate: 2 req/s", "rate: -2 req/s", "-2"),
        ("rate: 2 req/s", "rate: .nan req/s", "nan"),
        ("  country: LV\n", "  country: LV\n  country: EE\n", "country"),
        ("site: rix-1", "site: rix-9", "rix-9"),
        ("metadata: {name: osl-1}", "metadata: {name: rix-1}", "rix-1"),
        ("residencyPolicy: lv", "residencyPolicy: &a lv", "edited.yaml"),
        (_OSLO_GRID, " []\n", "suppl"),
    ],
)
def test_bad_files_give_clear_errors_and_no_plan(
    hinterland, tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    path = _edited(tmp_path, (old, new))
    for command in (("validate", path), ("plan", "-f", path, "--out", "p.plan")):
        result = hinterland(*command)
        assert (result.code, result.out) == (1, "")
        assert complaint in result.err
        assert re.search(r"edited\.yaml:\d+:\d+: error: ", result.err)
    assert not Path("p.plan").exists()


def test_damaged_plans_are_refused_by_every_reader(hinterland) -> None:
    hinterland("plan", "-f", TINY, "--out", "p.plan")
    text = Path("p.plan").read_text()
    for damaged in (text[:-40], text.replace("10000", "9999", 1), "", "{}"):
        Path("p.plan").write_text(damaged)
        for command in (("show", "p.plan"), ("diff", "p.plan", "p.plan"), ("apply", "p.plan")):
            result = hinterland(*command)
            assert (result.code, result.out) == (1, ""), command
            assert "p.plan" in result.err


def test_planning_for_a_running_fleet_starts_from_what_runs(hinterland, server) -> None:
    first = solve(server.problem).plan
    assert first is not None
    server.plan, server.serial = first, 7
    result = hinterland("plan", "--out", "p.plan", "--detailed-exitcode")
    assert result.code == 0, result.out + result.err
    assert "state serial 7" in result.out
    assert "Plan: 0 add, 0 change, 0 replace, 0 remove" in result.out
    assert read_plan(Path("p.plan")).binding.state_serial == 7
    assert hinterland("diff", "p.plan", "--detailed-exitcode").code == 0
    applied = hinterland("apply", "p.plan", "--yes")
    assert applied.code == 0, applied.err
    assert server.proposals()[0].state_serial == 7


def test_files_of_a_running_fleet_plan_with_what_is_lost(hinterland, server, demo) -> None:
    server.problem = dataclasses.replace(server.problem, lost_sites=("waw-1",))
    result = hinterland("plan", "-f", demo, "--out", "p.plan")
    assert result.code == 0, result.err
    saved = read_plan(Path("p.plan"))
    assert saved.problem.lost_sites == ("waw-1",)
    assert "waw-1" not in {g.group.site_id for g in saved.plan.groups}
