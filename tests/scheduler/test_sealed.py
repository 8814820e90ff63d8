"""Signed once, kept while it may be asked for, skipped once something newer is wanted."""

from __future__ import annotations

import asyncio
import threading

import pytest

from scheduler.sealed import SealedAssignments
from sites.assignment import SiteAssignment
from sites.errors import InvalidFactError
from sites.hub_messages import AssignmentNamed, AssignmentWanted, SendAssignment
from tests.agents import site_facts as f


class Signer:
    """Writes ranks down; waits for `go` before each."""

    def __init__(self) -> None:
        self.signed: list[int] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, assignment: SiteAssignment) -> bytes:
        assert self.go.wait(10)
        self.signed.append(assignment.version)
        return b"%d %d" % assignment.rank


def asked(version: int, *, validate_only: bool = False) -> SendAssignment:
    return SendAssignment(site_id=f.SITE, rank=(1, version), validate_only=validate_only)


def test_what_is_judged_first_and_meant_then_is_signed_once() -> None:
    async def story() -> None:
        sign = Signer()
        sealed, wanted = SealedAssignments(sign), f.assignment(version=3)
        named = await sealed.seal(AssignmentWanted(assignment=wanted, validate_only=True))
        assert named == AssignmentNamed(site_id=f.SITE, rank=(1, 3), validate_only=True)
        assert sealed.frame(asked(3)) is None
        await sealed.seal(AssignmentWanted(assignment=wanted))
        judged, meant = sealed.frame(asked(3, validate_only=True)), sealed.frame(asked(3))
        assert judged is not None
        assert meant is not None
        assert (judged.validate_only, meant.validate_only) == (True, False)
        assert judged.envelope == meant.envelope == b"1 3"
        assert sign.signed == [3]

    asyncio.run(story())


def test_another_of_the_same_rank_is_signed_anew() -> None:
    async def story() -> None:
        sign = Signer()
        sealed = SealedAssignments(sign)
        for _ in range(2):
            await sealed.seal(AssignmentWanted(assignment=f.assignment(version=3)))
        assert sign.signed == [3, 3]

    asyncio.run(story())


def test_what_a_newer_one_overtakes_is_not_signed_and_never_sent() -> None:
    async def story() -> None:
        sign = Signer()
        sealed = SealedAssignments(sign)
        sign.go.clear()
        wishes = [
            AssignmentWanted(assignment=f.assignment(version=v), validate_only=v == 2)
            for v in (1, 2, 3)
        ]
        sealing = [asyncio.create_task(sealed.seal(wish)) for wish in wishes]
        await asyncio.sleep(0)  # all three are wanted; the first is with the signer
        sign.go.set()
        async with asyncio.timeout(10):
            named = await asyncio.gather(*sealing)
        assert [n.rank if n else None for n in named] == [(1, 1), None, (1, 3)]
        assert sign.signed == [1, 3]
        assert sealed.frame(asked(1)) is None
        assert sealed.frame(asked(2, validate_only=True)) is None
        assert sealed.frame(asked(3)) is not None

    asyncio.run(story())


def test_a_site_that_left_leaves_nothing() -> None:
    async def story() -> None:
        sealed = SealedAssignments(Signer())
        await sealed.seal(AssignmentWanted(assignment=f.assignment(version=9)))
        sealed.forget((f.SITE,))
        assert sealed.frame(asked(9)) is None
        assert await sealed.seal(AssignmentWanted(assignment=f.assignment(version=1))) is not None

    asyncio.run(story())


def test_one_too_large_says_so_and_holds_up_nobody() -> None:
    def refuse(assignment: SiteAssignment) -> bytes:
        if assignment.version == 1:
            raise InvalidFactError("too large")
        return b"fine"

    async def story() -> None:
        sealed = SealedAssignments(refuse)
        with pytest.raises(InvalidFactError, match="too large"):
            await sealed.seal(AssignmentWanted(assignment=f.assignment(version=1)))
        assert sealed.frame(asked(1)) is None
        assert await sealed.seal(AssignmentWanted(assignment=f.assignment(version=2))) is not None

    asyncio.run(story())
