"""From a tenant's name to its residency report: finds the pseudonyms its records are kept under.

The report itself is `scheduler.ledger.audit`'s. A tenant whose key was destroyed has no pseudonym
any more, so nothing of it can be found: that is what erasure means, and it is said so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from agents.gateway import access_log
from scheduler.ledger import LedgerReader
from scheduler.ledger.audit import ResidencyReport, residency_report
from scheduler.view import FleetView
from sites.assignment import TenantBinding
from sites.errors import RefusedError
from sites.hub_messages import ConnectionState
from sites.telemetry import SiteObservation


def tenant_pseudonym(pki_dir: Path, tenant_id: str) -> str:
    """The tenant's name in execution records; raises RefusedError without its key."""
    path = pki_dir / "tenants" / f"{quote(tenant_id, safe='')}.pseudonym"
    try:
        key = path.read_text(encoding="ascii").strip()
    except FileNotFoundError as fault:
        raise RefusedError(
            f"tenant {tenant_id!r}: no pseudonym key: the tenant is unknown here, or its key was "
            "destroyed and its records are anonymous"
        ) from fault
    named = TenantBinding(tenant_id=tenant_id, residency_policy_id="", pseudonym_key=key)
    return access_log.tenant_pseudonym(named)


def tenant_report(
    *,
    ledger_dir: Path,
    pki_dir: Path,
    tenant_id: str,
    between_ms: tuple[int, int],
    reported: Mapping[str, int],
) -> ResidencyReport:
    """The residency report of one tenant for [since, until) wall milliseconds."""
    with LedgerReader.open(ledger_dir) as reader:
        name = tenant_pseudonym(pki_dir, tenant_id)
        return residency_report(
            reader,
            tenant_id=tenant_id,
            pseudonyms=(name,),
            since_ms=between_ms[0],
            until_ms=between_ms[1],
            reported=reported,
        )


def reported_sequences(view: FleetView, ledger_dir: Path) -> dict[str, int]:
    """The newest record sequence each connected agent says it wrote; others cannot be asked."""
    with LedgerReader.open(ledger_dir) as reader:
        held = reader.acked_by_site()
    return {
        site_id: held.get(site_id, -1) + seen.records_spooled
        for site_id, seen in heard(view).items()
    }


def heard(view: FleetView) -> dict[str, SiteObservation]:
    """The newest observation of every connected site."""
    return {
        one.site_id: one.observation
        for one in view.sites
        if one.observation is not None and one.state is ConnectionState.CONNECTED
    }


def has_settled(view: FleetView, *, since: Mapping[str, SiteObservation]) -> bool:
    """Whether every connected agent, in a newer word than `since`, holds no record back."""
    now = heard(view)
    return all(
        site_id in now
        and now[site_id].records_spooled == 0
        and (now[site_id].instance_id, now[site_id].sequence) != (old.instance_id, old.sequence)
        for site_id, old in since.items()
    )
