"""validate, schema, explain, and what every command does with bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scheduler.cli import root


def test_validate_counts_what_files_describe(hinterland, demo) -> None:
    result = hinterland("validate", demo)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("Valid: 3 sites, 3 countries, 3 links")
    data = json.loads(hinterland("-o", "json", "validate", demo).out)
    assert data["format_version"] == 1
    assert data["counts"]["sites"] == 3


def test_every_fault_is_shown_with_its_place(hinterland, demo, tmp_path: Path) -> None:
    for path in demo.glob("*.yaml"):
        text = path.read_text()
        (tmp_path / path.name).write_text(text.replace("country:", "contry:", 2))
    result = hinterland("validate", *sorted(tmp_path.glob("*.yaml")))
    assert (result.code, result.out) == (1, "")
    faults = [line for line in result.err.splitlines() if ": error: " in line]
    assert len(faults) >= 2
    assert any("sites.yaml:" in line and 'did you mean "country"' in line for line in faults)


@pytest.mark.parametrize("command", ["validate", "plan -f"])
def test_a_missing_file_is_one_clear_error(hinterland, command: str) -> None:
    result = hinterland(*command.split(), "nowhere.yaml")
    assert (result.code, result.out) == (1, "")
    assert "nowhere.yaml" in result.err


def test_schema_is_json_schema(hinterland) -> None:
    assert json.loads(hinterland("schema").out)["$schema"].startswith("https://json-schema.org/")


def test_explain_says_what_a_field_means_or_which_is_near(hinterland) -> None:
    assert "supplies" in hinterland("explain", "Site.spec.power").out
    result = hinterland("explain", "Site.spec.pwoer")
    assert (result.code, result.out) == (1, "")
    assert "power" in result.err


def test_usage_errors_have_their_own_code(hinterland) -> None:
    for arguments in (
        ["nonsense"],
        ["plan", "--gap", "x"],
        ["get", "things"],
        ["audit", "nothing"],
    ):
        result = hinterland(*arguments)
        assert (result.code, result.out) == (64, ""), arguments


def test_commands_that_need_a_server_say_how_to_get_one(hinterland, tmp_path: Path) -> None:
    for line in (
        "get sites",
        "rollout status",
        "failover rix-1 --drill",
        "token create --tenant a",
    ):
        result = hinterland(*line.split())
        assert (result.code, result.out) == (1, ""), line
        assert "hinterland up" in result.err
    (tmp_path / "state" / "server").mkdir(parents=True)
    api_file = tmp_path / "state" / "server" / "api.json"
    api_file.write_text("{")
    assert "unreadable" in hinterland("get", "sites").err
    api_file.write_text('{"url": "http://127.0.0.1:9", "token": "x"}')
    result = hinterland("get", "sites")
    assert (result.code, result.out) == (1, "")
    assert "does not answer" in result.err


def test_yaml_output_is_what_json_says(hinterland, demo) -> None:
    for kind in ("sites", "models", "services", "tenants", "routes", "plans"):
        as_json = json.loads(hinterland("get", kind, "-f", demo, "-o", "json").out)
        as_yaml = yaml.safe_load(hinterland("get", kind, "-f", demo, "-o", "yaml").out)
        assert as_yaml == as_json
        lines = hinterland("get", kind, "-f", demo, "-o", "jsonl").out.splitlines()
        assert [json.loads(line)["name"] for line in lines] == [
            row["name"] for row in as_json["items"]
        ]


def test_get_and_describe_read_files_too(hinterland, demo) -> None:
    out = hinterland("get", "sites", "-f", demo).out
    assert out.splitlines()[0].split()[:2] == ["NAME", "COUNTRY"]
    assert hinterland("get", "sites", "rix-1", "-f", demo).out.count("\n") == 2
    assert "country: LV" in hinterland("describe", "sites", "rix-1", "-f", demo).out
    missing = hinterland("describe", "sites", "rix-9", "-f", demo)
    assert (missing.code, missing.out) == (1, "")


def test_a_mistake_of_ours_is_one_line_too(hinterland, monkeypatch) -> None:
    monkeypatch.setitem(root.COMMANDS, "schema", "scheduler.cli.files:no_such_command")
    result = hinterland("schema")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("error: internal error: AttributeError")


def test_starting_needs_none_of_the_heavy_libraries() -> None:
    script = (
        "import sys\n"
        "from scheduler.cli.root import run\n"
        "code = run(['--help'])\n"
        "heavy = {'ray', 'pyomo', 'highspy', 'grpc', 'fastapi', 'pydantic', 'pint', 'yaml',"
        " 'httpx', 'networkx', 'numpy', 'uvicorn'} & set(sys.modules)\n"
        "assert code == 0 and not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in ("validate", "plan", "apply", "failover", "audit"):
        assert name in done.stdout
