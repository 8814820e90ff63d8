"""What each loss costs a plan at least, and the cuts that tell the formulation so.

Decides the cuts: a linear problem per loss serves the protected classes on the replicas of the
other sites, unprotected traffic having given way; its shadow prices make cuts that hold for every
plan. Where the traffic then goes, the plan's certificate, is decided in `survive_plan` and
`survive_local`; the checker judges it, knowing nothing of either.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import highspy
import numpy as np
from numpy.typing import NDArray

from optimizer.costs import shed_price_usd_per_h, usable_part
from optimizer.milp.constraints_survive import SurvivalCut
from optimizer.milp.stopping import Watch, never
from optimizer.milp.survive_local import best_answer
from optimizer.milp.survive_pairs import Ground
from optimizer.plan import Plan
from optimizer.reach import Reach
from optimizer.survive import (
    AfterLoss,
    RowKey,
    could_be_answered,
    is_asked,
    protected_classes,
    uses_per_bp,
)
from optimizer.survive_plan import LossAnswer, Survivors, with_certificate
from sites.assignment import ReplicaGroup
from sites.errors import FatalError
from sites.fleet import at_period
from sites.units import WHOLE_BP

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Survived:
    """A plan with its certificate, and cuts for each loss that leaves something exposed."""

    plan: Plan
    cuts: tuple[SurvivalCut, ...] = ()


class Losses:
    """Every loss of one problem, each a linear problem that is set up when it is first asked.

    `groups` are all replica groups a plan of the problem may have; the cuts speak of them. Once
    `is_over` a plan is certified the quick way and no cut is looked for.
    """

    def __init__(
        self,
        reach: Reach,
        groups: Sequence[ReplicaGroup],
        *,
        is_over: Callable[[], bool] = never,
    ) -> None:
        self.reach, self._is_over = reach, is_over
        self.groups = tuple(sorted(groups))
        self.asked = is_asked(reach)
        self._pairs = Pairs(reach, self.groups)
        self._recourses: dict[str, Recourse] = {}

    def sites(self) -> tuple[str, ...]:
        """Sites whose loss may touch a protected class, sorted: those with groups, and ingresses.

        None where no loss is looked at.
        """
        if not self.asked:
            return ()
        entries = (self.reach.entry(one) for one in protected_classes(self.reach).values())
        return tuple(
            sorted({e.site_id for e in entries if e} | {group.site_id for group in self.groups})
        )

    def recourse(self, lost_site_id: str) -> Recourse:
        """The linear problem of one loss."""
        if lost_site_id not in self._recourses:
            left = AfterLoss(self.reach, lost_site_id)
            self._recourses[lost_site_id] = Recourse(
                left, self._pairs, lost_site_id, is_over=self._is_over
            )
        return self._recourses[lost_site_id]

    def survive(self, plan: Plan) -> Survived:
        """Certify a plan and say what its losses cost. Unchanged where no loss is looked at."""
        if not self.asked:
            return Survived(plan=plan)
        survivors = Survivors(self.reach, plan)
        ground = Ground(survivors, plan)
        n = {g.group.group_id: float(g.replicas) for g in plan.groups}
        shed_bp = {s.class_id: float(s.basis_points) for s in plan.shed}
        cuts: list[SurvivalCut] = []
        answers: list[LossAnswer] = []
        for lost_site_id in survivors.losses():
            is_quick = self._is_over()
            answers.append(
                survivors.nearest(lost_site_id) if is_quick else best_answer(ground, lost_site_id)
            )
            if answers[-1].exposed and not is_quick:
                try:
                    cuts += self.recourse(lost_site_id).cuts(n=n, shed_bp=shed_bp)
                except TimeIsOverError:  # what is known holds, and a plan needs no cut
                    continue
        plan = with_certificate(self.reach, plan, answers=answers)
        return Survived(plan=plan, cuts=tuple(cuts))


class TimeIsOverError(Exception):
    """Time ended before a loss was known well enough for a cut."""


class Pairs:
    """Which groups may answer a protected class and what a basis point of it uses there, worked out
    once for all losses: it hangs on where the class enters, and that on its own ingress alone.
    """

    def __init__(self, reach: Reach, groups: Iterable[ReplicaGroup]) -> None:
        self.groups = tuple(groups)
        self._reach = reach
        self._known: dict[tuple[str, str], dict[str, dict[RowKey, float]]] = {}

    def of(self, left: Reach, class_id: str) -> Mapping[str, dict[RowKey, float]]:
        """Uses by group id, groups at the lost site among them where the class enters as before."""
        one = left.classes[class_id]
        entry = left.entry(one)
        key = (class_id, entry.site_id if entry else "")
        if key not in self._known:
            reach = self._reach if entry == self._reach.entry(one) else left
            self._known[key] = {
                group.group_id: uses_per_bp(reach, one, group)
                for group in self.groups
                if reach.refusal(one, group) is None
            }
        return self._known[key]


class Recourse:
    """What the protected classes can still be given after one loss.

    min sum_d price[d] * u[d]  where  sum_r y[d,r] + u[d] == 10 000 - shed[d]  in basis points, and
    what y uses of each limit (busy replicas, W, bit/s) is at most what n replicas give. Columns are
    all lawful pairs, so that only the right side changes from plan to plan.
    """

    def __init__(
        self,
        left: Reach,
        pairs: Pairs,
        lost_site_id: str,
        *,
        is_over: Callable[[], bool] = never,
    ) -> None:
        """Raises TimeIsOverError, as `cuts` does, once `is_over`."""
        self.left, self.lost_site_id = left, lost_site_id
        part = left.problem.plan_policy.exposure_part
        self.classes = [
            class_id
            for class_id, one in protected_classes(left).items()
            if could_be_answered(left, one)
        ]
        self.price = np.array(
            [part * shed_price_usd_per_h(left, c) / WHOLE_BP for c in self.classes]
        )
        parts = parts_of(left)
        self.part_of = [parts[left.classes[c].service_id] for c in self.classes]
        self.groups = {g.group_id: g for g in pairs.groups if g.site_id != lost_site_id}
        self.usable = {g: usable_part(left, one) for g, one in self.groups.items()}
        self.pairs: list[tuple[int, str]] = []
        self.uses: list[dict[RowKey, float]] = []
        for at, class_id in enumerate(self.classes):
            if is_over():
                raise TimeIsOverError
            for group_id, uses in pairs.of(left, class_id).items():
                if group_id in self.groups:
                    self.pairs.append((at, group_id))
                    self.uses.append(uses)
        self.keys = sorted({key for uses in self.uses for key in uses})
        self._highs, self._watch = quiet(), Watch(is_over)
        self._highs.cbSimplexInterrupt += self._watch
        if self._highs.passModel(self._program()) == highspy.HighsStatus.kError:
            raise FatalError("HiGHS could not take the problem of a loss")

    def cuts(self, *, n: Mapping[str, float], shed_bp: Mapping[str, float]) -> list[SurvivalCut]:
        """The Benders cuts of the shadow prices at n replicas, which need not be whole.

        Any 0 <= pi <= price with mu[r] = max over d of (pi[d] - what the links and supplies it
        would use are worth) / busy per basis point gives a cut that holds for every plan; the
        solution's pi gives the one that this plan breaks, if it breaks any. One cut per part,
        unless a link or a supply that parts have in common is worth something.
        """
        duals = self._duals(n, shed_bp)
        pi = np.clip(duals[: len(self.classes)], 0.0, self.price)
        worth = {
            key: float(-dual)
            for key, dual in zip(self.keys, duals[len(self.classes) :], strict=True)
            if key[0] != "throughput" and dual < 0
        }
        if worth:
            return [self._cut(pi, worth, tuple(sorted(set(self.part_of))))]
        return [
            self._cut(np.where([p == part for p in self.part_of], pi, 0.0), {}, (part,))
            for part in sorted(set(self.part_of))
        ]

    def _cut(
        self, pi: Floats, worth: Mapping[RowKey, float], parts: tuple[str, ...]
    ) -> SurvivalCut:
        mu: dict[str, float] = defaultdict(float)
        for (at, group_id), uses in zip(self.pairs, self.uses, strict=True):
            if pi[at] > 0:
                shared = sum(worth[k] * each for k, each in uses.items() if k in worth)
                busy = uses["throughput", group_id]
                mu[group_id] = max(mu[group_id], (float(pi[at]) - shared) / busy)
        per_replica = {g: value * self.usable[g] for g, value in mu.items()}
        for g, one in self.groups.items():
            if price := worth.get(("supply_limit", one.site_id)):
                per_replica[g] = per_replica.get(g, 0.0) - price * self._idle(g)
        least = float(pi.sum()) * WHOLE_BP
        least -= sum(price * self._whole_limit(key) for key, price in sorted(worth.items()))
        rates = self.left.rates
        return SurvivalCut(
            lost_site_id=self.lost_site_id,
            parts=parts,
            per_replica={g: value for g, value in per_replica.items() if value != 0},
            per_rps={
                c: float(p) * WHOLE_BP / rates[c]
                for c, p in zip(self.classes, pi, strict=True)
                if p > 0
            },
            least=least,
        )

    def _duals(self, n: Mapping[str, float], shed_bp: Mapping[str, float]) -> Floats:
        """The dual of every row at n replicas."""
        wanted = np.array([max(0.0, WHOLE_BP - shed_bp.get(c, 0.0)) for c in self.classes])
        limits = np.array([self._limit(key, n) for key in self.keys])
        upper = np.concatenate((wanted, limits))
        lower = np.concatenate((wanted, np.full(len(limits), -highspy.kHighsInf)))
        highs, rows = self._highs, np.arange(len(upper), dtype=np.int32)
        highs.changeRowsBounds(len(rows), rows, lower, upper)
        highs.run()
        if highs.getModelStatus() is highspy.HighsModelStatus.kInfeasible:
            # all may be exposed, so it is not: from the basis of another plan HiGHS has erred
            highs.clearSolver()
            highs.run()
        self._watch.end()
        if highs.getModelStatus() == highspy.HighsModelStatus.kInterrupt:
            raise TimeIsOverError
        if highs.getModelStatus() not in _SOLVED:
            raise FatalError(f'HiGHS could not solve the loss of site "{self.lost_site_id}"')
        return np.array(highs.getSolution().row_dual)

    def _limit(self, key: RowKey, n: Mapping[str, float]) -> float:
        family, subject = key
        if family == "throughput":
            return max(0.0, n.get(subject, 0.0)) * self.usable[subject]
        whole = self._whole_limit(key)
        if family == "supply_limit":
            idle = sum(
                self._idle(g) * n.get(g, 0.0)
                for g, one in self.groups.items()
                if one.site_id == subject
            )
            return whole - idle if whole >= idle else highspy.kHighsInf
        return whole

    def _whole_limit(self, key: RowKey) -> float:
        problem, (family, subject) = self.left.problem, key
        if family == "link_bandwidth":
            return next(k.bandwidth_bps for k in problem.fleet.links if k.link_id == subject)
        return sum(
            at_period(k.limit_w, problem.period) for k in problem.fleet.site(subject).supplies
        )

    def _idle(self, group_id: str) -> float:
        group = self.groups[group_id]
        point, site = self.left.point(group), self.left.site(group.site_id)
        assert point is not None and site is not None, f"{group_id} has no serving point"
        return point.idle_w * site.pue

    def _program(self) -> highspy.HighsLp:
        """Rows: one per class, then one per limit; columns: the pairs, then what is exposed."""
        lp, count = highspy.HighsLp(), len(self.classes)
        row_of = {key: count + at for at, key in enumerate(self.keys)}
        entries = [
            sorted([(at, 1.0), *((row_of[k], each) for k, each in uses.items())])
            for (at, _), uses in zip(self.pairs, self.uses, strict=True)
        ]
        entries += [[(at, 1.0)] for at in range(count)]
        lp.num_col_, lp.num_row_ = len(entries), count + len(self.keys)
        lp.col_cost_ = np.concatenate((np.zeros(len(self.pairs)), self.price))
        lp.col_lower_ = np.zeros(len(entries))
        lp.col_upper_ = np.full(len(entries), highspy.kHighsInf)
        lp.row_lower_ = np.zeros(lp.num_row_)
        lp.row_upper_ = np.zeros(lp.num_row_)
        lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        lp.a_matrix_.start_ = np.cumsum([0, *map(len, entries)]).astype(np.int32)
        lp.a_matrix_.index_ = np.array([r for one in entries for r, _ in one], dtype=np.int32)
        lp.a_matrix_.value_ = np.array([v for one in entries for _, v in one])
        return lp


_SOLVED = (highspy.HighsModelStatus.kOptimal, highspy.HighsModelStatus.kModelEmpty)


def parts_of(reach: Reach) -> dict[str, str]:
    """The part each service belongs to: services that share variants, named after the first."""
    part = {service_id: service_id for service_id in sorted(reach.services)}
    for service_id in sorted(reach.services):
        variants = set(reach.services[service_id].variant_ids)
        joined = {
            part[other]
            for other in sorted(reach.services)
            if variants & set(reach.services[other].variant_ids)
        }
        part = {s: min(joined) if p in joined else p for s, p in part.items()}
    return part


def quiet() -> highspy.Highs:
    """A silent HiGHS object that answers the same to the same sequence of questions."""
    highs = highspy.Highs()
    for name, value in (("output_flag", False), ("threads", 1), ("solver", "simplex")):
        highs.setOptionValue(name, value)
    return highs
