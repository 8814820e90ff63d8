"""Envoy's words for what a request must look like: headers, body fields, residency wishes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from agents.gateway import headers
from agents.gateway.endpoints import METADATA
from sites.assignment import TenantBinding


def tenant_header(tenant: TenantBinding) -> list[dict[str, Any]]:
    """The request's API key is this tenant's."""
    return [exact(headers.TENANT, tenant.tenant_id)]


def residency_headers(tenant: TenantBinding, policy_id: str) -> Iterable[dict[str, Any]]:
    """How a request may ask for a policy: by name, or by silence if it is the tenant's own."""
    yield exact(headers.RESIDENCY, policy_id)
    if policy_id == tenant.residency_policy_id:
        yield {"name": headers.RESIDENCY, "present_match": True, "invert_match": True}


def not_among(allowed: Sequence[str]) -> list[dict[str, Any]]:
    """The request names a residency policy, and none of these."""
    present = {"name": headers.RESIDENCY, "present_match": True}
    # one by one: Envoy refuses a regular expression of more than some 15 policies
    return [present, *({**exact(headers.RESIDENCY, p), "invert_match": True} for p in allowed)]


def body_match(
    wanted: list[dict[str, Any]], *, model: str = "", fault: str = "", no_model: bool = False
) -> dict[str, Any]:
    """An API request with these headers and this ``model``, body fault, or no readable body."""
    match: dict[str, Any] = {"prefix": "/v1/", "headers": wanted}
    if model:
        match["dynamic_metadata"] = [_body_field("model", {"string_match": {"exact": model}})]
    if fault:
        match["dynamic_metadata"] = [_body_field("fault", {"string_match": {"exact": fault}})]
    if no_model:
        absent = _body_field("model", {"present_match": True})
        match["dynamic_metadata"] = [{**absent, "invert": True}]
    return match


def _body_field(key: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"filter": METADATA, "path": [{"key": key}], "value": value}


def exact(name: str, value: str) -> dict[str, Any]:
    """The header says exactly this."""
    return {"name": name, "string_match": {"exact": value}}


def set_header(name: str, value: str) -> dict[str, Any]:
    """Put the header there, whatever was there before."""
    return {
        "header": {"key": name, "value": value},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
