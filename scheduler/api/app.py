"""The routes under ``/v1`` and who may call them.

Decides nothing about the fleet: changes become events of the control loop, whose receipt answers;
questions are answered from its view or from the ledger.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Body, Depends, FastAPI, Query, Request
from fastapi.responses import PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from scheduler.api import problems
from scheduler.api.problems import NotFoundError
from scheduler.events import (
    Alert,
    CordonRequested,
    CycleEvent,
    PlanProposed,
    ReplanRequested,
    ResumeRequested,
    UncordonRequested,
    UndoRequested,
)
from scheduler.ledger import LedgerReader
from scheduler.ledger.export import export_lines
from scheduler.plan_file import PLAN_FILE_BYTES_MAX, SavedPlan
from scheduler.receipt import Receipt
from scheduler.tenant_audit import has_settled, heard, reported_sequences, tenant_report
from scheduler.view import Drill, FleetView
from sites.clock import Clock
from sites.digest import digest, to_plain
from sites.errors import RefusedError, RetryableError
from sites.plain import from_plain

ANSWER_MS = 10_000
"""How long a change may take to get its first receipt."""

SETTLE_MS = 3_000
"""How long an audit waits for records that are on their way."""

SETTLE_POLL_MS = 100
WAIT_MS_MAX = 20_000
API_KEY_TTL_S_MAX = 3_650 * 86_400


class Control(Protocol):
    """What the API needs of the control loop: `scheduler.driver.Driver`, or one in memory."""

    def new_receipt_id(self, prefix: str) -> str: ...

    def submit(self, event: CycleEvent) -> None: ...

    def view(self) -> FleetView: ...

    def drill(self, site_id: str) -> Drill: ...

    def receipt(self, receipt_id: str) -> Receipt | None: ...

    def knows_site(self, site_id: str) -> bool: ...

    def subscribe(
        self,
    ) -> AbstractAsyncContextManager[asyncio.Queue[Receipt | Alert]]: ...


class KeyIssuer(Protocol):
    """Who signs tenants' API keys: `scheduler.pki.Authority`."""

    def issue_api_key(self, tenant_id: str, *, ttl_s: int) -> str: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiParts:
    """What the routes work with. `pki_dir` holds the tenants' pseudonym keys."""

    control: Control
    keys: KeyIssuer
    ledger_dir: Path
    pki_dir: Path
    clock: Clock
    token: str


def create_app(parts: ApiParts) -> FastAPI:
    """The application; every route needs ``Authorization: Bearer <token>``."""
    app = FastAPI(title="Hinterland", version="1", docs_url=None, redoc_url=None)
    problems.install(app)
    guard = [Depends(_bearer(parts.token))]
    for make in (_fleet_routes, _change_routes, _evidence_routes):
        app.include_router(make(parts), prefix="/v1", dependencies=guard)
    return app


def _bearer(token: str) -> Callable[[Request], Awaitable[None]]:
    known = hashlib.sha256(token.encode()).digest()

    async def check(request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        offered = hashlib.sha256(given.encode()).digest()
        if scheme.lower() != "bearer" or not hmac.compare_digest(known, offered):
            raise HTTPException(401, "give the bearer token of this server's api.json")

    return check


def _json(value: Any) -> Response:
    text = json.dumps(to_plain(value), ensure_ascii=False, allow_nan=False)
    return Response(text, media_type="application/json")


def _fleet_routes(parts: ApiParts) -> APIRouter:
    router, control = APIRouter(), parts.control

    @router.get("/state")
    async def state() -> Response:
        """The whole fleet: desired beside observed."""
        return await asyncio.to_thread(_json, control.view())

    @router.get("/receipts/{receipt_id}")
    async def receipt(
        receipt_id: str,
        wait_ms: Annotated[int, Query(ge=0, le=WAIT_MS_MAX)] = 0,
        seen: str = "",
    ) -> Response:
        """One change's receipt; with `seen` (its digest) waits for a newer form."""
        return _json(await _receipt(control, receipt_id, wait_ms=wait_ms, seen=seen))

    @router.get("/sites/{site_id}/drill")
    async def drill(site_id: str) -> Response:
        """What losing the site would do; changes nothing."""
        _require_site(control, site_id)
        return _json(control.drill(site_id))

    return router


def _change_routes(parts: ApiParts) -> APIRouter:
    router, control = APIRouter(), parts.control

    @router.post("/plans", status_code=202)
    async def apply(request: Request) -> dict[str, str]:
        """Carry out a saved plan; the gate judges it again."""
        saved, allow_empty = await _read_plan(request)
        receipt_id = control.new_receipt_id("apply")
        event = PlanProposed(
            receipt_id=receipt_id,
            problem=saved.problem,
            plan=saved.plan,
            state_serial=saved.binding.state_serial,
            allow_empty=allow_empty,
        )
        return await _submitted(control, receipt_id, event)

    @router.post("/rollouts/{verb}", status_code=202)
    async def again(
        verb: str, receipt_id: Annotated[str, Body(embed=True, max_length=200)] = ""
    ) -> dict[str, str]:
        """`resume` or `undo` a change."""
        new_id = control.new_receipt_id(verb)
        if verb == "resume":
            event: CycleEvent = ResumeRequested(receipt_id=new_id, stopped_receipt_id=receipt_id)
        elif verb == "undo":
            event = UndoRequested(receipt_id=new_id, undone_receipt_id=receipt_id)
        else:
            raise NotFoundError(f"rollouts: no action {verb!r}; resume or undo")
        return await _submitted(control, new_id, event)

    @router.post("/sites/{site_id}/{verb}", status_code=202)
    async def change_site(
        site_id: str, verb: str, reason: Annotated[str, Body(embed=True, max_length=1_000)] = ""
    ) -> dict[str, str]:
        """`cordon`, `drain` or `uncordon` a site."""
        _require_site(control, site_id)
        if verb not in ("cordon", "drain", "uncordon"):
            raise NotFoundError(f"sites: no action {verb!r}; cordon, drain or uncordon")
        new_id = control.new_receipt_id(verb)
        if verb == "uncordon":
            event: CycleEvent = UncordonRequested(receipt_id=new_id, site_id=site_id, reason=reason)
        else:
            event = CordonRequested(
                receipt_id=new_id, site_id=site_id, drain=verb == "drain", reason=reason
            )
        return await _submitted(control, new_id, event)

    @router.post("/replan", status_code=202)
    async def replan(
        reason: Annotated[str, Body(embed=True, max_length=1_000)] = "",
    ) -> dict[str, str]:
        """Solve now and put the answer into force."""
        new_id = control.new_receipt_id("replan")
        event = ReplanRequested(receipt_id=new_id, reason=reason)
        return await _submitted(control, new_id, event)

    return router


def _evidence_routes(parts: ApiParts) -> APIRouter:
    router, control = APIRouter(), parts.control

    @router.post("/tokens", status_code=201)
    async def token(
        tenant_id: Annotated[str, Body()],
        ttl_s: Annotated[int, Body(ge=1, le=API_KEY_TTL_S_MAX)],
    ) -> dict[str, Any]:
        """An API key of a tenant."""
        tenants = {t.tenant_id for t in control.view().problem.tenants}
        if tenant_id not in tenants:
            known = ", ".join(sorted(tenants)) or "none"
            raise NotFoundError(f"tenant {tenant_id!r}: not in this fleet; it has {known}")
        made = parts.keys.issue_api_key(tenant_id, ttl_s=ttl_s)
        return {"tenant_id": tenant_id, "ttl_s": ttl_s, "token": made}

    @router.get("/audit/residency")
    async def residency(tenant: str, since_ms: int, until_ms: int) -> Response:
        """Where a tenant's data ran, whether lawfully, and whether that is all."""
        await _settled(parts)
        report = await asyncio.to_thread(
            tenant_report,
            ledger_dir=parts.ledger_dir,
            pki_dir=parts.pki_dir,
            tenant_id=tenant,
            between_ms=(since_ms, until_ms),
            reported=reported_sequences(control.view(), parts.ledger_dir),
        )
        return _json(report)

    @router.get("/ledger/checkpoint")
    def checkpoint() -> PlainTextResponse:
        """The newest signed head of the ledger."""
        with LedgerReader.open(parts.ledger_dir) as reader:
            head = reader.checkpoint()
        if head is None:
            raise NotFoundError("ledger: empty; it has no checkpoint yet")
        return PlainTextResponse(head.note)

    @router.get("/ledger/export")
    def export() -> StreamingResponse:
        """The whole ledger as JSON lines for `verifier.py`."""
        reader = LedgerReader.open(parts.ledger_dir)

        def lines() -> Any:
            with reader:
                yield from export_lines(reader)

        return StreamingResponse(lines(), media_type="application/jsonl")

    return router


async def _settled(parts: ApiParts) -> None:
    """Give connected agents time to hand over what they have recorded so far."""
    since = heard(parts.control.view())
    for _ in range(SETTLE_MS // SETTLE_POLL_MS):
        if has_settled(parts.control.view(), since=since):
            return
        await parts.clock.sleep_ms(SETTLE_POLL_MS)


def _require_site(control: Control, site_id: str) -> None:
    if not control.knows_site(site_id):
        raise NotFoundError(f"site {site_id!r}: not in this fleet; see `hinterland get sites`")


async def _read_plan(request: Request) -> tuple[SavedPlan, bool]:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > PLAN_FILE_BYTES_MAX:
            raise RefusedError(f"plan: larger than {PLAN_FILE_BYTES_MAX} bytes")
    return await asyncio.to_thread(_parse_plan, bytes(body))


def _parse_plan(body: bytes) -> tuple[SavedPlan, bool]:
    try:
        document = json.loads(body)
        plan, allow_empty = document["plan"], document["allow_empty"]
    except (ValueError, KeyError, TypeError, RecursionError) as fault:
        raise RefusedError(f"plan: not the JSON of a saved plan: {fault}") from fault
    saved = from_plain(SavedPlan, plan)
    if saved.plan.problem_digest != digest(saved.problem):
        raise RefusedError("plan: it answers another problem than it holds; plan again")
    return saved, allow_empty is True


async def _submitted(control: Control, receipt_id: str, event: CycleEvent) -> dict[str, str]:
    """Hand over an event and wait until its receipt exists."""
    async with control.subscribe() as updates:
        control.submit(event)
        await _until(updates, lambda: control.receipt(receipt_id) is not None, ANSWER_MS)
    if control.receipt(receipt_id) is None:
        raise RetryableError(f"change {receipt_id}: no receipt within {ANSWER_MS} ms; look later")
    return {"receipt_id": receipt_id}


async def _receipt(control: Control, receipt_id: str, *, wait_ms: int, seen: str) -> Receipt:
    async with control.subscribe() as updates:
        known = control.receipt(receipt_id)
        if known is None:
            raise NotFoundError(f"change {receipt_id!r}: no receipt; see `rollout history`")
        if seen and not known.is_final:
            await _until(updates, lambda: _moved_on(control, receipt_id, seen), wait_ms)
    newest = control.receipt(receipt_id)
    return known if newest is None else newest


def _moved_on(control: Control, receipt_id: str, seen: str) -> bool:
    known = control.receipt(receipt_id)
    return known is not None and digest(known) != seen


async def _until(
    updates: asyncio.Queue[Receipt | Alert], holds: Callable[[], bool], wait_ms: int
) -> None:
    """Until `holds`, asked again after every update; gives up silently after `wait_ms`."""
    try:
        async with asyncio.timeout(wait_ms / 1_000):
            while not holds():
                await updates.get()
    except TimeoutError:
        return
