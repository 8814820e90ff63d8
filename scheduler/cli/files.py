"""Commands on fleet files: validate, schema, explain. All offline.

What is right and wrong in a file is `sites.fleet_file`'s decision.
"""

from __future__ import annotations

from pathlib import Path

import click

from scheduler.cli.session import Command, GivenPath, Session, pass_session

FLEET_PATHS = click.argument("paths", nargs=-1, required=True, type=GivenPath())


@click.command(cls=Command)
@FLEET_PATHS
@pass_session
def validate(session: Session, paths: tuple[Path, ...]) -> None:
    """Read fleet files and report every fault at once, as file:line:column."""
    from scheduler.fleet_problem import read_problem

    problem = read_problem(paths)
    counts = (
        ("sites", len(problem.fleet.sites)),
        ("countries", len({s.country for s in problem.fleet.sites})),
        ("links", len(problem.fleet.links)),
        ("markets", len(problem.fleet.markets)),
        ("models", len(problem.catalog.models)),
        ("variants", len(problem.catalog.variants)),
        ("serving points", len(problem.catalog.serving_points)),
        ("services", len(problem.services)),
        ("tenants", len(problem.tenants)),
        ("residency policies", len(problem.policies)),
        ("traffic classes", len(problem.classes)),
    )
    if session.out.for_people:
        text = ", ".join(f"{number} {_one(name, number)}" for name, number in counts)
        session.out.line(f"{session.out.styled('Valid', 'green')}: {text}")
    else:
        items = {name.replace(" ", "_"): number for name, number in counts}
        session.out.data("validation", {"valid": True, "counts": items})


def _one(plural: str, number: int) -> str:
    if number != 1:
        return plural
    return plural[:-3] + "y" if plural.endswith("ies") else plural.removesuffix("s")


@click.command(cls=Command)
@pass_session
def schema(session: Session) -> None:
    """Print the JSON Schema of fleet files (for editors)."""
    import json

    from sites.fleet_file import json_schema

    session.out.line(json.dumps(json_schema(), indent=2, ensure_ascii=False, sort_keys=True))


@click.command(cls=Command)
@click.argument("path", metavar="KIND.PATH")
@pass_session
def explain(session: Session, path: str) -> None:
    """Say what a field of a fleet file means, for example Site.spec.power."""
    from sites.fleet_file import explain as explain_path

    text = explain_path(path)
    if session.out.for_people:
        session.out.line(text)
    else:
        session.out.data("explanation", {"path": path, "text": text})
