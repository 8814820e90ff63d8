"""Commands about one site: cordon, uncordon, drain, and the failover drill.

A drill asks the control loop for the very plan a real loss would put into force, and changes
nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from scheduler.cli.client import Api, connected, segment
from scheduler.cli.output import CliError, Column, ExitCode, Output, count, money
from scheduler.cli.rollout import TIMEOUT, YES, finish, watch
from scheduler.cli.session import Command, Group, Session, pass_session
from sites.units import WHOLE_BP

if TYPE_CHECKING:
    from optimizer.problem import Problem
    from scheduler.view import Drill

REASON = click.option("--reason", default="", help="Why; kept in the ledger.")


@click.group(cls=Group)
def site() -> None:
    """Keep new work from a site, or move its work away."""


@site.command("cordon")
@click.argument("site_id", metavar="SITE")
@REASON
@YES
@TIMEOUT
@pass_session
def cordon(session: Session, site_id: str, *, reason: str, yes: bool, timeout_s: float) -> None:
    """Give a site nothing new; what runs there keeps running."""
    session.confirm(f"Cordon {site_id}?", yes=yes)
    _change(session, site_id, "cordon", reason=reason, timeout_s=timeout_s)


@site.command("uncordon")
@click.argument("site_id", metavar="SITE")
@REASON
@YES
@TIMEOUT
@pass_session
def uncordon(session: Session, site_id: str, *, reason: str, yes: bool, timeout_s: float) -> None:
    """Let a cordoned or drained site take work again."""
    session.confirm(f"Uncordon {site_id}?", yes=yes)
    _change(session, site_id, "uncordon", reason=reason, timeout_s=timeout_s)


@site.command("drain")
@click.argument("site_id", metavar="SITE")
@REASON
@YES
@TIMEOUT
@pass_session
def drain(session: Session, site_id: str, *, reason: str, yes: bool, timeout_s: float) -> None:
    """Move a site's work away, then stop its replicas."""
    with connected(session.state_dir) as api:
        if not yes:
            show_drill(session.out, api, site_id)
    session.confirm(f"Drain {site_id}?", yes=yes)
    _change(session, site_id, "drain", reason=reason, timeout_s=timeout_s)


def _change(session: Session, site_id: str, verb: str, *, reason: str, timeout_s: float) -> None:
    with connected(session.state_dir) as api:
        started = api.post(f"/v1/sites/{segment(site_id)}/{verb}", {"reason": reason})
        finish(session, watch(session, api, started["receipt_id"], timeout_s=timeout_s))


@click.command(cls=Command)
@click.argument("site_id", metavar="SITE")
@click.option("--drill", is_flag=True, help="Only predict; change nothing.")
@REASON
@YES
@TIMEOUT
@pass_session
def failover(
    session: Session, site_id: str, *, drill: bool, reason: str, yes: bool, timeout_s: float
) -> None:
    """Move everything off a site now, or (--drill) say what its loss would do.

    A drill exits with 3 if some traffic would go unserved that is served now.
    """
    with connected(session.state_dir) as api:
        if drill or not yes:
            more_shed = show_drill(session.out, api, site_id)
            if drill:
                if more_shed:
                    raise CliError(ExitCode.INFEASIBLE)
                return
    session.confirm(f"Fail {site_id} over for real?", yes=yes)
    reason = reason or "failover by operator"
    _change(session, site_id, "drain", reason=reason, timeout_s=timeout_s)


COLUMNS = (
    Column(title="flow", field="flow"),
    Column(title="tok/s", field="shown_tok_s", number=True),
    Column(title="from", field="from"),
    Column(title="to", field="to"),
    Column(title="shed %", field="shed_percent", number=True),
    Column(title="result", field="result"),
    Column(title="service", field="service", wide=True),
    Column(title="policy", field="policy", wide=True),
)


def show_drill(out: Output, api: Api, site_id: str) -> bool:
    """Show what losing a site would do; returns whether more would be shed than now."""
    from scheduler.view import Drill
    from sites.digest import to_plain
    from sites.plain import from_plain

    drill = from_plain(Drill, api.get(f"/v1/sites/{segment(site_id)}/drill"))
    problem = api.state().problem
    rows = drill_rows(drill, problem)
    worse = any(row["result"] != "SERVED" for row in rows)
    if not out.for_people:
        breaches = unlawful_shares(drill, problem)
        out.data("drill", {"drill": to_plain(drill), "flows": rows, "breaches": breaches})
        return worse
    affected = sum(row["tok_s"] for row in rows)
    noun = "flow" if len(rows) == 1 else "flows"
    out.line("DRILL: nothing changes. " + out.styled(f"Loss of {site_id}", "bold"))
    out.line(f"Affected: {len(rows)} {noun}, {count(affected)} tok/s")
    out.rows("flow", rows, COLUMNS)
    served = sum(row["tok_s"] * (1 - row["shed_percent"] / 100) for row in rows)
    part = served / affected if affected else 1.0
    out.line(
        f"Served {part:.0%} of them. Residency breaches: {len(unlawful_shares(drill, problem))}"
    )
    before, after = drill.cost_before_usd_per_h, drill.cost_after_usd_per_h
    out.line(f"Plan {_short(drill)}. Cost {money(before)} → {money(after)}")
    return worse


def _short(drill: Drill) -> str:
    return drill.plan_digest.removeprefix("sha256:")[:12]


def _result(shed_bp: int, *, grew: bool) -> str:
    if not grew:
        return "SERVED"
    return "UNSERVED" if shed_bp == WHOLE_BP else "PARTLY"


def unlawful_shares(drill: Drill, problem: Problem) -> list[str]:
    """Classes and sites the predicted plan would serve unlawfully (judged from the policies)."""
    from sites.residency import may_process, may_transit

    classes = {c.class_id: c for c in problem.classes}
    found = []
    for share in drill.plan.shares:
        policy = problem.residency(classes[share.class_id].residency_policy_id)
        place = problem.fleet.site(share.site_id)
        crossed = (*share.transit_countries, problem.fleet.site(share.ingress_site_id).country)
        lawful = may_process(policy, country=place.country, tags=place.residency_tags)
        if not (lawful and all(may_transit(policy, country=c) for c in crossed)):
            found.append(f"{share.class_id} at {share.site_id}")
    return found


def drill_rows(drill: Drill, problem: Problem) -> list[dict[str, Any]]:
    """One row per class whose shares move, in class order."""
    classes = {c.class_id: c for c in problem.classes}
    rows = []
    for class_id in sorted({m.class_id for m in drill.moves}):
        moves = [m for m in drill.moves if m.class_id == class_id]
        traffic = classes[class_id]
        shed_bp = sum(s.basis_points for s in drill.plan.shed if s.class_id == class_id)
        grew = any(m.site_id == "" and m.after_bp > m.before_bp for m in moves)
        gone = [m for m in moves if m.after_bp < m.before_bp and m.site_id]
        come = [m for m in moves if m.after_bp > m.before_bp and m.site_id]
        tok_s = problem.rate_rps(traffic) * traffic.output_tokens
        rows.append(
            {
                "flow": class_id,
                "service": traffic.service_id,
                "policy": traffic.residency_policy_id,
                "tok_s": tok_s,
                "shown_tok_s": count(tok_s),
                "from": [f"{m.site_id} {m.before_bp / 100:g}→{m.after_bp / 100:g}%" for m in gone],
                "to": [f"{m.site_id} {m.before_bp / 100:g}→{m.after_bp / 100:g}%" for m in come],
                "shed_percent": shed_bp / 100,
                "result": _result(shed_bp, grew=grew),
            }
        )
    return rows
