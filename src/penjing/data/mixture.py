"""Which source each row comes from, as a function of the row's number alone.

It draws nothing at random and knows shares of rows, not rows. Of the sources that are behind their
share, the one that would first be a whole row behind is next, so with constant shares none ever is;
giving the row to the source furthest behind misses that (1.01 rows measured with ten sources).
Source: Tijdeman, "The chairman assignment problem" (1980).
"""

import math
from array import array

from penjing.config.training import MixtureShare
from penjing.errors import DataError

_ROUNDING = 1e-9


class MixturePlan:
    """Shares of rows over a stage, blended linearly from `start` at row 0 to `end` at the last."""

    def __init__(self, shares: tuple[MixtureShare, ...], total_rows: int) -> None:
        numbers = [number for share in shares for number in (share.start, share.end)]
        if not all(0 <= number < math.inf for number in numbers):
            raise DataError(f"mixture: shares are {numbers}: all must be at least 0")
        if min(sum(share.start for share in shares), sum(share.end for share in shares)) <= 0:
            raise DataError("mixture: at its start or end no source has a share above 0")
        self.shares, self.total_rows = shares, total_rows
        self._sources, self._within = array("H"), array("Q")
        self._given = [0] * len(shares)
        self._due = [0.0] * len(shares)

    def weights(self, row: int) -> list[float]:
        """Each source's normalized share at a row; rows past the last are like the last."""
        blend = min(1.0, row / max(1, self.total_rows - 1))
        raw = [share.start * (1 - blend) + share.end * blend for share in self.shares]
        total = sum(raw)
        return [weight / total for weight in raw]

    def source_of(self, row: int) -> tuple[int, int]:
        """(index into `shares`, how many earlier rows that source has had)."""
        for number in range(len(self._sources), row + 1):
            self._assign(number)
        return self._sources[row], self._within[row]

    def realised(self, rows: int) -> dict[str, float]:
        """The share of the first `rows` rows that each source has."""
        drawn = [self.source_of(row)[0] for row in range(rows)]
        return {
            share.source: drawn.count(number) / max(1, rows)
            for number, share in enumerate(self.shares)
        }

    def _assign(self, row: int) -> None:
        slack = 1 / max(2, 2 * len(self.shares) - 2)
        ranks = []
        for source, weight in enumerate(self.weights(row)):
            self._due[source] += weight
            behind = self._due[source] - self._given[source]
            if weight > 0:
                # While shares change, all that still have one may be ahead: the least ahead then.
                late = behind >= slack - _ROUNDING
                wait = (1 - slack - behind) / weight if late else -behind
                ranks.append((not late, wait, source))
        chosen = min(ranks)[2]
        self._sources.append(chosen)
        self._within.append(self._given[chosen])
        self._given[chosen] += 1
