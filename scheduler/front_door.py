"""The one gRPC port agents dial into: mTLS, one bidirectional stream per site.

Decides who may open a stream (the site its certificate names, if the fleet knows it) and when a
stream ends (expired certificate, malformed or foreign frame, slow reader, a newer instance). What
frames mean is the hubs' and the control loop's; this module hands them on in order, with
back-pressure: a full inbox stops reading, so gRPC's flow control reaches the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import structlog
from cryptography import x509
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from agents.codec import CONNECT_METHOD, SERVICE_NAME, decode_agent, encode_control
from agents.credentials import site_of_identity
from agents.frames import MAX_MESSAGE_BYTES, AgentFact, ControlFact, Drain
from scheduler.pki import TlsIdentity
from sites.clock import Clock
from sites.errors import FatalError, InvalidFactError
from sites.hub_messages import StreamClosed
from sites.telemetry import Hello

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontDoorConfig:
    """Where to listen and the limits of a stream. Port 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = 0
    hello_timeout_ms: int = 5_000
    outbox_frames: int = 256
    streams: int = 1_024
    keepalive_ms: int = 10_000
    keepalive_timeout_ms: int = 5_000
    max_connection_age_ms: int = 6 * 3_600_000


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentMessage:
    """One thing heard from a site: a frame of its agent, or that its stream ended."""

    site_id: str
    body: AgentFact | StreamClosed


class _StreamRefusedError(Exception):
    """Ends a stream with a status its agent can read."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(kw_only=True, slots=True, eq=False)
class _Stream:
    """An open stream. `ended` carries why it has to close."""

    site_id: str
    instance_id: str
    outbox: asyncio.Queue[bytes]
    ended: asyncio.Future[_StreamRefusedError] = field(repr=False)

    def end(self, code: grpc.StatusCode, message: str) -> None:
        """Ask the stream's handler to close it; the first reason stands."""
        if not self.ended.done():
            self.ended.set_result(_StreamRefusedError(code, message))


class FrontDoor:
    """The gRPC server. `inbox` receives every site's messages in the order of its stream."""

    def __init__(
        self,
        *,
        config: FrontDoorConfig,
        identity: TlsIdentity,
        knows_site: Callable[[str], bool],
        inbox: asyncio.Queue[AgentMessage],
        clock: Clock,
    ) -> None:
        self._config = config
        self._identity = identity
        self._served_identity = identity
        self._knows_site = knows_site
        self._inbox = inbox
        self._clock = clock
        self._streams: dict[str, _Stream] = {}
        self._server: grpc.aio.Server | None = None
        self._stopping = False
        self.port = 0

    async def start(self) -> None:
        """Listen. Raises FatalError if the port is taken."""
        config = self._config
        server = grpc.aio.server(options=_server_options(config))
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(
            self._connect
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE_NAME, {CONNECT_METHOD: handler}),)
        )
        await _serve_health_and_reflection(server)
        address = f"{config.host}:{config.port}"
        try:
            self.port = server.add_secure_port(address, self._credentials())
        except RuntimeError as fault:
            await server.stop(None)
            raise FatalError(
                f"front door: cannot listen on {address}; another process may hold the port, "
                "choose another with --control-port"
            ) from fault
        await server.start()
        self._server = server

    async def stop(self, *, grace_ms: int = 500) -> None:
        """Tell agents to come back later, then close every stream and the port."""
        if self._server is None:
            return
        self._stopping = True
        for site_id in sorted(self._streams):
            self.send(site_id, Drain(reason="the control plane stops", reconnect_after_ms=500))
        await self._server.stop(grace_ms / 1_000)
        self._server = None

    def rotate(self, identity: TlsIdentity) -> None:
        """Use a renewed certificate from the next handshake on; the same one changes nothing."""
        if identity != self._identity:
            self._identity = identity

    def send(self, site_id: str, fact: ControlFact) -> bool:
        """Queue a frame for a site; False if no stream takes it (the hub sends again).

        A site that does not read is cut off rather than buffered without bound.
        """
        stream = self._streams.get(site_id)
        if stream is None:
            return False
        try:
            stream.outbox.put_nowait(encode_control(fact))
        except asyncio.QueueFull:
            stream.end(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"site {site_id}: {self._config.outbox_frames} frames unread; read faster",
            )
            return False
        return True

    def close_site(self, site_id: str, reason: str) -> None:
        """End a site's stream, if there is one."""
        stream = self._streams.get(site_id)
        if stream is not None:
            stream.end(grpc.StatusCode.PERMISSION_DENIED, reason)

    def _credentials(self) -> grpc.ServerCredentials:
        return grpc.dynamic_ssl_server_credentials(
            _certificate_configuration(self._identity),
            self._fetch_certificates,  # type: ignore[arg-type]  # None means: unchanged
            require_client_authentication=True,
        )

    def _fetch_certificates(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC at every handshake; None while nothing changed (operations, security)."""
        if self._identity is self._served_identity:
            return None
        self._served_identity = self._identity
        return _certificate_configuration(self._identity)

    async def _connect(
        self, _requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> None:
        try:
            site_id, not_after_ms = self._authenticate(context)
            hello = await self._read_hello(context, site_id)
            stream = self._admit(hello)
        except _StreamRefusedError as refused:
            _log.warning("stream refused", reason=str(refused))
            await context.abort(refused.code, str(refused))
            return
        refusal = _StreamRefusedError(grpc.StatusCode.CANCELLED, "the agent went away")
        try:
            await context.send_initial_metadata(())
            await self._inbox.put(AgentMessage(site_id=site_id, body=hello))
            refusal = await self._run_stream(stream, context, not_after_ms)
        finally:
            await self._report_closed(stream, str(refusal))
        await context.abort(refusal.code, str(refusal))

    async def _report_closed(self, stream: _Stream, reason: str) -> None:
        """Tell the inbox, unless a newer stream of the site already spoke for it."""
        if self._streams.get(stream.site_id) is not stream:
            return
        del self._streams[stream.site_id]
        if not self._stopping:  # nobody reads the inbox any more
            closed = StreamClosed(instance_id=stream.instance_id, reason=reason)
            await self._inbox.put(AgentMessage(site_id=stream.site_id, body=closed))

    async def _run_stream(
        self,
        stream: _Stream,
        context: grpc.aio.ServicerContext[bytes, bytes],
        not_after_ms: int,
    ) -> _StreamRefusedError:
        """Read and write until one side ends; returns why."""
        reader = asyncio.create_task(self._read_frames(stream, context, not_after_ms))
        writer = asyncio.create_task(_write_frames(stream, context))
        try:
            ends: set[asyncio.Future[Any]] = {reader, writer, stream.ended}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (reader, writer):
                task.cancel()
            results = await asyncio.gather(reader, writer, return_exceptions=True)
        if stream.ended.done():
            return stream.ended.result()
        refusals = [r for r in results if isinstance(r, _StreamRefusedError)]
        if refusals:
            return refusals[0]
        return _StreamRefusedError(grpc.StatusCode.OK, "the agent closed the stream")

    async def _read_frames(
        self,
        stream: _Stream,
        context: grpc.aio.ServicerContext[bytes, bytes],
        not_after_ms: int,
    ) -> None:
        while (data := await _read(context)) is not None:
            if self._clock.wall_ms() > not_after_ms:
                raise _StreamRefusedError(
                    grpc.StatusCode.UNAUTHENTICATED,
                    f"site {stream.site_id}: the agent's certificate has expired; "
                    "dial again with a renewed one",
                )
            fact = _decode(data)
            if isinstance(fact, Hello) or fact.site_id != stream.site_id:
                raise _StreamRefusedError(
                    grpc.StatusCode.PERMISSION_DENIED,
                    f"site {stream.site_id}: its stream carried a {type(fact).__name__} of "
                    f"{fact.site_id}; an agent speaks for its own site, and says hello once",
                )
            await self._inbox.put(AgentMessage(site_id=stream.site_id, body=fact))

    def _authenticate(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> tuple[str, int]:
        """(site, wall ms the certificate ends) of the peer; refuses whoever is no known agent."""
        chain = list(context.auth_context().get("x509_pem_cert", ()))
        if not chain:
            raise _StreamRefusedError(grpc.StatusCode.UNAUTHENTICATED, "no client certificate")
        certificate = x509.load_pem_x509_certificate(bytes(chain[0]))
        site_id = _site_of(certificate)
        if site_id is None:
            raise _StreamRefusedError(
                grpc.StatusCode.PERMISSION_DENIED,
                "the client certificate names no site; use the agent certificate of a site",
            )
        if not self._knows_site(site_id):
            raise _StreamRefusedError(
                grpc.StatusCode.PERMISSION_DENIED,
                f"site {site_id}: not in this fleet; add it to the fleet files or stop its agent",
            )
        return site_id, int(certificate.not_valid_after_utc.timestamp() * 1_000)

    async def _read_hello(
        self, context: grpc.aio.ServicerContext[bytes, bytes], site_id: str
    ) -> Hello:
        try:
            async with asyncio.timeout(self._config.hello_timeout_ms / 1_000):
                data = await _read(context)
        except TimeoutError:
            raise _StreamRefusedError(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"site {site_id}: no hello within {self._config.hello_timeout_ms} ms",
            ) from None
        if data is None:
            raise _StreamRefusedError(
                grpc.StatusCode.INVALID_ARGUMENT, f"site {site_id}: closed without a hello"
            )
        fact = _decode(data)
        if not isinstance(fact, Hello):
            raise _StreamRefusedError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"site {site_id}: the first frame must be a hello, not {type(fact).__name__}",
            )
        if fact.site_id != site_id:
            raise _StreamRefusedError(
                grpc.StatusCode.PERMISSION_DENIED,
                f"site {fact.site_id}: its agent came with the certificate of site {site_id}; "
                "give it its own",
            )
        return fact

    def _admit(self, hello: Hello) -> _Stream:
        """Make the site's stream, ending an older instance's. Refuses an older instance."""
        current = self._streams.get(hello.site_id)
        if current is not None and hello.instance_id < current.instance_id:
            raise _StreamRefusedError(
                grpc.StatusCode.ALREADY_EXISTS,
                f"site {hello.site_id}: a newer agent ({current.instance_id}) is connected; "
                "stop this one",
            )
        if current is None and len(self._streams) >= self._config.streams:
            raise _StreamRefusedError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"site {hello.site_id}: {self._config.streams} sites are connected already",
            )
        if current is not None:
            current.end(
                grpc.StatusCode.ABORTED,
                f"site {hello.site_id}: agent {hello.instance_id} took over",
            )
        stream = _Stream(
            site_id=hello.site_id,
            instance_id=hello.instance_id,
            outbox=asyncio.Queue(self._config.outbox_frames),
            ended=asyncio.get_running_loop().create_future(),
        )
        self._streams[hello.site_id] = stream
        return stream


async def _read(context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes | None:
    """The next message, None at the end. Not the request iterator: that one, abandoned half way,
    is finalised by the interpreter with a warning.
    """
    data = await context.read()
    return data if isinstance(data, bytes) else None


async def _write_frames(stream: _Stream, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
    while True:
        await context.write(await stream.outbox.get())


def _decode(data: bytes) -> AgentFact:
    try:
        return decode_agent(data)
    except InvalidFactError as fault:
        raise _StreamRefusedError(grpc.StatusCode.INVALID_ARGUMENT, str(fault)) from fault


def _site_of(certificate: x509.Certificate) -> str | None:
    """The site of the certificate's one URI name; None if it has none, several or another's."""
    with contextlib.suppress(x509.ExtensionNotFound):
        sans = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = sans.get_values_for_type(x509.UniformResourceIdentifier)
        if len(uris) == 1:
            return site_of_identity(uris[0])
    return None


def _certificate_configuration(identity: TlsIdentity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(identity.private_key, identity.certificate)], root_certificates=identity.ca_certificate
    )


def _server_options(config: FrontDoorConfig) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),  # else a second server would share the port without a word
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", config.keepalive_ms),
        ("grpc.keepalive_timeout_ms", config.keepalive_timeout_ms),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", config.keepalive_ms // 2),
        ("grpc.max_connection_age_ms", config.max_connection_age_ms),
        ("grpc.max_connection_age_grace_ms", config.keepalive_timeout_ms),
    ]


async def _serve_health_and_reflection(server: grpc.aio.Server) -> None:
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for name in (SERVICE_NAME, ""):
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    names = (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
