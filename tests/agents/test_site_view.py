"""What an agent tells of its site: draw and work from what is known, bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.replica_set import Life, Replica
from agents.site_view import (
    FAULT_CHARACTERS_MAX,
    FAULTS_MAX,
    Identity,
    Work,
    estimated_draw_w,
    observation,
    observe_replicas,
)
from sites.telemetry import GatewayObservation, ReplicaState
from tests.agents import site_facts as f


def replica(number: int, life: Life = Life.READY) -> Replica:
    return Replica(
        replica_id=f"{f.GROUP}/r{number}",
        number=number,
        target=f.target(),
        life=life,
        since_ms=0,
    )


@pytest.mark.parametrize(("running", "expected_w"), [(0, 5.0), (2, 10.0), (4, 15.0), (40, 15.0)])
def test_draw_goes_from_idle_to_full_with_the_running_requests(
    running: int, expected_w: float
) -> None:
    draw_w = estimated_draw_w([replica(1)], work_of=lambda _: Work(running=running), pue=1.2)
    assert draw_w == pytest.approx(expected_w * 1.2)


@given(st.lists(st.tuples(st.sampled_from(Life), st.integers(0, 99)), max_size=8))
def test_estimated_draw_never_exceeds_what_the_processes_can_draw(
    lives: list[tuple[Life, int]],
) -> None:
    replicas = [replica(n, life) for n, (life, _) in enumerate(lives)]
    work = {r.replica_id: Work(running=n) for r, (_, n) in zip(replicas, lives, strict=True)}
    draw_w = estimated_draw_w(replicas, work_of=work.__getitem__, pue=1.5)
    alive = sum(1 for life, _ in lives if life is not Life.FAILED)
    assert 5.0 * 1.5 * alive - 1e-9 <= draw_w <= 15.0 * 1.5 * alive + 1e-9


def test_every_life_has_its_word_in_telemetry() -> None:
    seen = observe_replicas(
        [replica(n, life) for n, life in enumerate(Life)], work_of=lambda _: Work(running=3)
    )
    assert {s.state for s in seen} == set(ReplicaState)
    assert all(s.running == 3 for s in seen)


def test_faults_are_bounded_in_number_and_length() -> None:
    told = observation(
        Identity(site_id=f.SITE, instance_id="1"),
        sequence=1,
        observed_at_ms=0,
        applied=None,
        applied_digest="",
        replicas=(),
        gateway=GatewayObservation(live=False),
        possible_draw_w=0.0,
        draw_w=0.0,
        records_spooled=0,
        faults=("x" * 10_000 for _ in range(1_000)),
    )
    assert len(told.faults) == FAULTS_MAX
    assert max(map(len, told.faults)) == FAULT_CHARACTERS_MAX
    assert (told.epoch, told.version) == (0, 0)
