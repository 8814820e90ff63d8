"""Fixtures every test folder shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the public reference data; a test that needs it skips loudly where it is unset."""
    where = os.environ.get("HINTERLAND_DATA", "")
    if not where:
        pytest.skip("HINTERLAND_DATA is not set: this test needs the public reference data")
    folder = Path(where).resolve()
    assert (folder / "README.md").is_file(), f"HINTERLAND_DATA={where} holds no README.md"
    return folder
