"""The sweep keeps the arcs `find_arcs` keeps, with the same figures, by the same paths."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from itertools import combinations
from math import isclose
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optimizer.arcs import find_arcs
from optimizer.backbone import Backbone
from optimizer.problem import Problem
from optimizer.sweep import Sweep
from optimizer.tables import Tables
from optimizer.tabulate import tabulate
from optimizer.tabulate_routes import path_links
from sites.units import S_PER_H
from tests.optimizer import builders as b

_QUICK = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def _swept(tables: Tables) -> dict[tuple[str, str], tuple[float, float, float]]:
    arcs = Sweep(tables).table()
    return {
        (tables.classes.ids[arcs.cls[at]], tables.group_id(int(arcs.group[at]))): (
            float(arcs.replica_seconds[at]),
            float(arcs.network_usd_per_h[at]),
            float(arcs.ttft_ms[at]),
        )
        for at in range(arcs.count)
    }


@_QUICK
@given(b.rich_problems(max_sites=5, max_classes=6), st.sampled_from([(), ("a",), ("a", "b")]))
def test_the_sweep_finds_the_arcs(problem: Problem, lost: tuple[str, ...]) -> None:
    known = {s.site_id for s in problem.fleet.sites}
    problem = replace(problem, lost_sites=tuple(s for s in lost if s in known))
    found = find_arcs(problem).arcs
    swept = _swept(tabulate(problem))
    assert swept.keys() == {(a.class_id, a.group.group_id) for a in found}
    for arc in found:
        seconds, network, ttft_ms = swept[arc.class_id, arc.group.group_id]
        assert isclose(seconds, arc.replica_seconds, rel_tol=1e-12)
        assert isclose(network, arc.network_usd_per_request * S_PER_H, rel_tol=1e-12)
        assert isclose(ttft_ms, arc.ttft_ms, rel_tol=1e-12)


def test_classes_without_demand_are_left_out() -> None:
    idle = b.traffic_class("idle", rate_rps=0.0)
    tables = tabulate(b.two_sites(classes=[b.traffic_class("busy"), idle]))
    assert tables.classes.ids == ("busy",)


def test_arcs_are_kept_as_far_as_they_may_be() -> None:
    tables = tabulate(
        b.problem(
            classes=[b.traffic_class("c"), b.traffic_class("d")],
            sites=[b.site("a"), b.site("z")],
            links=[b.link("a", "z")],
        )
    )
    plain, keeping = Sweep(tables), Sweep(tables, kept_arcs=2)
    first = keeping.arcs_of(0)
    assert len(first.group) == 2
    assert keeping.arcs_of(0) is first
    assert plain.arcs_of(0) is not plain.arcs_of(0)
    assert keeping.arcs_of(1) is not keeping.arcs_of(1)
    for at in (0, 1):
        assert keeping.arcs_of(at).group.tolist() == plain.arcs_of(at).group.tolist()


def test_arcs_of_some_classes() -> None:
    classes = [b.traffic_class(f"c{i}") for i in range(4)]
    sweep = Sweep(tabulate(b.two_sites(classes=classes)))
    some = sweep.table([1, 3])
    assert some.cls.tolist() == [1, 1, 3, 3]
    assert some.group.tolist() == [0, 1, 0, 1]
    every = sweep.table()
    assert every.only(np.isin(every.cls, [1, 3])).group.tolist() == some.group.tolist()


@st.composite
def _meshes(draw: st.DrawFn) -> Problem:
    """Up to eight sites in three countries, links full of equal and of zero RTTs."""
    ids = "abcdefgh"[: draw(st.integers(2, 8))]
    links = [
        b.link(
            one,
            other,
            rtt_ms=float(draw(st.integers(0, 2))),
            price=float(draw(st.integers(0, 9))),
            transit=draw(st.sampled_from([(), (), ("CH",)])),
        )
        for one, other in combinations(ids, 2)
        if draw(st.booleans())
    ]
    return b.problem(
        sites=[b.site(one, country=draw(st.sampled_from(["DE", "FR", "CH"]))) for one in ids],
        links=links,
        markets=[b.market(f"m-{one}", accesses={one: 1.0}) for one in ids],
        classes=[
            b.traffic_class(f"c-{one}-{policy}", market_id=f"m-{one}", policy_id=policy)
            for one in ids
            for policy in ("any", "eu")
        ],
    )


@_QUICK
@given(_meshes())
def test_routes_are_the_backbones_paths(problem: Problem) -> None:
    """Of equally short paths too: RTT, price and links of every (policy, ingress, site)."""
    tables, backbone = tabulate(problem), Backbone(problem.fleet)
    for at, class_id in enumerate(tables.classes.ids):
        _, source, policy_id = class_id.split("-")
        paths = backbone.paths_from(problem.residency(policy_id), source)
        route = int(tables.classes.route[at])
        if route < 0:
            assert not paths
            continue
        for site, site_id in enumerate(tables.sites.ids):
            path = paths.get(site_id)
            if path is None:
                assert np.isinf(tables.routes.rtt_ms[route, site])
                continue
            assert tables.routes.rtt_ms[route, site] == path.rtt_ms
            assert tables.routes.usd_per_gb[route, site] == path.price_usd_per_gb
            _, crossed = path_links(
                tables.routes, tables.links, route=np.array([route]), site=np.array([site])
            )
            assert [tables.links.ids[k] for k in reversed(crossed)] == list(path.links)


@_QUICK
@given(b.rich_problems())
def test_equal_problems_give_equal_tables_in_whatever_order_they_are_told(
    problem: Problem,
) -> None:
    fleet, catalog = problem.fleet, problem.catalog
    turned = replace(
        problem,
        fleet=replace(
            fleet,
            sites=fleet.sites[::-1],
            links=fleet.links[::-1],
            markets=fleet.markets[::-1],
        ),
        catalog=replace(
            catalog,
            variants=catalog.variants[::-1],
            serving_points=catalog.serving_points[::-1],
        ),
        services=problem.services[::-1],
        tenants=problem.tenants[::-1],
        policies=problem.policies[::-1],
        classes=problem.classes[::-1],
        running=problem.running[::-1],
    )
    assert _flat(tabulate(problem)) == _flat(tabulate(turned))


def _flat(value: Any) -> Any:
    """Tables without their problem as nested tuples and bytes."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if is_dataclass(value):
        return tuple(_flat(getattr(value, f.name)) for f in fields(value) if f.name != "problem")
    return tuple(map(_flat, value)) if isinstance(value, tuple) else value
