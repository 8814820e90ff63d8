"""Commands about API keys of tenants. The control plane signs them; gateways check them."""

from __future__ import annotations

import click

from scheduler.cli.client import connected
from scheduler.cli.session import Group, Session, pass_session


@click.group(cls=Group)
def token() -> None:
    """Make API keys for tenants."""


@token.command("create")
@click.option("--tenant", "tenant_id", required=True, help="Whose requests the key stands for.")
@click.option(
    "--days",
    type=click.IntRange(min=1, max=3_650),
    default=90,
    show_default=True,
    help="How long it is valid.",
)
@pass_session
def create(session: Session, tenant_id: str, days: int) -> None:
    """Make an API key: clients send it as `Authorization: Bearer KEY` (the OpenAI api_key)."""
    with connected(session.state_dir) as api:
        body = {"tenant_id": tenant_id, "ttl_s": days * 86_400}
        made = api.post("/v1/tokens", body)
    if session.out.for_people:
        session.out.line(made["token"])
    else:
        session.out.data("token", made)
