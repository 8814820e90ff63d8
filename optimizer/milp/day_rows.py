"""All rows of a day as one matrix, every column with a finite most, and what prices of the rows
prove.

Decides nothing: which prices is `day_bound`'s, hours in whole replicas are `day_whole`'s.
"""

from __future__ import annotations

import numpy as np

from optimizer.milp.arrays import Matrix
from optimizer.milp.support import SparseRows
from optimizer.tables import Floats

_LITTLE = 0.01
"""Part of what may be deferred to a block that its prices reckon with."""

_OVER_ALL = frozenset({"tenant_budget", "carbon_cap"})
"""Row families over all hours."""


class DayRows:
    """All rows of the day, those held back last; `most` of each column. Per row: its `family`, its
    `period`, whether it is `over_all` hours; `row` of each entry; the first `eager` rows every
    search gets. `little` of each column is taken to come from hours before (`day_bound`).
    """

    def __init__(self, matrix: Matrix) -> None:
        self.matrix = matrix
        self.rows = _both(matrix.rows, matrix.lazy)
        lengths = np.diff(self.rows.start)
        self.row = np.repeat(np.arange(self.rows.count), lengths)
        spans = [*matrix.spans, *matrix.lazy_spans]
        counts = [span.count for span in spans]
        self.period = np.repeat([span.period for span in spans], counts)
        self.family = np.repeat(np.array([span.family for span in spans], dtype=str), counts)
        self.over_all = np.isin(self.family, list(_OVER_ALL))
        self.eager = matrix.rows.count
        self.most = self._finite()
        self.little = np.zeros(len(self.most))
        for p in matrix.horizon:
            self.little[p.column("defer")] = _LITTLE * p.defer.most_rps

    def _finite(self) -> Floats:
        """The most of each column that some cheapest schedule has: a supply's limit, and of a risk
        what its dearest cut can ask.
        """
        rows, most = self.rows, self.matrix.upper.copy()
        alone = np.flatnonzero(self.family == "supply_limit")
        entry = rows.start[alone]
        most[rows.index[entry]] = rows.upper[alone] / rows.value[entry]
        is_risk = np.zeros(len(most), dtype=np.bool_)
        for p in self.matrix.horizon:
            is_risk[p.column("risk")] = True
        most[is_risk] = 0.0
        cut = self.family[self.row] == "survive_one"
        least = np.where(cut, np.minimum(0.0, rows.value * most[rows.index]), 0.0)
        asked = rows.lower - np.bincount(self.row, weights=least, minlength=rows.count)
        at = np.flatnonzero(cut & is_risk[rows.index])
        np.maximum.at(most, rows.index[at], asked[self.row[at]])
        return most

    def proving(self, prices: Floats) -> Floats:
        """The prices less what can prove nothing, with what waiting is worth at them."""
        rows, y = self.rows, prices.copy()
        y[(y > 0) & ~np.isfinite(rows.lower)] = 0.0
        y[(y < 0) & ~np.isfinite(rows.upper)] = 0.0
        window = self.family == "deferral_window"
        y[window] = 0.0
        left = self.left(y)
        entry = np.flatnonzero(window[self.row])
        np.minimum.at(y, self.row[entry], left[rows.index[entry]] / rows.value[entry])
        return y

    def paid_usd(self, proving: Floats) -> Floats:
        """What each row is worth at such prices, by row."""
        rows, up, down = self.rows, proving > 0, proving < 0
        at = np.zeros(len(proving))
        at[up], at[down] = rows.lower[up], rows.upper[down]
        return proving * at

    def earned_usd(self, proving: Floats) -> Floats:
        """What each column earns at most beyond its cost at such prices, from 0 down."""
        earned: Floats = np.minimum(0.0, self.left(proving)) * self.most
        return earned

    def left(self, prices: Floats) -> Floats:
        """What of each column's cost the prices do not account for."""
        rows = self.rows
        paid = np.bincount(
            rows.index, weights=rows.value * prices[self.row], minlength=len(self.most)
        )
        return np.asarray(self.matrix.cost - paid)


def _both(first: SparseRows, second: SparseRows) -> SparseRows:
    return SparseRows(
        start=np.concatenate((first.start, second.start[1:] + first.start[-1])),
        index=np.concatenate((first.index, second.index)),
        value=np.concatenate((first.value, second.value)),
        lower=np.concatenate((first.lower, second.lower)),
        upper=np.concatenate((first.upper, second.upper)),
    )
