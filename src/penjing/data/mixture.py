"""Which source each row comes from, as a function of the row's number alone.

It draws nothing at random and knows shares of rows, not rows. Of the sources that are behind their
share, the one that would first be a whole row behind is next, so with constant shares none ever is;
giving the row to the source furthest behind misses that (1.01 rows measured with ten sources).
Source: Tijdeman, "The chairman assignment problem" (1980).
"""

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from penjing.config.training import MixtureShare
from penjing.errors import DataError

_ROUNDING = 1e-9
_CHUNK_ROWS = 256
"""Given to sources at once while shares are constant."""


@dataclass(frozen=True)
class Segment:
    """From a stage's row `first_row` on these shares, coming in along half a cosine during the
    next `blend_rows`; `total_rows` is the stage's length, over which pairs of shares blend.
    """

    first_row: int
    shares: tuple[MixtureShare, ...]
    total_rows: int
    blend_rows: int = 0


class Pool(Protocol):
    """The rows of a source, of which only epochs are asked; `packing.SourceRows` is one."""

    def epoch_of(self, k: int) -> int: ...

    def rows_an_epoch(self) -> int: ...


def sources_of(segments: Sequence[Segment]) -> tuple[str, ...]:
    """Every source of a plan, in the order in which they came."""
    return tuple(dict.fromkeys(share.source for part in segments for share in part.shares))


class MixturePlan:
    """The plan of a stage: segments in order, the first from row 0.

    Args:
        segments: how the shares go.
        row_tokens: positions of a row, by which points in tokens become rows.
        pools: each source's rows; needed where shares speak of epochs.

    Raises:
        DataError: shares that mean nothing, or epochs that the stage has no rows for.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        row_tokens: int = 1,
        pools: Mapping[str, Pool] | None = None,
    ) -> None:
        self.segments, self.sources = tuple(segments), sources_of(segments)
        self._row_tokens, self._pools = row_tokens, pools or {}
        self._parts = [_Shares(part, self.sources, row_tokens, self._pools) for part in segments]
        # A source that comes later changes nothing of the rows before it.
        known = [len(sources_of(segments[: number + 1])) for number in range(len(segments))]
        self._slacks = [1 / max(2, 2 * sources - 2) for sources in known]
        self._sources, self._within = array("H"), array("Q")
        self._given = [0] * len(self.sources)
        self._due = [0.0] * len(self.sources)
        self.exhausted: dict[str, int] = {}
        """Sources that were read as often as they may be, and the first row without each."""

    @property
    def total_rows(self) -> int:
        return self.segments[-1].total_rows

    def weights(self, row: int) -> list[float]:
        """Each source's share at a row, as asked for; rows past the last are like the last."""
        now = self._parts[0].at(row)
        for part, segment in zip(self._parts[1:], self.segments[1:], strict=True):
            if row >= segment.first_row:
                done = min(1.0, (row - segment.first_row + 1) / (segment.blend_rows + 1))
                blend = _half_cosine(done)
                now = [a * (1 - blend) + b * blend for a, b in zip(now, part.at(row), strict=True)]
        return now

    def source_of(self, row: int) -> tuple[int, int]:
        """(index into `sources`, how many earlier rows that source has had).

        Raises:
            DataError: every source was read as often as it may be.
        """
        if row >= len(self._sources):
            self._assign(row + 1)
        return self._sources[row], self._within[row]

    def realised(self, rows: int) -> dict[str, float]:
        """The share of the first `rows` rows that each source has."""
        if rows:
            self.source_of(rows - 1)
        drawn = self._sources[:rows]
        return {name: drawn.count(n) / max(1, rows) for n, name in enumerate(self.sources)}

    def requested(self, rows: int) -> dict[str, float]:
        """The share of the first `rows` rows that was asked for, for each source."""
        sums = [math.fsum(of_one) for of_one in zip(*map(self.weights, range(rows)), strict=True)]
        return dict(zip(self.sources, (total / max(1, rows) for total in sums), strict=False))

    def _assign(self, stop: int) -> None:
        """Give rows up to `stop`, or somewhat further, to sources."""
        due, given = self._due, self._given
        for row in range(len(self._sources), stop):
            part = max(n for n, one in enumerate(self.segments) if one.first_row <= row)
            weights = self._without_exhausted(row, part)
            count = self._steady_rows(row, part)
            self._give(weights, self._slacks[part], count, due, given)
            if len(self._sources) >= stop:
                return

    def _steady_rows(self, row: int, part: int) -> int:
        """How many rows from this one on have its weights for sure."""
        last = part == len(self.segments) - 1
        segment = self.segments[part]
        steady = last and self._parts[part].always and not self._parts[part].caps
        blended = row - segment.first_row >= segment.blend_rows
        return _CHUNK_ROWS if steady and blended else 1

    def _give(
        self,
        weights: Sequence[float],
        slack: float,
        count: int,
        due: list[float],
        given: list[int],
    ) -> None:
        numbered = list(enumerate(weights))
        some = [(source, weight) for source, weight in numbered if weight > 0]
        limit, rest = slack - _ROUNDING, 1 - slack
        for _ in range(count):
            for source, weight in numbered:
                due[source] += weight
            best, chosen, late = math.inf, -1, False
            for source, weight in some:
                behind = due[source] - given[source]
                # While shares change, all that still have one may be ahead: the least ahead then.
                if behind >= limit:
                    wait = (rest - behind) / weight
                    if not late or wait < best:
                        best, chosen, late = wait, source, True
                elif not late and -behind < best:
                    best, chosen = -behind, source
            self._sources.append(chosen)
            self._within.append(given[chosen])
            given[chosen] += 1

    def _without_exhausted(self, row: int, part: int) -> list[float]:
        """The weights, of which those of sources that may not be read again go to the others."""
        weights, caps = self.weights(row), self._parts[part].caps
        if not caps:
            return weights
        for source, cap in caps.items():
            name = self.sources[source]
            if weights[source] and self._pools[name].epoch_of(self._given[source]) >= cap:
                self.exhausted.setdefault(name, row)
                weights[source] = 0.0
        total = sum(weights)
        if not total:
            raise DataError(
                f"mixture: at row {row} of {self.total_rows} every source was read as often as its "
                "max_epochs allows: raise it, add text, or shorten the stage"
            )
        return [weight / total for weight in weights]


class _Shares:
    """The shares of one segment, as numbers for every source of the plan."""

    def __init__(
        self,
        segment: Segment,
        sources: tuple[str, ...],
        row_tokens: int,
        pools: Mapping[str, Pool],
    ) -> None:
        self._total_rows, self._size = segment.total_rows, len(sources)
        last = max(1, segment.total_rows - 1)
        places = {name: number for number, name in enumerate(sources)}
        self.caps = {
            places[share.source]: share.max_epochs for share in segment.shares if share.max_epochs
        }
        self._fixed: dict[int, float] = {}
        self._curves: list[tuple[int, bool, list[tuple[float, float]]]] = []
        for share in segment.shares:
            place = places[share.source]
            if share.epochs is not None:
                rows = share.epochs * pools[share.source].rows_an_epoch()
                self._fixed[place] = rows / max(1, segment.total_rows)
                continue
            ends = [(0.0, share.start), (float(last), share.end)]
            points = [(tokens / row_tokens, value) for tokens, value in share.points] or ends
            if not all(0 <= value < math.inf for _, value in points):
                raise DataError(f"mixture: {share.source} has {points}: shares are at least 0")
            self._curves.append((place, share.blend == "cosine", points))
        self._check(segment)
        still = all(len({value for _, value in points}) == 1 for *_, points in self._curves)
        self.always = self._at(0) if still else None

    def _check(self, segment: Segment) -> None:
        fixed = sum(self._fixed.values())
        if fixed > 1 + _ROUNDING:
            raise DataError(
                f"mixture: the epochs asked for take {fixed * segment.total_rows:,.0f} rows, and "
                f"the stage has {segment.total_rows:,}: make it longer, or ask for fewer"
            )
        moments = {row for *_, points in self._curves for row, _ in points} | {0.0}
        for row in sorted(moments):
            free = [_between(points, row, cosine=cosine) for _, cosine, points in self._curves]
            if sum(free) <= 0 and (free or not self._fixed):
                raise DataError(f"mixture: at row {row:.0f} no source has a share above 0")

    def at(self, row: int) -> list[float]:
        """Shares of 1 at a row."""
        return list(self.always) if self.always is not None else self._at(row)

    def _at(self, row: int) -> list[float]:
        shares = [0.0] * self._size
        for place, cosine, points in self._curves:
            shares[place] = _between(points, row, cosine=cosine)
        fixed, total = sum(self._fixed.values()), sum(shares)
        shares = [(1 - fixed) * share / (total or 1.0) for share in shares]
        for place, share in self._fixed.items():
            shares[place] = share if total else share / fixed
        return shares


def _between(points: Sequence[tuple[float, float]], row: float, *, cosine: bool) -> float:
    """The value at a row: the first point's before it, the last one's after it."""
    for (start, low), (stop, high) in pairwise(points):
        if row < stop:
            done = max(0.0, (row - start) / (stop - start))
            blend = _half_cosine(done) if cosine else done
            return low * (1 - blend) + high * blend
    return points[-1][1]


def _half_cosine(done: float) -> float:
    return 0.5 - 0.5 * math.cos(math.pi * done)
