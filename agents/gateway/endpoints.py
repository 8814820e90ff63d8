"""Small Envoy words every cluster and listener uses: addresses, durations, discovery, panic."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from sites.units import MS_PER_S

METADATA = "hinterland"
"""Namespace of everything the gateway attaches to endpoints and reads out of bodies."""

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
PERCENT_ALL = 100
BALANCING: Mapping[str, Any] = {
    # Panic would send requests to hosts known to be dead.
    "healthy_panic_threshold": {"value": 0},
    # Workers otherwise hear of a second change of health up to a second late.
    "update_merge_window": "0s",
}
CONNECTIONS_MAX = 100_000


def discovery(addresses: Sequence[str]) -> str:
    """Envoy's way to find hosts of these ``host:port``: as written, or by DNS."""
    return "STATIC" if all(_is_ip(a) for a in addresses) else "STRICT_DNS"


def limits(**more: Any) -> dict[str, Any]:
    """No limit but the site's own: what is too much is shed by the plan, not by chance."""
    unlimited = dict.fromkeys(
        ("max_connections", "max_pending_requests", "max_requests"), CONNECTIONS_MAX
    )
    return {"thresholds": [{**unlimited, **more}]}


def socket_address(address: str) -> dict[str, Any]:
    """``host:port`` (IPv6 in brackets) as Envoy writes it."""
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}


def seconds(duration_ms: int) -> str:
    """Milliseconds as a protobuf JSON duration."""
    return f"{duration_ms / MS_PER_S:g}s"


def _is_ip(address: str) -> bool:
    try:
        ipaddress.ip_address(address.rpartition(":")[0].strip("[]"))
    except ValueError:
        return False
    return True
