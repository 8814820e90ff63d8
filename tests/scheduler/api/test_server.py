"""Where the API listens, what it leaves behind, and the evidence it hands out."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))

from stand_in import MemoryControl, ServerThread

from scheduler.api.app import ApiParts, create_app
from scheduler.api.server import ApiAddress, serve_api
from scheduler.fleet_problem import read_problem
from scheduler.ledger import Ledger, verifier
from scheduler.pki import Authority
from sites.clock import SystemClock
from sites.errors import FatalError

DEMO = Path(__file__).parents[3] / "deploy" / "examples" / "demo"


@pytest.fixture
def control() -> MemoryControl:
    return MemoryControl(problem=read_problem((DEMO,)))


def _serve(control: MemoryControl, state_dir: Path, port: int) -> None:
    parts = ApiParts(
        control=control,
        keys=Authority(state_dir / "pki", clock=SystemClock()),
        ledger_dir=state_dir / "ledger",
        pki_dir=state_dir / "pki",
        clock=SystemClock(),
        token="token",
    )
    address = ApiAddress(server_dir=state_dir / "server", port=port, token="token")
    asyncio.run(serve_api(create_app(parts), address, asyncio.Event()))


def test_a_taken_port_is_one_clear_error(control: MemoryControl, tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen(1)
        port = holder.getsockname()[1]
        with pytest.raises(FatalError, match=rf"port 127.0.0.1:{port} cannot be used: Address al"):
            _serve(control, tmp_path, port)
    assert not (tmp_path / "server" / "api.json").exists()


def test_a_state_folder_that_is_a_file_is_one_clear_error(
    control: MemoryControl, tmp_path: Path
) -> None:
    (tmp_path / "server").write_text("")
    with pytest.raises(FatalError, match=r"api\.json: not written"):
        _serve(control, tmp_path, 0)


def test_the_address_is_gone_when_the_server_is(control: MemoryControl, tmp_path: Path) -> None:
    with ServerThread(control, tmp_path):
        assert json.loads((tmp_path / "server" / "api.json").read_text())["url"]
    assert not (tmp_path / "server" / "api.json").exists()


def test_checkpoints_and_exports_check_out(control: MemoryControl, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger", clock=SystemClock())
    for number in range(300):
        ledger.append("Note", {"number": number})
    with ServerThread(control, tmp_path):
        entry = json.loads((tmp_path / "server" / "api.json").read_text())
        headers = {"Authorization": f"Bearer {entry['token']}"}
        with httpx.Client(base_url=entry["url"], headers=headers, trust_env=False) as client:
            note = client.get("/v1/ledger/checkpoint").text
            lines = client.get("/v1/ledger/export").content
            schema = client.get("/openapi.json").json()
    assert note == ledger.checkpoint().note
    ledger.close()
    (tmp_path / "seen").write_text(note)
    (tmp_path / "export").write_bytes(lines)
    verdict = verifier.verify(tmp_path / "export", seen=(tmp_path / "seen",))
    assert (verdict.faults, verdict.size) == ([], 300)
    assert "/v1/sites/{site_id}/drill" in schema["paths"]
