"""Whether bytes an agent sent are one canonical execution record of its site. Pure."""

from __future__ import annotations

import json

import rfc8785

from sites.digest import canonical_json
from sites.errors import RefusedError
from sites.execution import ExecutionRecord
from sites.plain import from_plain

RECORD_KIND = "ExecutionRecord"
RECORD_BYTES_MAX = 64 * 1024


def read_record(payload: bytes, *, site_id: str) -> int:
    """The record's sequence number; raises RefusedError if it is no canonical record of the site.

    Only canonical bytes are taken: otherwise one record could enter under two texts.
    """
    if len(payload) > RECORD_BYTES_MAX:
        raise RefusedError(
            f"record of {site_id}: {len(payload)} bytes, limit {RECORD_BYTES_MAX}; send it smaller"
        )
    try:
        plain = json.loads(payload)
    except (ValueError, RecursionError) as fault:
        raise RefusedError(f"record of {site_id}: not JSON: {fault}") from fault
    record = from_plain(ExecutionRecord, plain)
    if record.agent_site_id != site_id:
        raise RefusedError(
            f"record {record.sequence} of {site_id}: claims to be of {record.agent_site_id}; an "
            "agent records its own site only"
        )
    try:
        canonical = canonical_json(plain) == payload
    except (rfc8785.CanonicalizationError, UnicodeError):  # numbers or text JSON cannot carry
        canonical = False
    if not canonical:
        raise RefusedError(f"record {record.sequence} of {site_id}: not in canonical JSON")
    return record.sequence
