"""A source's share of a mixture, from its TOML value and back.

What the shares mean row by row is `data.mixture`'s duty.
"""

import dataclasses
import math
from typing import Any

from penjing.config.training import MixtureShare

WANTED = (
    "a share of at least 0, [start, end], or a table with one of share, points = [[tokens, share], "
    '...] and epochs, and perhaps blend = "cosine" and max_epochs'
)
_KEYS = ("share", "points", "epochs", "blend", "max_epochs")


def read_share(source: str, value: Any) -> tuple[MixtureShare | None, str]:
    """The share, or None and what is wrong with the value."""
    if not isinstance(value, dict):
        value = {"share": value}
    if unknown := [key for key in value if key not in _KEYS]:
        return None, f"unknown key {unknown[0]}; known: {', '.join(_KEYS)}"
    if sum(key in value for key in ("share", "points", "epochs")) != 1:
        return None, "give exactly one of share, points and epochs"
    share, points, epochs = (value.get(key) for key in ("share", "points", "epochs"))
    ends = share if isinstance(share, list) and len(share) == 2 else [share, share]
    found = MixtureShare(source, 0.0, 0.0)
    if share is not None:
        if not all(_is_share(end) for end in ends):
            return None, "a share is a number of at least 0, or two of them"
        found = MixtureShare(source, float(ends[0]), float(ends[1]))
    elif points is not None:
        if not _are_points(points):
            return None, "points are [[tokens, share], ...], tokens rising, shares at least 0"
        found = MixtureShare(
            source,
            float(points[0][1]),
            float(points[-1][1]),
            tuple((tokens, float(share)) for tokens, share in points),
        )
    elif not _is_share(epochs) or not epochs:
        return None, "epochs is a number above 0"
    blend, max_epochs = value.get("blend", "linear"), value.get("max_epochs")
    if blend not in ("linear", "cosine"):
        return None, 'blend is "linear" or "cosine"'
    if max_epochs is not None and (type(max_epochs) is not int or max_epochs < 1):
        return None, "max_epochs is a whole number of at least 1"
    told = {"blend": blend, "max_epochs": max_epochs}
    told |= {"epochs": None if epochs is None else float(epochs)}
    return dataclasses.replace(found, **told), ""


def share_value(share: MixtureShare) -> Any:
    """The share as TOML has it, as short as it goes."""
    short: Any = share.start if share.start == share.end else [share.start, share.end]
    table: dict[str, Any] = {"share": short}
    if share.points:
        table = {"points": [list(point) for point in share.points]}
    elif share.epochs is not None:
        table = {"epochs": share.epochs}
    if share.blend != "linear":
        table["blend"] = share.blend
    if share.max_epochs is not None:
        table["max_epochs"] = share.max_epochs
    return short if list(table) == ["share"] else table


def share_identity(share: MixtureShare) -> list[Any]:
    """The share as JSON values: what a stage's digest holds of it."""
    value = share_value(share)
    return (
        [share.source, value] if isinstance(value, dict) else [share.source, share.start, share.end]
    )


def _is_share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


def _are_points(points: Any) -> bool:
    if not isinstance(points, list) or not points:
        return False
    if not all(isinstance(point, list) and len(point) == 2 for point in points):
        return False
    tokens = [point[0] for point in points]
    rising = all(type(one) is int and one >= 0 for one in tokens) and tokens == sorted(set(tokens))
    return rising and all(_is_share(point[1]) for point in points)
