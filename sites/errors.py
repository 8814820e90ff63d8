"""How Hinterland says no: broken limits as values, operating faults as exceptions.

A `Violation` is handed back where a refusal was to be expected. Exceptions are sorted by how their
caller goes on: try again, change the input, give up. When to use which is the raiser's decision.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Violation:
    """One broken limit as a value.

    `code` is stable and machine-readable (``site_power``, ``residency``, ...); `limit` and `actual`
    are in `unit`. `remedy` says what a person can do about it.
    """

    code: str
    subject: str
    limit: float | str
    actual: float | str
    unit: str = ""
    remedy: str = ""

    def message(self) -> str:
        """Return the violation as one sentence: subject, limit, actual, unit, remedy."""
        unit = f" {self.unit}" if self.unit else ""
        head = f"{self.subject}: {self.code.replace('_', ' ')} is {_show(self.actual)}{unit}"
        body = f"{head}, limit {_show(self.limit)}{unit}"
        return f"{body}; {self.remedy}" if self.remedy else body


def _show(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


class HinterlandError(Exception):
    """Base of every operating fault Hinterland raises on purpose."""


class RetryableError(HinterlandError):
    """The same call may succeed later: a peer is away, a deadline passed."""


class RefusedError(HinterlandError):
    """The call will not succeed until its input changes; `violations` says why."""

    def __init__(self, message: str, violations: tuple[Violation, ...] = ()) -> None:
        super().__init__(message)
        self.violations = violations


class FatalError(HinterlandError):
    """The process cannot go on: a port is taken, a disk is full, a key is unreadable."""


class InvalidFactError(RefusedError, ValueError):
    """A fact was built from values that no fleet can have."""
