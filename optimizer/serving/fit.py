"""Efficiencies fitted to measurements: one base, and what families, chips, engines and models add.

Decides how far each effect may move (a ridge, so what was seldom measured stays near what it
resembles) and which measurements speak too loudly (Huber's weights). Everything is a logarithm:
errors are relative, and throughput stays monotone in the hardware whatever the effects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from optimizer.serving.measurement import Measurement
from optimizer.serving.roofline import (
    PRIOR,
    Array,
    Case,
    Efficiency,
    Shape,
    output_tok_s,
    prefill_s,
    shape_of,
    step_s,
    token_s,
)
from optimizer.serving.specs import PRECISIONS, AcceleratorSpec, Architecture

Rows = NDArray[np.bool_]
TERMS = (*Efficiency._fields, "bench")
"""What is fitted; `bench`: how far a table's throughput lies from a steady state."""

SPREADS = {
    "all": 1.0, "family": 0.35, "accelerator": 0.3, "framework": 0.35, "pair": 0.3, "kind": 0.4,
    "model": 0.25, "quantised": 0.25, "table": 0.3, "split": 0.2,
}  # fmt: skip
"""Standard deviation a level's effects are expected to have (log)."""

_EVERY = ("all", "family", "accelerator", "framework", "pair", "kind", "model", "quantised")
LEVELS: dict[str, tuple[str, ...]] = {
    "bandwidth": _EVERY,
    "cache": ("all", "family", "accelerator", "framework", "model"),
    "decode_flops": _EVERY,
    "prefill_flops": _EVERY,
    "layer_s": (*_EVERY, "split"),
    "request_s": ("all", "family", "accelerator", "framework", "pair"),
    "stream_s": ("all", "family", "accelerator", "framework", "pair"),
    "link": ("all", "family", "accelerator", "framework"),
    "start_s": ("all", "family", "framework"),
    "bench": ("table",),
}
NOISE = 0.1
HUBER = 1.5
CROWD = 0.5
"""Power of a group's size that its measurements are weighed down by: 0 none, 1 groups equal."""

SERVED_TABLES = frozenset(
    ("accelmark-interactive", "accelmark-online", "accelmark-sustained", "edge", "ml-energy")
)
"""Tables of servers that stream to clients; the others time whole batches or steps."""

STEADY_TABLES = frozenset(("argonne", "argonne-power", "ml-energy", "edge"))
ROUNDS = 60
MOVE_MOST = 0.5
LEFT_OUT_STEPS = 8
SETTLED = 1e-4
DIFFERENCE = 1e-4


class Observation(NamedTuple):
    """One figure to explain: what was run, which of its times or rates, and its value."""

    measurement: Measurement
    case: Case
    kind: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Effects:
    """Fitted effects: term -> (level, key) -> logarithm. Missing keys are zero."""

    values: Mapping[str, Mapping[tuple[str, str], float]] = field(default_factory=dict)

    def term(self, term: str, keys: Mapping[str, str]) -> float:
        """A term's logarithm for one configuration: its prior and every effect that applies."""
        prior = float(getattr(PRIOR, term)) if term != "bench" else 0.0
        known = self.values.get(term, {})
        return prior + sum(known.get((level, keys[level]), 0.0) for level in LEVELS[term])


def observations(
    measurements: Sequence[Measurement],
    accelerators: Mapping[str, AcceleratorSpec],
    architectures: Mapping[str, Architecture],
) -> list[Observation]:
    """Every rate and time that known hardware, model and precision explain.

    Of percentiles only medians and means: the spread is another matter. Times under an offered
    rate hold queueing and are left out.
    """
    found: list[Observation] = []
    for one in measurements:
        spec, arch = accelerators.get(one.accelerator), architectures.get(one.model)
        if spec is None or arch is None or one.precision not in PRECISIONS:
            continue
        case = Case(
            accelerator=spec,
            architecture=arch,
            precision=one.precision,
            accelerators=one.accelerators,
            input_tokens=one.input_tokens,
            output_tokens=one.output_tokens,
            concurrency=one.concurrency,
            served=one.table in SERVED_TABLES,
        )
        ran = replace(case, together=True)
        if one.output_tok_s:
            found.append(Observation(one, case, "rate", one.output_tok_s))
        if one.percentile not in (0.0, 50.0):
            continue
        if one.tpot_ms:
            kind = "step" if one.decode_only else "tpot"
            found.append(Observation(one, ran, kind, one.tpot_ms / 1e3))
        if one.ttft_ms and one.concurrency and one.prefill_batch >= one.concurrency:
            found.append(Observation(one, ran, "ttft", one.ttft_ms / 1e3))
    return found


def keys_of(one: Measurement, case: Case) -> dict[str, str]:
    """The key of every level for one measurement."""
    table = "steady" if one.table in STEADY_TABLES else one.table
    return keys(case, framework=one.framework, table=table)


def keys(case: Case, *, framework: str, table: str = "steady") -> dict[str, str]:
    """The key of every level for one configuration, engine and kind of benchmark."""
    accelerator = case.accelerator.accelerator
    return {
        "all": "",
        "family": case.accelerator.family,
        "accelerator": accelerator,
        "framework": framework,
        "pair": f"{accelerator}|{framework}",
        "kind": case.architecture.kind,
        "model": case.architecture.model,
        "quantised": f"{case.precision}|{case.accelerator.family}",
        "table": table,
        "split": f"{case.accelerator.family}|{case.accelerators}",
    }


def predict(shape: Shape, eff: Efficiency, bench: Array, kinds: Mapping[str, Rows]) -> Array:
    """Logarithm of each observation's value: rates in tok/s, times in s. `kinds`: kind -> rows."""
    said = np.zeros(len(shape.batch))
    for kind, chosen in kinds.items():
        part = Shape(*(column[chosen] for column in shape))
        known = Efficiency(*(term[chosen] for term in eff))
        if kind == "rate":
            said[chosen] = np.log(output_tok_s(part, known)) + bench[chosen]
        elif kind == "step":
            said[chosen] = np.log(step_s(part, known))
        elif kind == "tpot":
            said[chosen] = np.log(token_s(part, known))
        else:
            first = prefill_s(part, known, batch=part.batch)
            said[chosen] = np.log(first + np.exp(known.start_s))
    return said


class Problem:
    """Observations as arrays: shapes, values, and which effect of which level each one feels."""

    def __init__(self, observed: Sequence[Observation]) -> None:
        self.observed = list(observed)
        self.shape = shape_of([one.case for one in observed])
        self.value = np.log(np.array([one.value for one in observed]))
        kinds = sorted({one.kind for one in observed})
        self.kinds: dict[str, Rows] = {
            kind: np.array([one.kind == kind for one in observed]) for kind in kinds
        }
        everyone = [keys_of(one.measurement, one.case) for one in observed]
        self.columns: list[tuple[str, str, str]] = []
        self.index: dict[str, NDArray[np.intp]] = {}
        for term in TERMS:
            self._columns_of(term, everyone)
        self.spread = np.array([SPREADS[level] for _, level, _ in self.columns])
        sizes: dict[object, int] = {}
        for one in observed:
            sizes[one.measurement.group] = sizes.get(one.measurement.group, 0) + 1
        self.weight = np.array([sizes[one.measurement.group] ** -CROWD for one in observed])

    def _columns_of(self, term: str, everyone: list[dict[str, str]]) -> None:
        places: list[list[int]] = []
        for level in LEVELS[term]:
            if (term, level) == ("bench", "table"):
                known = sorted({one[level] for one in everyone} - {"steady"})
            else:
                known = sorted({one[level] for one in everyone})
            start = len(self.columns)
            at = {key: start + i for i, key in enumerate(known)}
            self.columns += [(term, level, key) for key in known]
            places.append([at.get(one[level], -1) for one in everyone])
        self.index[term] = np.array(places, dtype=np.intp).T

    def terms(self, beta: Array) -> list[Array]:
        """Each term's logarithm per observation."""
        padded = np.append(beta, 0.0)  # index -1: no effect
        found = []
        for term in TERMS:
            prior = float(getattr(PRIOR, term)) if term != "bench" else 0.0
            found.append(prior + padded[self.index[term]].sum(axis=1))
        return found

    def said(self, beta: Array) -> Array:
        """Logarithm of every prediction."""
        terms = self.terms(beta)
        return predict(self.shape, Efficiency(*terms[:-1]), terms[-1], self.kinds)

    def _slopes(self, terms: list[Array], said: Array) -> list[Array]:
        slopes = []
        for i in range(len(terms)):
            moved = [t + DIFFERENCE if i == j else t for j, t in enumerate(terms)]
            after = predict(self.shape, Efficiency(*moved[:-1]), moved[-1], self.kinds)
            slopes.append((after - said) / DIFFERENCE)
        return slopes

    def _linearised(self, beta: Array) -> tuple[Array, Array, Array]:
        """Jacobian, residuals and weights (Huber's and the crowd's) at a point."""
        terms = self.terms(beta)
        said = predict(self.shape, Efficiency(*terms[:-1]), terms[-1], self.kinds)
        residual = self.value - said
        jacobian = np.zeros((len(said), len(beta) + 1))
        rows = np.arange(len(said))
        for term, slope in zip(TERMS, self._slopes(terms, said), strict=True):
            for column in self.index[term].T:
                jacobian[rows, column] += slope
        loud = np.maximum(1.0, np.abs(residual) / (HUBER * NOISE))
        return jacobian[:, :-1], residual, self.weight / loud / NOISE**2

    def _loss(self, beta: Array, *, keep: Rows) -> float:
        """What the fit makes least: Huber's loss of the residuals and the ridge."""
        size = np.abs(self.value - self.said(beta)) / NOISE
        each = np.where(size <= HUBER, size**2 / 2, HUBER * (size - HUBER / 2))
        return float((self.weight * keep) @ each + np.sum((beta / self.spread) ** 2) / 2)

    def _stepped(self, beta: Array, move: Array, *, keep: Rows) -> tuple[Array, float]:
        """The effects after a step, and how far the loss fell.

        A step that would raise the loss is halved until it does not: without that, terms that
        stand in for each other (decode arithmetic and time per layer) swing for ever.
        """
        loss = self._loss(beta, keep=keep)
        move = np.clip(move, -MOVE_MOST, MOVE_MOST)
        while float(np.max(np.abs(move), initial=0.0)) > SETTLED:
            after = self._loss(beta + move, keep=keep)
            if after <= loss:
                return beta + move, loss - after
            move = move / 2
        return beta, 0.0

    def solve(self) -> Array:
        """Effects that explain the observations: Gauss-Newton, ridge, Huber's weights."""
        beta = np.zeros(len(self.columns))
        everyone = np.ones(len(self.value), dtype=np.bool_)
        for _ in range(ROUNDS):
            jacobian, residual, weight = self._linearised(beta)
            weighed = jacobian * weight[:, None]
            normal = weighed.T @ jacobian + np.diag(self.spread**-2)
            move = np.linalg.solve(normal, weighed.T @ residual - beta / self.spread**2)
            beta, gained = self._stepped(beta, move, keep=everyone)
            if gained < SETTLED:
                break
        return beta

    def left_out(self, beta: Array, groups: Sequence[Rows]) -> Array:
        """Logarithmic errors of each group predicted from all the others (NaN: in no group).

        From the full fit, LEFT_OUT_STEPS steps without the group's rows: the curvature is that of
        the full fit less the group's part, the slope is taken anew from the rest at each step, so
        that Huber's weights forget the group too. Its own effects have no data and fall back to
        their ridge.
        """
        jacobian, _, weight = self._linearised(beta)
        weighed = jacobian * weight[:, None]
        normal = weighed.T @ jacobian + np.diag(self.spread**-2)
        errors = np.full(len(self.value), np.nan)
        for out in groups:
            inverse = np.linalg.inv(normal - weighed[out].T @ jacobian[out])
            without = beta
            for _ in range(LEFT_OUT_STEPS):
                move = inverse @ self._downhill(without, keep=~out)
                without, _ = self._stepped(without, move, keep=~out)
            errors[out] = (self.said(without) - self.value)[out]
        return errors

    def _downhill(self, beta: Array, *, keep: Rows) -> Array:
        """The loss's slope, downwards, where only some rows count."""
        terms = self.terms(beta)
        said = predict(self.shape, Efficiency(*terms[:-1]), terms[-1], self.kinds)
        residual = self.value - said
        pull = self.weight * keep * np.clip(residual, -HUBER * NOISE, HUBER * NOISE) / NOISE**2
        slope: Array = np.zeros(len(beta) + 1)  # the last: rows that feel no effect of a level
        for term, slopes in zip(TERMS, self._slopes(terms, said), strict=True):
            for column in self.index[term].T:
                slope += np.bincount(column % len(slope), pull * slopes, minlength=len(slope))
        falling: Array = slope[:-1] - beta / self.spread**2
        return falling

    def effects(self, beta: Array) -> Effects:
        """The fitted numbers by term, level and key, small ones dropped."""
        found: dict[str, dict[tuple[str, str], float]] = {}
        for (term, level, key), value in zip(self.columns, beta, strict=True):
            if abs(value) >= 5e-4:
                found.setdefault(term, {})[(level, key)] = round(float(value), 4)
        return Effects(values=found)
