from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReplicaState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REPLICA_STATE_UNSPECIFIED: _ClassVar[ReplicaState]
    REPLICA_STATE_LOADING: _ClassVar[ReplicaState]
    REPLICA_STATE_READY: _ClassVar[ReplicaState]
    REPLICA_STATE_DRAINING: _ClassVar[ReplicaState]
    REPLICA_STATE_FAILED: _ClassVar[ReplicaState]

class StepOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STEP_OUTCOME_UNSPECIFIED: _ClassVar[StepOutcome]
    STEP_OUTCOME_DONE: _ClassVar[StepOutcome]
    STEP_OUTCOME_FAILED: _ClassVar[StepOutcome]
    STEP_OUTCOME_REFUSED: _ClassVar[StepOutcome]

class StepKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STEP_KIND_UNSPECIFIED: _ClassVar[StepKind]
    STEP_KIND_START_REPLICAS: _ClassVar[StepKind]
    STEP_KIND_SET_ROUTES: _ClassVar[StepKind]
    STEP_KIND_DRAIN_REPLICAS: _ClassVar[StepKind]
    STEP_KIND_STOP_REPLICAS: _ClassVar[StepKind]
REPLICA_STATE_UNSPECIFIED: ReplicaState
REPLICA_STATE_LOADING: ReplicaState
REPLICA_STATE_READY: ReplicaState
REPLICA_STATE_DRAINING: ReplicaState
REPLICA_STATE_FAILED: ReplicaState
STEP_OUTCOME_UNSPECIFIED: StepOutcome
STEP_OUTCOME_DONE: StepOutcome
STEP_OUTCOME_FAILED: StepOutcome
STEP_OUTCOME_REFUSED: StepOutcome
STEP_KIND_UNSPECIFIED: StepKind
STEP_KIND_START_REPLICAS: StepKind
STEP_KIND_SET_ROUTES: StepKind
STEP_KIND_DRAIN_REPLICAS: StepKind
STEP_KIND_STOP_REPLICAS: StepKind

class AgentFrame(_message.Message):
    __slots__ = ("hello", "observation", "step_result", "verdict", "record_batch")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    STEP_RESULT_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    RECORD_BATCH_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    observation: SiteObservation
    step_result: StepResult
    verdict: AssignmentVerdict
    record_batch: RecordBatch
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., observation: _Optional[_Union[SiteObservation, _Mapping]] = ..., step_result: _Optional[_Union[StepResult, _Mapping]] = ..., verdict: _Optional[_Union[AssignmentVerdict, _Mapping]] = ..., record_batch: _Optional[_Union[RecordBatch, _Mapping]] = ...) -> None: ...

class ControlFrame(_message.Message):
    __slots__ = ("assignment", "step", "lease", "record_ack", "drain")
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    RECORD_ACK_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    assignment: AssignmentFrame
    step: Step
    lease: Lease
    record_ack: RecordAck
    drain: Drain
    def __init__(self, assignment: _Optional[_Union[AssignmentFrame, _Mapping]] = ..., step: _Optional[_Union[Step, _Mapping]] = ..., lease: _Optional[_Union[Lease, _Mapping]] = ..., record_ack: _Optional[_Union[RecordAck, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ...) -> None: ...

class Quantity(_message.Message):
    __slots__ = ("number", "text")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    number: float
    text: str
    def __init__(self, number: _Optional[float] = ..., text: _Optional[str] = ...) -> None: ...

class Violation(_message.Message):
    __slots__ = ("code", "subject", "limit", "actual", "unit", "remedy")
    CODE_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    ACTUAL_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    code: str
    subject: str
    limit: Quantity
    actual: Quantity
    unit: str
    remedy: str
    def __init__(self, code: _Optional[str] = ..., subject: _Optional[str] = ..., limit: _Optional[_Union[Quantity, _Mapping]] = ..., actual: _Optional[_Union[Quantity, _Mapping]] = ..., unit: _Optional[str] = ..., remedy: _Optional[str] = ...) -> None: ...

class ReplicaGroup(_message.Message):
    __slots__ = ("site_id", "pool_id", "variant_id", "accelerators_per_replica")
    SITE_ID_FIELD_NUMBER: _ClassVar[int]
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    VARIANT_ID_FIELD_NUMBER: _ClassVar[int]
    ACCELERATORS_PER_REPLICA_FIELD_NUMBER: _ClassVar[int]
    site_id: str
    pool_id: str
    variant_id: str
    accelerators_per_replica: int
    def __init__(self, site_id: _Optional[str] = ..., pool_id: _Optional[str] = ..., variant_id: _Optional[str] = ..., accelerators_per_replica: _Optional[int] = ...) -> None: ...

class ReplicaObservation(_message.Message):
    __slots__ = ("replica_id", "group", "state", "running", "queued", "decode_tok_s", "tokens_out_total", "detail")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    DECODE_TOK_S_FIELD_NUMBER: _ClassVar[int]
    TOKENS_OUT_TOTAL_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    group: ReplicaGroup
    state: ReplicaState
    running: int
    queued: int
    decode_tok_s: float
    tokens_out_total: int
    detail: str
    def __init__(self, replica_id: _Optional[str] = ..., group: _Optional[_Union[ReplicaGroup, _Mapping]] = ..., state: _Optional[_Union[ReplicaState, str]] = ..., running: _Optional[int] = ..., queued: _Optional[int] = ..., decode_tok_s: _Optional[float] = ..., tokens_out_total: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...

class PoolInventory(_message.Message):
    __slots__ = ("pool_id", "accelerator", "count")
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    ACCELERATOR_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    pool_id: str
    accelerator: str
    count: int
    def __init__(self, pool_id: _Optional[str] = ..., accelerator: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("site_id", "instance_id", "agent_version", "inventory", "epoch", "version", "assignment_digest", "replicas", "last_record_sequence")
    SITE_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    INVENTORY_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    LAST_RECORD_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    site_id: str
    instance_id: str
    agent_version: str
    inventory: _containers.RepeatedCompositeFieldContainer[PoolInventory]
    epoch: int
    version: int
    assignment_digest: str
    replicas: _containers.RepeatedCompositeFieldContainer[ReplicaObservation]
    last_record_sequence: int
    def __init__(self, site_id: _Optional[str] = ..., instance_id: _Optional[str] = ..., agent_version: _Optional[str] = ..., inventory: _Optional[_Iterable[_Union[PoolInventory, _Mapping]]] = ..., epoch: _Optional[int] = ..., version: _Optional[int] = ..., assignment_digest: _Optional[str] = ..., replicas: _Optional[_Iterable[_Union[ReplicaObservation, _Mapping]]] = ..., last_record_sequence: _Optional[int] = ...) -> None: ...

class PeerHealth(_message.Message):
    __slots__ = ("site_id", "healthy")
    SITE_ID_FIELD_NUMBER: _ClassVar[int]
    HEALTHY_FIELD_NUMBER: _ClassVar[int]
    site_id: str
    healthy: bool
    def __init__(self, site_id: _Optional[str] = ..., healthy: _Optional[bool] = ...) -> None: ...

class RouteCount(_message.Message):
    __slots__ = ("route_id", "serving_site_id", "requests_total", "errors_total")
    ROUTE_ID_FIELD_NUMBER: _ClassVar[int]
    SERVING_SITE_ID_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    ERRORS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    route_id: str
    serving_site_id: str
    requests_total: int
    errors_total: int
    def __init__(self, route_id: _Optional[str] = ..., serving_site_id: _Optional[str] = ..., requests_total: _Optional[int] = ..., errors_total: _Optional[int] = ...) -> None: ...

class GatewayObservation(_message.Message):
    __slots__ = ("live", "requests_total", "errors_total", "retries_total", "peers", "routes", "routes_digest")
    LIVE_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    ERRORS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    RETRIES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    ROUTES_DIGEST_FIELD_NUMBER: _ClassVar[int]
    live: bool
    requests_total: int
    errors_total: int
    retries_total: int
    peers: _containers.RepeatedCompositeFieldContainer[PeerHealth]
    routes: _containers.RepeatedCompositeFieldContainer[RouteCount]
    routes_digest: str
    def __init__(self, live: _Optional[bool] = ..., requests_total: _Optional[int] = ..., errors_total: _Optional[int] = ..., retries_total: _Optional[int] = ..., peers: _Optional[_Iterable[_Union[PeerHealth, _Mapping]]] = ..., routes: _Optional[_Iterable[_Union[RouteCount, _Mapping]]] = ..., routes_digest: _Optional[str] = ...) -> None: ...

class SiteObservation(_message.Message):
    __slots__ = ("site_id", "instance_id", "sequence", "observed_at_ms", "epoch", "version", "assignment_digest", "replicas", "gateway", "possible_draw_w", "draw_w", "draw_measured", "records_spooled", "faults")
    SITE_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    POSSIBLE_DRAW_W_FIELD_NUMBER: _ClassVar[int]
    DRAW_W_FIELD_NUMBER: _ClassVar[int]
    DRAW_MEASURED_FIELD_NUMBER: _ClassVar[int]
    RECORDS_SPOOLED_FIELD_NUMBER: _ClassVar[int]
    FAULTS_FIELD_NUMBER: _ClassVar[int]
    site_id: str
    instance_id: str
    sequence: int
    observed_at_ms: int
    epoch: int
    version: int
    assignment_digest: str
    replicas: _containers.RepeatedCompositeFieldContainer[ReplicaObservation]
    gateway: GatewayObservation
    possible_draw_w: float
    draw_w: float
    draw_measured: bool
    records_spooled: int
    faults: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, site_id: _Optional[str] = ..., instance_id: _Optional[str] = ..., sequence: _Optional[int] = ..., observed_at_ms: _Optional[int] = ..., epoch: _Optional[int] = ..., version: _Optional[int] = ..., assignment_digest: _Optional[str] = ..., replicas: _Optional[_Iterable[_Union[ReplicaObservation, _Mapping]]] = ..., gateway: _Optional[_Union[GatewayObservation, _Mapping]] = ..., possible_draw_w: _Optional[float] = ..., draw_w: _Optional[float] = ..., draw_measured: _Optional[bool] = ..., records_spooled: _Optional[int] = ..., faults: _Optional[_Iterable[str]] = ...) -> None: ...

class StepResult(_message.Message):
    __slots__ = ("step_id", "site_id", "outcome", "finished_at_ms", "detail", "violations")
    STEP_ID_FIELD_NUMBER: _ClassVar[int]
    SITE_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    FINISHED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    VIOLATIONS_FIELD_NUMBER: _ClassVar[int]
    step_id: str
    site_id: str
    outcome: StepOutcome
    finished_at_ms: int
    detail: str
    violations: _containers.RepeatedCompositeFieldContainer[Violation]
    def __init__(self, step_id: _Optional[str] = ..., site_id: _Optional[str] = ..., outcome: _Optional[_Union[StepOutcome, str]] = ..., finished_at_ms: _Optional[int] = ..., detail: _Optional[str] = ..., violations: _Optional[_Iterable[_Union[Violation, _Mapping]]] = ...) -> None: ...

class AssignmentVerdict(_message.Message):
    __slots__ = ("site_id", "epoch", "version", "assignment_digest", "violations", "applied_epoch", "applied_version", "validate_only")
    SITE_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    VIOLATIONS_FIELD_NUMBER: _ClassVar[int]
    APPLIED_EPOCH_FIELD_NUMBER: _ClassVar[int]
    APPLIED_VERSION_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    site_id: str
    epoch: int
    version: int
    assignment_digest: str
    violations: _containers.RepeatedCompositeFieldContainer[Violation]
    applied_epoch: int
    applied_version: int
    validate_only: bool
    def __init__(self, site_id: _Optional[str] = ..., epoch: _Optional[int] = ..., version: _Optional[int] = ..., assignment_digest: _Optional[str] = ..., violations: _Optional[_Iterable[_Union[Violation, _Mapping]]] = ..., applied_epoch: _Optional[int] = ..., applied_version: _Optional[int] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class RecordBatch(_message.Message):
    __slots__ = ("site_id", "first_sequence", "records")
    SITE_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    site_id: str
    first_sequence: int
    records: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, site_id: _Optional[str] = ..., first_sequence: _Optional[int] = ..., records: _Optional[_Iterable[bytes]] = ...) -> None: ...

class AssignmentFrame(_message.Message):
    __slots__ = ("envelope", "validate_only")
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    envelope: bytes
    validate_only: bool
    def __init__(self, envelope: _Optional[bytes] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("step_id", "site_id", "kind", "epoch", "version", "group_id", "replicas", "timeout_ms")
    STEP_ID_FIELD_NUMBER: _ClassVar[int]
    SITE_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    step_id: str
    site_id: str
    kind: StepKind
    epoch: int
    version: int
    group_id: str
    replicas: int
    timeout_ms: int
    def __init__(self, step_id: _Optional[str] = ..., site_id: _Optional[str] = ..., kind: _Optional[_Union[StepKind, str]] = ..., epoch: _Optional[int] = ..., version: _Optional[int] = ..., group_id: _Optional[str] = ..., replicas: _Optional[int] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("epoch", "expires_at_ms")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_MS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    expires_at_ms: int
    def __init__(self, epoch: _Optional[int] = ..., expires_at_ms: _Optional[int] = ...) -> None: ...

class RecordAck(_message.Message):
    __slots__ = ("site_id", "sequence")
    SITE_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    site_id: str
    sequence: int
    def __init__(self, site_id: _Optional[str] = ..., sequence: _Optional[int] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ("reason", "reconnect_after_ms")
    REASON_FIELD_NUMBER: _ClassVar[int]
    RECONNECT_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    reason: str
    reconnect_after_ms: int
    def __init__(self, reason: _Optional[str] = ..., reconnect_after_ms: _Optional[int] = ...) -> None: ...
