"""One fleet for all drills of a folder: each drill leaves it at rest, or the next one says so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.drills.stage import Stage

_started: list[Stage] = []


@pytest.fixture(scope="session")
def shared_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A started fleet with its first plan in force."""
    stage = Stage(tmp_path_factory.mktemp("drills"))
    _started.append(stage)
    stage.start()
    yield stage
    _stop()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Stop the fleet with the folder's last drill: it would load the machine for the rest."""
    if nextitem is None or nextitem.path.parent != item.path.parent:
        _stop()


def _stop() -> None:
    while _started:
        left = _started.pop().stop()
        assert not left, f"still running: {left}"


@pytest.fixture
def stage(shared_stage: Stage) -> Stage:
    """The fleet, at rest."""
    shared_stage.settle()
    return shared_stage
