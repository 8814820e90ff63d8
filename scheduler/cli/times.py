"""Instants as people type and read them: ISO 8601 in UTC, or so long ago (``24h``). Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

_AGO = re.compile(r"(\d{1,9})(ms|s|m|h|d)\Z")
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def show_time(at_ms: int) -> str:
    """Wall milliseconds as ``2026-03-01T12:00:00.250Z``."""
    at = _EPOCH + timedelta(milliseconds=at_ms)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str, *, now_ms: int) -> int:
    """Wall milliseconds of ``now``, ``90m`` (ago) or an ISO 8601 instant (UTC unless it says).

    Raises UsageError for anything else.
    """
    if text == "now":
        return now_ms
    ago = _AGO.match(text)
    if ago:
        return now_ms - int(ago[1]) * _UNIT_MS[ago[2]]
    try:
        at = datetime.fromisoformat(text)
    except ValueError as fault:
        raise click.UsageError(
            f"{text!r} is no instant; write 2026-03-01, 2026-03-01T12:00Z, 24h (ago) or now"
        ) from fault
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return (at - _EPOCH) // timedelta(milliseconds=1)
