"""Whether bytes an agent sent are one canonical execution record of its site. Pure."""

from __future__ import annotations

import json

from sites.digest import canonical_json
from sites.errors import RefusedError
from sites.execution import ExecutionRecord
from sites.plain import from_plain

RECORD_KIND = "ExecutionRecord"
RECORD_BYTES_MAX = 64 * 1024
INTEGER_MAX = 2**53 - 1
"""Largest integer JSON carries exactly everywhere (RFC 8785)."""


def read_record(payload: bytes, *, site_id: str) -> int:
    """The record's sequence number; raises RefusedError if it is no canonical record of the site.

    Only canonical bytes (RFC 8785) are taken: otherwise one record could enter under two texts.
    """
    if len(payload) > RECORD_BYTES_MAX:
        raise RefusedError(
            f"record of {site_id}: {len(payload)} bytes, limit {RECORD_BYTES_MAX}; send it smaller"
        )
    try:
        plain = json.loads(payload, parse_float=_number, parse_int=_integer, parse_constant=_no)
        canonical = _text(plain) == payload or canonical_json(plain) == payload
    except (ValueError, RecursionError) as fault:
        raise RefusedError(f"record of {site_id}: not canonical JSON: {fault}") from fault
    record = from_plain(ExecutionRecord, plain)
    if record.agent_site_id != site_id:
        raise RefusedError(
            f"record {record.sequence} of {site_id}: claims to be of {record.agent_site_id}; an "
            "agent records its own site only"
        )
    if not canonical:
        raise RefusedError(f"record {record.sequence} of {site_id}: not in canonical JSON")
    return record.sequence


def _text(plain: object) -> bytes:
    """What RFC 8785 writes nearly always, at a ninth of the general serialiser's time.

    Record fields are ASCII names, so sorting by code point is sorting by UTF-16 unit, and numbers
    are checked as they are read; only small fractions are written otherwise there.
    """
    text = json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.encode()


def _number(text: str) -> float:
    value = float(text)
    if canonical_json(value) != text.encode():
        raise ValueError(f"number {text} is not written as RFC 8785 asks")
    return value


def _integer(text: str) -> int:
    value = int(text)
    if abs(value) > INTEGER_MAX:
        _number(text)  # a float JSON writes without a point, or nothing JSON carries exactly
    if str(value) != text:
        raise ValueError(f"number {text} is not written as RFC 8785 asks")
    return value


def _no(text: str) -> None:
    raise ValueError(f"{text} is no JSON number")
