"""The fields of an access-log line: what Envoy writes and `access_log` reads.

Neither prompts nor completions, nor API keys: ids, times, statuses and token counts alone.
"""

from __future__ import annotations

from agents.gateway import headers
from agents.gateway.endpoints import METADATA

REMEMBERED = {
    "tenant": headers.TENANT,
    "service": headers.SERVICE,
    "policy": headers.POLICY,
    "ingress": headers.INGRESS,
    "transit": headers.TRANSIT,
    "idempotency_key": headers.IDEMPOTENCY,
}
"""Fields that come with a request's headers and are gone from them when the line is written."""

BROKEN_FLAGS = ("UC", "UR", "UT", "UPE")
"""Envoy's flags of an attempt that was sent to a site and ended without a whole answer."""

_USAGE = ("tokens_in", "tokens_out", "timings_in", "timings_cached", "timings_out")
_COMMON = {
    "start_ms": "%START_TIME(%s%3f)%",
    "duration_ms": "%DURATION%",
    "status": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "route": "%ROUTE_NAME%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "attempt": "%REQ(X-ENVOY-ATTEMPT-COUNT)%",
    **{
        name: f"%METADATA(ROUTE:{METADATA}:{name})%"
        for name in ("epoch", "version", "plan_digest", "policy_digest")
    },
}


_SERVING = {
    "peer": "%DOWNSTREAM_PEER_URI_SAN%",
    "group": f"%UPSTREAM_METADATA({METADATA}:group)%",
    "variant": f"%UPSTREAM_METADATA({METADATA}:variant)%",
    **{name: f"%DYNAMIC_METADATA({METADATA}:{name})%" for name in (*REMEMBERED, *_USAGE)},
}
_INGRESS = {
    "tenant": f"%REQ({headers.TENANT})%",
    "idempotency_key": f"%REQ({headers.IDEMPOTENCY})%",
    "service": f"%METADATA(ROUTE:{METADATA}:service)%",
    "policy": f"%METADATA(ROUTE:{METADATA}:policy)%",
    "to_site": f"%UPSTREAM_METADATA({METADATA}:site)%",
    "transit": f"%REQ({headers.TRANSIT})%",
}


def log_fields(hop: str) -> dict[str, str]:
    """Envoy format strings by field name.

    `hop` is ``serving`` (an attempt, where it ran), ``ingress`` (a request, where it came in) or
    ``broken`` (an attempt, as the ingress saw it end without an answer).
    """
    return {"hop": hop, **_COMMON, **(_SERVING if hop == "serving" else _INGRESS)}
