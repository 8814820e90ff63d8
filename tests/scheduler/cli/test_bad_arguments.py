"""Arguments nobody should give: devices as files, empty names, times no clock can count."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

TINY = Path(__file__).with_name("tiny.yaml")


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "1e400", "x"])
@pytest.mark.parametrize(
    "command", ["rollout resume --yes --timeout", f"plan -f {TINY} --time-limit"]
)
def test_a_time_no_clock_can_count_is_a_usage_error(
    hinterland, server, command: str, seconds: str
) -> None:
    result = hinterland(*command.split(), seconds)
    assert (result.code, result.out) == (64, "")
    assert "internal" not in result.err
    assert server.proposals() == []


@pytest.mark.parametrize(
    "command", ["validate", "show", "apply --yes", "diff", "plan -f", f"plan -f {TINY} --out"]
)
def test_an_empty_path_is_a_usage_error_and_not_this_folder(hinterland, command: str) -> None:
    result = hinterland(*command.split(), "")
    assert (result.code, result.out) == (64, "")
    assert "is empty; name a file or folder" in result.err


def test_a_device_is_no_plan_and_is_never_replaced(hinterland) -> None:
    endless = hinterland("show", "/dev/zero")
    assert (endless.code, endless.out) == (1, "")
    assert "not a plan file" in endless.err
    for name in ("/dev/null", "."):
        result = hinterland("plan", "-f", TINY, "--out", name)
        assert (result.code, result.out) == (1, "")
        assert "plan not written: not the name of a plain file" in result.err
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_plan_that_cannot_be_written_says_where(hinterland) -> None:
    result = hinterland("plan", "-f", TINY, "--out", "no/such/folder/p.plan")
    assert (result.code, result.out) == (1, "")
    assert "no/such/folder/p.plan: plan not written: No such file or directory" in result.err


@pytest.mark.parametrize("name", ["", "..", "../x", "rix-1/../waw-1", "no such site", "é?#%00"])
@pytest.mark.parametrize(
    "command",
    ["site drain --yes", "site cordon --yes", "failover --drill", "rollout status", "describe"],
)
def test_a_name_of_nothing_asks_for_nothing_else(
    hinterland, server, command: str, name: str
) -> None:
    words = ["describe", "sites"] if command == "describe" else command.split()
    if (words[:2], name) == (["rollout", "status"], ""):
        return  # no name there means the newest change
    result = hinterland(*words, name)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("error: ") and result.err.count("\n") == 1
    assert server.events == []


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("name: osl-1}", "name: a/../../x}", 'a site\'s name has no "/"'),
        (
            "  pools:",
            "  gateway: {client: 'h:99999', peer: 'h:2'}\n  pools:",
            "between 1 and 65535",
        ),
        ("  pools:", "  gateway: {client: 'h:0', peer: 'h:2'}\n  pools:", "between 1 and 65535"),
        ("  pools:", "  gateway: {client: 'h:2', peer: 'h:2'}\n  pools:", "'h:2' is given twice"),
    ],
)
def test_names_and_addresses_no_site_can_have(
    hinterland, tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    path = tmp_path / "edited.yaml"
    text = TINY.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    result = hinterland("validate", path)
    assert (result.code, result.out) == (1, "")
    assert complaint in result.err
    assert re.search(r"edited\.yaml:\d+:\d+: error: ", result.err)


def test_what_is_no_ledger_is_named(hinterland, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xb7\x00\xff")
    for name, why in (("nowhere", "No such file"), ("binary", "'utf-8' codec")):
        result = hinterland("audit", "verify", name)
        assert result.code == 1
        assert f"{name}: {why}" in result.out
        assert "Error" not in result.out and "NOT SOUND" in result.out
