"""The search over one matrix: relaxation, first points, tree.

Decides how the gap asked for is spent and what goes first. Knows columns and rows, no plan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from optimizer.milp.arrays import Matrix
from optimizer.milp.highs import INTERRUPT, TIME_LIMIT
from optimizer.milp.whole.choice import first_columns
from optimizer.milp.whole.cuts import Separator
from optimizer.milp.whole.matrix import Whole, take_whole
from optimizer.milp.whole.relaxation import Relaxation, Relaxed
from optimizer.milp.whole.start import restricted_search
from optimizer.milp.whole.tree import Found, Tree
from optimizer.policy import PlanPolicy
from optimizer.tables import Floats

_SEARCHED_GAP = 0.9
"""Part of the gap asked for that the point may spend; the rest is for whole basis points."""

_CUT_ROUNDS = 30
_CUT_PART = 0.01
"""Rounds of cuts at the root end when one moves the bound by less than this part of all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Searched:
    """What a search found (no values and no limit hit: there is no point) and what cut it short."""

    found: Found
    hit_limit: str = ""


def search(
    matrix: Matrix, *, policy: PlanPolicy, is_over: Callable[[], bool], guess: Floats | None = None
) -> Searched:
    """The best point of a matrix within the policy's gap and nodes.

    `guess` holds values by column of the matrix, those of whole columns are tried as a point.
    Whatever time cuts short, the answer says so. An interrupt ends the search with its best point;
    raises KeyboardInterrupt where there is none yet.
    """
    whole = take_whole(matrix)
    relaxation = Relaxation(whole, first=first_columns(matrix))
    root = relaxation.solve(whole.lower, whole.upper)
    found = Found(bound=root.bound)
    if root.is_empty:
        return Searched(found=found)
    tree = Tree(relaxation, found=found, gap=policy.gap_limit * _SEARCHED_GAP)
    asked = _Asked(is_over)
    try:
        _from_the_root(
            tree, matrix, root, policy=policy, is_over=asked, guess=_within(whole, guess)
        )
    except KeyboardInterrupt:
        if found.values is None:
            raise
        return Searched(found=found, hit_limit=INTERRUPT)
    hit = TIME_LIMIT if asked.was_over else "" if tree.is_done else "node_limit"
    return Searched(found=found, hit_limit=hit)


class _Asked:
    """Asks whether time is over and remembers if it ever was: then something was left out."""

    def __init__(self, is_over: Callable[[], bool]) -> None:
        self._is_over = is_over
        self.was_over = False

    def __call__(self) -> bool:
        self.was_over = self.was_over or self._is_over()
        return self.was_over


def _from_the_root(
    tree: Tree,
    matrix: Matrix,
    root: Relaxed,
    *,
    policy: PlanPolicy,
    is_over: Callable[[], bool],
    guess: Floats | None,
) -> None:
    """First points, cuts at the root, then the tree."""
    relaxation, found = tree.relaxation, tree.found
    whole = relaxation.whole
    if guess is not None:
        tree.offer(guess)
    if not is_over():
        first = restricted_search(
            relaxation, gap=tree.gap / 2, seed=policy.seed, is_over=is_over, guess=guess
        )
        if first is not None:
            tree.offer(first)
    if found.values is None or root.bound < tree.cutoff:
        root = tighten(
            relaxation, matrix, relaxation.solve(whole.lower, whole.upper), is_over=is_over
        )
        found.bound = max(found.bound, min(root.bound, tree.cutoff))
    tree.search(nodes=policy.node_limit, is_over=is_over)


def tighten(
    relaxation: Relaxation, matrix: Matrix, root: Relaxed, *, is_over: Callable[[], bool]
) -> Relaxed:
    """Cut the root's point off, round by round, as long as its bound moves enough."""
    whole = relaxation.whole
    separator = Separator(matrix, upper=whole.upper)
    first = root.bound
    for _ in range(_CUT_ROUNDS):
        new = None if is_over() else separator.broken(root.values)
        if new is None:
            break
        relaxation.learn(new)
        before, root = root.bound, relaxation.solve(whole.lower, whole.upper)
        if root.bound - before <= _CUT_PART * (root.bound - first):
            break
    return root


def _within(whole: Whole, guess: Floats | None) -> Floats | None:
    """A guess at the matrix's columns as one at all columns, counts at their most."""
    if guess is None:
        return None
    values = whole.upper.copy()
    values[: len(guess)] = guess
    clipped: Floats = np.clip(values, whole.lower, whole.upper)
    return clipped
