"""Traffic of the tiers: who asks for what, where, how often, and how much of it the fleet can take.

Rates are log-normal, token lengths those of the public traces, half of the classes bound to their
own jurisdiction. Every class is drawn so that a site may lawfully answer it in time. The whole is
then scaled: `fluid_scale` says how often over an ideal fleet could serve it.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import highspy
import numpy as np

from benchmarks.fleets.geography import City
from benchmarks.fleets.tables import rows

SLO_MS = (50.0, 75.0, 100.0, 150.0, 200.0, 300.0, 450.0, 600.0)
QUEUEING_MS = 4.0
RATE_SIGMA = 1.1
PICKED = "int4"
"""Precision a picky class does not take."""
POPULAR_POWER = 0.8
"""Services are asked for by rank to this negative power (Zipf-like)."""
BYTES_PER_TOKEN, ENVELOPE_BYTES, IMAGE_BYTES = 5.0, 2_000.0, 400_000.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """Mean input and output tokens of one kind of client, and its part of the requests."""

    input_tokens: float
    output_tokens: float
    weight: float


@cache
def trace_lengths(data: Path) -> tuple[Lengths, ...]:
    """Means per ServeGen client (first day of m-large, m-mid, m-small) and per Azure and Mooncake
    trace, as far as they lie between 16 and 6 000 tokens in and 8 and 2 000 out.
    """
    found = []
    for row in rows(data, "traces/servegen_client_lengths_6h.csv.gz"):
        known = row["input_mean"] and row["output_mean"]
        if row["model"].startswith("m-") and row["window_s"] == "43200" and known:
            found.append((row["input_mean"], row["output_mean"], row["rate_rps"]))
    for name, columns in (
        ("azure_llm_2023_code", ("ContextTokens", "GeneratedTokens")),
        ("azure_llm_2023_conv", ("ContextTokens", "GeneratedTokens")),
        ("mooncake_conversation", ("input_tokens", "output_tokens")),
    ):
        table = rows(data, f"traces/{name}.csv")
        means = [str(math.fsum(float(r[c]) for r in table) / len(table)) for c in columns]
        found.append((means[0], means[1], "1.0"))
    return tuple(
        Lengths(input_tokens=float(i), output_tokens=float(o), weight=math.sqrt(float(w)) + 0.05)
        for i, o, w in found
        if 16 <= float(i) <= 6_000 and 8 <= float(o) <= 2_000
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """A class before its rate is scaled. `lawful` names its jurisdiction ("" = anywhere)."""

    market: int
    service: int
    lawful: str
    slo_ms: float
    weight: float
    lengths: Lengths
    image: bool
    protected: bool
    picky: bool
    priority: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """What a class is drawn against.

    `first_token_ms[service, site]`: best point there (inf where none), `picky_token_ms` the same
    without int4. `access_ms[market, site]`: inf where no access. `lawful_sites[jurisdiction]`:
    positions of its sites, `path_ms[jurisdiction]`: RTT between those over those alone.
    """

    markets: tuple[City, ...]
    first_token_ms: np.ndarray
    picky_token_ms: np.ndarray
    lawful_sites: dict[str, np.ndarray]
    access_ms: np.ndarray
    path_ms: dict[str, np.ndarray]
    europe: frozenset[str]

    def reach_ms(self, wish: Wish, *, first_token: bool = True) -> np.ndarray:
        """Least time to first token for a class at each site of its jurisdiction, or without
        `first_token` the way there alone (ms).
        """
        sites = self.lawful_sites[wish.lawful]
        access = self.access_ms[wish.market, sites]
        ingress = int(np.argmin(access))
        way = access[ingress] + self.path_ms[wish.lawful][ingress]
        if not first_token:
            return np.asarray(way)
        best = (self.picky_token_ms if wish.picky else self.first_token_ms)[wish.service, sites]
        return np.asarray(way + best)


def draw_wishes(
    chance: random.Random, ground: Ground, *, count: int, data: Path, slack_ms: float
) -> list[Wish]:
    """`count` classes; a drawn SLO no lawful site could meet is raised to the next one that is."""
    services = ground.first_token_ms.shape[0]
    popular = [1 / (rank + 1) ** POPULAR_POWER for rank in range(services)]
    crowd = [c.population**0.5 for c in ground.markets]
    lengths = trace_lengths(data)
    known = [one.weight for one in lengths]
    wishes: list[Wish] = []
    for at in range(count):
        for _ in range(100):
            market = chance.choices(range(len(crowd)), crowd)[0]
            wish = Wish(
                market=market,
                service=chance.choices(range(services), popular)[0],
                lawful=_jurisdiction(chance, ground, market) if at % 2 == 0 else "",
                slo_ms=chance.choice(SLO_MS),
                weight=chance.lognormvariate(0.0, RATE_SIGMA),
                lengths=chance.choices(lengths, known)[0],
                image=chance.random() < 0.1,
                protected=at % 5 == 0,
                picky=chance.random() < 0.2,
                priority=chance.randrange(10),
            )
            least_ms = float(np.min(ground.reach_ms(wish))) + slack_ms
            if least_ms <= SLO_MS[-1]:
                break
        else:
            raise LookupError("no class with a lawful site within the longest SLO in 100 draws")
        met = min(ms for ms in SLO_MS if ms >= max(wish.slo_ms, least_ms))
        wishes.append(replace(wish, slo_ms=met))
    return wishes


def _jurisdiction(chance: random.Random, ground: Ground, market: int) -> str:
    """The market's country (every market's has sites); in the EU as often the whole of it."""
    country = ground.markets[market].country
    return "EU" if country in ground.europe and chance.random() < 0.5 else country


@dataclass(frozen=True, kw_only=True, slots=True)
class Fluid:
    """An ideal fleet: all accelerators of a type in one place, all power in one budget.

    `scale`: how often over it could serve the demand given. `accelerator_price[type]` and
    `watt_price`: what one more of each adds to that.
    """

    scale: float
    accelerator_price: np.ndarray
    watt_price: float


def fluid_scale(
    busy: np.ndarray, *, kind: np.ndarray, size: np.ndarray, watts: np.ndarray, limits: np.ndarray
) -> Fluid:
    """Largest t such that t times the demand fits accelerators per type and total power (W).

    `busy[service, point]`: replicas of a point that would serve a service's whole demand (inf
    where it may not). `kind`, `size`, `watts` of each point: type, accelerators, draw. `limits`:
    accelerators per type, then power. A linear programme in the parts of services on points.
    """
    pairs = np.argwhere(np.isfinite(busy) & (busy > 0))
    kinds, services = len(limits) - 1, int(busy.shape[0])
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    highs.setOptionValue("threads", 1)
    for limit in limits:
        highs.addRow(-highspy.kHighsInf, float(limit), 0, [], [])
    wanted = [s for s in range(services) if (pairs[:, 0] == s).any()]
    row_of = {s: kinds + 1 + k for k, s in enumerate(wanted)}
    for _ in wanted:
        highs.addRow(0.0, 0.0, 0, [], [])
    inf = highspy.kHighsInf
    highs.addCol(-1.0, 0.0, inf, len(wanted), list(row_of.values()), [-1.0] * len(wanted))
    for s, p in pairs:
        need = float(busy[s, p])
        values = [need * float(size[p]), need * float(watts[p]), 1.0]
        highs.addCol(0.0, 0.0, inf, 3, [int(kind[p]), kinds, row_of[int(s)]], values)
    highs.run()
    if highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        raise RuntimeError(f"fluid LP ended {highs.modelStatusToString(highs.getModelStatus())}")
    duals = -np.array(highs.getSolution().row_dual[: kinds + 1])
    return Fluid(
        scale=float(highs.getSolution().col_value[0]),
        accelerator_price=np.maximum(duals[:kinds], 0.0),
        watt_price=max(float(duals[kinds]), 0.0),
    )
