"""What somebody measured: one operating point of a model server, as a fact.

Facts only. How a table's columns become measurements is left to the importers, what follows from
them for other lengths and other hardware to `roofline` and `curves`.
"""

from __future__ import annotations

from dataclasses import dataclass

from sites.units import require_between, require_id, require_nonnegative, require_positive

MEAN = 0.0
"""`percentile` of a figure that is a mean over requests."""

_AMOUNTS = ("output_tok_s", "tpot_ms", "ttft_ms", "power_w", "energy_j_per_token")


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """One line of a table in the words of the house.

    `accelerators` work as one replica (tensor or expert parallel). `framework` is the engine and
    the year of its measurement (``vllm-2024``). `concurrency` requests ran at once; None: as many
    as the memory holds. `output_tok_s` counts the whole replica and includes prefill; `tpot_ms`
    too, unless `decode_only`. `ttft_ms` is of `prefill_batch` requests started together.
    `percentile` belongs to the two times (0: mean). None: the table does not say.
    """

    table: str
    source: str
    accelerator: str
    accelerators: int
    model: str
    precision: str
    framework: str
    input_tokens: float
    output_tokens: float
    concurrency: float | None
    output_tok_s: float | None = None
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    percentile: float = MEAN
    decode_only: bool = False
    prefill_batch: float = 1.0
    power_w: float | None = None
    energy_j_per_token: float | None = None

    def __post_init__(self) -> None:
        require_id(self.accelerator, field=f"{self.source}: accelerator")
        require_id(self.model, field=f"{self.source}: model")
        for name in ("accelerators", "input_tokens", "output_tokens", "prefill_batch"):
            require_positive(getattr(self, name), field=f"{self.source}: {name}")
        if self.concurrency is not None:
            require_positive(self.concurrency, field=f"{self.source}: concurrency")
        for name in _AMOUNTS:
            if getattr(self, name) is not None:
                require_nonnegative(getattr(self, name), field=f"{self.source}: {name}")
        require_between(self.percentile, low=0, high=100, field=f"{self.source}: percentile")

    @property
    def group(self) -> tuple[str, int, str, str, str]:
        """What runs where: accelerator, count, model, precision, framework."""
        return (self.accelerator, self.accelerators, self.model, self.precision, self.framework)
