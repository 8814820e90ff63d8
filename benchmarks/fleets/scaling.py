"""How much of the drawn demand the fleet can take: rates of the classes, in total and by country.

First the ideal fleet (`fluid_scale`) puts a price on accelerators and watts; then every country's
classes together ask for the same part of what its sites are worth, and no class for more than a
tenth of what could lawfully answer it in time (a protected one: with its best site lost); then the
whole is scaled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.fleets.demand import PICKED, QUEUEING_MS, Fluid, Ground, Wish, fluid_scale
from benchmarks.fleets.hardware import MIB, Accelerator
from sites.catalog import Catalog, ServingPoint
from sites.fleet import Site
from sites.traffic import Service

DEMAND_PART = 0.65
CLASS_PART = 0.1
ROUNDS = 3
NEAREST = 100
"""Sites looked at for what a class could get; the nearest are enough to tell."""
SLACK_MS = QUEUEING_MS + 1


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """What rates are scaled against; `ceiling` is the utilisation a plan may reach."""

    sites: tuple[Site, ...]
    types: tuple[Accelerator, ...]
    known: Catalog
    services: tuple[Service, ...]
    ground: Ground
    ceiling: float

    def rates(self, wishes: list[Wish]) -> list[float]:
        """Rate of every class (requests/s): 65 % of what the ideal fleet could serve of the mix."""
        points = self._points()
        seconds = self._seconds(wishes, points)
        most = self._most_rps(wishes, points=points, seconds=seconds)
        rate = np.array([w.weight for w in wishes])
        for _ in range(ROUNDS):
            fluid = self._fluid(wishes, rate, points=points, seconds=seconds)
            rate = rate * fluid.scale * DEMAND_PART
            work = self._work(wishes, points=points, seconds=seconds, fluid=fluid)
            rate = np.minimum(self._even(wishes, rate, work=work, fluid=fluid), most)
        fluid = self._fluid(wishes, rate, points=points, seconds=seconds)
        return [float(f"{r:.5g}") for r in rate * fluid.scale * DEMAND_PART]

    def _points(self) -> list[list[ServingPoint]]:
        """Serving points of each service."""
        by_variant: dict[str, list[ServingPoint]] = {}
        for point in self.known.serving_points:
            by_variant.setdefault(point.variant_id, []).append(point)
        return [
            [p for v in service.variant_ids for p in by_variant.get(v, ())]
            for service in self.services
        ]

    def _seconds(self, wishes: list[Wish], points: list[list[ServingPoint]]) -> list[np.ndarray]:
        """Per class the replica-seconds of a request on each of its service's points (at the
        ceiling; less concurrency where the key-value cache has less room; inf without room).
        """
        memory = {a.name: a.memory_mib for a in self.types}
        seconds = []
        for wish in wishes:
            tokens = wish.lengths.input_tokens + wish.lengths.output_tokens
            row = []
            for p in points[wish.service]:
                variant = self.known.variant(p.variant_id)
                room = p.accelerators_per_replica * memory[p.accelerator] - variant.weights_mib
                slots = min(p.concurrency, room * MIB / (tokens * variant.kv_bytes_per_token))
                busy_s = p.replica_seconds(
                    input_tokens=wish.lengths.input_tokens,
                    output_tokens=wish.lengths.output_tokens,
                )
                row.append(busy_s * p.concurrency / slots / self.ceiling if slots >= 1 else np.inf)
            seconds.append(np.array(row))
        return seconds

    def _at(self) -> dict[str, int]:
        return {a.name: k for k, a in enumerate(self.types)}

    def _fluid(
        self,
        wishes: list[Wish],
        rate: np.ndarray,
        *,
        points: list[list[ServingPoint]],
        seconds: list[np.ndarray],
    ) -> Fluid:
        at = self._at()
        flat = [p for of in points for p in of]
        first = np.cumsum([0, *(len(of) for of in points)])
        busy = np.full((len(points), len(flat)), np.inf)
        for wish, r, row in zip(wishes, rate, seconds, strict=True):
            block = busy[wish.service, first[wish.service] : first[wish.service + 1]]
            block[:] = np.where(np.isinf(block), 0, block) + r * row
        limits = np.zeros(len(at) + 1)
        for site in self.sites:
            limits[-1] += site.power_budget_w[0] / site.pue
            for pool in site.pools:
                limits[at[pool.accelerator]] += pool.count
        return fluid_scale(
            busy,
            kind=np.array([at[p.accelerator] for p in flat]),
            size=np.array([p.accelerators_per_replica for p in flat], dtype=float),
            watts=np.array([p.full_w for p in flat]),
            limits=limits,
        )

    def _work(
        self,
        wishes: list[Wish],
        *,
        points: list[list[ServingPoint]],
        seconds: list[np.ndarray],
        fluid: Fluid,
    ) -> np.ndarray:
        """What one request/s of each class takes of the ideal fleet at its prices."""
        at = self._at()
        prices = [
            np.array(
                [
                    p.accelerators_per_replica * fluid.accelerator_price[at[p.accelerator]]
                    + p.full_w * fluid.watt_price
                    for p in of
                ]
            )
            for of in points
        ]
        return np.array(
            [np.min(row * prices[w.service]) for w, row in zip(wishes, seconds, strict=True)]
        )

    def _even(
        self, wishes: list[Wish], rate: np.ndarray, *, work: np.ndarray, fluid: Fluid
    ) -> np.ndarray:
        """Rates such that every country asks for its part."""
        worth = self._worth(fluid)
        country = np.array([s.country for s in self.sites])
        home = np.array([self.ground.markets[w.market].country for w in wishes])
        for one in sorted(set(home.tolist())):
            mine = home == one
            asked = float(rate[mine] @ work[mine])
            if asked > 0:
                rate = np.where(
                    mine, rate * DEMAND_PART * float(worth[country == one].sum()) / asked, rate
                )
        return rate

    def _worth(self, fluid: Fluid) -> np.ndarray:
        """What each site adds to the ideal fleet."""
        at = self._at()
        return np.array(
            [
                fluid.watt_price * site.power_budget_w[0] / site.pue
                + sum(p.count * fluid.accelerator_price[at[p.accelerator]] for p in site.pools)
                for site in self.sites
            ]
        )

    def _most_rps(
        self,
        wishes: list[Wish],
        *,
        points: list[list[ServingPoint]],
        seconds: list[np.ndarray],
    ) -> np.ndarray:
        """Most each class may ask for: a part of what it could get with the fleet to itself."""
        at = self._at()
        count = np.zeros((len(at), len(self.sites)))
        full_w = {a.name: a.full_w for a in self.types}
        powered = np.zeros(len(self.sites))
        for k, site in enumerate(self.sites):
            peak_w = site.pue * sum(p.count * full_w[p.accelerator] for p in site.pools)
            powered[k] = site.power_budget_w[0] / peak_w
            for pool in site.pools:
                count[at[pool.accelerator], k] = pool.count
        most = []
        for wish, row in zip(wishes, seconds, strict=True):
            sites = self.ground.lawful_sites[wish.lawful]
            left_ms = wish.slo_ms - SLACK_MS - self.ground.reach_ms(wish, first_token=False)
            if len(sites) > NEAREST:
                near = np.argpartition(-left_ms, NEAREST)[:NEAREST]
                sites, left_ms = sites[near], left_ms[near]
            here = count[:, sites]
            best = np.zeros((len(at), len(sites)))
            for point, busy_s in zip(points[wish.service], row, strict=True):
                precision = self.known.variant(point.variant_id).precision
                if (wish.picky and precision == PICKED) or not np.isfinite(busy_s):
                    continue
                k, n = at[point.accelerator], point.accelerators_per_replica
                rps = np.where(left_ms >= point.ttft_ms, here[k] // n / busy_s, 0.0)
                np.maximum(best[k], rps, out=best[k])
            per_site = best.sum(axis=0) * powered[sites]
            lost = per_site.max() if wish.protected and np.count_nonzero(per_site) > 1 else 0.0
            most.append(CLASS_PART * float(per_site.sum() - lost))
        return np.array(most)
