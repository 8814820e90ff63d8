"""Who carries out independent sub-problems: an ordered map, in turn or on threads.

Decides nothing about the sub-problems. They are pure functions of their argument and results come
back in order, so the answer does not depend on how many workers there are. HiGHS lets go of the
interpreter while it runs, so threads do run side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class Workers(Protocol):
    """Applies a pure function to jobs, results in the order of the jobs."""

    def map(self, work: Callable[[Job], Result], jobs: Sequence[Job]) -> list[Result]:
        """One result per job, in order. An error of any job is raised."""
        ...


def largest_first(
    workers: Workers,
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    *,
    size: Callable[[Job], int],
) -> list[Result]:
    """As `workers.map`, begun with the largest job, so that hands end together."""
    order = sorted(range(len(jobs)), key=lambda at: -size(jobs[at]))
    results = workers.map(work, [jobs[at] for at in order])
    answers = dict(zip(order, results, strict=True))
    return [answers[at] for at in range(len(jobs))]


class SerialWorkers:
    """One job after the other, here."""

    def map(self, work: Callable[[Job], Result], jobs: Sequence[Job]) -> list[Result]:
        """One result per job, in order."""
        return [work(job) for job in jobs]


class ThreadWorkers:
    """Up to `count` jobs at a time on threads of this process."""

    def __init__(self, count: int) -> None:
        assert count > 0, "at least one worker"
        self._count = count

    def map(self, work: Callable[[Job], Result], jobs: Sequence[Job]) -> list[Result]:
        """One result per job, in order."""
        with ThreadPoolExecutor(max_workers=self._count) as pool:
            return list(pool.map(work, jobs))
