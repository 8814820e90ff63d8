"""Child processes that outlive the agent: started, recorded, adopted again, stopped for good.

Decides whether a recorded process is still the one that was started and how hard to stop it. What
to run, and when, is others' business. Every child has its own session and a record under ``run/``;
the record is written before the child starts, so no kill of the agent can lose one.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from agents.store import write_atomically
from sites.clock import Clock
from sites.digest import canonical_json
from sites.errors import FatalError, InvalidFactError, RetryableError
from sites.plain import from_plain

MARKER = "HINTERLAND_PROCESS"
"""Environment variable that carries the path of the record to the child."""

LOG_BYTES_MAX = 4 * 1024 * 1024
"""A child's log is cut to its newest half beyond this."""

_START_TOLERANCE_S = 0.015  # process start times have a resolution of 0.01 s
_POLL_MS = 20
_PORT_FIRST = 22_000
_PORT_COUNT = 9_000
_port_turns = itertools.count(os.getpid() * 101)  # processes that start together begin apart


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessRecord:
    """A started process. `started_s` is seconds since boot: unlike wall time it never moves.

    `pid` is 0 between the intent to start and the start. `details` belong to whoever started it.
    """

    name: str
    pid: int
    boot_id: str
    started_s: float
    port: int
    log_path: str
    argv: tuple[str, ...]
    details: tuple[tuple[str, str], ...] = ()

    def detail(self, key: str) -> str:
        """The detail under `key`, empty if there is none."""
        return dict(self.details).get(key, "")


class ProcessTable:
    """The processes of one agent, by name. Owns the folder of their records."""

    def __init__(self, run_dir: Path, *, clock: Clock) -> None:
        self._run_dir = run_dir
        self._clock = clock
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._records: dict[str, ProcessRecord] = {}
        run_dir.mkdir(parents=True, exist_ok=True)

    def records(self) -> tuple[ProcessRecord, ...]:
        """Everything started or adopted and not yet stopped, by name."""
        return tuple(self._records[name] for name in sorted(self._records))

    def get(self, name: str) -> ProcessRecord | None:
        """The record of that name, whether or not it still runs."""
        return self._records.get(name)

    def spawn(
        self,
        name: str,
        *,
        argv: Sequence[str],
        log_path: Path,
        port: int = 0,
        env: Mapping[str, str] | None = None,
        details: Mapping[str, str] | None = None,
    ) -> ProcessRecord:
        """Start a process in a session of its own; its output goes to the end of `log_path`.

        Raises FatalError if the program cannot be started.
        """
        assert name not in self._records or not self.is_alive(name), f"{name} already runs"
        path = self._path(name)
        intent = ProcessRecord(
            name=name,
            pid=0,
            boot_id=_boot_id(),
            started_s=0.0,
            port=port,
            log_path=str(log_path),
            argv=tuple(argv),
            details=tuple(sorted((details or {}).items())),
        )
        write_atomically(path, canonical_json(intent))
        child = self._start(intent, {**os.environ, **(env or {}), MARKER: str(path.resolve())})
        record = _with_pid(intent, child.pid)
        write_atomically(path, canonical_json(record))
        self._children[name] = child
        self._records[name] = record
        return record

    def _start(self, intent: ProcessRecord, env: dict[str, str]) -> subprocess.Popen[bytes]:
        log_path = Path(intent.log_path)
        log_path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with log_path.open("ab") as log:
                return subprocess.Popen(
                    intent.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=env,
                    start_new_session=True,
                )
        except OSError as fault:
            self._path(intent.name).unlink(missing_ok=True)
            raise FatalError(
                f"process {intent.name}: cannot start {intent.argv[0]}: {fault.strerror}; "
                "install it or correct its path"
            ) from fault

    def adopt(self) -> tuple[ProcessRecord, ...]:
        """Take over what an earlier agent left running; forget what has died meanwhile.

        Raises FatalError for a record that cannot be read.
        """
        for path in sorted(self._run_dir.glob("*.json")):
            record = _read_record(path)
            if record.pid == 0:
                record = _find_marked(path, record) or record
                write_atomically(path, canonical_json(record))
            if _is_same_process(record):
                self._records[record.name] = record
            else:
                path.unlink()
        return self.records()

    def is_alive(self, name: str) -> bool:
        """Whether that very process still runs (a zombie does not)."""
        child = self._children.get(name)
        if child is not None:
            return child.poll() is None
        record = self._records.get(name)
        return record is not None and _is_same_process(record)

    def exit_code(self, name: str) -> int | None:
        """Exit status of a child of this very agent; None while it runs and for adopted ones."""
        child = self._children.get(name)
        return child.poll() if child is not None else None

    def forget(self, name: str) -> None:
        """Drop the record of a process that has ended."""
        assert not self.is_alive(name), f"{name} still runs"
        self._records.pop(name, None)
        self._children.pop(name, None)
        self._path(name).unlink(missing_ok=True)

    def release(self) -> None:
        """Let go of all children without ending them; a later agent adopts them."""
        for child in self._children.values():
            if child.poll() is None:
                child.returncode = 0  # else the interpreter warns that they still run
        self._children.clear()

    async def stop(self, name: str, *, grace_ms: int, kill_ms: int = 5_000) -> None:
        """End the process group: SIGTERM, after `grace_ms` SIGKILL, then forget it.

        Raises RetryableError if it still runs `kill_ms` after SIGKILL.
        """
        record = self._records.get(name)
        if record is None:
            return
        for number, wait_ms in ((signal.SIGTERM, grace_ms), (signal.SIGKILL, kill_ms)):
            if self.is_alive(name):
                _signal_group(record, number)
            if await self._has_ended(name, wait_ms=wait_ms):
                _signal_group_leftovers(record)
                self.forget(name)
                return
        raise RetryableError(
            f"process {name} (pid {record.pid}): still runs {kill_ms} ms after SIGKILL"
        )

    async def _has_ended(self, name: str, *, wait_ms: int) -> bool:
        for _ in range(max(1, wait_ms // _POLL_MS)):
            if not self.is_alive(name):
                return True
            await self._clock.sleep_ms(_POLL_MS)
        return not self.is_alive(name)

    def log_tail(self, name: str, *, lines: int = 1) -> str:
        """Last lines of the process's log, for messages; empty if there are none."""
        record = self._records.get(name)
        if record is None:
            return ""
        with contextlib.suppress(OSError):
            text = Path(record.log_path).read_bytes()[-4_096:].decode(errors="replace")
            kept = [line for line in text.splitlines() if line.strip()]
            return " | ".join(kept[-lines:])[-400:]
        return ""

    def trim_logs(self) -> None:
        """Bound every log: past `LOG_BYTES_MAX` only its newest half stays.

        Children append, so cutting the file under them is safe.
        """
        for record in self.records():
            path = Path(record.log_path)
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_size > LOG_BYTES_MAX:
                    kept = path.read_bytes()[-LOG_BYTES_MAX // 2 :]
                    with path.open("r+b") as log:
                        log.truncate(0)
                        log.write(kept)

    def _path(self, name: str) -> Path:
        return self._run_dir / (name.replace("/", "~") + ".json")


def running_in(run_dir: Path) -> tuple[ProcessRecord, ...]:
    """What runs of the processes recorded in a folder, by name; for those who do not own it.

    Changes nothing. Raises FatalError for a record that cannot be read.
    """
    records = (_read_record(path) for path in sorted(run_dir.glob("*.json")))
    return tuple(record for record in records if _is_same_process(record))


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port nobody listens on at this moment, another one at each call.

    Below the kernel's usual range for outgoing connections, or one of those might take it before
    it is listened on. Raises FatalError if all are taken.
    """
    for _ in range(_PORT_COUNT):
        port = _PORT_FIRST + next(_port_turns) % _PORT_COUNT
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue  # taken: the next one
            return port
    raise FatalError(
        f"ports: none free on {host} from {_PORT_FIRST} to {_PORT_FIRST + _PORT_COUNT - 1}; stop "
        "what uses them"
    )


def require_port_free(address: str, *, purpose: str) -> None:
    """Raise FatalError if ``host:port`` cannot be listened on, naming what it was wanted for."""
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as fault:
            raise FatalError(
                f"{purpose}: cannot listen on {address}: {fault.strerror}; "
                "stop what uses it or give another address"
            ) from fault


def package_env() -> dict[str, str]:
    """Environment in which a child Python finds this very checkout of the packages."""
    root = str(Path(__file__).resolve().parents[1])
    rest = os.environ.get("PYTHONPATH", "")
    return {"PYTHONPATH": f"{root}{os.pathsep}{rest}" if rest else root}


def _with_pid(intent: ProcessRecord, pid: int) -> ProcessRecord:
    return ProcessRecord(
        name=intent.name,
        pid=pid,
        boot_id=intent.boot_id,
        started_s=_started_s(pid),
        port=intent.port,
        log_path=intent.log_path,
        argv=intent.argv,
        details=intent.details,
    )


def _boot_id() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""


def _started_s(pid: int) -> float:
    """Seconds from boot to the start of `pid`; -1 if it has ended already."""
    try:
        return round(psutil.Process(pid).create_time() - psutil.boot_time(), 2)
    except psutil.NoSuchProcess:
        return -1.0


def _is_same_process(record: ProcessRecord) -> bool:
    if record.pid == 0 or record.boot_id != _boot_id():
        return False
    try:
        if psutil.Process(record.pid).status() == psutil.STATUS_ZOMBIE:
            return False
    except psutil.NoSuchProcess:
        return False
    return abs(_started_s(record.pid) - record.started_s) <= _START_TOLERANCE_S


def _find_marked(path: Path, intent: ProcessRecord) -> ProcessRecord | None:
    """The process started for an intent whose agent died before it could write the pid."""
    marker = str(path.resolve())
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            # A session leader only: the child's own children inherit the variable.
            if process.environ().get(MARKER) == marker and os.getsid(process.pid) == process.pid:
                return _with_pid(intent, process.pid)
    return None


def _read_record(path: Path) -> ProcessRecord:
    try:
        return from_plain(ProcessRecord, json.loads(path.read_bytes()))
    except (ValueError, InvalidFactError) as fault:
        raise FatalError(
            f"process record {path}: unreadable ({fault}); if that process has ended, remove it"
        ) from fault


def _signal_group(record: ProcessRecord, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(record.pid, number)


def _signal_group_leftovers(record: ProcessRecord) -> None:
    """Kill what the leader left behind in its session's group."""
    _signal_group(record, signal.SIGKILL)
