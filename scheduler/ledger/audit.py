"""Where one tenant's data ran between two instants, was it lawful, is the answer complete.

Decides from ledger entries alone, re-hashing every entry it reads: an answer over an altered ledger
says so. Who may ask, and which pseudonyms a tenant has, is the caller's business. Lawfulness is
judged by the same `verifier` an outside auditor runs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from scheduler.ledger.merkle import Frontier, leaf_hash
from scheduler.ledger.reading import Entry, LedgerReader, leaf_data
from scheduler.ledger.records import RECORD_KIND
from scheduler.ledger.verifier import Residency
from sites.errors import RefusedError
from sites.execution import ExecutionDecision

PLAN_KIND = "PlanAccepted"
BREACHES_LISTED = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class ResidencyRow:
    """Attempts of one service under one policy that ran at one site.

    `tokens_unknown` counts attempts whose model server did not say; their tokens are in no sum.
    """

    country: str
    site_id: str
    legal_entity: str
    service_id: str
    residency_policy_id: str
    transit_countries: tuple[str, ...]
    attempts: int
    failed: int
    tokens_in: int
    tokens_out: int
    tokens_unknown: int
    energy_j_estimated: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Exceptional:
    """One record that was somewhere unlawful; entry and leaf hash are its evidence."""

    index: int
    leaf_hash: str
    request_id: str
    site_id: str
    what: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentCompleteness:
    """Records of one agent: sequences 0 to `held`, `gaps` missing among them.

    `reported` is the newest sequence the agent itself spoke of; None: it could not be asked, so
    whether it holds records nobody has seen is not known. `losses` counts the times, within the
    report's, at which the site's gateway could not write down what it did.
    """

    site_id: str
    held: int
    gaps: int
    reported: int | None
    losses: int = 0

    @property
    def complete(self) -> bool:
        """Whether nothing the agent is known to have recorded is missing."""
        told = self.reported is None or self.held >= self.reported
        return told and self.gaps == 0 and self.losses == 0


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyVersion:
    """A set of residency policies, since when it was in force, and the entry that says so."""

    policy_digest: str
    plan_digest: str
    since_ms: int
    index: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ResidencyReport:
    """The answer for [since_ms, until_ms). `late`: unlawful only under a policy newer than the one
    the site had by then. `altered` lists what does not match the signed head (empty: nothing).
    """

    tenant_id: str
    since_ms: int
    until_ms: int
    rows: tuple[ResidencyRow, ...]
    not_run: tuple[tuple[str, int], ...]
    breaches: tuple[Exceptional, ...]
    breaches_total: int
    late: tuple[Exceptional, ...]
    late_total: int
    policies: tuple[PolicyVersion, ...]
    entries: int
    root: str
    checkpoint: str
    agents: tuple[AgentCompleteness, ...]
    altered: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether no record known of is missing and the log is what was signed."""
        return not self.altered and all(a.complete for a in self.agents)

    @property
    def not_asked(self) -> tuple[str, ...]:
        """Sites whose agents could not say what they hold; completeness excludes that."""
        return tuple(a.site_id for a in self.agents if a.reported is None)


@dataclass
class _Tally:
    """What one walk over the log collects; lives no longer than the walk."""

    frontier: Frontier = field(default_factory=Frontier)
    residency: Residency = field(default_factory=Residency)
    rows: dict[tuple[Any, ...], Counter[str]] = field(default_factory=dict)
    energy_j: dict[tuple[Any, ...], float] = field(default_factory=dict)
    not_run: Counter[str] = field(default_factory=Counter)
    breaches: list[Exceptional] = field(default_factory=list)
    late: list[Exceptional] = field(default_factory=list)
    totals: Counter[str] = field(default_factory=Counter)
    policies: list[PolicyVersion] = field(default_factory=list)
    sites: tuple[str, ...] = ()
    held: dict[str, int] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    losses: Counter[str] = field(default_factory=Counter)
    altered: list[str] = field(default_factory=list)


def residency_report(
    reader: LedgerReader,
    *,
    tenant_id: str,
    pseudonyms: Iterable[str],
    since_ms: int,
    until_ms: int,
    reported: Mapping[str, int] | None = None,
) -> ResidencyReport:
    """Walk the log up to its newest checkpoint and answer for one tenant.

    `pseudonyms`: under which names the tenant's records are kept (one per key it ever had).
    `reported`: newest sequence each agent spoke of. Raises RefusedError for an empty time range or
    an empty ledger.
    """
    if since_ms >= until_ms:
        raise RefusedError(f"audit: since {since_ms} ms is not before until {until_ms} ms")
    checkpoint = reader.checkpoint()
    if checkpoint is None:
        raise RefusedError("audit: the ledger is empty; nothing was recorded yet")
    names, tally = frozenset(pseudonyms), _Tally()
    for entry in reader.entries(end=checkpoint.size):
        _count_entry(tally, entry, names, (since_ms, until_ms))
    if (tally.frontier.size, tally.frontier.root()) != (checkpoint.size, checkpoint.root):
        tally.altered.append(f"its {tally.frontier.size} entries are not the signed ones")
    return ResidencyReport(
        tenant_id=tenant_id,
        since_ms=since_ms,
        until_ms=until_ms,
        rows=tuple(_row(key, tally) for key in sorted(tally.rows)),
        not_run=tuple(sorted(tally.not_run.items())),
        breaches=tuple(tally.breaches),
        breaches_total=tally.totals["breach"],
        late=tuple(tally.late),
        late_total=tally.totals["late"],
        policies=_in_force(tally.policies, since_ms, until_ms),
        entries=checkpoint.size,
        root=checkpoint.root.hex(),
        checkpoint=checkpoint.note,
        agents=_agents(tally, reported or {}),
        altered=tuple(tally.altered),
    )


def _count_entry(
    tally: _Tally, entry: Entry, names: frozenset[str], between: tuple[int, int]
) -> None:
    leaf = leaf_hash(leaf_data(kind=entry.kind, at_ms=entry.at_ms, payload=entry.payload))
    if leaf != entry.leaf_hash:
        tally.altered.append(f"entry {entry.index} does not match its hash")
    tally.frontier = tally.frontier.append(leaf)
    if entry.kind == RECORD_KIND:
        _count_record(tally, entry, names, between)
    elif entry.kind == PLAN_KIND:
        plan = json.loads(entry.payload)
        tally.residency.accept(plan)
        tally.sites = tuple(site["site_id"] for site in plan["problem"]["fleet"]["sites"])
        tally.policies.append(
            PolicyVersion(
                policy_digest=plan["policy_digest"],
                plan_digest=plan["plan_digest"],
                since_ms=plan["at_ms"],
                index=entry.index,
            )
        )


def _count_record(
    tally: _Tally, entry: Entry, names: frozenset[str], between: tuple[int, int]
) -> None:
    record = json.loads(entry.payload)
    agent = record["agent_site_id"]
    tally.held[agent] = max(tally.held.get(agent, -1), record["sequence"])
    tally.counts[agent] += 1
    started_ms = record["started_at_ms"]
    if record["decision"] == ExecutionDecision.UNRECORDED.value:
        tally.losses[agent] += started_ms < between[1] and record["ended_at_ms"] >= between[0]
        return
    if record["tenant_pseudonym"] not in names or not between[0] <= started_ms < between[1]:
        return
    if not record["serving_site_id"]:
        tally.not_run[record["decision"]] += 1
        return
    _count_attempt(tally, record)
    breaches, late = tally.residency.judge(record)
    for title, found, listed in (("breach", breaches, tally.breaches), ("late", late, tally.late)):
        tally.totals[title] += bool(found)
        if found and len(listed) < BREACHES_LISTED:
            listed.append(
                Exceptional(
                    index=entry.index,
                    leaf_hash=entry.leaf_hash.hex(),
                    request_id=record["request_id"],
                    site_id=record["serving_site_id"],
                    what="; ".join(found),
                )
            )


def _count_attempt(tally: _Tally, record: Mapping[str, Any]) -> None:
    key = (
        record["serving_country"],
        record["serving_site_id"],
        record["legal_entity"],
        record["service_id"],
        record["residency_policy_id"],
        tuple(record["transit_countries"]),
    )
    counts = tally.rows.setdefault(key, Counter())
    counts["attempts"] += 1
    counts["failed"] += record["decision"] == ExecutionDecision.FAILED.value
    known = record["tokens_in"] >= 0 and record["tokens_out"] >= 0
    counts["unknown"] += not known
    counts["in"] += record["tokens_in"] if known else 0
    counts["out"] += record["tokens_out"] if known else 0
    tally.energy_j[key] = tally.energy_j.get(key, 0.0) + record["energy_j_estimated"]


def _row(key: tuple[Any, ...], tally: _Tally) -> ResidencyRow:
    counts = tally.rows[key]
    country, site_id, legal_entity, service_id, policy_id, transit = key
    return ResidencyRow(
        country=country,
        site_id=site_id,
        legal_entity=legal_entity,
        service_id=service_id,
        residency_policy_id=policy_id,
        transit_countries=transit,
        attempts=counts["attempts"],
        failed=counts["failed"],
        tokens_in=counts["in"],
        tokens_out=counts["out"],
        tokens_unknown=counts["unknown"],
        energy_j_estimated=tally.energy_j[key],
    )


def _in_force(
    versions: list[PolicyVersion], since_ms: int, until_ms: int
) -> tuple[PolicyVersion, ...]:
    """The versions in force at some moment of the range, one line per change of policies."""
    before = [v for v in versions if v.since_ms <= since_ms][-1:]
    found = [*before, *(v for v in versions if since_ms < v.since_ms < until_ms)]
    changes: list[PolicyVersion] = []
    for one in found:
        if not changes or changes[-1].policy_digest != one.policy_digest:
            changes.append(one)
    return tuple(changes)


def _agents(tally: _Tally, reported: Mapping[str, int]) -> tuple[AgentCompleteness, ...]:
    return tuple(
        AgentCompleteness(
            site_id=site_id,
            held=tally.held.get(site_id, -1),
            gaps=tally.held.get(site_id, -1) + 1 - tally.counts[site_id],
            reported=reported.get(site_id),
            losses=tally.losses[site_id],
        )
        for site_id in sorted({*tally.held, *tally.sites, *reported})
    )
