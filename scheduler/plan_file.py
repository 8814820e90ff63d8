"""Saved plans: a plan with its whole question, bound to the state it was made from.

Decides what a plan file holds and when one is refused (truncated, edited, of another format) or
stale. Whether its plan is carried out is the gate's decision, which judges it again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimizer.outcome import Outcome, SolveStatus
from optimizer.plan import Plan
from optimizer.problem import Problem
from sites.digest import digest, to_plain
from sites.errors import RefusedError
from sites.plain import from_plain

FORMAT_VERSION = 1
KIND = "hinterland-plan"
PLAN_FILE_BYTES_MAX = 256 * 1024 * 1024


class StalePlanError(RefusedError):
    """The state a plan was made from is no longer the state there is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Binding:
    """What a plan was made from. `state_serial` 0: from files alone, no server was there.

    `fleet_digest` covers what the fleet files said, `fleet_paths` where they lay ("" entries never;
    empty: the server's own description).
    """

    state_serial: int
    fleet_digest: str
    problem_digest: str
    fleet_paths: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class SolveSummary:
    """How the plan came about; `build_s` and `solve_s` are wall seconds."""

    status: SolveStatus
    nodes: int = 0
    build_s: float = 0.0
    solve_s: float = 0.0
    message: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedPlan:
    """Everything a plan file holds. `before` is the plan in force when it was made, if any."""

    problem: Problem
    plan: Plan
    before: Plan | None
    summary: SolveSummary
    binding: Binding


def summary_of(outcome: Outcome) -> SolveSummary:
    """The part of an outcome a plan file keeps (its arcs follow from the problem again)."""
    return SolveSummary(
        status=outcome.status,
        nodes=outcome.nodes,
        build_s=outcome.build_s,
        solve_s=outcome.solve_s,
        message=outcome.message,
    )


def dump_plan(saved: SavedPlan) -> str:
    """The text of a plan file."""
    content = to_plain(saved)
    document = {
        "kind": KIND,
        "format_version": FORMAT_VERSION,
        "content_digest": digest(content),
        "content": content,
    }
    return json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n"


def write_plan(path: Path, saved: SavedPlan) -> None:
    """Write a plan file whole or not at all; raises RefusedError where that cannot be."""
    if not path.name or (path.exists() and not path.is_file()):
        raise RefusedError(f"{path}: plan not written: not the name of a plain file; name another")
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_text(dump_plan(saved), encoding="utf-8")
        temporary.replace(path)
    except OSError as fault:
        temporary.unlink(missing_ok=True)
        raise RefusedError(f"{path}: plan not written: {fault.strerror}") from fault


def read_plan(path: Path) -> SavedPlan:
    """Read and check a plan file; raises RefusedError for anything but what was written."""
    try:
        with path.open("rb") as file:  # a device has no size: read no more than is allowed
            data = file.read(PLAN_FILE_BYTES_MAX + 1)
        if len(data) > PLAN_FILE_BYTES_MAX:
            raise RefusedError(f"{path}: larger than {PLAN_FILE_BYTES_MAX} bytes; not a plan file")
        text = data.decode()
    except OSError as fault:
        raise RefusedError(f"{path}: {fault.strerror}") from fault
    except UnicodeDecodeError as fault:
        raise RefusedError(f"{path}: not a plan file: it is not UTF-8 text") from fault
    return parse_plan(text, name=str(path))


def parse_plan(text: str, *, name: str) -> SavedPlan:
    """`read_plan` on text; `name` is what messages call it."""
    document = _document(text, name)
    if document["format_version"] != FORMAT_VERSION:
        raise RefusedError(
            f"{name}: plan format {document['format_version']!r}, this program reads "
            f"{FORMAT_VERSION}; plan again with it"
        )
    try:
        actual = digest(document["content"])
    except (ValueError, TypeError) as fault:
        raise RefusedError(f"{name}: plan file is damaged: {fault}; plan again") from fault
    if document["content_digest"] != actual:
        raise RefusedError(
            f"{name}: plan file was edited or damaged: its content has digest {actual}, it says "
            f"{document['content_digest']}; plan again"
        )
    saved = from_plain(SavedPlan, document["content"])
    problem_digest = digest(saved.problem)
    if not problem_digest == saved.plan.problem_digest == saved.binding.problem_digest:
        raise RefusedError(f"{name}: its plan answers another problem than it holds; plan again")
    return saved


def _document(text: str, name: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise RefusedError(f"{name}: plan file is cut off or not JSON: {fault}") from fault
    wanted = {"kind", "format_version", "content_digest", "content"}
    if not isinstance(document, dict) or document.get("kind") != KIND or set(document) != wanted:
        raise RefusedError(f"{name}: not a plan file; make one with `hinterland plan --out`")
    return document


def require_fresh(
    saved: SavedPlan, *, state_serial: int | None = None, fleet_digest: str = ""
) -> None:
    """Refuse a plan whose state has moved on; raises StalePlanError naming what changed.

    `state_serial` None and `fleet_digest` "" mean that nothing newer is known of them.
    """
    bound = saved.binding
    if state_serial is not None and state_serial != bound.state_serial:
        raise StalePlanError(
            f"plan is stale: made at state serial {bound.state_serial}, the fleet is at "
            f"{state_serial}; plan again"
        )
    if fleet_digest and fleet_digest != bound.fleet_digest:
        where = ", ".join(bound.fleet_paths) or "the server"
        raise StalePlanError(f"plan is stale: the fleet in {where} was changed since; plan again")
