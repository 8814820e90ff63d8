"""One golden LP file per row family, and one for the objective, of one tiny fleet in `tiny_fleet`.

A changed row is a changed formulation: read the difference, then delete the file and run the tests
twice (the first run writes it and fails).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from optimizer.arcs import find_arcs
from optimizer.milp.constraints import FAMILIES
from optimizer.milp.formulate import formulate
from optimizer.milp.model import Formulation, lp_text
from optimizer.solve import solve
from tests.optimizer.milp.cases import tiny_fleet

GOLDEN = Path(__file__).parent / "lp"
NAMES = tuple(family.__name__ for family in FAMILIES)


def formulation() -> Formulation:
    problem = tiny_fleet()
    return formulate(problem, find_arcs(problem).arcs)


def compare(name: str, text: str) -> None:
    path = GOLDEN / f"{name}.lp"
    if not path.exists():
        path.write_text(text, encoding="ascii")
        pytest.fail(f"{path.name} was missing; written now, read it and run again")
    assert text == path.read_text(encoding="ascii")


@pytest.mark.parametrize("family", NAMES)
def test_rows_are_as_written(family: str) -> None:
    text = lp_text(formulation(), family=family)

    assert f"_{family}(" in text, f"{family} has no row in the tiny fleet"
    compare(family, text)


def test_objective_is_as_written() -> None:
    head, _, _ = lp_text(formulation()).partition("s.t.")
    compare("objective", head)


def test_every_family_has_its_file_and_no_file_lacks_its_family() -> None:
    assert {p.stem for p in GOLDEN.glob("*.lp")} == {*NAMES, "objective"}


def test_writing_one_family_leaves_the_model_whole() -> None:
    one = formulation()
    before = lp_text(one)
    lp_text(one, family="throughput")

    assert lp_text(one) == before


def test_the_tiny_fleet_has_a_plan() -> None:
    outcome = solve(tiny_fleet())

    assert outcome.plan is not None, outcome.message
    assert outcome.plan.gap < 1e-3


def test_the_same_text_under_every_hash_seed() -> None:
    code = (
        "from tests.optimizer.milp.cases import tiny_fleet\n"
        "from tests.optimizer.milp.test_golden import formulation\n"
        "from optimizer.milp.model import lp_text\n"
        "from optimizer.solve import solve\n"
        "print(lp_text(formulation()), solve(tiny_fleet()).plan.plan_digest)"
    )
    root = Path(__file__).parents[3]
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout
        for seed in ("1", "4242")
    }

    assert len(texts) == 1
