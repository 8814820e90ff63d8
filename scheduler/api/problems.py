"""Refusals and faults as problem documents (RFC 9457): one shape for every error of the API."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from scheduler.plan_file import StalePlanError
from sites.errors import HinterlandError, RefusedError, RetryableError


class NotFoundError(RefusedError):
    """What was asked for does not exist here."""


def problem(*, status: int, code: str, detail: str, **more: Any) -> Response:
    """One problem document; `code` is stable and machine-readable."""
    document = {
        "type": f"urn:hinterland:problem:{code}",
        "title": code.replace("_", " "),
        "status": status,
        "code": code,
        "detail": detail,
        **more,
    }
    headers = {"Retry-After": "1"} if status == 503 else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(
        json.dumps(document, ensure_ascii=False),
        status_code=status,
        headers=headers,
        media_type="application/problem+json",
    )


_STATUS_CODES = {
    400: "bad_request",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
}


def _status_of(fault: HinterlandError) -> tuple[int, str]:
    match fault:
        case NotFoundError():
            return 404, "not_found"
        case StalePlanError():
            return 409, "stale"
        case RefusedError():
            return 422, "refused"
        case RetryableError():
            return 503, "unavailable"
        case _:
            return 500, "fault"


def install(app: FastAPI) -> None:
    """Make every failure of `app` a problem document."""

    async def refused(_: Request, fault: Exception) -> Response:
        assert isinstance(fault, HinterlandError)
        status, code = _status_of(fault)
        violations = fault.violations if isinstance(fault, RefusedError) else ()
        told = [one.message() for one in violations]
        return problem(status=status, code=code, detail=str(fault), violations=told)

    async def malformed(_: Request, fault: Exception) -> Response:
        assert isinstance(fault, RequestValidationError)
        told = [f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in fault.errors()]
        return problem(status=422, code="refused", detail="; ".join(told), violations=[])

    async def http(request: Request, fault: Exception) -> Response:
        assert isinstance(fault, HTTPException)
        code = _STATUS_CODES.get(fault.status_code, "http_error")
        detail = f"{request.method} {request.url.path}: {fault.detail}"
        return problem(status=fault.status_code, code=code, detail=detail)

    async def mistake(_: Request, fault: Exception) -> Response:
        detail = f"internal error: {type(fault).__name__}; see the server's log"
        return problem(status=500, code="fault", detail=detail)

    app.add_exception_handler(HinterlandError, refused)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, mistake)
