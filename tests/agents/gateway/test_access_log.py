"""Access-log lines into records: every kind of line, and no line that can do harm."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.gateway.access_log import LogContext, LogFault, parse_line, parse_lines
from agents.gateway.headers import transit_of, transit_text
from agents.gateway.log_format import log_fields
from sites.digest import canonical_json
from sites.execution import ExecutionDecision, ExecutionRecord

FUZZ = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None
)
SERVED: dict[str, Any] = {
    "hop": "serving", "start_ms": "1700000000000", "duration_ms": 2_000, "status": 200,
    "details": "via_upstream", "flags": "-", "route": "serve:chat|acme|eea",
    "request_id": "11111111-2222", "attempt": "2", "epoch": "3", "version": "6",
    "plan_digest": "sha256:old", "policy_digest": "sha256:policy",
    "peer": "spiffe://hinterland/gateway/rix-1", "group": "osl-1/cpu/small/x1",
    "variant": "small", "tenant": "acme", "service": "chat", "policy": "eea",
    "ingress": "somewhere-else", "transit": "osl-1=SE+FI,waw-1=DE", "tokens_in": 100,
    "tokens_out": 50, "idempotency_key": "order-7",
}  # fmt: skip
REFUSED: dict[str, Any] = {
    "hop": "ingress", "start_ms": "1700000000000", "duration_ms": 0, "status": 451,
    "details": "direct_response", "flags": "-", "route": "unlawful:chat|globex|ch",
    "request_id": "r", "tenant": "globex", "service": "chat", "policy": "ch",
}  # fmt: skip


@pytest.fixture
def context(assignment: Any) -> LogContext:
    return LogContext(
        assignment=assignment, agent_identity="spiffe://hinterland/site/osl-1", clock_error_ms=5
    )


def record(context: LogContext, line: dict[str, Any]) -> ExecutionRecord:
    parsed = parse_line(json.dumps(line).encode(), context=context)
    assert isinstance(parsed, ExecutionRecord), parsed
    return parsed


def test_an_attempt_that_ran_here(context: LogContext) -> None:
    made = record(context, SERVED)
    assert made.decision is ExecutionDecision.SERVED
    assert (made.serving_site_id, made.serving_country, made.legal_entity) == (
        "osl-1", "NO", "Oslo AS",
    )  # fmt: skip
    assert made.ingress_site_id == "rix-1"  # by certificate, whatever the header said
    assert made.transit_countries == ("SE", "FI")
    assert (made.epoch, made.version, made.plan_digest) == (3, 6, "sha256:old")
    assert (made.started_at_ms, made.ended_at_ms) == (1_700_000_000_000, 1_700_000_002_000)
    assert (made.tokens_in, made.tokens_out, made.attempt) == (100, 50, 2)
    assert (made.purpose, made.data_category) == ("support", "chat")
    assert made.transfer_mechanism == "intra-eea"
    assert made.clock_error_ms == 5
    # 100/1000 s + 50/100 s on a 20 W replica at PUE 1.5
    assert made.energy_j_estimated == pytest.approx(0.6 * 20 * 1.5)


def test_ids_are_pseudonyms(context: LogContext) -> None:
    made = record(context, SERVED)
    text = canonical_json(made).decode()
    for secret in ("acme", "11111111-2222", "order-7", "ab" * 32):
        assert secret not in text
    assert made.tenant_pseudonym == record(context, {**SERVED, "request_id": "x"}).tenant_pseudonym
    assert made.request_id != record(context, {**SERVED, "request_id": "x"}).request_id
    rekeyed = replace(
        context.assignment,
        tenants=(replace(context.assignment.tenants[0], pseudonym_key="ef" * 32),),
    )
    other = record(LogContext(assignment=rekeyed, agent_identity="a"), SERVED)
    assert other.tenant_pseudonym != made.tenant_pseudonym


def test_a_strangers_own_words_are_left_out(context: LogContext) -> None:
    made = record(context, {**SERVED, "tenant": "gone"})
    assert (made.tenant_pseudonym, made.idempotency_key) == ("", "")
    assert made.request_id == "11111111-2222"  # the gateway's own, random
    assert not any(word in canonical_json(made).decode() for word in ("gone", "order-7"))


def test_tokens_fall_back_to_timings_then_to_unknown(context: LogContext) -> None:
    bare = {k: v for k, v in SERVED.items() if not k.startswith("tokens")}
    timed = record(context, {**bare, "timings_in": 30, "timings_cached": 12.0, "timings_out": 9})
    assert (timed.tokens_in, timed.tokens_out) == (42, 9)
    unknown = record(context, bare)
    assert (unknown.tokens_in, unknown.tokens_out) == (-1, -1)
    # 2 s of a quarter of a 20 W replica at PUE 1.5
    assert unknown.energy_j_estimated == pytest.approx(2 / 4 * 20 * 1.5)


@pytest.mark.parametrize(
    ("change", "decision", "ran"),
    [
        ({"status": 500}, "failed", True),
        ({"flags": "DC"}, "served", True),
        ({"flags": "DR"}, "served", True),
        ({"flags": "DC", "status": 0}, "failed", True),
        ({"status": 503, "flags": "UC", "details": "upstream_reset"}, "failed", True),
        ({"status": 503, "flags": "UF", "details": "connection_failure"}, "failed", False),
        ({"status": 503, "flags": "UH", "details": "no_healthy", "group": None}, "failed", False),
        (
            {"status": 503, "details": "direct_response", "group": None,
             "route": "not_ready:chat|acme|eea"},
            "failed",
            False,
        ),
        (
            {"status": 451, "details": "direct_response", "group": None, "route": "unknown_key"},
            "refused_residency",
            False,
        ),
    ],
)  # fmt: skip
def test_serving_lines(
    context: LogContext, change: dict[str, Any], decision: str, ran: bool
) -> None:
    made = record(context, {**SERVED, **change})
    assert (made.decision.value, made.serving_site_id) == (decision, "osl-1" if ran else "")
    assert made.reason
    assert (made.energy_j_estimated > 0) is ran


@pytest.mark.parametrize(
    ("change", "decision"),
    [
        ({}, "refused_residency"),
        ({"status": 403, "route": "acme:laxer"}, "refused_residency"),
        ({"status": 401, "tenant": None}, "refused_unauthenticated"),
        ({"status": 404, "route": "acme:unknown_model"}, "refused_unknown_model"),
        ({"status": 400, "route": "acme:bad_json"}, "refused_bad_request"),
        ({"status": 413, "route": "acme:no_body"}, "refused_bad_request"),
        ({"status": 503, "route": "shed:chat|acme|eea"}, "shed"),
        ({"status": 503, "route": "serve:chat|acme|eea", "flags": "UH"}, "failed"),
    ],
)
def test_ingress_lines(context: LogContext, change: dict[str, Any], decision: str) -> None:
    made = record(context, {**REFUSED, **change})
    assert made.decision.value == decision
    assert (made.hop, made.ingress_site_id, made.serving_site_id) == ("ingress", "osl-1", "")
    assert made.reason


@pytest.mark.parametrize(
    "route",
    [
        "acme:laxer",
        "acme:unknown_model",
        "unlawful:chat|acme|eea",
        "shed:chat|acme|eea",
        "acme:x:y",
    ],
)
@pytest.mark.parametrize("status", [400, 403, 404, 451, 503])
def test_no_record_names_the_tenant(context: LogContext, route: str, status: int) -> None:
    made = record(context, {**REFUSED, "status": status, "route": route})
    assert b"acme" not in canonical_json(made)


def test_a_broken_attempt_names_the_site_it_was_sent_to(context: LogContext) -> None:
    line = {**REFUSED, "hop": "broken", "status": 0, "flags": "UC", "to_site": "rix-1",
            "tenant": "acme", "details": "reset", "transit": "rix-1=SE,waw-1=DE"}  # fmt: skip
    made = record(context, line)
    assert (made.hop, made.decision.value) == ("ingress", "failed")
    assert (made.serving_site_id, made.serving_country) == ("rix-1", "LV")
    assert made.transit_countries == ("SE",)


def test_what_another_line_proves_gives_no_record(context: LogContext) -> None:
    answered = {**REFUSED, "status": 200, "details": "via_upstream"}
    listing = {**REFUSED, "status": 200, "route": "acme:models"}
    refused_there = {**REFUSED, "status": 503, "details": "via_upstream"}
    for line in (answered, listing, refused_there):
        assert parse_line(json.dumps(line).encode(), context=context) is None


def test_a_bad_line_is_counted_and_the_rest_is_kept(context: LogContext) -> None:
    good = json.dumps(SERVED).encode()
    lines = [good, good[:40], b"", b"[]", b'{"hop":"moon"}', b"\xff\xfe", good]
    parsed = parse_lines(lines, context=context)
    assert len(parsed.records) == 2
    assert len(parsed.faults) == 5
    assert all(f.reason for f in parsed.faults)


def test_a_country_nobody_has_is_a_fault_not_a_crash(context: LogContext) -> None:
    line = json.dumps({**SERVED, "transit": "osl-1=narnia"}).encode()
    fault = parse_line(line, context=context)
    assert isinstance(fault, LogFault)
    assert "narnia" in fault.reason


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@FUZZ
@given(
    line=st.dictionaries(st.sampled_from(sorted(log_fields("serving"))), JSON, min_size=1).map(
        lambda changed: {**SERVED, **changed}
    )
)
def test_no_garbled_field_raises(context: LogContext, line: dict[str, Any]) -> None:
    parsed = parse_line(json.dumps(line).encode(), context=context)
    assert parsed is None or isinstance(parsed, ExecutionRecord | LogFault)
    if isinstance(parsed, ExecutionRecord):
        assert canonical_json(parsed)


@FUZZ
@given(line=st.binary(max_size=200))
def test_no_bytes_raise(context: LogContext, line: bytes) -> None:
    assert not isinstance(parse_line(line, context=context), ExecutionRecord)


COUNTRY = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=2, max_size=2)
SITE = st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True)


@given(crossed=st.dictionaries(SITE, st.lists(COUNTRY, max_size=4).map(tuple), max_size=5))
def test_transit_text_reads_back(crossed: dict[str, tuple[str, ...]]) -> None:
    text = transit_text(crossed)
    for site, countries in crossed.items():
        assert transit_of(text, site_id=site) == countries
    assert transit_of(text, site_id="nowhere-else") == ()
