"""Assignments as the envelopes that agents get: signed once each, beside the loop, and kept.

Decides which are worth signing (not what something newer has overtaken) and how long one is kept:
the newest wanted in force and the newest to be judged, per site, for hubs may want them sent again.
Hubs themselves know an assignment by its rank: in a large fleet one is megabytes, and it carries
the tenants' pseudonym keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from agents.frames import AssignmentFrame
from sites.assignment import SiteAssignment
from sites.hub_messages import AssignmentNamed, AssignmentWanted, SendAssignment


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sealed:
    """An assignment and its signed envelope."""

    assignment: SiteAssignment
    envelope: bytes = field(repr=False)


class SealedAssignments:
    """Belongs to one event loop; signing runs in a thread, one assignment at a time."""

    def __init__(self, sign: Callable[[SiteAssignment], bytes]) -> None:
        """`sign` makes an assignment's envelope; it must not touch what the loop owns."""
        self._sign = sign
        self._lock = asyncio.Lock()  # first wanted, first signed
        self._newest: dict[str, tuple[int, int]] = {}
        self._kept: dict[tuple[str, bool], _Sealed] = {}

    async def seal(self, wish: AssignmentWanted) -> AssignmentNamed | None:
        """Have the wish's envelope ready and name it; None if a newer one is wanted in force there
        by then. Raises InvalidFactError if it is too large.
        """
        named = wish.named()
        if not wish.validate_only:
            self._newest[wish.site_id] = max(named.rank, self._newest.get(wish.site_id, (0, 0)))
        async with self._lock:
            if named.rank < self._newest.get(wish.site_id, (0, 0)):
                return None
            sealed = self._made_before(wish.assignment) or _Sealed(
                assignment=wish.assignment,
                envelope=await asyncio.to_thread(self._sign, wish.assignment),
            )
            self._kept[wish.site_id, wish.validate_only] = sealed
        return named

    def frame(self, asked: SendAssignment) -> AssignmentFrame | None:
        """What the hub wants sent; None if it was overtaken."""
        sealed = self._kept.get((asked.site_id, asked.validate_only))
        if sealed is None or sealed.assignment.rank != asked.rank:
            return None
        return AssignmentFrame(envelope=sealed.envelope, validate_only=asked.validate_only)

    def forget(self, site_ids: Iterable[str]) -> None:
        """Keep nothing of sites that have left the fleet."""
        for site_id in site_ids:
            self._newest.pop(site_id, None)
            for validate_only in (False, True):
                self._kept.pop((site_id, validate_only), None)

    def _made_before(self, assignment: SiteAssignment) -> _Sealed | None:
        """Its envelope, if it was judged or put into force just before."""
        for validate_only in (True, False):
            sealed = self._kept.get((assignment.site_id, validate_only))
            if sealed is not None and sealed.assignment is assignment:
                return sealed
        return None
