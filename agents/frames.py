"""Frames that exist on the wire alone: record batches and their acknowledgement, assignments in
their envelope, the front door's goodbye. Everything else on the wire is a fact of `sites`.

Facts only; `agents.codec` turns them into bytes and back.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sites.assignment import Lease
from sites.errors import InvalidFactError
from sites.steps import AssignmentVerdict, Step, StepResult
from sites.telemetry import Hello, SiteObservation
from sites.units import require_id, require_nonnegative

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""Most bytes of one message in either direction."""

MAX_ASSIGNMENT_BYTES = 64 * 1024 * 1024
"""Most bytes of an assignment's JSON before it is packed: some 200 000 routes of 330 bytes. A fleet
of 600 sites, 60 services, 50 tenants and 37 policies has 93 000 (31 MB).
"""

MAX_RECORDS_PER_BATCH = 4_096
MAX_RECORD_BYTES = 16 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordBatch:
    """Execution records of consecutive sequence numbers from `first_sequence` on, as the canonical
    JSON the agent spooled: the bytes the ledger hashes.
    """

    site_id: str
    first_sequence: int
    records: tuple[bytes, ...] = field(repr=False)

    def __post_init__(self) -> None:
        require_id(self.site_id, field="record batch: site_id")
        require_nonnegative(self.first_sequence, field="record batch: first_sequence")
        if not 1 <= len(self.records) <= MAX_RECORDS_PER_BATCH:
            raise InvalidFactError(
                f"record batch of {self.site_id}: {len(self.records)} records, must be "
                f"1 to {MAX_RECORDS_PER_BATCH}; send smaller batches"
            )
        longest = max(len(r) for r in self.records)
        if longest > MAX_RECORD_BYTES:
            raise InvalidFactError(
                f"record batch of {self.site_id}: a record of {longest} bytes, "
                f"limit {MAX_RECORD_BYTES} bytes"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordAck:
    """Every record of the site up to and including `sequence` is durable (-1: none yet)."""

    site_id: str
    sequence: int

    def __post_init__(self) -> None:
        require_id(self.site_id, field="record ack: site_id")
        if self.sequence < -1:
            raise InvalidFactError(f"record ack: sequence {self.sequence} is below -1")


@dataclass(frozen=True, kw_only=True, slots=True)
class AssignmentFrame:
    """A signed assignment (see `agents.envelope`) and whether to judge it only."""

    envelope: bytes = field(repr=False)
    validate_only: bool = False

    def __post_init__(self) -> None:
        if not self.envelope:
            raise InvalidFactError("assignment frame: the envelope is empty")


@dataclass(frozen=True, kw_only=True, slots=True)
class Drain:
    """The front door goes away: close the stream, dial again after `reconnect_after_ms`."""

    reason: str
    reconnect_after_ms: int = 0

    def __post_init__(self) -> None:
        require_nonnegative(self.reconnect_after_ms, field="drain: reconnect_after_ms")


AgentFact = Hello | SiteObservation | StepResult | AssignmentVerdict | RecordBatch
"""What an agent sends."""

ControlFact = AssignmentFrame | Step | Lease | RecordAck | Drain
"""What the control plane sends."""
