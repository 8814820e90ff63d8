"""One fleet for all drills of a folder: each drill leaves it at rest, or the next one says so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.drills.stage import Stage


@pytest.fixture(scope="package")
def shared_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A started fleet with its first plan in force."""
    stage = Stage(tmp_path_factory.mktemp("drills"))
    try:
        stage.start()
        yield stage
    finally:
        left = stage.stop()
    assert not left, f"still running: {left}"


@pytest.fixture
def stage(shared_stage: Stage) -> Stage:
    """The fleet, at rest."""
    shared_stage.settle()
    return shared_stage
