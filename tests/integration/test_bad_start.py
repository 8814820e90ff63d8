"""What cannot start: one clear line, exit code 1, nothing left running and nothing taken over.

Ray and Envoy failing to start, and taken ports of the server's own, are in `test_control_plane` and
`test_agent`; here is what `hinterland up` and `hinterland server` say.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from bad_input_stage import fleet_files

from agents.processes import package_env
from scheduler.fleet_problem import read_problem


def hinterland(*arguments: object, context: Path) -> subprocess.CompletedProcess[str]:
    head = [sys.executable, "-m", "scheduler.cli", "--context", str(context)]
    return subprocess.run(
        [*head, *(str(one) for one in arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=package_env(),
    )


def running_in(folder: Path) -> list[int]:
    """Processes that name a folder in their command line."""
    found = []
    for one in psutil.process_iter(["cmdline"]):
        if any(str(folder) in part for part in one.info["cmdline"] or ()):
            found.append(one.pid)
    return found


def refused(*arguments: object, context: Path) -> str:
    done = hinterland(*arguments, context=context)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr and "internal error" not in done.stderr
    assert running_in(context) == []
    errors = [line for line in done.stderr.splitlines() if "error: " in line]
    assert len(errors) == 1, done.stderr
    return errors[0]


@pytest.mark.parametrize("listener", ["client", "peer"])
def test_a_gateways_port_that_is_taken_is_named_before_anything_starts(
    tmp_path: Path, listener: str
) -> None:
    files = fleet_files(tmp_path)
    gateway = read_problem((files,)).fleet.site("rix-1").gateway
    assert gateway is not None
    address = gateway.client_address if listener == "client" else gateway.peer_address
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", int(address.rpartition(":")[2])))
        holder.listen()
        said = refused("up", "-f", files, context=tmp_path / "state")
    assert f'gateway of site "rix-1": {listener} listener: cannot listen on {address}' in said
    assert "stop what uses it or give another address" in said
    assert not (tmp_path / "state" / "server").exists()


@pytest.mark.parametrize("command", ["up -f", "server --fleet"])
def test_a_state_folder_that_cannot_be_is_named(tmp_path: Path, command: str) -> None:
    files = fleet_files(tmp_path)
    (tmp_path / "plain").write_text("a file")
    said = refused(*command.split(), files, context=tmp_path / "plain" / "state")
    assert f"{tmp_path / 'plain' / 'state'}" in said and "Not a directory" in said


@pytest.mark.parametrize("command", ["up -f", "server --fleet", "demo -f"])
def test_a_bad_fleet_file_starts_nothing(tmp_path: Path, command: str) -> None:
    files = fleet_files(tmp_path)
    sites = files / "sites.yaml"
    sites.write_text(sites.read_text().replace("pue: 1.3", "peu: 1.3"))
    said = refused(*command.split(), files, context=tmp_path / "state")
    assert "sites.yaml:" in said and 'did you mean "pue"?' in said
    assert not (tmp_path / "state").exists()


def test_a_site_without_addresses_cannot_be_run_here(tmp_path: Path) -> None:
    files = fleet_files(tmp_path)
    sites = files / "sites.yaml"
    lines = sites.read_text().splitlines(keepends=True)
    sites.write_text("".join(one for one in lines if "gateway:" not in one))
    said = refused("up", "-f", files, context=tmp_path / "state")
    assert "no gateway address for osl-1, rix-1, waw-1; give each Site" in said


def test_commands_of_another_folder_find_no_server(tmp_path: Path) -> None:
    for line in ("get sites", "rollout status", "site drain rix-1 --yes", "audit residency"):
        extra = ["--tenant", "x"] if line.startswith("audit") else []
        said = refused(*line.split(), *extra, context=tmp_path / "nowhere")
        assert "nowhere" in said
