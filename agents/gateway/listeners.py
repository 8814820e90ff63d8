"""The two listeners of a gateway: one for clients (API keys), one for other gateways (mTLS).

Decides filters, limits, what is stripped from requests and what is logged. Where requests go is
decided in `routes`.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from agents.credentials import TRUST_DOMAIN
from agents.gateway import headers
from agents.gateway.clusters import tls_context
from agents.gateway.endpoints import METADATA, seconds, socket_address
from agents.gateway.errors import local_replies
from agents.gateway.facts import GatewayTuning
from agents.gateway.log_format import BROKEN_FLAGS, REMEMBERED, log_fields
from agents.gateway.routes import CLIENT_ROUTES, PEER_ROUTES
from sites.assignment import SiteAssignment
from sites.errors import RefusedError

API_KEY_ISSUER = "hinterland"
API_KEY_AUDIENCE = "hinterland-gateway"
COUNTERS = "hinterland"
"""Prefix of the counters `stats` reads: requests by route and serving site."""

_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"
_ANY_JSON = {"allow_content_types_regex": {"regex": r"(?i)application/json\s*(;.*)?"}}
_SSE_EVENT_BYTES_MAX = 1024 * 1024


def render_listeners(
    assignment: SiteAssignment, *, tuning: GatewayTuning
) -> tuple[dict[str, Any], ...]:
    """Client and peer listener. Raises RefusedError if an address is no IP address and port."""
    return (_client_listener(assignment, tuning), _peer_listener(assignment, tuning))


def _client_listener(assignment: SiteAssignment, tuning: GatewayTuning) -> dict[str, Any]:
    manager = {
        **_manager("client", tuning=tuning),
        "use_remote_address": True,
        "rds": _rds(CLIENT_ROUTES),
        "early_header_mutation_extensions": [_strip_spoofed()],
        "always_set_request_id_in_response": True,
        "access_log": [_access_log("ingress"), _counters()],
        "http_filters": [
            _api_keys(assignment),
            _body_fields(),
            _router(upstream_log=[_access_log("broken", only_flags=BROKEN_FLAGS)]),
        ],
    }
    chain = {"filters": [_network_filter(manager)]}
    return _listener(
        "client",
        assignment.gateway.client_address,
        chain,
        buffer_bytes=tuning.request_bytes_max,
        subject=f'site "{assignment.site_id}": gateway.client_address',
    )


def _peer_listener(assignment: SiteAssignment, tuning: GatewayTuning) -> dict[str, Any]:
    manager = {
        **_manager("peer", tuning=tuning),
        "use_remote_address": False,
        "skip_xff_append": True,
        "rds": _rds(PEER_ROUTES),
        "access_log": [_access_log("serving")],
        "http_filters": [_remember_headers(), _usage_of_json(), _usage_of_streams(), _router()],
    }
    chain = {
        "filters": [_network_filter(manager)],
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
                "DownstreamTlsContext",
                "require_client_certificate": True,
                "common_tls_context": tls_context(
                    identity_prefix=f"spiffe://{TRUST_DOMAIN}/gateway/"
                ),
            },
        },
    }
    return _listener(
        "peer",
        assignment.gateway.peer_address,
        chain,
        buffer_bytes=tuning.response_bytes_max,
        subject=f'site "{assignment.site_id}": gateway.peer_address',
    )


def _listener(
    name: str, address: str, chain: dict[str, Any], *, buffer_bytes: int, subject: str
) -> dict[str, Any]:
    return {
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": name,
        "address": socket_address(_bindable(address, subject=subject)),
        # Two gateways of one user could otherwise share a port without anyone noticing.
        "enable_reuse_port": False,
        "per_connection_buffer_limit_bytes": buffer_bytes,
        "filter_chains": [chain],
    }


def _bindable(address: str, *, subject: str) -> str:
    host, _, port = address.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host
    try:
        ipaddress.ip_address(host.strip("[]"))
        if not 0 < int(port) < 65_536:
            raise ValueError
    except ValueError as fault:
        raise RefusedError(
            f"{subject}: {address!r} is not an IP address and port; give one such as 127.0.0.1:8443"
        ) from fault
    return f"{host}:{port}"


def _manager(name: str, *, tuning: GatewayTuning) -> dict[str, Any]:
    return {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3."
        "HttpConnectionManager",
        "stat_prefix": name,
        "server_name": "hinterland",
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "request_headers_timeout": "10s",
        "stream_idle_timeout": seconds(tuning.idle_timeout_ms),
        "common_http_protocol_options": {
            "idle_timeout": seconds(tuning.idle_timeout_ms),
            "headers_with_underscores_action": "REJECT_REQUEST",
        },
        "local_reply_config": local_replies(
            retry_after_s=tuning.retry_after_s, peer=name == "peer"
        ),
    }


def _network_filter(manager: dict[str, Any]) -> dict[str, Any]:
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}


def _rds(name: str) -> dict[str, Any]:
    # The path is filled in by `config`, which alone knows where files lie.
    return {
        "route_config_name": name,
        "config_source": {"path_config_source": {"path": name}, "resource_api_version": "V3"},
    }


def _strip_spoofed() -> dict[str, Any]:
    """Clients may neither play gateway nor steer Envoy's own retries and timeouts."""
    removed: list[dict[str, Any]] = [{"remove": name} for name in headers.INTERNAL]
    removed.append({"remove": "x-request-id"})
    removed.append({"remove_on_match": {"key_matcher": {"prefix": "x-envoy-"}}})
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.http.early_header_mutation."
            "header_mutation.v3.HeaderMutation",
            "mutations": removed,
        },
    }


def _api_keys(assignment: SiteAssignment) -> dict[str, Any]:
    """Checks the ES256 API key against the assignment's public keys; its subject is the tenant."""
    return {
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": f"{_FILTERS}.jwt_authn.v3.JwtAuthentication",
            "providers": {
                "api_key": {
                    "issuer": API_KEY_ISSUER,
                    "audiences": [API_KEY_AUDIENCE],
                    "local_jwks": {"inline_string": assignment.api_key_jwks},
                    "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
                    "forward": False,
                    "require_expiration": True,
                    "claim_to_headers": [{"header_name": headers.TENANT, "claim_name": "sub"}],
                    "clear_route_cache": True,
                }
            },
            "rules": [
                {"match": {"path": "/healthz"}},
                {"match": {"prefix": "/"}, "requires": {"provider_name": "api_key"}},
            ],
        },
    }


def _body_fields() -> dict[str, Any]:
    """Reads the OpenAI ``model`` field; says what is wrong with a body that has none."""
    rule = {
        "selectors": [{"key": "model"}],
        "on_present": {"metadata_namespace": METADATA, "key": "model"},
        "on_missing": _mark("missing_model"),
        "on_error": _mark("bad_json"),
    }
    return {
        "name": "envoy.filters.http.json_to_metadata",
        "typed_config": {
            "@type": f"{_FILTERS}.json_to_metadata.v3.JsonToMetadata",
            "request_rules": {"rules": [rule], **_ANY_JSON},
        },
    }


def _remember_headers() -> dict[str, Any]:
    """Keeps what the ingress said for the access log: model servers never see those headers."""
    rules = [
        {
            "header": name,
            "on_header_present": {"metadata_namespace": METADATA, "key": field},
        }
        for field, name in sorted(REMEMBERED.items())
    ]
    return {
        "name": "envoy.filters.http.header_to_metadata",
        "typed_config": {
            "@type": f"{_FILTERS}.header_to_metadata.v3.Config",
            "request_rules": rules,
        },
    }


def _mark(fault: str) -> dict[str, Any]:
    return {"metadata_namespace": METADATA, "key": "fault", "value": fault}


def _usage_rules() -> list[dict[str, Any]]:
    """Token counts: the OpenAI ``usage`` object, or llama.cpp's ``timings`` where it is absent."""
    pairs = (
        (("usage", "prompt_tokens"), "tokens_in"),
        (("usage", "completion_tokens"), "tokens_out"),
        (("timings", "prompt_n"), "timings_in"),
        (("timings", "cache_n"), "timings_cached"),
        (("timings", "predicted_n"), "timings_out"),
    )
    return [
        {
            "selectors": [{"key": part} for part in path],
            "on_present": {"metadata_namespace": METADATA, "key": key, "type": "NUMBER"},
        }
        for path, key in pairs
    ]


def _usage_of_json() -> dict[str, Any]:
    return {
        "name": "envoy.filters.http.json_to_metadata",
        "typed_config": {
            "@type": f"{_FILTERS}.json_to_metadata.v3.JsonToMetadata",
            "response_rules": {"rules": _usage_rules(), **_ANY_JSON},
        },
    }


def _usage_of_streams() -> dict[str, Any]:
    return {
        "name": "envoy.filters.http.sse_to_metadata",
        "typed_config": {
            "@type": f"{_FILTERS}.sse_to_metadata.v3.SseToMetadata",
            "response_rules": {
                "max_event_size": _SSE_EVENT_BYTES_MAX,
                "content_parser": {
                    "name": "envoy.content_parsers.json",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.content_parsers.json.v3."
                        "JsonContentParser",
                        "rules": [{"rule": rule} for rule in _usage_rules()],
                    },
                },
            },
        },
    }


def _router(*, upstream_log: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    typed: dict[str, Any] = {"@type": f"{_FILTERS}.router.v3.Router"}
    if upstream_log:
        typed["upstream_log"] = upstream_log
    return {"name": "envoy.filters.http.router", "typed_config": typed}


def _access_log(hop: str, *, only_flags: tuple[str, ...] = ()) -> dict[str, Any]:
    not_probe = {"name": ":path", "string_match": {"exact": "/healthz"}, "invert_match": True}
    filtered: dict[str, Any] = {"header_filter": {"header": not_probe}}
    if only_flags:
        filtered = {"response_flag_filter": {"flags": list(only_flags)}}
    return {
        "name": "envoy.access_loggers.file",
        "filter": filtered,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": "access_log",
            "log_format": {"json_format": log_fields(hop), "omit_empty_values": True},
        },
    }


def _counters() -> dict[str, Any]:
    """Counts final answers by route, serving site and status class, in Envoy itself."""
    tags = (
        ("route", "%ROUTE_NAME%"),
        ("site", f"%UPSTREAM_METADATA({METADATA}:site)%"),
        ("status", "%RESPONSE_CODE%"),
    )
    return {
        "name": "envoy.access_loggers.stats",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.stats.v3.Config",
            "stat_prefix": COUNTERS,
            "counters": [
                {
                    "stat": {
                        "name": "answers",
                        "tags": [{"name": n, "value_format": f} for n, f in tags],
                    },
                    "value_fixed": 1,
                }
            ],
        },
    }
