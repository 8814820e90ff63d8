"""Serving points from the command line: import one's own measurements, list, estimate.

Decides how questions are asked and answers shown; the figures are `optimizer.serving`'s.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scheduler.cli.output import CliError, Column, ExitCode, yaml_lines
from scheduler.cli.session import GivenPath, Group, Session, pass_session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optimizer.serving.library import Library
    from sites.catalog import ServingPoint
    from sites.traffic import SloTarget


class Duration(click.ParamType[float]):
    """A time with its unit, as fleet files write it; milliseconds inside."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, float):
            return value
        from sites.fleet_file import quantities

        try:
            return quantities.one(quantities.SLO_DURATION)(value)
        except ValueError as error:
            return self.fail(str(error), param, ctx)


TOKENS = click.FloatRange(min=1, max=1e9)
TTFT = click.option("--ttft", type=Duration(), default="2 s", show_default=True,
                    help="Longest time to first token.")  # fmt: skip
TPOT = click.option("--tpot", type=Duration(), default="100 ms", show_default=True,
                    help="Longest time per output token.")  # fmt: skip
PERCENTILE = click.option(
    "--percentile",
    type=click.FloatRange(min=1, max=100),
    default=99.0,
    show_default=True,
    help="Of the requests that must meet both.",
)
COLUMNS = (
    Column(title="variant", field="variant"),
    Column(title="accelerator", field="accelerator"),
    Column(title="n", field="accelerators", number=True),
    Column(title="output tok/s", field="output_tok_s", number=True),
    Column(title="at once", field="concurrency", number=True),
    Column(title="points", field="points", number=True),
    Column(title="engine", field="framework"),
    Column(title="source", field="source", wide=True),
)


@click.group(cls=Group)
def points() -> None:
    """Serving points: what a model does on which hardware, measured or estimated."""


def _slo(ttft_ms: float, tpot_ms: float, percentile: float) -> SloTarget:
    from sites.traffic import SloTarget

    return SloTarget(ttft_ms=ttft_ms, tpot_ms=tpot_ms, percentile=percentile)


@points.command("import")
@click.argument("paths", nargs=-1, required=True, type=GivenPath(exists=True, dir_okay=False))
@click.option("--format", "format_name", default="", metavar="NAME",
              help="Table format.  [default: guessed from the header]")  # fmt: skip
@click.option("--input-tokens", type=TOKENS, help="Input tokens of a request.")
@click.option("--output-tokens", type=TOKENS, help="Output tokens of a request.")
@TTFT
@TPOT
@PERCENTILE
@click.option("--out", type=GivenPath(dir_okay=False), required=True, help="Fleet file to write.")
@pass_session
def import_(
    session: Session,
    paths: tuple[Path, ...],
    *,
    format_name: str,
    input_tokens: float | None,
    output_tokens: float | None,
    ttft: float,
    tpot: float,
    percentile: float,
    out: Path,
) -> None:
    """Turn tables of measurements into a fleet file of models with their serving points.

    Without lengths each point stands at those its group did best at.
    """
    from optimizer.serving.documents import model_documents
    from optimizer.serving.formats import Known, read_tables
    from optimizer.serving.library import groups_of, shipped
    from optimizer.serving.points import own_points
    from optimizer.serving.specs import PRECISIONS
    from sites.errors import Violation

    if (input_tokens is None) != (output_tokens is None):
        raise click.UsageError("give --input-tokens and --output-tokens together, or neither")
    lengths = (input_tokens, output_tokens) if input_tokens and output_tokens else None
    known = shipped()
    names = Known(accelerators=known.accelerators, models=known.models, precisions=PRECISIONS)
    files = ((str(path), path.read_bytes()) for path in paths)
    measured = read_tables(files, format_name=format_name, known=names)
    own = groups_of(measured, known.accelerators, known.models)
    library = known.with_measurements(measured)
    answers = own_points(library, own, lengths=lengths, slo=_slo(ttft, tpot, percentile))
    made = _one_per_pair(answers)
    for _, refused in answers:
        if isinstance(refused, Violation):
            session.out.note(f"left out: {refused.message()}")
    if not made:
        raise CliError(
            ExitCode.ERROR,
            "no serving point: no measurement of a throughput meets the times asked for; raise "
            "--ttft and --tpot, or measure output tokens per second",
        )
    lines = []
    for document in model_documents(made, library):
        lines += ["---", *yaml_lines(document)]
    out.write_text("\n".join([*lines, ""]), encoding="utf-8")
    session.out.line(f"{out}: {len(made)} serving points of {len(measured)} measurements")


def _one_per_pair(answers: Sequence[tuple[Any, Any]]) -> list[tuple[str, str, ServingPoint]]:
    """Of the engines measured for a pair the one with the most output."""
    from sites.catalog import ServingPoint

    best: dict[str, tuple[str, str, ServingPoint]] = {}
    for group, point in answers:
        if isinstance(point, ServingPoint):
            before = best.get(point.point_id)
            if before is None or point.decode_tok_s > before[2].decode_tok_s:
                best[point.point_id] = (group.model, group.precision, point)
    return [best[name] for name in sorted(best)]


@points.command("show")
@click.option("--model", default="", help="Only this model.")
@click.option("--accelerator", default="", help="Only this accelerator.")
@click.option("--names", is_flag=True, help="List accelerators, models and precisions instead.")
@pass_session
def show(session: Session, *, model: str, accelerator: str, names: bool) -> None:
    """List what was measured, and ships with this program."""
    from optimizer.serving.library import shipped
    from optimizer.serving.specs import PRECISIONS

    known = shipped()
    if names:
        kinds = {
            "accelerators": sorted(known.accelerators),
            "models": sorted(known.models),
            "precisions": sorted(PRECISIONS),
        }
        for kind, found in kinds.items() if session.out.for_people else ():
            session.out.line(f"{kind}: {', '.join(found)}")
        if not session.out.for_people:
            session.out.data("serving_names", kinds)
        return
    _require_known(known, model=model, accelerator=accelerator)
    rows = [
        {
            "variant": f"{one.model}-{one.precision}",
            "accelerator": one.accelerator,
            "accelerators": one.accelerators,
            "output_tok_s": max(knot.output_tok_s for knot in one.knots),
            "concurrency": int(max(one.knots, key=lambda k: k.output_tok_s).concurrency),
            "points": len(one.knots),
            "framework": one.framework,
            "source": one.source,
        }
        for one in known.groups
        if model in ("", one.model) and accelerator in ("", one.accelerator)
    ]
    session.out.rows("measured_points", rows, COLUMNS, empty="nobody measured this here")


def _require_known(library: Library, *, model: str, accelerator: str) -> None:
    from sites.fleet_file.faults import did_you_mean

    for what, name, known in (
        ("model", model, library.models),
        ("accelerator", accelerator, library.accelerators),
    ):
        if name and name not in known:
            hint = did_you_mean(name, known) or "; `hinterland points show --names` lists them"
            raise CliError(ExitCode.ERROR, f"no {what} {name!r}{hint}")


@points.command("estimate")
@click.option("--model", required=True, help="Model, as `points show --names` lists it.")
@click.option("--variant", "precision", default="bf16", show_default=True, help="Its precision.")
@click.option("--accelerator", required=True, help="Accelerator type.")
@click.option("--count", type=click.IntRange(min=1, max=4096), default=1, show_default=True,
              help="Accelerators per replica.")  # fmt: skip
@click.option("--input-tokens", type=TOKENS, default=1000, show_default=True)
@click.option("--output-tokens", type=TOKENS, default=300, show_default=True)
@TTFT
@TPOT
@PERCENTILE
@pass_session
def estimate(
    session: Session,
    *,
    model: str,
    precision: str,
    accelerator: str,
    count: int,
    input_tokens: float,
    output_tokens: float,
    ttft: float,
    tpot: float,
    percentile: float,
) -> None:
    """The serving point of a model on hardware, for such requests within such times."""
    from optimizer.serving.library import shipped
    from optimizer.serving.points import Query
    from optimizer.serving.points import estimate as answer
    from sites.catalog import ServingPoint
    from sites.digest import to_plain

    known = shipped()
    model, accelerator = model.lower(), accelerator.lower()
    _require_known(known, model=model, accelerator=accelerator)
    query = Query(
        variant_id=f"{model}-{precision.lower()}",
        architecture=known.models[model],
        precision=precision.lower(),
        accelerator=known.accelerators[accelerator],
        accelerators=count,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        slo=_slo(ttft, tpot, percentile),
    )
    point = answer(query, library=known)
    if not isinstance(point, ServingPoint):
        raise CliError(ExitCode.INFEASIBLE, point.message())
    if not session.out.for_people:
        session.out.data("serving_point", {"serving_point": to_plain(point)})
        return
    busy_s = point.replica_seconds(input_tokens=input_tokens, output_tokens=output_tokens)
    for line in _lines(point, output_tok_s=output_tokens / busy_s):
        session.out.line(line)


def _lines(point: ServingPoint, *, output_tok_s: float) -> list[str]:
    said = "estimated" if point.estimated else "measured"
    return [
        f"{point.point_id} ({said})",
        f"  output      {output_tok_s:,.0f} tok/s with {point.concurrency} requests at once",
        f"  prefill     {point.prefill_tok_s or 0:,.0f} tok/s; decode {point.decode_tok_s:,.0f} "
        "tok/s between prompts",
        f"  TTFT        {point.ttft_ms:,.0f} ms, TPOT {point.tpot_ms:,.1f} ms "
        f"(percentile {point.percentile:g})",
        f"  draw        {point.full_w:,.0f} W at full use, {point.idle_w:,.0f} W idle "
        f"({point.full_w / output_tok_s:.2f} J per output token); accelerators alone",
        f"  memory      {point.memory_mib:,.0f} MiB on each accelerator; start "
        f"{point.start_ms / 1000:,.0f} s",
        f"  source      {point.source}",
    ]
