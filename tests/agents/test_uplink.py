"""What of the uplink needs no network: backoff, and what it keeps for the next stream."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.credentials import SiteCredentials
from agents.frames import RecordBatch
from agents.uplink import Uplink, UplinkConfig, backoff_ms, new_instance_id
from sites.clock import ManualClock
from sites.errors import FatalError
from sites.steps import StepOutcome, StepResult
from sites.telemetry import Hello


def config(folder: Path = Path("nowhere"), **given: int) -> UplinkConfig:
    credentials = SiteCredentials(folder=folder)
    return UplinkConfig(control_address="127.0.0.1:1", credentials=credentials, **given)


def hello() -> Hello:
    return Hello(
        site_id="bruges",
        instance_id="1",
        agent_version="0",
        inventory=(),
        epoch=0,
        version=0,
        assignment_digest="",
        replicas=(),
    )


def result(number: int) -> StepResult:
    return StepResult(
        step_id=f"s{number}", site_id="bruges", outcome=StepOutcome.DONE, finished_at_ms=1
    )


@given(st.integers(0, 1_000), st.floats(0, 1, exclude_max=True))
def test_backoff_is_bounded_and_never_zero(failures: int, jitter: float) -> None:
    settings = config()
    waited = backoff_ms(settings, failures=failures, jitter=jitter)
    assert settings.backoff_first_ms // 2 <= waited <= settings.backoff_most_ms


@given(st.floats(0, 1, exclude_max=True))
def test_backoff_doubles_until_its_most(jitter: float) -> None:
    waits = [backoff_ms(config(), failures=n, jitter=jitter) for n in range(12)]
    assert waits == sorted(waits)
    assert waits[-1] == waits[-2]


def test_a_later_start_sorts_after_an_earlier_one() -> None:
    clock = ManualClock(start_ms=999)
    first = new_instance_id(clock, pid=99_999)
    clock.advance_ms(1)
    assert first < new_instance_id(clock, pid=1)


def test_unreadable_keys_are_one_clear_error(tmp_path: Path) -> None:
    uplink = Uplink(config(tmp_path), clock=ManualClock(), jitter=lambda: 0.0, hello=hello)
    with pytest.raises(FatalError, match=r"credential .*ca\.crt: No such file"):
        asyncio.run(uplink.run(asyncio.Event()))


def test_records_wait_in_the_spool_and_answers_are_bounded() -> None:
    uplink = Uplink(config(answers=3), clock=ManualClock(), jitter=lambda: 0.0, hello=hello)
    batch = RecordBatch(site_id="bruges", first_sequence=0, records=(b"{}",))
    assert not uplink.send(batch)
    for number in range(10):
        assert uplink.send(result(number))
    assert len(uplink._answers) == 3
