"""Child processes: found again after the agent's death, never mistaken, always endable."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agents import processes
from agents.processes import ProcessTable, free_port, package_env, require_port_free
from agents.store import write_atomically
from sites.clock import SystemClock
from sites.errors import FatalError

CLOCK = SystemClock()
SLEEPER = (sys.executable, "-c", "import time; time.sleep(300)")
STUBBORN = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('deaf', flush=True); time.sleep(300)",
)


@pytest.fixture
def table(tmp_path: Path) -> Iterator[ProcessTable]:
    made = ProcessTable(tmp_path / "run", clock=CLOCK)
    yield made
    for record in made.records():
        asyncio.run(made.stop(record.name, grace_ms=100))


def end(table: ProcessTable, name: str, *, grace_ms: int = 5_000) -> None:
    asyncio.run(table.stop(name, grace_ms=grace_ms))


def test_a_later_agent_finds_and_ends_what_an_earlier_one_started(
    table: ProcessTable, tmp_path: Path
) -> None:
    record = table.spawn(
        "replica/a", argv=SLEEPER, log_path=tmp_path / "log", port=7, details={"k": "v"}
    )
    later = ProcessTable(tmp_path / "run", clock=CLOCK)
    assert later.adopt() == (record,)
    assert later.is_alive("replica/a")
    assert record.detail("k") == "v"
    end(later, "replica/a")
    assert not table.is_alive("replica/a")
    assert list((tmp_path / "run").iterdir()) == []


def test_another_process_under_a_recorded_pid_is_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen(SLEEPER)
    try:
        CLOCK.block_ms(100)
        table = ProcessTable(tmp_path / "run", clock=CLOCK)
        table.spawn("gone", argv=(sys.executable, "-c", ""), log_path=tmp_path / "log")
        path = tmp_path / "run" / "gone.json"
        value = json.loads(path.read_bytes()) | {"pid": stranger.pid}
        write_atomically(path, json.dumps(value).encode())
        later = ProcessTable(tmp_path / "run", clock=CLOCK)
        assert later.adopt() == ()
        table.release()
        assert not path.exists()
        asyncio.run(later.stop("gone", grace_ms=100))
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait(10)


def test_a_process_started_just_before_the_agent_died_is_found(
    table: ProcessTable, tmp_path: Path
) -> None:
    """The agent was killed after the start and before it could write the pid down."""
    record = table.spawn("late", argv=SLEEPER, log_path=tmp_path / "log")
    path = tmp_path / "run" / "late.json"
    value = json.loads(path.read_bytes()) | {"pid": 0, "started_s": 0.0}
    write_atomically(path, json.dumps(value).encode())
    (found,) = ProcessTable(tmp_path / "run", clock=CLOCK).adopt()
    assert found == record


def test_an_intent_that_came_to_nothing_is_forgotten(tmp_path: Path) -> None:
    table = ProcessTable(tmp_path / "run", clock=CLOCK)
    record = table.spawn("none", argv=(sys.executable, "-c", ""), log_path=tmp_path / "log")
    psutil.Process(record.pid).wait(10)
    path = tmp_path / "run" / "none.json"
    value = json.loads(path.read_bytes()) | {"pid": 0}
    write_atomically(path, json.dumps(value).encode())
    assert ProcessTable(tmp_path / "run", clock=CLOCK).adopt() == ()
    table.release()


def test_a_process_deaf_to_sigterm_is_killed(table: ProcessTable, tmp_path: Path) -> None:
    record = table.spawn("deaf", argv=STUBBORN, log_path=tmp_path / "log")
    while "deaf" not in table.log_tail("deaf"):
        CLOCK.block_ms(10)
    end(table, "deaf", grace_ms=200)
    assert not psutil.pid_exists(record.pid)


def test_stopping_ends_the_children_of_the_process_too(table: ProcessTable, tmp_path: Path) -> None:
    code = "import subprocess, time; p = subprocess.Popen(['sleep', '300']); print(p.pid, flush=1)"
    table.spawn("parent", argv=(sys.executable, "-c", code), log_path=tmp_path / "log")
    while not table.log_tail("parent"):
        CLOCK.block_ms(10)
    child = psutil.Process(int(table.log_tail("parent")))
    end(table, "parent")
    _, left = psutil.wait_procs([child], timeout=10)
    assert not [p for p in left if p.status() != psutil.STATUS_ZOMBIE]


def test_the_end_of_a_process_is_seen_with_its_status_and_last_words(
    table: ProcessTable, tmp_path: Path
) -> None:
    code = "import sys; print('no such model'); sys.exit(3)"
    record = table.spawn("brief", argv=(sys.executable, "-c", code), log_path=tmp_path / "log")
    while table.is_alive("brief"):
        CLOCK.block_ms(10)
    assert record.pid > 0
    assert table.exit_code("brief") == 3
    assert table.log_tail("brief") == "no such model"
    table.forget("brief")
    assert table.records() == ()


def test_a_program_that_is_not_there_is_one_clear_line(table: ProcessTable, tmp_path: Path) -> None:
    with pytest.raises(FatalError, match="cannot start /no/such/envoy: No such file"):
        table.spawn("gateway", argv=("/no/such/envoy",), log_path=tmp_path / "log")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_damaged_record_is_not_silently_dropped(tmp_path: Path) -> None:
    table = ProcessTable(tmp_path / "run", clock=CLOCK)
    (tmp_path / "run" / "gateway.json").write_bytes(b"{")
    with pytest.raises(FatalError, match=r"gateway\.json: unreadable"):
        table.adopt()


def test_logs_stay_bounded_under_a_chatty_child(
    table: ProcessTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "LOG_BYTES_MAX", 10_000)
    code = "import time\nwhile True: print('x' * 99, flush=True); time.sleep(0.0005)"
    log = tmp_path / "log"
    table.spawn("chatty", argv=(sys.executable, "-c", code), log_path=log)
    cuts = 0
    while cuts < 3:
        before = log.stat().st_size
        table.trim_logs()
        cuts += log.stat().st_size < before
        assert log.stat().st_size < 1_000_000
    assert b"\x00" not in log.read_bytes()


def test_a_taken_port_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(FatalError, match=f"gateway: cannot listen on 127.0.0.1:{port}: Addr"):
            require_port_free(f"127.0.0.1:{port}", purpose="gateway")
    require_port_free(f"127.0.0.1:{free_port()}", purpose="gateway")


def test_children_find_this_checkout() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import agents; print(agents.__file__)"],
        cwd="/",
        env={**os.environ, **package_env()},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert Path(done.stdout.strip()).parent == Path(processes.__file__).parent


def test_children_run_in_a_session_of_their_own(table: ProcessTable, tmp_path: Path) -> None:
    """A Ctrl-C at the agent's terminal does not reach the site's servers."""
    record = table.spawn("own", argv=SLEEPER, log_path=tmp_path / "log")
    assert os.getsid(record.pid) == record.pid
    assert os.getpgid(record.pid) != os.getpgid(0)
    os.kill(record.pid, signal.SIGKILL)
    while table.is_alive("own"):
        CLOCK.block_ms(10)
    assert table.exit_code("own") == -signal.SIGKILL
    table.forget("own")
