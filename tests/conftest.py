"""Fixtures every test folder shares, and the rule that no skip goes unheard."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

_SKIPPED: list[str] = []

# Random examples are for the people at work on the code; CI repeats the same ones every time, so
# that it speaks of the change and not of its luck.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the public reference data; a test that needs it skips loudly where it is unset."""
    where = os.environ.get("HINTERLAND_DATA", "")
    if not where:
        pytest.skip("HINTERLAND_DATA is not set: this test needs the public reference data")
    folder = Path(where).resolve()
    assert (folder / "README.md").is_file(), f"HINTERLAND_DATA={where} holds no README.md"
    return folder


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped:
        _SKIPPED.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Where the data is given every test must run: a skip there is a failure."""
    if _SKIPPED and os.environ.get("HINTERLAND_DATA"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print(f"\nskipped although HINTERLAND_DATA is set: {', '.join(_SKIPPED)}")
