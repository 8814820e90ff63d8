"""Commands against a server: real HTTP to the real API, the control loop in memory."""

from __future__ import annotations

import dataclasses
import json
import stat
from pathlib import Path

import httpx
import pytest
import stand_in
from stand_in import MemoryControl

from optimizer.solve import solve
from scheduler.events import CordonRequested, ResumeRequested, UncordonRequested, UndoRequested
from scheduler.fleet_problem import description_digest
from scheduler.ledger import Ledger
from scheduler.plan_file import Binding, SavedPlan, read_plan, summary_of, write_plan
from sites.clock import SystemClock
from sites.digest import digest
from sites.hub_messages import ConnectionState


@pytest.fixture
def plan_path(control: MemoryControl, demo: Path, tmp_path: Path) -> Path:
    """A saved plan of the demo fleet, made at the server's state."""
    outcome = solve(control.problem)
    assert outcome.plan is not None
    saved = SavedPlan(
        problem=control.problem,
        plan=outcome.plan,
        before=None,
        summary=summary_of(outcome),
        binding=Binding(
            state_serial=control.serial,
            fleet_digest=description_digest(control.problem),
            problem_digest=digest(control.problem),
            fleet_paths=(str(demo),),
        ),
    )
    write_plan(tmp_path / "p.plan", saved)
    return tmp_path / "p.plan"


def test_apply_sends_the_plan_and_shows_every_step(hinterland, server, plan_path) -> None:
    result = hinterland("apply", plan_path, "--yes")
    assert result.code == 0, result.err
    (proposal,) = server.proposals()
    assert proposal.plan == solve(server.problem).plan
    assert (proposal.state_serial, proposal.allow_empty) == (1, False)
    assert "1  move   rix-1  set_routes  version 2" in result.out
    assert result.out.splitlines()[-1].startswith("Receipt apply-1-1: apply done, 1 of 1 steps")


def test_apply_asks_first(hinterland, server, plan_path) -> None:
    result = hinterland("apply", plan_path)
    assert result.code == 64
    assert "--yes" in result.err
    assert server.events == []


def test_a_stale_plan_is_refused_here_and_by_the_gate(hinterland, server, plan_path) -> None:
    server.answer = stand_in.stale
    result = hinterland("apply", plan_path, "--yes")
    assert result.code == 5
    assert "plan again" in result.out
    server.serial, before = 2, len(server.events)
    result = hinterland("apply", plan_path, "--yes")
    assert (result.code, result.out) == (5, "")
    assert "made at state serial 1, the fleet is at 2" in result.err
    assert len(server.events) == before


def test_a_plan_of_changed_files_is_stale(hinterland, server, plan_path, demo, tmp_path) -> None:
    for path in demo.glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text().replace("pue: 1.", "pue: 2."))
    saved = read_plan(plan_path)
    paths = tuple(str(p) for p in sorted(tmp_path.glob("*.yaml")))
    moved = dataclasses.replace(saved.binding, fleet_paths=paths)
    write_plan(plan_path, dataclasses.replace(saved, binding=moved))
    result = hinterland("apply", plan_path, "--yes")
    assert result.code == 5
    assert "was changed since" in result.err


def test_a_partial_apply_says_what_was_done_and_how_to_go_on(hinterland, server, plan_path) -> None:
    server.answer = stand_in.half
    result = hinterland("apply", plan_path, "--yes")
    assert result.code == 6
    assert "1 of 3 steps done, 1 not started, 1 failed" in result.out
    assert "Step 2 at rix-1: port 1 is taken" in result.out
    assert "rollout resume" in result.err and "rollout undo" in result.err


def test_a_rollout_outlasting_the_timeout_goes_on(hinterland, server, plan_path) -> None:
    server.answer = stand_in.silent
    result = hinterland("apply", plan_path, "--yes", "--timeout", "0.05")
    assert result.code == 1
    assert "it still runs" in result.err


def test_an_edited_plan_changes_nothing(hinterland, server, plan_path) -> None:
    plan_path.write_text(plan_path.read_text().replace('"replicas": 1', '"replicas": 2', 1))
    result = hinterland("apply", plan_path, "--yes")
    assert (result.code, result.out, server.events) == (1, "", [])
    assert "edited or damaged" in result.err


def test_rollout_commands(hinterland, server, plan_path) -> None:
    assert "no change was made yet" in hinterland("rollout", "history").err
    hinterland("apply", plan_path, "--yes")
    assert hinterland("rollout", "resume", "--yes").code == 0
    assert hinterland("rollout", "undo", "apply-1-1", "--yes").code == 0
    resumed, undone = server.events[1:]
    assert isinstance(resumed, ResumeRequested) and resumed.stopped_receipt_id == ""
    assert isinstance(undone, UndoRequested) and undone.undone_receipt_id == "apply-1-1"
    lines = hinterland("rollout", "history").out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["apply-1-1", "resume-1-2", "undo-1-3"]
    assert "Receipt undo-1-3" in hinterland("rollout", "status").out
    missing = hinterland("rollout", "status", "nothing")
    assert missing.code == 1
    assert "no receipt" in missing.err


def test_site_commands(hinterland, server) -> None:
    assert hinterland("site", "cordon", "rix-1", "--yes", "--reason", "disk").code == 0
    assert "connected,cordoned" in hinterland("get", "sites", "rix-1").out
    assert hinterland("site", "drain", "rix-1", "--yes").code == 0
    assert hinterland("failover", "rix-1", "--yes").code == 0
    assert hinterland("site", "uncordon", "rix-1", "--yes", "--reason", "new disk").code == 0
    cordon, drain, failover, uncordon = server.events
    assert cordon == CordonRequested(receipt_id="cordon-1-1", site_id="rix-1", reason="disk")
    assert isinstance(drain, CordonRequested) and drain.drain
    assert isinstance(failover, CordonRequested) and failover.reason == "failover by operator"
    assert isinstance(uncordon, UncordonRequested) and uncordon.reason == "new disk"
    unknown = hinterland("site", "drain", "rix-9", "--yes")
    assert unknown.code == 1
    assert "rix-9" in unknown.err and "get sites" in unknown.err


def test_a_drill_changes_nothing_and_says_who_would_be_unserved(hinterland, server) -> None:
    shed, moved = (c.class_id for c in server.problem.classes[:2])
    result = hinterland("failover", "rix-1", "--drill")
    assert (result.code, server.events) == (3, [])
    assert result.out.startswith("DRILL: nothing changes.")
    lines = {line.split()[0]: line for line in result.out.splitlines() if line}
    assert lines[shed].endswith("UNSERVED")
    assert lines[moved].endswith("SERVED") and "0→100%" in lines[moved]
    data = json.loads(hinterland("failover", "rix-1", "--drill", "-o", "json").out)
    assert [row["result"] for row in data["flows"]] == ["UNSERVED", "SERVED"]


def test_tokens_are_for_known_tenants(hinterland, server) -> None:
    tenant = server.problem.tenants[0].tenant_id
    made = hinterland("token", "create", "--tenant", tenant)
    assert (made.code, made.out.count(".")) == (0, 2)
    unknown = hinterland("token", "create", "--tenant", "nobody")
    assert unknown.code == 1
    assert tenant in unknown.err


def test_the_api_refuses_strangers_and_speaks_problem_documents(server, tmp_path) -> None:
    api_file = tmp_path / "state" / "server" / "api.json"
    assert stat.S_IMODE(api_file.stat().st_mode) == 0o600
    entry = json.loads(api_file.read_text())
    with httpx.Client(base_url=entry["url"], trust_env=False) as client:
        for token in ("", "Bearer", "Bearer wrong", "Basic " + entry["token"]):
            for path in ("/v1/state", "/v1/ledger/export", "/v1/audit/residency"):
                answer = client.get(path, headers={"Authorization": token})
                assert answer.status_code == 401
                assert answer.headers["content-type"] == "application/problem+json"
        client.headers["Authorization"] = f"Bearer {entry['token']}"
        assert client.get("/v1/nothing").json()["code"] == "not_found"
        assert client.get("/v1/audit/residency").json()["code"] == "refused"
        for body in (b"", b"{", b"[]", b'{"plan": {}, "allow_empty": false}', b"[" * 100_000):
            answer = client.post("/v1/plans", content=body)
            assert (answer.status_code, answer.json()["code"]) == (422, "refused")
        assert server.events == []


def test_audit_through_the_server_and_without_it(hinterland, server, tmp_path) -> None:
    tenant = server.problem.tenants[0].tenant_id
    empty = hinterland("audit", "residency", "--tenant", tenant)
    assert empty.code == 1
    ledger = Ledger(tmp_path / "state" / "ledger", clock=SystemClock())
    ledger.append("Note", {})
    ledger.close()
    keys = tmp_path / "state" / "pki" / "tenants"
    (keys / f"{tenant}.pseudonym").write_text("00" * 32)
    result = hinterland("audit", "residency", "--tenant", tenant)
    assert result.code == 0, result.err
    assert "Residency breaches: 0" in result.out
    assert "Complete: entries 0-0" in result.out
    server.spooled = 3
    behind = hinterland("audit", "residency", "--tenant", tenant)
    assert behind.code == 1
    assert "INCOMPLETE" in behind.out and "agent has up to 2" in behind.out
    server.state = ConnectionState.UNREACHABLE
    assert "Complete: entries" in hinterland("audit", "residency", "--tenant", tenant).out
    (tmp_path / "state" / "server" / "api.json").unlink()
    offline = hinterland("audit", "residency", "--tenant", tenant)
    assert offline.code == 0
    assert "from the ledger alone" in offline.err
    assert "unknown here" in hinterland("audit", "residency", "--tenant", "nobody").err


def test_verify_and_export(hinterland, tmp_path) -> None:
    ledger = Ledger(tmp_path / "state" / "ledger", clock=SystemClock())
    ledger.append("Note", {})
    ledger.close()
    assert hinterland("audit", "verify").out.endswith("SOUND, no residency breach\n")
    assert hinterland("audit", "export", "--out", "copy").code == 0
    assert sorted(p.name for p in Path("copy").iterdir()) == ["ledger.jsonl", "verifier.py"]
    assert hinterland("audit", "verify", "copy/ledger.jsonl").code == 0
    again = hinterland("audit", "export", "--out", "copy")
    assert again.code == 1
    assert "exists already" in again.err
    text = Path("copy/ledger.jsonl").read_text()
    Path("copy/ledger.jsonl").write_text(text.replace('"Note"', '"Nota"'))
    edited = hinterland("audit", "verify", "copy/ledger.jsonl", "-o", "json")
    assert (edited.code, json.loads(edited.out)["sound"]) == (1, False)
