"""Reference tables by name, and the few statistics taken from them. Reads files; decides nothing
about the fleet.
"""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Callable, Iterator
from pathlib import Path

HOURS = 24
EUR_USD = 1.07764
"""Rate of the price set's publisher (HewlettPackard/sustain-cluster), used for every EUR figure."""

Row = dict[str, str]
Point = tuple[float, float]


class Tables:
    """The folder of reference data; every table is read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, list[Row]] = {}

    def rows(self, name: str) -> list[Row]:
        """All rows of ``folder/name`` (CSV, gzipped or not)."""
        if name not in self._read:
            self._read[name] = list(self._lines(name))
        return self._read[name]

    def _lines(self, name: str) -> Iterator[Row]:
        path = self._folder / name
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
                yield from csv.DictReader(stream)
        else:
            with path.open(encoding="utf-8", newline="") as stream:
                yield from csv.DictReader(stream)

    def one(self, name: str, /, **wanted: str) -> Row:
        """The first row whose columns have the wanted values."""
        for row in self.rows(name):
            if all(row[column] == value for column, value in wanted.items()):
                return row
        raise LookupError(f"{name}: no row with {wanted}")

    def by_hour(self, name: str, column: str, digits: int) -> list[float] | None:
        """Mean of a wide hourly table's column per UTC hour of day; None where it has no column."""
        sums, counts = [0.0] * HOURS, [0] * HOURS
        for row in self.rows(name):
            if row.get(column):
                hour = int(row["utc"][11:13])
                sums[hour] += float(row[column])
                counts[hour] += 1
        if not all(counts):
            return None
        return [round(total / n, digits) for total, n in zip(sums, counts, strict=True)]

    def rtt_ms(self, file: str, a: str, b: str) -> float | None:
        """Published round-trip time between two regions, the mean of both directions (ms)."""
        found = [
            float(row["rtt_ms"])
            for row in self.rows(file)
            if (row["src"], row["dst"]) in ((a, b), (b, a))
        ]
        return sum(found) / len(found) if found else None

    def daily_profile(self) -> list[float]:
        """Request rate per hour of day over its mean: fourteen days of ServeGen's m-small."""
        sums = [0.0] * HOURS
        for row in self.rows("traces/servegen_rate_10min.csv.gz"):
            if row["model"] == "m-small" and row["rate_rps"]:
                sums[int(float(row["t_s"])) // 3600 % HOURS] += float(row["rate_rps"])
        mean = sum(sums) / HOURS
        return [value / mean for value in sums]

    def mean_lengths(self, trace: str) -> tuple[int, int]:
        """Mean input and output tokens of a request trace."""
        names = {
            "azure-conv": ("traces/azure_llm_2023_conv.csv", "ContextTokens", "GeneratedTokens"),
            "azure-code": ("traces/azure_llm_2023_code.csv", "ContextTokens", "GeneratedTokens"),
            "mooncake": ("traces/mooncake_conversation.csv", "input_tokens", "output_tokens"),
        }
        file, given, made = names[trace]
        rows = self.rows(file)
        return (
            round(sum(float(row[given]) for row in rows) / len(rows)),
            round(sum(float(row[made]) for row in rows) / len(rows)),
        )

    def client_lengths(self, model: str) -> tuple[int, int]:
        """Rate-weighted mean input and output tokens of a ServeGen model."""
        rows = [
            (float(row["rate_rps"]), float(row["input_mean"]), float(row["output_mean"]))
            for row in self.rows("traces/servegen_client_lengths_6h.csv.gz")
            if row["model"] == model and row["rate_rps"] and row["input_mean"]
        ]
        weight = sum(rate for rate, _, _ in rows)
        return (
            round(sum(rate * given for rate, given, _ in rows) / weight),
            round(sum(rate * made for rate, _, made in rows) / weight),
        )


def distance_km(a: Point, b: Point) -> float:
    """Great-circle distance of two (latitude, longitude) points, by the haversine formula."""
    lat_a, lon_a, lat_b, lon_b = map(math.radians, (*a, *b))
    chord = (
        math.sin((lat_b - lat_a) / 2) ** 2
        + math.cos(lat_a) * math.cos(lat_b) * math.sin((lon_b - lon_a) / 2) ** 2
    )
    return 12_742 * math.asin(math.sqrt(chord))


def estimated_rtt_ms(a: Point, b: Point) -> float:
    """RTT estimate (ms, at least 1): fibre 1.5 x the great circle, 200 km per ms each way."""
    return max(1.0, round(distance_km(a, b) * 1.5 / 100, 1))


def best(rows: list[Row], score: Callable[[Row], float]) -> Row:
    """The row of highest score; of equals the first."""
    return max(rows, key=score)
