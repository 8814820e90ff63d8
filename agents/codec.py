"""Facts to wire bytes and back, for every frame of the agent protocol. Total in both directions.

Decides what is well-formed on the wire: size, known frame, field types, finite numbers; the facts
themselves check the rest when they are made. Conversion goes by field name, so a fact and its
message cannot drift apart unseen (tests compare them). No gRPC here: the two ends of the stream
pass bytes.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

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
from sites.assignment import Lease
from sites.errors import InvalidFactError
from sites.plain import INTEGER_MAX, from_plain
from sites.steps import AssignmentVerdict, Step, StepResult
from sites.telemetry import Hello, SiteObservation

SERVICE_NAME: str = agents_pb2.DESCRIPTOR.services_by_name["Agents"].full_name
CONNECT_METHOD = "Connect"

AGENT_FRAMES: dict[str, type[AgentFact]] = {
    "hello": Hello,
    "observation": SiteObservation,
    "step_result": StepResult,
    "verdict": AssignmentVerdict,
    "record_batch": RecordBatch,
}
CONTROL_FRAMES: dict[str, type[ControlFact]] = {
    "assignment": AssignmentFrame,
    "step": Step,
    "lease": Lease,
    "record_ack": RecordAck,
    "drain": Drain,
}


def encode_agent(fact: AgentFact) -> bytes:
    """Bytes of an agent's frame. Raises InvalidFactError over 4 MiB or for a number off the wire's
    range.
    """
    return _encode(agents_pb2.AgentFrame(), AGENT_FRAMES, fact)


def decode_agent(data: bytes) -> AgentFact:
    """The fact in an agent's frame. Raises InvalidFactError for anything else."""
    return _decode(agents_pb2.AgentFrame(), AGENT_FRAMES, data)  # type: ignore[no-any-return]


def encode_control(fact: ControlFact) -> bytes:
    """Bytes of a control plane's frame. Raises InvalidFactError as `encode_agent`."""
    return _encode(agents_pb2.ControlFrame(), CONTROL_FRAMES, fact)


def decode_control(data: bytes) -> ControlFact:
    """The fact in a control plane's frame. Raises InvalidFactError for anything else."""
    return _decode(agents_pb2.ControlFrame(), CONTROL_FRAMES, data)  # type: ignore[no-any-return]


def _encode(frame: Message, frames: dict[str, type[Any]], fact: Any) -> bytes:
    name = next(n for n, cls in frames.items() if cls is type(fact))
    inner = getattr(frame, name)
    inner.SetInParent()
    try:
        _fill(inner, fact)
    except (ValueError, TypeError) as fault:
        raise InvalidFactError(f"{name}: {fault}") from fault
    data = frame.SerializeToString(deterministic=True)
    _require_size(len(data))
    return data


def _decode(frame: Message, frames: dict[str, type[Any]], data: bytes) -> Any:
    _require_size(len(data))
    try:
        frame.ParseFromString(data)
    except DecodeError as fault:
        raise InvalidFactError("message: not a frame of the agent protocol") from fault
    name = frame.WhichOneof("frame")
    if name is None:
        raise InvalidFactError(
            f"message: none of the frames {', '.join(sorted(frames))}; is the peer newer?"
        )
    plain = _plain(getattr(frame, name), where=name)
    if name == "record_batch":  # raw bytes are no plain JSON value, so not `from_plain`'s to build
        return RecordBatch(**(plain | {"records": tuple(plain["records"])}))
    return AssignmentFrame(**plain) if name == "assignment" else from_plain(frames[name], plain)


def _require_size(size_bytes: int) -> None:
    if size_bytes > MAX_MESSAGE_BYTES:
        raise InvalidFactError(
            f"message: {size_bytes} bytes exceeds limit {MAX_MESSAGE_BYTES} bytes; "
            "split the fleet or send smaller batches"
        )


def _fill(message: Any, fact: Any) -> None:
    for field in dataclasses.fields(fact):
        _put(message, field.name, getattr(fact, field.name))


def _put(message: Any, name: str, value: Any) -> None:
    descriptor = message.DESCRIPTOR.fields_by_name[name]
    if isinstance(value, tuple):
        target = getattr(message, name)
        if descriptor.type == FieldDescriptor.TYPE_MESSAGE:
            for item in value:
                _fill(target.add(), item)
        else:
            target.extend(value)
    elif isinstance(value, enum.Enum):
        number = descriptor.enum_type.values_by_name[_enum_prefix(descriptor) + value.name].number
        setattr(message, name, number)
    elif dataclasses.is_dataclass(value):
        getattr(message, name).SetInParent()
        _fill(getattr(message, name), value)
    elif descriptor.type == FieldDescriptor.TYPE_MESSAGE:
        kind = "text" if isinstance(value, str) else "number"
        setattr(getattr(message, name), kind, value)
    elif isinstance(value, int) and abs(value) > INTEGER_MAX:
        raise ValueError(f"{name} {value} is beyond {INTEGER_MAX}")
    else:
        setattr(message, name, value)


def _plain(message: Any, *, where: str) -> dict[str, Any]:
    for descriptor in message.DESCRIPTOR.fields:
        inner = descriptor.type == FieldDescriptor.TYPE_MESSAGE and not descriptor.is_repeated
        if inner and not message.HasField(descriptor.name):
            raise InvalidFactError(f"{where}.{descriptor.name}: missing")
    return {
        descriptor.name: (
            [_value(descriptor, v, where) for v in getattr(message, descriptor.name)]
            if descriptor.is_repeated
            else _value(descriptor, getattr(message, descriptor.name), where)
        )
        for descriptor in message.DESCRIPTOR.fields
    }


def _value(descriptor: Any, value: Any, where: str) -> Any:
    name = f"{where}.{descriptor.name}"
    if descriptor.type == FieldDescriptor.TYPE_MESSAGE:
        if descriptor.message_type.name != "Quantity":
            return _plain(value, where=name)
        kind = value.WhichOneof("kind")
        if kind is None:
            raise InvalidFactError(f"{name}: missing")
        value = getattr(value, kind)
    elif descriptor.type == FieldDescriptor.TYPE_ENUM:
        known = descriptor.enum_type.values_by_number.get(value)
        if known is None or known.number == 0:
            raise InvalidFactError(f"{name}: {value} is not a known {descriptor.enum_type.name}")
        return known.name.removeprefix(_enum_prefix(descriptor)).lower()
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidFactError(f"{name}: {value} is not a finite number")
    return value


def _enum_prefix(descriptor: Any) -> str:
    first: str = descriptor.enum_type.values_by_number[0].name
    return first.removesuffix("UNSPECIFIED")
