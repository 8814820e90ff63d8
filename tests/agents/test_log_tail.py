"""Following a log: whole lines only, in order, once, across rotations."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import log_tail
from agents.log_tail import LogTail
from agents.spool import LogPosition
from sites.errors import RetryableError


class Follower:
    """Reads like the record pump does, forgetting everything but the position."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = LogPosition()
        self.seen: list[bytes] = []

    def turn(self) -> None:
        tail = LogTail(self.path)
        for _ in range(100):
            read = tail.read(self.position)
            if read.position == self.position:
                self.position = tail.next_file(self.position) or self.position
                tail.drop_rotated(self.position)
                if tail.read(self.position).position == self.position:
                    return
                continue
            self.seen += read.lines
            self.position = read.position


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["write", "half", "read", "rotate", "reopen"]), max_size=40))
def test_every_line_is_seen_once_in_order(
    tmp_path_factory: pytest.TempPathFactory, moves: list[str]
) -> None:
    path = tmp_path_factory.mktemp("log") / "access.jsonl"
    follower, expected, line = Follower(path), [], b""
    log = path.open("ab", buffering=0)
    for number, move in enumerate(moves):
        if move in ("write", "half"):
            part = b"%d" % number + (b"\n" if move == "write" else b";")
            log.write(part)
            line += part
            if move == "write":
                expected.append(line.rstrip(b"\n"))
                line = b""
        elif move == "read":
            follower.turn()
        elif move == "rotate" and not path.with_name(path.name + ".1").exists() and path.exists():
            LogTail(path).rotate()
        elif move == "reopen" and not line:
            log.close()
            log = path.open("ab", buffering=0)
    log.close()
    LogTail(path).restore()
    follower.turn()
    assert follower.seen == expected


def test_a_line_without_end_is_handed_over_in_pieces_not_forever(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * (log_tail.READ_BYTES + 10) + b"\nnext\n")
    first = LogTail(path).read(LogPosition())
    assert len(first.lines[0]) == log_tail.READ_BYTES
    assert LogTail(path).read(first.position).lines == (b"x" * 10, b"next")


def test_a_missing_log_is_no_fault(tmp_path: Path) -> None:
    read = LogTail(tmp_path / "log").read(LogPosition())
    assert (read.lines, read.position) == ((), LogPosition())
    assert not LogTail(tmp_path / "log").is_rotation_due()


def test_a_rotation_the_disk_refuses_can_be_tried_again(tmp_path: Path) -> None:
    log = tmp_path / "x"
    log.write_bytes(b"one\n")
    (tmp_path / "x.1").mkdir()
    with pytest.raises(RetryableError, match=r"log .*x: Is a directory"):
        LogTail(log).rotate()
    assert log.read_bytes() == b"one\n"
