"""Canonical JSON and digest of an assignment: those of `sites.digest`, in a quarter of the time.

In a large fleet an assignment holds thousands of routes that differ only in their keys. What they
share is written once per assignment; a key, which every site has, once per process.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import fields
from operator import attrgetter

from sites.assignment import Route, RouteKey, SiteAssignment
from sites.digest import canonical_json

KEYS_KEPT = 1 << 17
"""Texts of route keys kept, the least lately used leaving first (some 200 bytes each)."""

_FIELDS = sorted(f.name for f in fields(SiteAssignment) if f.compare)
_all_but_key = attrgetter(*(f.name for f in fields(Route) if f.compare and f.name != "key"))


def assignment_json(assignment: SiteAssignment) -> bytes:
    """Return ``canonical_json(assignment)``."""
    parts = []
    for name in _FIELDS:
        value = getattr(assignment, name)
        written = _routes(value) if name == "routes" else canonical_json(value)
        parts.append(b'"%s":%s' % (name.encode(), written))
    return b"{%s}" % b",".join(parts)


def assignment_digest(assignment: SiteAssignment) -> str:
    """Return ``digest(assignment)``."""
    return "sha256:" + hashlib.sha256(assignment_json(assignment)).hexdigest()


def _routes(routes: tuple[Route, ...]) -> bytes:
    """The routes outlive this call, so what they share can be told by its identity."""
    frames: dict[tuple[int, ...], tuple[bytes, bytes]] = {}
    parts: list[bytes] = []
    for route in routes:
        key = route.key
        written = _key(key.service_id, key.tenant_id, key.residency_policy_id)
        shared = tuple(map(id, _all_but_key(route)))
        frame = frames.get(shared)
        if frame is None:
            # inside a string every quotation mark is escaped, so this stands there but once
            start, _, end = canonical_json(route).partition(b'"key":' + written)
            frame = frames[shared] = (b"," + start + b'"key":', end)
        parts += (frame[0], written, frame[1])
    return b"[%s]" % b"".join(parts)[1:]  # without the comma before the first


@functools.lru_cache(maxsize=KEYS_KEPT)
def _key(service_id: str, tenant_id: str, residency_policy_id: str) -> bytes:
    return canonical_json(
        RouteKey(
            service_id=service_id, tenant_id=tenant_id, residency_policy_id=residency_policy_id
        )
    )
