"""Serves the API on loopback inside the control plane's event loop, and says where in `api.json`.

Decides where it listens and how long requests in progress may take at the end. Signals are the
server process's own business, so the web server must not take them over.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from scheduler.ledger.store import write_atomically
from sites.errors import FatalError

HOST = "127.0.0.1"
API_FILE = "api.json"
DRAIN_S = 3


def new_token() -> str:
    """A bearer token nobody can guess; made once per server start."""
    return secrets.token_urlsafe(32)


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiAddress:
    """Where one server's API listens; `port` 0 takes a free one."""

    server_dir: Path
    port: int
    token: str


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve_api(app: FastAPI, address: ApiAddress, stop: asyncio.Event) -> None:
    """Serve until `stop`. Raises FatalError if the port is taken or `api.json` cannot be written.

    ``<server_dir>/api.json`` (mode 0600) holds the URL and the token while the server runs.
    """
    with _listen(address.port) as listener:
        path = _announce(address, port=listener.getsockname()[1])
        try:
            await _serve(app, listener, stop)
        finally:
            path.unlink(missing_ok=True)


def _announce(address: ApiAddress, *, port: int) -> Path:
    path = address.server_dir / API_FILE
    try:
        address.server_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        entry = {"url": f"http://{HOST}:{port}", "token": address.token}
        write_atomically(path, json.dumps(entry).encode())
    except OSError as fault:
        raise FatalError(f"{path}: not written: {fault.strerror}") from fault
    return path


async def _serve(app: FastAPI, listener: socket.socket, stop: asyncio.Event) -> None:
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=DRAIN_S,
        server_header=False,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        server.should_exit = True
        stopping.cancel()
        await asyncio.gather(serving, stopping, return_exceptions=True)
    if not serving.cancelled() and serving.exception() is not None:
        raise FatalError(f"operator API: stopped: {serving.exception()}")


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(128)
    except OSError as fault:
        listener.close()
        raise FatalError(
            f"operator API: port {HOST}:{port} cannot be used: {fault.strerror}; choose another "
            "port or stop what holds it"
        ) from fault
    return listener
