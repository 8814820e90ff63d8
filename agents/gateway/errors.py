"""What a client reads when the gateway itself answers: OpenAI-style bodies, statuses, headers.

Decides wording and status of every refusal; which request gets which is decided in `routes`.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any

RETRY_HEADER = "x-hinterland-retry"
"""Response header by which a peer gateway says: another lawful site may answer this."""

_STATUS_NAMES = {
    400: ("Bad request.", "invalid_request_error", "bad_request"),
    401: (
        "Missing or invalid API key. Send a key issued for this fleet as 'Authorization: Bearer'.",
        "authentication_error",
        "invalid_api_key",
    ),
    408: ("The request did not arrive in time.", "timeout_error", "request_timeout"),
    413: (
        "The request body is larger than this gateway accepts.",
        "invalid_request_error",
        "request_too_large",
    ),
    429: ("Too many requests.", "rate_limit_error", "rate_limited"),
    431: ("The request headers are too large.", "invalid_request_error", "headers_too_large"),
    504: ("The model server did not answer in time.", "server_error", "upstream_timeout"),
}

_NOT_READY_FLAGS = ("UH", "UF", "UO", "UT", "LR", "UR", "UC", "NC", "URX", "UPE", "DT")


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """An answer the gateway gives by itself. `code` is stable; `retry_after_s` 0 means never."""

    status: int
    message: str
    kind: str
    code: str
    param: str | None = None
    retry_after_s: int = 0
    elsewhere: bool = False


@functools.lru_cache(maxsize=256)
def error_body(refusal: Refusal) -> str:
    """The JSON text of a refusal, in the shape OpenAI clients parse."""
    return json.dumps(
        {
            "error": {
                "message": refusal.message,
                "type": refusal.kind,
                "param": refusal.param,
                "code": refusal.code,
            }
        }
    )


def direct_response(refusal: Refusal) -> dict[str, Any]:
    """The part of an Envoy route that answers with `refusal`."""
    return {
        "direct_response": {
            "status": refusal.status,
            "body": {"inline_string": error_body(refusal)},
        },
        "response_headers_to_add": _headers(refusal),
    }


def unlawful(*, reason: str = "") -> Refusal:
    """451: the request's residency policy allows no site that could answer it."""
    detail = f" ({reason})" if reason else ""
    return Refusal(
        status=451,
        message=f"No site may lawfully process this request{detail}.",
        kind="residency_error",
        code="no_lawful_site",
    )


def shed(*, retry_after_s: int) -> Refusal:
    """503: the plan sheds this part of the traffic."""
    return Refusal(
        status=503,
        message="The fleet is at its limits and sheds part of this traffic. Retry later.",
        kind="overloaded_error",
        code="shed",
        retry_after_s=retry_after_s,
    )


def not_ready(*, retry_after_s: int) -> Refusal:
    """503: no replica that may answer is ready."""
    return Refusal(
        status=503,
        message="No ready replica can answer this request at the moment. Retry later.",
        kind="overloaded_error",
        code="not_ready",
        retry_after_s=retry_after_s,
        elsewhere=True,
    )


def unknown_model(services: tuple[str, ...]) -> Refusal:
    """404: the tenant has no such service."""
    known = ", ".join(services) or "none"
    return Refusal(
        status=404,
        message=f"There is no such model for this API key. Models: {known}.",
        kind="invalid_request_error",
        code="model_not_found",
        param="model",
    )


UNKNOWN_PATH = Refusal(
    status=404,
    message="There is no such path. This gateway speaks the OpenAI API under /v1/.",
    kind="invalid_request_error",
    code="unknown_url",
)
UNKNOWN_TENANT = Refusal(
    status=401,
    message="The API key's tenant is not known at this site.",
    kind="authentication_error",
    code="unknown_tenant",
)
LAXER_RESIDENCY = Refusal(
    status=403,
    message=(
        "The header x-hinterland-residency may only name a residency policy at least as strict "
        "as the tenant's own."
    ),
    kind="permission_error",
    code="residency_not_allowed",
    param="x-hinterland-residency",
)
BAD_JSON = Refusal(
    status=400,
    message="The body is not valid JSON of content type application/json.",
    kind="invalid_request_error",
    code="invalid_json",
)
MISSING_MODEL = Refusal(
    status=400,
    message="The body names no model: give a non-empty string field 'model'.",
    kind="invalid_request_error",
    code="missing_model",
    param="model",
)


def local_replies(*, retry_after_s: int, peer: bool) -> dict[str, Any]:
    """Bodies for what Envoy answers without a route: no key, too large, nobody reachable.

    On the peer listener (`peer`) an unreachable replica is marked so that the ingress gateway
    tries another site.
    """
    away = not_ready(retry_after_s=retry_after_s)
    headers = [_header("retry-after", str(retry_after_s))]
    if peer:
        headers.append(_header(RETRY_HEADER, "1"))
    mappers: list[dict[str, Any]] = [
        {
            "filter": {"response_flag_filter": {"flags": list(_NOT_READY_FLAGS)}},
            "status_code": 503,
            **_body(away),
            "headers_to_add": headers,
        }
    ]
    for status, (message, kind, code) in sorted(_STATUS_NAMES.items()):
        refusal = Refusal(status=status, message=message, kind=kind, code=code)
        mappers.append({"filter": _undecided(status), **_body(refusal)})
    return {"mappers": mappers}


def _undecided(status: int) -> dict[str, Any]:
    """Matches a status that no route of ours chose (those carry their own body)."""
    return {
        "and_filter": {
            "filters": [
                {
                    "status_code_filter": {
                        "comparison": {
                            "op": "EQ",
                            "value": {"default_value": status, "runtime_key": f"reply.{status}"},
                        }
                    }
                },
                {
                    "extension_filter": {
                        "name": "envoy.access_loggers.extension_filters.cel",
                        "typed_config": {
                            "@type": "type.googleapis.com/envoy.extensions.access_loggers.filters."
                            "cel.v3.ExpressionFilter",
                            "expression": "response.code_details != 'direct_response'",
                        },
                    }
                },
            ]
        }
    }


def _body(refusal: Refusal) -> dict[str, Any]:
    error = json.loads(error_body(refusal))
    return {"body_format_override": {"json_format": error, "content_type": "application/json"}}


def _headers(refusal: Refusal) -> list[dict[str, Any]]:
    headers = [_header("content-type", "application/json")]
    if refusal.retry_after_s:
        headers.append(_header("retry-after", str(refusal.retry_after_s)))
    if refusal.elsewhere:
        headers.append(_header(RETRY_HEADER, "1"))
    return headers


def _header(name: str, value: str) -> dict[str, Any]:
    return {
        "header": {"key": name, "value": value},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
