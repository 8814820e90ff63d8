"""Commands for evidence: where data ran, whether the ledger is sound, and a copy to take away.

They ask the running server where there is one, else read the ledger in the state folder. What is
lawful and what is complete, `scheduler.ledger` decides.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scheduler.cli.client import NoServerError, connected
from scheduler.cli.output import CliError, Column, ExitCode, Output
from scheduler.cli.session import GivenPath, Group, Session, pass_session
from scheduler.cli.times import parse_time, show_time

if TYPE_CHECKING:
    from scheduler.ledger.audit import ResidencyReport

LEDGER_DIR, PKI_DIR = "ledger", "pki"


@click.group(cls=Group)
def audit() -> None:
    """Show and prove where data was processed."""


@audit.command("residency")
@click.option("--tenant", "tenant_id", required=True, help="Whose data.")
@click.option("--since", default="24h", show_default=True, help="ISO 8601 instant, or 24h (ago).")
@click.option("--until", default="now", show_default=True, help="Exclusive end, likewise.")
@pass_session
def residency(session: Session, tenant_id: str, since: str, until: str) -> None:
    """Where a tenant's data ran, by country and site; any breach; is the answer complete.

    Exits with 4 if data was somewhere unlawful, 1 if the answer is not complete.
    """
    from sites.clock import SystemClock

    now_ms = SystemClock().wall_ms()
    between = parse_time(since, now_ms=now_ms), parse_time(until, now_ms=now_ms)
    report = _report(session, tenant_id, between)
    if session.out.for_people:
        show_report(session.out, report)
    else:
        from sites.digest import to_plain

        not_asked = list(report.not_asked)
        plain = {"complete": report.complete, "not_asked": not_asked, "report": to_plain(report)}
        session.out.data("residency_report", plain)
    if report.breaches_total:
        raise CliError(ExitCode.POLICY_DENIED)
    if not report.complete:
        raise CliError(ExitCode.ERROR)


def _report(session: Session, tenant_id: str, between: tuple[int, int]) -> ResidencyReport:
    from scheduler.ledger.audit import ResidencyReport
    from sites.plain import from_plain

    try:
        with connected(session.state_dir) as api:
            query = {"tenant": tenant_id, "since_ms": between[0], "until_ms": between[1]}
            return from_plain(ResidencyReport, api.get("/v1/audit/residency", **query))
    except NoServerError:
        from scheduler.tenant_audit import tenant_report

        session.out.note("no server answers: read from the ledger alone")
        return tenant_report(
            ledger_dir=session.state_dir / LEDGER_DIR,
            pki_dir=session.state_dir / PKI_DIR,
            tenant_id=tenant_id,
            between_ms=between,
            reported={},
        )


ROW_COLUMNS = (
    Column(title="country", field="country"),
    Column(title="site", field="site_id"),
    Column(title="service", field="service_id"),
    Column(title="policy", field="residency_policy_id"),
    Column(title="crossed", field="transit_countries"),
    Column(title="attempts", field="attempts", number=True),
    Column(title="failed", field="failed", number=True),
    Column(title="tokens in", field="tokens_in", number=True),
    Column(title="tokens out", field="tokens_out", number=True),
    Column(title="Wh", field="energy_wh", number=True),
    Column(title="not counted", field="tokens_unknown", number=True, wide=True),
    Column(title="entity", field="legal_entity", wide=True),
)


def show_report(out: Output, report: ResidencyReport) -> None:
    """The report for people."""
    from sites.digest import to_plain

    span = f"{show_time(report.since_ms)} to {show_time(report.until_ms)}"
    out.line(f"Residency of {report.tenant_id}, {span}", style="bold")
    rows: list[dict[str, Any]] = [
        {**to_plain(row), "energy_wh": f"{row.energy_j_estimated / 3_600:.3g}"}
        for row in report.rows
    ]
    if rows:
        out.rows("residency", rows, ROW_COLUMNS)
    else:
        out.line("Nothing of this tenant ran in that time.")
    unknown = sum(row.tokens_unknown for row in report.rows)
    if unknown:
        out.line(f"Tokens of {unknown} attempts were not reported by their model servers.")
    refused = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in report.not_run)
    out.line(f"Answered without running: {refused or 'none'}")
    _show_exceptions(out, report)
    policies = ", ".join(
        f"{p.policy_digest.removeprefix('sha256:')[:12]} since {show_time(p.since_ms)}"
        f" (entry {p.index})"
        for p in report.policies
    )
    out.line(f"Policies in force: {policies or 'none'}")
    _show_completeness(out, report)


def _show_exceptions(out: Output, report: ResidencyReport) -> None:
    style = "red" if report.breaches_total else "green"
    out.line(f"Residency breaches: {report.breaches_total}", style=style)
    for one in report.breaches:
        out.line(f"  entry {one.index}, request {one.request_id}, {one.site_id}: {one.what}")
        out.line(f"    leaf hash {one.leaf_hash}", style="dim")
    if len(report.breaches) < report.breaches_total:
        out.line(f"  {len(report.breaches)} of {report.breaches_total} shown")
    if report.late_total:
        out.line(f"Under a policy replaced while they were on their way: {report.late_total}")
        for one in report.late[:10]:
            out.line(f"  entry {one.index}, request {one.request_id}, {one.site_id}: {one.what}")


def _show_completeness(out: Output, report: ResidencyReport) -> None:
    agents = []
    for one in report.agents:
        text = f"{one.site_id} 0-{one.held}" if one.held >= 0 else f"{one.site_id} none"
        if one.gaps:
            text += f" ({one.gaps} missing)"
        if one.losses:
            text += f" (its gateway could not write its log at {one.losses} times: records lost)"
        if one.reported is not None and one.reported > one.held:
            text += f" (agent has up to {one.reported})"
        agents.append(text)
    for fault in report.altered:
        out.line(f"ALTERED: {fault}", style="red")
    word, style = ("Complete", "green") if report.complete else ("INCOMPLETE", "red")
    if report.complete and report.not_asked:
        word, style = f"Gap-free, but not asked: {', '.join(report.not_asked)}", "yellow"
    out.line(f"{out.styled(word, style)}: entries 0-{report.entries - 1}, root {report.root[:16]}")
    out.line(f"  records by agent: {', '.join(agents) or 'none'}")


@audit.command("verify")
@click.argument("export", required=False, type=GivenPath())
@click.option("--key", default="", help="The log's public key, received from elsewhere.")
@click.option(
    "--seen",
    multiple=True,
    type=GivenPath(),
    help="A checkpoint received earlier; shows cuts and forks.",
)
@pass_session
def verify(session: Session, export: Path | None, key: str, seen: tuple[Path, ...]) -> None:
    """Recompute everything in a ledger (default: this server's) or an export of one.

    Exits with 1 if it is not sound, 4 if it is but residency was breached.
    """
    from scheduler.ledger import verifier

    verdict = verifier.verify(export or session.state_dir / LEDGER_DIR, key=key, seen=seen)
    code = ExitCode(verifier.exit_code(verdict))
    if session.out.for_people:
        session.out.line(verifier.report(verdict), style="" if code is ExitCode.OK else "red")
    else:
        session.out.data("verdict", {"sound": not verdict.faults, **vars(verdict)})
    if code is not ExitCode.OK:
        raise CliError(code)


@audit.command("export")
@click.option("--out", "folder", required=True, type=GivenPath(), help="A new folder.")
@pass_session
def export(session: Session, folder: Path) -> None:
    """Copy the whole ledger into a folder, with the program that checks it anywhere."""
    from scheduler.ledger import LedgerReader
    from scheduler.ledger.export import write_export

    with LedgerReader.open(session.state_dir / LEDGER_DIR) as reader:
        lines, program = write_export(reader, folder)
        key = reader.verifier_key
    if session.out.for_people:
        session.out.line(f"Wrote {lines} and {program}")
        session.out.line(f"Check it anywhere: python {program.name} {lines.name} --key '{key}'")
    else:
        files = {"export": str(lines), "verifier": str(program), "key": key}
        session.out.data("export", files)
