"""Fixtures for CLI tests: the command in this process, a small fleet, a server around it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from stand_in import MemoryControl, ServerThread

from scheduler.cli.root import run
from scheduler.fleet_problem import read_problem

DEMO = Path(__file__).parents[3] / "deploy" / "examples" / "demo"


@dataclass(frozen=True)
class Result:
    """What a command came to."""

    code: int
    out: str
    err: str


Hinterland = Callable[..., Result]


@pytest.fixture
def demo() -> Path:
    return DEMO


@pytest.fixture
def hinterland(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Hinterland:
    """Runs `hinterland ARGS` in an empty folder; its state folder is ``state`` there."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Result:
        capsys.readouterr()
        code = run([*(str(one) for one in arguments), "--context", str(tmp_path / "state")])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Result(code, out, err)

    return call


@pytest.fixture
def control() -> MemoryControl:
    return MemoryControl(problem=read_problem((DEMO,)))


@pytest.fixture
def server(control: MemoryControl, tmp_path: Path) -> Iterator[MemoryControl]:
    """A server in ``state``; yields its control loop in memory."""
    with ServerThread(control, tmp_path / "state"):
        yield control
