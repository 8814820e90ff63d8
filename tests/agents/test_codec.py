"""The codec is total: every fact survives the wire, everything else is refused by name."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agents.codec import (
    AGENT_FRAMES,
    CONTROL_FRAMES,
    decode_agent,
    decode_control,
    encode_agent,
    encode_control,
)
from agents.frames import (
    MAX_MESSAGE_BYTES,
    AgentFact,
    AssignmentFrame,
    ControlFact,
    Drain,
    RecordAck,
    RecordBatch,
)
from agents.v1 import agents_pb2
from sites.assignment import Lease, ReplicaGroup
from sites.errors import InvalidFactError, Violation
from sites.plain import INTEGER_MAX
from sites.steps import AssignmentVerdict, Step, StepKind, StepOutcome, StepResult
from sites.telemetry import (
    GatewayObservation,
    Hello,
    PeerHealth,
    PoolInventory,
    ReplicaObservation,
    ReplicaState,
    RouteCount,
    SiteObservation,
)

ids = st.from_regex(r"[a-z0-9]([a-z0-9._/:@+-]{0,20}[a-z0-9])?", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
counts = st.integers(0, INTEGER_MAX)
amounts = st.floats(0, allow_nan=False, allow_infinity=False)
floats = st.floats(allow_nan=False, allow_infinity=False)


def several(one: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(one, max_size=3).map(tuple)


groups = st.builds(
    ReplicaGroup, site_id=ids, pool_id=ids, variant_id=ids, accelerators_per_replica=counts
)
replicas = st.builds(
    ReplicaObservation,
    replica_id=texts,
    group=groups,
    state=st.sampled_from(ReplicaState),
    running=counts,
    queued=counts,
    decode_tok_s=floats,
    tokens_out_total=counts,
    detail=texts,
)
violations = st.builds(
    Violation,
    code=texts,
    subject=texts,
    limit=floats | texts,
    actual=floats | texts,
    unit=texts,
    remedy=texts,
)
hellos = st.builds(
    Hello,
    site_id=ids,
    instance_id=texts,
    agent_version=texts,
    inventory=several(st.builds(PoolInventory, pool_id=texts, accelerator=texts, count=counts)),
    epoch=counts,
    version=counts,
    assignment_digest=texts,
    replicas=several(replicas),
    last_record_sequence=st.integers(-1, INTEGER_MAX),
)
gateways = st.builds(
    GatewayObservation,
    live=st.booleans(),
    requests_total=counts,
    errors_total=counts,
    retries_total=counts,
    peers=several(st.builds(PeerHealth, site_id=texts, healthy=st.booleans())),
    routes=several(
        st.builds(
            RouteCount,
            route_id=texts,
            serving_site_id=texts,
            requests_total=counts,
            errors_total=counts,
        )
    ),
    routes_digest=texts,
)
observations = st.builds(
    SiteObservation,
    site_id=ids,
    instance_id=texts,
    sequence=counts,
    observed_at_ms=counts,
    epoch=counts,
    version=counts,
    assignment_digest=texts,
    replicas=several(replicas),
    gateway=gateways,
    possible_draw_w=amounts,
    draw_w=floats,
    draw_measured=st.booleans(),
    records_spooled=counts,
    faults=several(texts),
)
results = st.builds(
    StepResult,
    step_id=texts,
    site_id=ids,
    outcome=st.sampled_from(StepOutcome),
    finished_at_ms=counts,
    detail=texts,
    violations=several(violations),
)
verdicts = st.builds(
    AssignmentVerdict,
    site_id=ids,
    epoch=counts,
    version=counts,
    assignment_digest=texts,
    violations=several(violations),
    applied_epoch=counts,
    applied_version=counts,
    validate_only=st.booleans(),
)
batches = st.builds(
    RecordBatch,
    site_id=ids,
    first_sequence=counts,
    records=st.lists(st.binary(max_size=40), min_size=1, max_size=4).map(tuple),
)
agent_facts = st.one_of(hellos, observations, results, verdicts, batches)
control_facts = st.one_of(
    st.builds(
        AssignmentFrame,
        envelope=st.binary(min_size=1, max_size=99),
        validate_only=st.booleans(),
    ),
    st.builds(
        Step,
        step_id=ids,
        site_id=ids,
        kind=st.sampled_from(StepKind),
        epoch=counts,
        version=counts,
        group_id=texts,
        replicas=counts,
        timeout_ms=counts,
    ),
    st.builds(Lease, epoch=counts, expires_at_ms=counts),
    st.builds(RecordAck, site_id=ids, sequence=st.integers(-1, INTEGER_MAX)),
    st.builds(Drain, reason=texts, reconnect_after_ms=counts),
)


@given(agent_facts)
def test_what_an_agent_says_arrives_as_it_was(fact: AgentFact) -> None:
    assert decode_agent(encode_agent(fact)) == fact


@given(control_facts)
def test_what_the_control_plane_says_arrives_as_it_was(fact: ControlFact) -> None:
    assert decode_control(encode_control(fact)) == fact


@given(st.binary(max_size=300))
@example(b"")
@example(b"\x0a\x00")
def test_garbage_is_refused_or_is_a_fact(data: bytes) -> None:
    for decode in (decode_agent, decode_control):
        try:
            assert dataclasses.is_dataclass(decode(data))
        except InvalidFactError as refused:
            assert str(refused)


@given(agent_facts, st.data())
def test_a_damaged_frame_is_refused_or_is_a_fact(fact: AgentFact, data: st.DataObject) -> None:
    wire = bytearray(encode_agent(fact))
    position = data.draw(st.integers(0, len(wire) - 1))
    wire[position] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(wire)))
    for damaged in (bytes(wire), bytes(wire[:cut])):
        try:
            assert dataclasses.is_dataclass(decode_agent(damaged))
        except InvalidFactError as refused:
            assert str(refused)


@pytest.mark.parametrize(
    ("frame", "facts"),
    [(agents_pb2.AgentFrame, AGENT_FRAMES), (agents_pb2.ControlFrame, CONTROL_FRAMES)],
)
def test_facts_and_messages_have_the_same_fields(frame: Any, facts: dict[str, type]) -> None:
    fields = {f.name: f.message_type for f in frame.DESCRIPTOR.oneofs_by_name["frame"].fields}
    assert fields.keys() == facts.keys()
    for name, cls in facts.items():
        assert {f.name for f in dataclasses.fields(cls)} == set(fields[name].fields_by_name), name


def test_an_oversized_frame_is_refused_both_ways() -> None:
    too_long = "x" * MAX_MESSAGE_BYTES
    with pytest.raises(InvalidFactError, match="exceeds limit 4194304 bytes"):
        encode_control(Drain(reason=too_long))
    with pytest.raises(InvalidFactError, match="exceeds limit 4194304 bytes"):
        decode_agent(bytes(MAX_MESSAGE_BYTES + 1))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_refused(bad: float) -> None:
    frame = agents_pb2.AgentFrame()
    frame.observation.site_id = "a"
    frame.observation.gateway.live = True
    frame.observation.draw_w = bad
    with pytest.raises(InvalidFactError, match="draw_w"):
        decode_agent(frame.SerializeToString())


def test_a_missing_part_and_an_unknown_word_are_named() -> None:
    frame = agents_pb2.AgentFrame()
    frame.observation.site_id = "a"
    with pytest.raises(InvalidFactError, match=r"observation\.gateway: missing"):
        decode_agent(frame.SerializeToString())
    step = agents_pb2.ControlFrame()
    step.step.step_id, step.step.site_id = "s", "a"
    with pytest.raises(InvalidFactError, match=r"step\.kind: 0 is not a known StepKind"):
        decode_control(step.SerializeToString())


@pytest.mark.parametrize(
    "fact", [Lease(epoch=2**63, expires_at_ms=0), Lease(epoch="1", expires_at_ms=0)]
)
def test_what_does_not_fit_the_wire_is_refused_when_sent(fact: Lease) -> None:
    with pytest.raises(InvalidFactError, match="lease"):
        encode_control(fact)
