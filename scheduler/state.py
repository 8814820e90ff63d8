"""What the control loop knows between two events: per site, of the plan in force, of open wishes.

Holds and looks up; decides nothing. All of it can be rebuilt from the ledger's newest plan and the
agents' next hello. One owner (`scheduler.cycle`) changes it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from optimizer.assign import Issue, cut_plan
from optimizer.assign_cut import RouteCut
from optimizer.plan import Plan
from optimizer.problem import Problem, RunningGroup
from optimizer.reroute_detours import Detours
from scheduler.entries import PlanAccepted
from scheduler.forecast import Entry, forecast, observed_rates, smoothed
from scheduler.receipt import Receipt
from sites.assignment import ReplicaGroup, SiteAssignment
from sites.assignment_json import assignment_digest
from sites.hub_messages import ConnectionState
from sites.telemetry import Hello, ReplicaObservation, ReplicaState, SiteObservation

ISSUED_KEPT = 16
"""Assignments remembered per site, so that a returning agent's rank can be recognised."""

RECEIPTS_KEPT = 100

HOLDS_HARDWARE = (ReplicaState.LOADING, ReplicaState.READY, ReplicaState.DRAINING)


@dataclass(frozen=True, kw_only=True, slots=True)
class CycleConfig:
    """Times (ms) of the control loop.

    A site whose agent is silent is lost at once when every peer gateway heard within
    `peer_fresh_ms` calls it unhealthy, after `lost_after_ms` when no peer has an opinion. A site
    not heard of since the control plane started gets `first_contact_ms` to come; it counts as back
    after `back_after_ms` of being connected. Verdicts are awaited `verdict_timeout_ms` after the
    last one came. A difference between desired and observed that lasts `reconcile_after_ms` is
    mended, a failed attempt of the loop itself repeated after `retry_after_ms`, `retry_limit`
    times in a row.
    `routes_timeout_ms`: a gateway takes up to 15 s for 17 000 routes on a busy machine.
    `solve_timeout_ms` bounds the wait for a solve. Detours are worked out for what has not changed
    between two looks `detours_settle_ms` apart, and not again within `detours_spacing_ms`.
    `auto_replan` off: the loop reroutes but leaves
    full re-plans to operators. `use_forecast`: plan for the rates gateways counted (sampled every
    `forecast_sample_ms`) instead of the stated ones.
    """

    lost_after_ms: int = 5_000
    peer_fresh_ms: int = 1_500
    first_contact_ms: int = 15_000
    back_after_ms: int = 1_000
    verdict_timeout_ms: int = 10_000
    reconcile_after_ms: int = 3_000
    retry_after_ms: int = 5_000
    retry_limit: int = 5
    solve_timeout_ms: int = 330_000
    detours_settle_ms: int = 1_000
    detours_spacing_ms: int = 5_000
    assignment_ttl_ms: int = 24 * 3_600_000
    start_timeout_ms: int = 120_000
    routes_timeout_ms: int = 30_000
    drain_timeout_ms: int = 60_000
    stop_timeout_ms: int = 30_000
    auto_replan: bool = True
    use_forecast: bool = False
    forecast_sample_ms: int = 5_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Keys:
    """Keys every assignment carries: public API-key JWKS (text), pseudonym key (hex) per tenant."""

    api_key_jwks: str = '{"keys":[]}'
    pseudonym_keys: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(kw_only=True, slots=True)
class SiteState:
    """One site as the control loop sees it."""

    site_id: str
    connection: ConnectionState = ConnectionState.UNREACHABLE
    connection_reason: str = "never heard of"
    changed_at_ms: int = 0
    heard_at_ms: int = 0
    hello: Hello | None = None
    observation: SiteObservation | None = None
    rank: tuple[int, int] = (0, 0)
    replicas: tuple[ReplicaObservation, ...] = ()
    in_force: SiteAssignment | None = None
    drift_since_ms: int = 0
    sampled: SiteObservation | None = None
    issued: deque[SiteAssignment] = field(default_factory=lambda: deque(maxlen=ISSUED_KEPT))
    _digested: tuple[SiteAssignment, str] | None = None
    _shown: tuple[SiteAssignment, SiteAssignment] | None = None

    @property
    def is_connected(self) -> bool:
        """Whether changes can be sent there."""
        return self.connection is ConnectionState.CONNECTED

    def digest_in_force(self) -> str:
        """Digest of what is in force ("" if nothing), worked out once."""
        if self.in_force is None:
            return ""
        if not self.is_digested:
            self._digested = (self.in_force, assignment_digest(self.in_force))
        assert self._digested is not None, "worked out just now"
        return self._digested[1]

    @property
    def is_digested(self) -> bool:
        """Whether `digest_in_force` is known already."""
        return self.in_force is None or (
            self._digested is not None and self._digested[0] is self.in_force
        )

    def shown(self, assignment: SiteAssignment) -> SiteAssignment:
        """The assignment without the tenants' pseudonym keys; made once, since making one judges
        every route of it.
        """
        if self._shown is None or self._shown[0] is not assignment:
            tenants = tuple(replace(t, pseudonym_key="") for t in assignment.tenants)
            self._shown = (assignment, replace(assignment, tenants=tenants))
        return self._shown[1]

    def see_rank(self, rank: tuple[int, int]) -> None:
        """Note the rank the agent says it has applied."""
        self.rank = rank
        for assignment in self.issued:
            if assignment.rank == rank:
                self.in_force = assignment
                return
        self.in_force = None

    def counts(self, *states: ReplicaState) -> dict[str, int]:
        """Replicas per group id in one of `states`."""
        counted: dict[str, int] = {}
        for one in self.replicas:
            if one.state in states:
                counted[one.group.group_id] = counted.get(one.group.group_id, 0) + 1
        return counted


@dataclass(frozen=True, kw_only=True, slots=True)
class Desired:
    """The plan in force and each site's final assignment under it."""

    accepted: PlanAccepted
    assignments: Mapping[str, SiteAssignment]

    @property
    def plan(self) -> Plan:
        """The plan."""
        return self.accepted.plan

    @property
    def rank(self) -> tuple[int, int]:
        """(epoch, version) of the final assignments."""
        return (self.accepted.epoch, self.accepted.version)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldDetours:
    """Detours, and the question and plan that they were worked out for."""

    problem: Problem
    plan: Plan
    detours: Detours


@dataclass(kw_only=True, slots=True)
class CycleState:
    """Everything the loop remembers. `version` is the highest any assignment was given; `routes`
    are the last cut, of which the next takes over what it can.
    """

    config: CycleConfig
    keys: Keys
    problem: Problem
    epoch: int
    version: int = 0
    started_at_ms: int = 0
    desired: Desired | None = None
    history: deque[PlanAccepted] = field(default_factory=lambda: deque(maxlen=20))
    sites: dict[str, SiteState] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    cordoned: dict[str, str] = field(default_factory=dict)
    drained: set[str] = field(default_factory=set)
    receipts: dict[str, Receipt] = field(default_factory=dict)
    rates: dict[Entry, float] = field(default_factory=dict)
    held: HeldDetours | None = None
    routes: RouteCut | None = None

    def site(self, site_id: str) -> SiteState:
        """The site's state, made on first mention (a fleet file may bring new sites)."""
        return self.sites.setdefault(site_id, SiteState(site_id=site_id))

    def site_ids(self) -> tuple[str, ...]:
        """The fleet's sites, sorted."""
        return tuple(sorted(s.site_id for s in self.problem.fleet.sites))

    def reachable(self) -> tuple[str, ...]:
        """Sites that take part in a change: connected and not lost."""
        return tuple(s for s in self.site_ids() if self.site(s).is_connected and s not in self.lost)

    def replicas(self, *states: ReplicaState) -> dict[str, int]:
        """Observed replicas per group id in one of `states`, lost sites left out."""
        counted: dict[str, int] = {}
        for site_id in self.site_ids():
            if site_id not in self.lost:
                counted |= self.site(site_id).counts(*states)
        return counted

    def running_groups(self, *states: ReplicaState) -> tuple[RunningGroup, ...]:
        """The same as facts, sorted; groups the problem cannot describe are left out."""
        counts = self.replicas(*states)
        groups: dict[str, ReplicaGroup] = {
            r.group.group_id: r.group
            for site_id in self.site_ids()
            for r in self.site(site_id).replicas
        }
        known = {v.variant_id for v in self.problem.catalog.variants}
        pools = {(s.site_id, p.pool_id) for s in self.problem.fleet.sites for p in s.pools}
        return tuple(
            RunningGroup(group=groups[group_id], replicas=counts[group_id])
            for group_id in sorted(counts)
            if groups[group_id].variant_id in known
            and (groups[group_id].site_id, groups[group_id].pool_id) in pools
        )

    def problem_now(self, *, ready_only: bool = False) -> Problem:
        """The newest question: what runs (or only what is ready), what may not be used."""
        states = (ReplicaState.READY,) if ready_only else (ReplicaState.LOADING, ReplicaState.READY)
        sites = tuple(
            replace(s, cordoned=True) if s.site_id in self.cordoned else s
            for s in self.problem.fleet.sites
        )
        known = set(self.site_ids())
        lost = tuple(sorted((set(self.lost) | self.drained) & known))
        asked = replace(self.problem, lost_sites=lost)
        return replace(
            asked,
            demand=forecast(asked, self.rates) if self.config.use_forecast else asked.demand,
            fleet=replace(self.problem.fleet, sites=sites),
            running=self.running_groups(*states),
        )

    def digest_one(self) -> None:
        """Work out one digest the next change will name as a parent, if one is not known yet: those
        of a large fleet take seconds, which a failover should not have to wait for.
        """
        for site_id in self.site_ids():
            if not self.site(site_id).is_digested:
                self.site(site_id).digest_in_force()
                return

    def sample(self, site: SiteState, seen: SiteObservation) -> None:
        """Let the forecast learn from a site's counters, once per sampling interval."""
        last = site.sampled
        if last is None or last.instance_id != seen.instance_id:
            site.sampled = seen
        elif seen.observed_at_ms - last.observed_at_ms >= self.config.forecast_sample_ms:
            self.rates = smoothed(self.rates, observed_rates(last, seen))
            site.sampled = seen

    def cut(
        self, problem: Problem, plan: Plan, *, version: int, now_ms: int, plan_digest: str = ""
    ) -> dict[str, SiteAssignment]:
        """Every site's assignment under `plan`, with this control plane's epoch and keys."""
        issue = Issue(
            epoch=self.epoch,
            version=version,
            now_ms=now_ms,
            ttl_ms=self.config.assignment_ttl_ms,
            api_key_jwks=self.keys.api_key_jwks,
            pseudonym_keys=self.keys.pseudonym_keys,
            plan_digest=plan_digest,
        )
        made = cut_plan(problem, plan, issue, earlier=self.routes)
        self.routes = made.routes
        return made.assignments

    @property
    def serial(self) -> int:
        """Names the desired state: the version of the plan in force (0: none yet)."""
        return self.desired.accepted.version if self.desired else 0

    def keep_receipt(self, receipt: Receipt) -> None:
        """Remember the newest form of a receipt; the oldest are forgotten."""
        self.receipts.pop(receipt.receipt_id, None)
        self.receipts[receipt.receipt_id] = receipt
        while len(self.receipts) > RECEIPTS_KEPT:
            del self.receipts[next(iter(self.receipts))]
