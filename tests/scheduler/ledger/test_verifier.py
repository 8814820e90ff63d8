"""The auditor's one file: nothing done to an export goes unnoticed; it needs nothing of ours."""

from __future__ import annotations

import ast
import functools
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_builders import EU, accepted, as_bytes, fill, open_ledger, record, refused

from scheduler.ledger import LedgerReader, verifier
from scheduler.ledger.export import write_export
from sites.clock import ManualClock
from sites.execution import ExecutionDecision


@functools.cache
def _export() -> bytes:
    """A sound export of 21 entries under two checkpoints."""
    folder = Path(tempfile.mkdtemp())
    ledger = open_ledger(folder / "log")
    ledger.append("PlanAccepted", accepted(EU, at_ms=1_000))
    ledger.close()
    ledger = open_ledger(folder / "log", ManualClock(start_ms=9_000))
    ledger.append_records("rix-1", as_bytes(*(record(i) for i in range(20))))
    ledger.close()
    with LedgerReader.open(folder / "log") as reader:
        path, _ = write_export(reader, folder / "export")
    data = path.read_bytes()
    shutil.rmtree(folder)
    return data


def _check(data: bytes, **given: object) -> verifier.Verdict:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "export"
        path.write_bytes(data)
        return verifier.verify(path, **given)  # type: ignore[arg-type]


def test_a_sound_export_is_sound() -> None:
    verdict = _check(_export())
    assert (verdict.faults, verdict.breaches, verdict.late) == ([], [], [])
    assert (verdict.size, verdict.records, verdict.checkpoints) == (21, 20, 2)
    assert verdict.sequences == {"rix-1": 20}


def test_a_time_whose_records_were_lost_is_pointed_out(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "log")
    ledger.append("PlanAccepted", accepted(EU, at_ms=1_000))
    lost = refused(
        1, ExecutionDecision.UNRECORDED, started_at_ms=2_000, ended_at_ms=2_500, reason="3 writes"
    )
    ledger.append_records("rix-1", as_bytes(record(0), lost))
    ledger.close()
    verdict = verifier.verify(tmp_path / "log")
    assert (verdict.faults, verdict.breaches) == ([], [])
    assert verdict.unrecorded == ["entry 2: rix-1, 2000 to 2500 ms: 3 writes"]
    said = verifier.report(verdict).splitlines()
    assert said[-2] == "UNRECORDED: entry 2: rix-1, 2000 to 2500 ms: 3 writes"
    assert said[-1] == (
        "SOUND, no residency breach among what was recorded; some records were lost"
    )
    assert _check(_export()).unrecorded == []


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_any_flipped_bit_is_noticed(data: st.DataObject) -> None:
    export = bytearray(_export())
    at = data.draw(st.integers(0, len(export) - 1))
    export[at] ^= 1 << data.draw(st.integers(0, 7))
    assert _check(bytes(export)).faults


@given(st.integers(0, 2**32), st.sampled_from(["delete", "swap", "repeat", "cut"]))
@settings(max_examples=120, deadline=None)
def test_deletion_reorder_repetition_and_truncation_are_noticed(seed: int, change: str) -> None:
    lines, chosen = _export().splitlines(keepends=True), random.Random(seed)
    at = chosen.randrange(1, len(lines))
    if change == "delete":
        del lines[at]
    elif change == "repeat":
        lines.insert(at, lines[at])
    elif change == "cut":
        del lines[at:]
    else:
        other = chosen.choice([i for i in range(1, len(lines)) if i != at])
        lines[at], lines[other] = lines[other], lines[at]
    assert _check(b"".join(lines)).faults


@given(st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_garbage_is_a_fault_and_never_a_crash(data: bytes) -> None:
    assert _check(data).faults
    assert _check(b"SQLite format 3\x00" + data).faults


def test_a_rewritten_log_with_a_fresh_signature_fails_against_what_was_seen(tmp_path: Path) -> None:
    fill(tmp_path / "true")
    with LedgerReader.open(tmp_path / "true") as reader:
        head = reader.checkpoint()
        assert head is not None
        (tmp_path / "seen").write_text(head.note)
        key = reader.verifier_key
    shutil.copytree(tmp_path / "true", tmp_path / "forged")
    for name in ("ledger.sqlite", "checkpoint"):
        (tmp_path / "forged" / name).unlink()
    ledger = open_ledger(tmp_path / "forged")  # the operator's own key, another history
    ledger.append("PlanAccepted", accepted(EU, at_ms=1_000))
    ledger.append_records("rix-1", as_bytes(*(record(i, tokens_in=11) for i in range(20))))
    ledger.close()
    seen = (tmp_path / "seen",)
    assert not verifier.verify(tmp_path / "forged", key=key).faults
    assert any("fork" in one for one in verifier.verify(tmp_path / "forged", seen=seen).faults)
    assert not verifier.verify(tmp_path / "true", key=key, seen=seen).faults


def test_a_log_signed_by_another_key_fails_against_the_pinned_one(tmp_path: Path) -> None:
    fill(tmp_path / "one")
    fill(tmp_path / "other")
    with LedgerReader.open(tmp_path / "one") as reader:
        key = reader.verifier_key
    assert not verifier.verify(tmp_path / "one", key=key).faults
    assert verifier.verify(tmp_path / "other", key=key).faults


@pytest.mark.parametrize(
    ("changes", "breach"),
    [
        ({"serving_site_id": "osl-1", "serving_country": "NO"}, "processed in NO"),
        ({"serving_site_id": "osl-1"}, "claims LV, site is in NO"),
        ({"transit_countries": ("NO",)}, "crossed NO"),
        ({"ingress_site_id": "osl-1"}, "entered in NO"),
        ({"policy_digest": "sha256:none"}, "names residency policies no accepted plan holds"),
        ({"residency_policy_id": "other"}, "policy other or site is not in the plan"),
    ],
)
def test_every_way_to_be_unlawful_is_found(
    tmp_path: Path, changes: dict[str, object], breach: str
) -> None:
    ledger = open_ledger(tmp_path)
    ledger.append("PlanAccepted", accepted(EU, at_ms=1_000))
    ledger.append_records("rix-1", as_bytes(record(0), record(1, **changes)))
    ledger.close()
    verdict = verifier.verify(tmp_path)
    assert not verdict.faults
    assert len(verdict.breaches) >= 1
    assert all("entry 2" in one for one in verdict.breaches)
    assert any(breach in one for one in verdict.breaches)


def test_it_runs_alone_on_another_machine(tmp_path: Path) -> None:
    fill(tmp_path / "log")
    with LedgerReader.open(tmp_path / "log") as reader:
        lines, program = write_export(reader, tmp_path / "export")
    command = [sys.executable, "-I", str(program), str(lines)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("SOUND, no residency breach\n")
    lines.write_text(lines.read_text().replace("request-7", "request-8"))
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "NOT SOUND" in done.stdout


def test_it_is_small_and_imports_nothing_of_ours() -> None:
    text = Path(verifier.__file__).read_text()
    modules = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add((node.module or "").partition(".")[0])
    assert modules <= set(sys.stdlib_module_names) | {"cryptography"}
    assert len(text.splitlines()) <= 300
