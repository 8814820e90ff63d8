"""The residency report: who ran where, what was unlawful, and whether that is all."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from log_builders import EU, STRICT, accepted, as_bytes, open_ledger, record, refused

from scheduler.ledger import LedgerReader
from scheduler.ledger.audit import ResidencyReport, residency_report
from sites.digest import digest
from sites.errors import RefusedError
from sites.execution import ExecutionDecision

WHOLE = {"since_ms": 0, "until_ms": 10**15}


def _report(folder: Path, **changes: object) -> ResidencyReport:
    asked = {"tenant_id": "acme", "pseudonyms": ("p-acme",), **WHOLE, **changes}
    with LedgerReader.open(folder) as reader:
        return residency_report(reader, **asked)  # type: ignore[arg-type]


def test_counts_by_place_and_leaves_other_tenants_out(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.append("PlanAccepted", accepted(EU, at_ms=1_000))
    records = [
        record(0),
        record(1, tenant_pseudonym="p-other"),
        record(2, decision=ExecutionDecision.FAILED, tokens_in=-1, tokens_out=-1),
        record(3, service_id="assist"),
        refused(4, ExecutionDecision.SHED),
        refused(5, ExecutionDecision.REFUSED_RESIDENCY),
        refused(6, ExecutionDecision.SHED, tenant_pseudonym="p-other"),
        record(7, started_at_ms=99_000),
    ]
    ledger.append_records("rix-1", as_bytes(*records))
    ledger.close()
    report = _report(tmp_path, until_ms=99_000)
    found = [(r.service_id, r.attempts, r.failed, r.tokens_in, r.tokens_out) for r in report.rows]
    assert found == [("assist", 1, 0, 10, 20), ("chat", 2, 1, 10, 20)]
    assert report.rows[1].tokens_unknown == 1
    assert report.rows[0].energy_j_estimated == pytest.approx(1.5)
    assert {(r.country, r.site_id) for r in report.rows} == {("LV", "rix-1")}
    assert report.not_run == (("refused_residency", 1), ("shed", 1))
    assert (report.breaches_total, report.late_total) == (0, 0)
    assert report.complete and report.entries == 9
    assert [(a.site_id, a.held) for a in report.agents] == [("osl-1", -1), ("rix-1", 7)]
    assert [p.policy_digest for p in report.policies] == [digest((EU,))]


def test_a_breach_carries_its_evidence(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.append("PlanAccepted", accepted(EU, at_ms=1_000))
    away = record(1, serving_site_id="osl-1", serving_country="NO")
    ledger.append_records("rix-1", as_bytes(record(0), away))
    ledger.close()
    report = _report(tmp_path)
    assert report.breaches_total == 1
    (breach,) = report.breaches
    assert (breach.index, breach.request_id, breach.site_id) == (2, "request-1", "osl-1")
    assert breach.what == "processed in NO"
    with LedgerReader.open(tmp_path) as reader:
        assert reader.entry(2).leaf_hash.hex() == breach.leaf_hash


def test_policies_are_judged_as_they_stood_when_the_request_started(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.append("PlanAccepted", accepted(EU, at_ms=1_000))
    ledger.append("PlanAccepted", accepted(STRICT, at_ms=5_000, version=2))
    records = [
        record(0, transit_countries=("SE",), started_at_ms=4_999),
        record(1, transit_countries=("SE",), started_at_ms=5_000),
        record(2, transit_countries=("SE",), started_at_ms=5_001, clock_error_ms=10),
        record(3, transit_countries=("SE",), policy_digest=digest((STRICT,)), started_at_ms=6_000),
    ]
    ledger.append_records("rix-1", as_bytes(*records))
    ledger.close()
    report = _report(tmp_path)
    assert [(one.request_id, one.what) for one in report.late] == [("request-1", "crossed SE")]
    assert [(one.request_id, one.what) for one in report.breaches] == [("request-3", "crossed SE")]
    assert [p.since_ms for p in report.policies] == [1_000, 5_000]
    assert [p.since_ms for p in _report(tmp_path, since_ms=5_500).policies] == [5_000]


def test_it_is_complete_only_if_agents_say_no_more(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.append_records("rix-1", as_bytes(record(0), record(1)))
    ledger.close()
    assert _report(tmp_path, reported={"rix-1": 1}).complete
    assert _report(tmp_path, reported={"rix-1": 1}).not_asked == ()
    unasked = _report(tmp_path)
    assert (unasked.complete, unasked.not_asked) == (True, ("rix-1",))
    behind = _report(tmp_path, reported={"rix-1": 4, "osl-1": 0})
    assert not behind.complete
    assert [(a.site_id, a.held, a.reported, a.complete) for a in behind.agents] == [
        ("osl-1", -1, 0, False),
        ("rix-1", 1, 4, False),
    ]


def test_an_answer_over_an_altered_ledger_says_so(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.append_records("rix-1", as_bytes(*(record(i) for i in range(4))))
    ledger.close()
    db = sqlite3.connect(tmp_path / "ledger.sqlite")
    db.execute("UPDATE entries SET payload = (SELECT payload FROM entries WHERE idx = 0)")
    db.commit()
    db.close()
    report = _report(tmp_path)
    assert not report.complete
    assert report.altered[0] == "entry 1 does not match its hash"
    assert report.agents[0].gaps < 0


def test_nothing_recorded_and_empty_ranges_are_refused(tmp_path: Path) -> None:
    open_ledger(tmp_path).close()
    with pytest.raises(RefusedError, match="the ledger is empty"):
        _report(tmp_path)
    with pytest.raises(RefusedError, match="is not before until"):
        _report(tmp_path, since_ms=5, until_ms=5)


def test_a_time_whose_records_were_lost_is_incomplete_for_every_tenant(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.append("PlanAccepted", accepted(EU, at_ms=1_000))
    lost = refused(
        1,
        ExecutionDecision.UNRECORDED,
        tenant_pseudonym="",
        started_at_ms=5_000,
        ended_at_ms=6_000,
        reason="2 writes of the gateway's log failed; their records are lost",
    )
    ledger.append_records("rix-1", as_bytes(record(0), lost, record(2)))
    ledger.close()
    for since_ms, until_ms, complete in (
        (0, 9_000, True),
        (0, 5_001, True),
        (6_000, 9_000, True),
        (0, 5_000, False),
        (6_001, 9_000, False),
    ):
        report = _report(tmp_path, since_ms=since_ms, until_ms=until_ms)
        assert report.complete is not complete, (since_ms, until_ms)
        assert report.not_run == ()
