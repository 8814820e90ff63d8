"""What accelerators, models and precisions are: the figures a roofline needs.

Facts only: values come from the shipped library, which says where each was found. What they make
of a request is left to `roofline`.
"""

from __future__ import annotations

from dataclasses import dataclass

from sites.errors import InvalidFactError
from sites.units import require_id, require_nonnegative, require_positive

MIB = 2**20
GB = 1e9
KV_BYTES = 2.0

NO_FLOAT8 = frozenset(("ampere", "edge", "intel", "mtt", "sn", "volta"))
"""Families whose 8-bit rate is for whole numbers: FP8 weights are widened to 16 bit first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AcceleratorSpec:
    """One accelerator: memory, its bandwidth, dense 16-bit and 8-bit rates, link, rated draw.

    `eight_bit_tflops` 0: no faster than 16 bit. `link_gb_s`: to its neighbours, per accelerator.
    """

    accelerator: str
    memory_gb: float
    bandwidth_gb_s: float
    bf16_tflops: float
    eight_bit_tflops: float
    link_gb_s: float
    tdp_w: float
    family: str
    source: str = ""

    def __post_init__(self) -> None:
        require_id(self.accelerator, field="accelerator")
        name = f"accelerator {self.accelerator}"
        for positive in ("memory_gb", "bandwidth_gb_s", "bf16_tflops", "link_gb_s", "tdp_w"):
            require_positive(getattr(self, positive), field=f"{name}: {positive}")
        require_nonnegative(self.eight_bit_tflops, field=f"{name}: eight_bit_tflops")

    @property
    def memory_mib(self) -> float:
        """Memory of one accelerator (MiB)."""
        return self.memory_gb * GB / MIB


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """One model's shape. `experts_per_token` of `experts` answer a token; 1 of 1 where dense."""

    model: str
    parameters_b: float
    active_b: float
    layers: int
    hidden: int
    kv_elements_per_token: float
    context_tokens: int
    experts: int = 1
    experts_per_token: int = 1
    source: str = ""

    def __post_init__(self) -> None:
        require_id(self.model, field="model")
        name = f"model {self.model}"
        for positive in (
            "parameters_b", "active_b", "layers", "hidden", "kv_elements_per_token",
            "context_tokens", "experts", "experts_per_token",
        ):  # fmt: skip
            require_positive(getattr(self, positive), field=f"{name}: {positive}")
        if self.active_b > self.parameters_b or self.experts_per_token > self.experts:
            raise InvalidFactError(f"{name}: more is active than there is")

    @property
    def kind(self) -> str:
        """``moe`` or ``dense``: which efficiencies it shares with others."""
        return "moe" if self.experts > 1 else "dense"

    @property
    def expert_b(self) -> float:
        """Parameters in experts (billions): total and active counts differ by those left out."""
        if self.experts == 1:
            return 0.0
        return (self.parameters_b - self.active_b) / (1 - self.experts_per_token / self.experts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Precision:
    """Bytes of one weight, scales included; whether sums run at the 8-bit (or 4-bit) rate."""

    name: str
    weight_bytes: float
    rate: str = "bf16"

    def peak_tflops(self, spec: AcceleratorSpec) -> float:
        """Dense rate an accelerator multiplies at."""
        eight = max(spec.eight_bit_tflops, spec.bf16_tflops)
        if self.rate == "four_bit" and spec.family == "blackwell":
            return 2 * eight
        whole_numbers_only = self.rate != "eight_bit" and spec.family in NO_FLOAT8
        return spec.bf16_tflops if self.rate == "bf16" or whole_numbers_only else eight


PRECISIONS = {
    one.name: one
    for one in (
        Precision(name="bf16", weight_bytes=2.0),
        Precision(name="fp8", weight_bytes=1.0, rate="float8"),
        Precision(name="w8a8", weight_bytes=1.0, rate="eight_bit"),
        Precision(name="w8a16", weight_bytes=1.0),
        Precision(name="w4a16", weight_bytes=0.55),
        Precision(name="mxfp4", weight_bytes=0.55, rate="four_bit"),
        Precision(name="nvfp4", weight_bytes=0.57, rate="four_bit"),
    )
}
"""4-bit formats carry a scale per 16 to 128 weights and leave some layers at 16 bit."""


def weights_mib(architecture: Architecture, precision: str) -> float:
    """Memory the weights take (MiB): parameters x bytes of one."""
    return architecture.parameters_b * 1e9 * PRECISIONS[precision].weight_bytes / MIB
