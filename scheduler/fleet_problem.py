"""From what fleet files describe to the question the optimizer answers.

Joins the description with what is known of the running fleet. Reads no files itself (that is
`sites.fleet_file`) and judges nothing: the facts refuse what cannot be.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimizer.policy import PlanPolicy
from optimizer.problem import Problem
from sites.digest import digest
from sites.plain import from_plain

if TYPE_CHECKING:  # the YAML reader is slow to import; only callers that read files pay for it
    from sites.fleet_file import FleetDescription


def problem_of(
    description: FleetDescription, *, period: int = 0, plan_policy: Mapping[str, Any] | None = None
) -> Problem:
    """The problem of the files alone: nothing runs, no site is lost.

    `period` is the hour of day planned for; `plan_policy` overrides fields of the files' policy.
    Raises InvalidFactError for a plan policy no plan can be made under.
    """
    fields = {**description.plan_policy, **(plan_policy or {})}
    return Problem(
        fleet=description.fleet,
        catalog=description.catalog,
        services=description.services,
        tenants=description.tenants,
        policies=description.policies,
        classes=description.classes,
        plan_policy=from_plain(PlanPolicy, fields),
        period=period,
    )


def read_problem(
    paths: tuple[Path, ...], *, period: int = 0, plan_policy: Mapping[str, Any] | None = None
) -> Problem:
    """Read fleet files and folders into a problem; raises RefusedError with every fault at once."""
    from sites.fleet_file import load_fleet  # noqa: PLC0415 - see the head of this file

    return problem_of(load_fleet(paths), period=period, plan_policy=plan_policy)


def as_running(described: Problem, live: Problem) -> Problem:
    """What the files describe, on the fleet as it runs: its replicas, lost sites and forecasts.

    Replicas and lost sites the files no longer know stay out: they are not the plan's to keep.
    """
    sites = {s.site_id for s in described.fleet.sites}
    variants = {v.variant_id for v in described.catalog.variants}
    classes = {c.class_id for c in described.classes}
    return dataclasses.replace(
        described,
        running=tuple(
            r for r in live.running if r.group.site_id in sites and r.group.variant_id in variants
        ),
        lost_sites=tuple(s for s in live.lost_sites if s in sites),
        demand=tuple(d for d in live.demand if d.class_id in classes),
    )


def description_digest(problem: Problem) -> str:
    """Digest of what the files alone say: equal whatever runs, is lost or was forecast."""
    return digest(dataclasses.replace(problem, running=(), lost_sites=(), demand=()))
