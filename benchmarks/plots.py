"""Line charts with two logarithmic axes as SVG, by hand: no plotting library for two pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from pathlib import Path

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 440, 70, 150, 50, 60
COLOURS = ("#0b6e99", "#b8500c", "#3f7d20", "#7a3e9d", "#a01f43", "#555555")


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One named line; all coordinates above 0."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Axis:
    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        part = (math.log10(value) - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)

    def ticks(self) -> list[float]:
        """1, 2 and 5 of every decade inside."""
        decades = range(math.floor(self.low), math.ceil(self.high) + 1)
        marks = [m * 10.0**d for d in decades for m in (1, 2, 5)]
        return [m for m in marks if self.low - 1e-9 <= math.log10(m) <= self.high + 1e-9]


def _axis(values: list[float], *, start: float, end: float) -> _Axis:
    logs = [math.log10(v) for v in values]
    pad = max(0.1, 0.08 * (max(logs) - min(logs)))
    return _Axis(low=min(logs) - pad, high=max(logs) + pad, start=start, end=end)


def write_lines(path: Path, lines: list[Line], *, title: str, x: str, y: str) -> None:
    """Write the chart. Raises ValueError where there is no point or one is not above 0."""
    points = [p for one in lines for p in one.points]
    if not points or min(min(p) for p in points) <= 0:
        raise ValueError(f"{path.name}: a logarithmic chart needs points, all above 0")
    across = _axis([p[0] for p in points], start=LEFT, end=WIDTH - RIGHT)
    up = _axis([p[1] for p in points], start=HEIGHT - BOTTOM, end=TOP)
    body = [_text(LEFT, TOP - 22, title, size=16)]
    body += _grid(across, up)
    for at, one in enumerate(lines):
        colour = COLOURS[at % len(COLOURS)]
        placed = [(across.place(a), up.place(b)) for a, b in one.points]
        path_of = " ".join(f"{a:.1f},{b:.1f}" for a, b in placed)
        body.append(
            f'<polyline points="{path_of}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        body += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{colour}"/>' for a, b in placed]
        body.append(_text(WIDTH - RIGHT + 14, TOP + 12 + 20 * at, one.name, fill=colour))
    body.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 16, x, anchor="middle"))
    body.append(_text(LEFT, TOP - 6, y))
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" role="img">\n<title>{escape(title)}</title>\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n'
        + "\n".join(body)
        + "\n</svg>\n",
        encoding="utf-8",
    )


def _grid(across: _Axis, up: _Axis) -> list[str]:
    drawn = []
    for value in across.ticks():
        a = across.place(value)
        drawn.append(_rule(a, up.start, a, up.end))
        drawn.append(_text(a, up.start + 18, f"{value:g}", anchor="middle", size=11))
    for value in up.ticks():
        b = up.place(value)
        drawn.append(_rule(across.start, b, across.end, b))
        drawn.append(_text(across.start - 8, b + 4, f"{value:g}", anchor="end", size=11))
    return drawn


def _rule(a: float, b: float, c: float, d: float) -> str:
    return f'<line x1="{a:.1f}" y1="{b:.1f}" x2="{c:.1f}" y2="{d:.1f}" stroke="#dddddd"/>'


def _text(
    a: float,
    b: float,
    text: str,
    *,
    size: int = 12,
    anchor: str = "start",
    fill: str = "#222222",
) -> str:
    return (
        f'<text x="{a:.1f}" y="{b:.1f}" font-size="{size}" text-anchor="{anchor}" '
        f'fill="{fill}">{escape(text)}</text>'
    )
