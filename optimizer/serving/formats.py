"""The formats a table of measurements may have, told apart by their columns.

Decides which importer reads a table and refuses one that none can; nothing of a set of tables is
used unless all of it is right.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from optimizer.serving import importers
from optimizer.serving.measurement import Measurement
from optimizer.serving.table import MeasurementFileError, Row, header_of, rows
from sites.errors import InvalidFactError
from sites.fleet_file.faults import Fault, did_you_mean


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """One table format: the columns it must have, and the importer of a row."""

    name: str
    columns: tuple[str, ...]
    read: Callable[[Row], Iterator[Measurement]]


_RUN = ("suite", "run", "accelerator", "tp", "pp", "model", "precision", "framework", "date")
_TIMES = tuple(f"{what}_ms_p{p}" for what in ("ttft", "tpot") for p in (50, 90, 99))
_BATCH = ("accelerator", "count", "framework", "model", "batch")
FORMATS = (
    Format(
        name="accelmark-online",
        columns=(*_RUN, "achieved_qps", *_TIMES, "sla_met"),
        read=importers.accelmark_online,
    ),
    Format(
        name="accelmark-interactive",
        columns=(*_RUN, *_TIMES),
        read=importers.accelmark_interactive,
    ),
    Format(
        name="accelmark-sustained",
        columns=(*_RUN, "concurrency", "output_tok_s", "throttle_ratio"),
        read=importers.accelmark_sustained,
    ),
    Format(
        name="accelmark-offline",
        columns=(*_RUN, "concurrency", "output_tok_s", "power_w_avg"),
        read=importers.accelmark_offline,
    ),
    Format(
        name="ml-energy",
        columns=("task", "model", "precision", "gpu", "num_gpus", "max_num_seqs", "avg_batch",
                 "avg_output_tokens", "output_tok_s", "avg_power_w", "energy_j_per_output_token"),
        read=importers.ml_energy,
    ),
    Format(
        name="argonne",
        columns=(*_BATCH, "in_out_tokens", "output_tok_s"),
        read=importers.argonne,
    ),
    Format(
        name="argonne-power",
        columns=(*_BATCH, "in_out_tokens", "total_tok_s", "avg_power_w"),
        read=importers.argonne_power,
    ),
    Format(
        name="argonne-ttft",
        columns=(*_BATCH, "input_tokens", "output_tokens", "ttft_s"),
        read=importers.argonne_ttft,
    ),
    Format(
        name="splitwise",
        columns=("model", "hardware", "tensor_parallel", "prompt_size", "batch_size", "token_size",
                 "prompt_ms", "token_ms", "source"),
        read=importers.splitwise,
    ),
    Format(
        name="helix",
        columns=("model", "accelerator", "phase", "tokens", "ms_per_layer"),
        read=importers.helix,
    ),
    Format(
        name="trtllm-throughput",
        columns=("model", "accelerator", "precision", "parallelism", "num_gpus", "input_tokens",
                 "output_tokens", "batch", "output_tok_s_per_gpu", "source"),
        read=importers.trtllm_throughput,
    ),
    Format(
        name="trtllm-first-token",
        columns=("model", "accelerator", "precision", "tp", "input_tokens", "ttft_ms_batch1"),
        read=importers.trtllm_first_token,
    ),
    Format(
        name="edge",
        columns=("accelerator", "model", "precision", "framework", "input_tokens", "output_tokens",
                 "concurrency", "output_tok_s", "ttft_ms", "itl_ms", "source"),
        read=importers.edge,
    ),
)  # fmt: skip
"""Every format; of two that fit, the first is meant (online tables have interactive's columns)."""

NAMES = tuple(one.name for one in FORMATS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """Names of which more is known than a table says: specification, architecture, bytes."""

    accelerators: Collection[str]
    models: Collection[str]
    precisions: Collection[str]

    def check(self, row: Row, one: Measurement) -> None:
        """Note each name of a measurement that is not known, at the cell that gave it."""
        for columns, name, names, lacks in (
            (("accelerator", "gpu", "hardware"), one.accelerator, self.accelerators,
             "specification"),
            (("model",), one.model, self.models, "architecture"),
            (("precision",), one.precision, self.precisions, "size per parameter"),
        ):  # fmt: skip
            if name not in names:
                column = next(c for c in columns if c in row.columns)
                hint = did_you_mean(name, names) or "; `hinterland points show --names` lists them"
                row.fault(column, f"{name!r} has no {lacks} here{hint}")


def read_tables(
    files: Iterable[tuple[str, bytes]], *, format_name: str = "", known: Known | None = None
) -> tuple[Measurement, ...]:
    """Measurements of (file name, content) pairs, in order; the format guessed from the header.

    `known`: a name that is not in it is a fault too. Raises MeasurementFileError with every fault
    of all files, as file:line:column (the column of a table counts cells), and imports nothing.
    """
    faults: list[Fault] = []
    found: list[Measurement] = []
    for file, content in files:
        chosen = _format_of(content, file=file, name=format_name, faults=faults)
        if chosen is None:
            continue
        before = len(found)
        for row in rows(content, file=file, faults=faults):
            ones = _read(chosen, row)
            if known is not None and ones:  # a row's measurements share their names
                known.check(row, ones[0])
            found += ones
        if len(found) == before and not any(one.file == file for one in faults):
            faults.append(_whole(file, f"no row of this {chosen.name} table is a measurement"))
    if faults:
        raise MeasurementFileError(faults)
    return tuple(found)


def _read(chosen: Format, row: Row) -> list[Measurement]:
    try:
        return list(chosen.read(row))
    except InvalidFactError as error:
        row.fault(chosen.columns[0], str(error))
        return []


def _whole(file: str, message: str) -> Fault:
    return Fault(file=file, line=1, column=1, message=message)


def _format_of(content: bytes, *, file: str, name: str, faults: list[Fault]) -> Format | None:
    header = header_of(content)
    if not header:
        faults.append(_whole(file, "no header of column names; is this a CSV table?"))
        return None
    if len(set(header)) < len(header):
        twice = sorted({column for column in header if header.count(column) > 1})
        faults.append(_whole(file, f"column {twice[0]!r} is there twice"))
        return None
    if not name:
        fitting = [one for one in FORMATS if set(one.columns) <= set(header)]
        if fitting:
            return fitting[0]
        near = max(FORMATS, key=lambda one: len(set(one.columns) & set(header)) / len(one.columns))
        missing = ", ".join(c for c in near.columns if c not in header)
        faults.append(
            _whole(file, f"fits no known format; nearest is {near.name}, which also has {missing}")
        )
        return None
    chosen = next((one for one in FORMATS if one.name == name), None)
    if chosen is None:
        faults.append(_whole(file, f"no format {name!r}{did_you_mean(name, NAMES)}"))
        return None
    absent = [c for c in chosen.columns if c not in header]
    if absent:
        faults.append(_whole(file, f"a {name} table also has column {', '.join(absent)}"))
        return None
    return chosen
