"""What a replica holds at a time and how long it is there, worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sites.catalog import BYTES_PER_MIB, ServingPoint, Variant

VARIANT = Variant(
    variant_id="v",
    model_id="m",
    precision="fp16",
    weights_mib=6_000.0,
    kv_bytes_per_token=BYTES_PER_MIB / 2,
    quality=1.0,
)
POINT = ServingPoint(
    variant_id="v",
    accelerator="gpu",
    accelerators_per_replica=2,
    decode_tok_s=1_000.0,
    prefill_tok_s=4_000.0,
    ttft_ms=50.0,
    tpot_ms=10.0,
    concurrency=8,
    idle_w=100.0,
    full_w=300.0,
    memory_mib=4_000.0,
    start_ms=900_000.0,
)


def slots(point: ServingPoint, *, memory_mib: float, tokens: float) -> float:
    return point.slots(VARIANT, memory_mib_per_accelerator=memory_mib, tokens=tokens)


def test_kv_room_is_the_memory_of_all_accelerators_less_the_weights_once() -> None:
    room = POINT.kv_room_bytes(VARIANT, memory_mib_per_accelerator=4_000.0)
    assert room == 2_000 * BYTES_PER_MIB


def test_slots_are_what_the_kv_room_holds_up_to_the_concurrency() -> None:
    assert slots(POINT, memory_mib=4_000.0, tokens=1_000.0) == 4.0  # 2000 MiB / 500 MiB
    assert slots(POINT, memory_mib=4_000.0, tokens=1_600.0) == 2.5
    assert slots(POINT, memory_mib=4_000.0, tokens=500.0) == 8.0
    assert slots(POINT, memory_mib=80_000.0, tokens=500.0) == 8.0
    assert slots(POINT, memory_mib=2_900.0, tokens=500.0) < 0  # the weights alone do not fit


def test_a_request_keeps_a_replica_longer_where_fewer_are_held_at_a_time() -> None:
    def seconds(memory_mib: float) -> float:
        return POINT.paired_replica_seconds(
            VARIANT, memory_mib_per_accelerator=memory_mib, input_tokens=800.0, output_tokens=200.0
        )

    assert POINT.replica_seconds(input_tokens=800.0, output_tokens=200.0) == pytest.approx(0.4)
    assert seconds(80_000.0) == pytest.approx(0.4)
    assert seconds(4_000.0) == pytest.approx(0.8)  # 4 slots of 8


def test_availability_is_what_interruptions_leave() -> None:
    assert POINT.availability(interruption_per_h=0.0) == 1.0
    assert POINT.availability(interruption_per_h=0.1) == pytest.approx(0.975)
    assert POINT.availability(interruption_per_h=4.0) == 0.0
    assert POINT.availability(interruption_per_h=40.0) == 0.0
    assert replace(POINT, start_ms=0.0).availability(interruption_per_h=40.0) == 1.0
