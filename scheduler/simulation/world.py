"""Real control loop, real hubs, simulated sites, one thread: the same decisions as in production.

Carries the effects out the way `driver` does, on a clock that only `run` moves. After every step
of time it checks what must never happen and keeps what it found in `faults`; `script` is the story
as lines of text.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from optimizer.outcome import Outcome
from optimizer.plan import Plan
from optimizer.problem import Problem, RunningGroup
from optimizer.reroute_detours import Detours
from optimizer.reroute_table import fill_detours
from scheduler.cycle import Cycle
from scheduler.entries import LedgerEntry, kind_of
from scheduler.events import (
    Alert,
    AppendLedger,
    CycleEffect,
    CycleEvent,
    DetoursFilled,
    FillDetours,
    HubsRestarted,
    LedgerAppended,
    LedgerFailed,
    LedgerSnapshot,
    ReceiptChanged,
    Solve,
    SolveFinished,
    Started,
)
from scheduler.receipt import Receipt
from scheduler.simulation.safety import SafetyWatch
from scheduler.simulation.script import line_of
from scheduler.simulation.site import SimulatedSite, SiteHabits
from scheduler.state import CycleConfig, Keys
from scheduler.steady import steadied
from sites.assignment import SiteAssignment
from sites.errors import RetryableError
from sites.hub import EdgeHub, HubConfig
from sites.hub_messages import (
    AssignmentWanted,
    HelloArrived,
    HubEvent,
    SendAssignment,
    SendLease,
    SendStep,
    StreamClosed,
    Ticked,
)

Solver = Callable[[Problem], Outcome]
Filler = Callable[[Problem, Plan, tuple[RunningGroup, ...]], Detours | None]


def _filled(problem: Problem, plan: Plan, running: tuple[RunningGroup, ...]) -> Detours | None:
    return fill_detours(problem, plan, running=running)


class World:
    """A fleet in memory. Everything happens inside `run` and `tell`."""

    def __init__(
        self,
        problem: Problem,
        *,
        solver: Solver,
        filler: Filler = _filled,
        config: CycleConfig | None = None,
        keys: Keys | None = None,
        habits: dict[str, SiteHabits] | None = None,
        solve_ms: int = 500,
        fill_ms: int = 100,
        step_ms: int = 50,
    ) -> None:
        self.now_ms = 1_000_000
        self.ledger: list[LedgerEntry] = []
        self.receipts: dict[str, Receipt] = {}
        self.script: list[str] = []
        self.alerts: list[str] = []
        self.safety = SafetyWatch()
        self.ledger_is_full = False
        self._epoch = 0
        self._problem = problem
        self._config = config or CycleConfig()
        self._keys = keys or Keys()
        self._solver = solver
        self._filler = filler
        self._solve_ms = solve_ms
        self._fill_ms = fill_ms
        self._step_ms = step_ms
        self._events: deque[CycleEvent] = deque()
        self._wishes: deque[tuple[str, HubEvent]] = deque()
        self._wanted: dict[tuple[str, tuple[int, int]], SiteAssignment] = {}
        self._working: list[tuple[int, Solve | FillDetours]] = []
        self._began_at_ms = self.now_ms
        given = habits or {}
        self.sites = {
            s.site_id: SimulatedSite(s.site_id, given.get(s.site_id)) for s in problem.fleet.sites
        }
        self.hubs: dict[str, EdgeHub] = {}
        self.cycle = self.start_server(LedgerSnapshot())

    @property
    def faults(self) -> list[str]:
        """What must never happen and did."""
        return self.safety.faults

    def start_server(self, snapshot: LedgerSnapshot) -> Cycle:
        """A new control plane (first, or after a crash) with fresh hubs and a higher epoch."""
        self._epoch += 1
        started = Started(epoch=self._epoch, problem=self._problem, snapshot=snapshot)
        self.cycle = Cycle(started, config=self._config, keys=self._keys)
        self._events.clear()
        self._wishes.clear()
        self._working.clear()
        self._events.append(started)
        self.restart_hubs()
        return self.cycle

    def restart_hubs(self) -> None:
        """Hubs forget everything; agents' hellos are told again."""
        config = HubConfig(epoch=self._epoch)
        self.hubs = {s: EdgeHub.start(s, config) for s in sorted(self.sites)}
        self._wishes.clear()
        self._wanted.clear()
        for site_id, site in sorted(self.sites.items()):
            if site.agent_up:
                self._deliver(site_id, site.start_agent(self.now_ms))
        self._events.append(HubsRestarted(site_ids=tuple(sorted(self.sites))))

    def kill_site(self, site_id: str) -> None:
        """Agent, gateway and replicas die; the stream breaks."""
        self._note(f"{site_id} is killed")
        instance_id = self.sites[site_id].instance_id
        self.sites[site_id].kill()
        self._deliver(site_id, (StreamClosed(instance_id=instance_id, reason="stream broken"),))

    def kill_agent(self, site_id: str) -> None:
        """Only the agent dies."""
        self._note(f"the agent of {site_id} is killed")
        instance_id = self.sites[site_id].instance_id
        self.sites[site_id].kill_agent()
        self._deliver(site_id, (StreamClosed(instance_id=instance_id, reason="stream broken"),))

    def bring_back(self, site_id: str) -> None:
        """The site's agent starts again."""
        self._note(f"{site_id} comes back")
        self._deliver(site_id, self.sites[site_id].start_agent(self.now_ms))

    def tell(self, event: CycleEvent) -> None:
        """An operator's event."""
        self._note_event(event)
        self._events.append(event)
        self._drain()

    def run(self, duration_ms: int) -> None:
        """Let time pass."""
        until_ms = self.now_ms + duration_ms
        while self.now_ms < until_ms:
            self.now_ms += self._step_ms
            for site_id, site in sorted(self.sites.items()):
                healthy = {s: self.sites[s].gateway_up for s in self.sites if s != site_id}
                self._deliver(site_id, site.pass_time(self.now_ms, healthy))
                self._wishes.append((site_id, Ticked()))
            self._events.append(Ticked())
            self._end_work()
            self._drain()
            self.safety.look(self.now_ms - self._began_at_ms, self.sites)

    def run_until(self, met: Callable[[], bool], *, limit_ms: int = 60_000) -> None:
        """Let time pass until `met`; an AssertionError after `limit_ms` of simulated time."""
        until_ms = self.now_ms + limit_ms
        while not met():
            assert self.now_ms < until_ms, f"not met within {limit_ms} ms: {self.script[-5:]}"
            self.run(self._step_ms)

    def _deliver(self, site_id: str, events: tuple[HubEvent, ...]) -> None:
        self._wishes.extend((site_id, event) for event in events)

    def _end_work(self) -> None:
        due = [asked for at_ms, asked in self._working if at_ms <= self.now_ms]
        self._working = [(at, asked) for at, asked in self._working if at > self.now_ms]
        for asked in due:
            ended = self._solved(asked) if isinstance(asked, Solve) else self._detours(asked)
            self._note_event(ended)
            self._events.append(ended)

    def _solved(self, asked: Solve) -> SolveFinished:
        found = self._solver(asked.problem)
        outcome = steadied(asked.problem, found, before=asked.before)
        return SolveFinished(request_id=asked.request_id, outcome=outcome)

    def _detours(self, asked: FillDetours) -> DetoursFilled:
        try:
            detours = self._filler(asked.problem, asked.plan, asked.running)
            return DetoursFilled(request_id=asked.request_id, detours=detours)
        except RetryableError as fault:
            return DetoursFilled(request_id=asked.request_id, detours=None, message=str(fault))

    def _drain(self) -> None:
        """Carry messages and effects until nothing is left to do at this moment."""
        while self._wishes or self._events:
            while self._wishes:
                site_id, event = self._wishes.popleft()
                self._tell_hub(site_id, event)
            if self._events:
                event_ = self._events.popleft()
                for effect in self.cycle.handle(event_, self.now_ms):
                    self._carry_out(effect)

    def _tell_hub(self, site_id: str, event: HubEvent) -> None:
        if isinstance(event, HelloArrived):
            self._note(f"{site_id} says hello")
        for effect in self.hubs[site_id].handle(event, self.now_ms):
            match effect:
                case SendAssignment() | SendStep():
                    self._note_event(effect)
                    frame = self._frame(effect)
                    self._deliver(site_id, self.sites[site_id].take(frame, self.now_ms))
                case SendLease():
                    pass
                case _:
                    self._note_event(effect)
                    self._events.append(effect)

    def _frame(self, effect: SendAssignment | SendStep) -> AssignmentWanted | SendStep:
        if isinstance(effect, SendStep):
            return effect
        kept = self._wanted[effect.site_id, effect.rank]
        return AssignmentWanted(assignment=kept, validate_only=effect.validate_only)

    def _carry_out(self, effect: CycleEffect) -> None:
        self._note_event(effect)
        match effect:
            case AssignmentWanted():
                self._wanted[effect.site_id, effect.assignment.rank] = effect.assignment
                self._wishes.append((effect.site_id, effect.named()))
            case AppendLedger() if self.ledger_is_full:
                failed = LedgerFailed(token=effect.token, reason="disk full")
                self._events.append(failed)
            case AppendLedger():
                self.ledger.append(effect.entry)
                index = len(self.ledger) - 1
                self._events.append(LedgerAppended(token=effect.token, index=index))
            case Solve():
                self._working.append((self.now_ms + self._solve_ms, effect))
            case FillDetours():
                self._working.append((self.now_ms + self._fill_ms, effect))
            case ReceiptChanged():
                self.receipts[effect.receipt.receipt_id] = effect.receipt
            case Alert():
                self.alerts.append(effect.text)
            case _:
                self._wishes.append((effect.site_id, effect))

    def _note_event(self, event: object) -> None:
        line = line_of(event)
        if line:
            self._note(line)

    def _note(self, line: str) -> None:
        self.script.append(f"{self.now_ms - self._began_at_ms:>7} ms  {line}")

    def kinds(self) -> tuple[str, ...]:
        """Ledger kinds, in order."""
        return tuple(kind_of(entry) for entry in self.ledger)
