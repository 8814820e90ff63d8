"""The agent's memory: whole or not at all, and never silently reset."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.lock import StateLock
from agents.store import AgentStore, write_atomically
from sites.errors import FatalError, RetryableError


def test_memory_comes_back(tmp_path: Path) -> None:
    store = AgentStore(tmp_path)
    assert (store.accepted(), store.applied(), store.wanted()) == (None, None, None)
    store.save_accepted(b"envelope")
    store.save_applied(rank=(2, 3), assignment_digest="sha256:1", envelope=b"envelope")
    store.save_wanted({"b": 2, "a": 1}, next_replica=4)
    again = AgentStore(tmp_path)
    assert again.accepted() == b"envelope"
    applied, wanted = again.applied(), again.wanted()
    assert applied is not None
    assert (applied.epoch, applied.version, applied.envelope) == (2, 3, "envelope")
    assert wanted is not None
    assert wanted.replicas == (("a", 1), ("b", 2))
    assert wanted.next_replica == 4


def test_what_holds_pseudonym_keys_is_for_its_owner_alone(tmp_path: Path) -> None:
    store = AgentStore(tmp_path)
    store.save_accepted(b"envelope")
    store.save_applied(rank=(1, 1), assignment_digest="sha256:1", envelope=b"envelope")
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"assignment.json": 0o600, "applied.json": 0o600}


@pytest.mark.parametrize("name", ["applied.json", "wanted.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"epoch": 1}', b"\xff\xfe", b"[" * 9_999])
def test_damaged_memory_stops_the_agent_and_stays(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    store = AgentStore(tmp_path)
    with pytest.raises(FatalError, match="damaged"):
        store.applied() if name == "applied.json" else store.wanted()
    assert (tmp_path / name).read_bytes() == content


def test_a_failed_write_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    (tmp_path / ".file.new").mkdir()  # where the new content would be prepared
    with pytest.raises(FatalError, match="cannot be written"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_full_disk_is_a_fault_that_may_pass(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    (tmp_path / ".file.new").symlink_to("/dev/full")
    with pytest.raises(RetryableError, match="the disk is full; free some space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_torn_write_is_never_read(tmp_path: Path) -> None:
    path = tmp_path / "assignment.json"
    write_atomically(path, b"old")
    (tmp_path / ".assignment.json.new").write_bytes(b"ne")  # killed before the rename
    assert AgentStore(tmp_path).accepted() == b"old"
    write_atomically(path, b"new")
    assert AgentStore(tmp_path).accepted() == b"new"


def test_two_agents_never_share_a_state_folder(tmp_path: Path) -> None:
    with (
        StateLock(tmp_path / "agent.lock"),
        pytest.raises(FatalError, match="another agent runs"),
        StateLock(tmp_path / "agent.lock"),
    ):
        raise AssertionError("both hold it")
    with StateLock(tmp_path / "agent.lock"):
        pass
