"""What is wrong with fleet files, and where: every fault at once, each as ``file:line:column``.

Decides how a fault reads and how an unknown name is matched to a known one. Finding the faults is
the work of the reader, the documents and the builder.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from sites.errors import RefusedError

SHOWN_FAULTS = 200


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Fault:
    """One thing wrong in one place. `line` and `column` count from 1; 0 means the whole file."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        place = f":{self.line}:{self.column}" if self.line else ""
        return _on_one_line(f"{self.file}{place}: error: {self.message}")


def _on_one_line(text: str) -> str:
    """What a file holds is quoted in faults: it must not break their lines or steer a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class FleetFileError(RefusedError):
    """Fleet files that describe no fleet; `faults` lists everything found, in file order."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(sorted(set(faults)))
        lines = [str(fault) for fault in self.faults[:SHOWN_FAULTS]]
        if len(self.faults) > SHOWN_FAULTS:
            lines.append(f"{SHOWN_FAULTS} of {len(self.faults)} faults shown")
        super().__init__("\n".join(lines))


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, if one is like it at all."""
    folded = {one.lower(): one for one in sorted(known, reverse=True)}
    near = difflib.get_close_matches(name.lower(), sorted(folded), n=1, cutoff=0.6)
    return folded[near[0]] if near else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean "x"?`` for the nearest known name, else the empty string."""
    near = nearest(name, known)
    return f'; did you mean "{near}"?' if near else ""
