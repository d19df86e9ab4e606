"""Confidence intervals of scores; which scores there are is `evaluate`'s duty."""

import math
from collections.abc import Hashable, Sequence

Z95 = 1.96
"""The normal quantile of a two-sided 95 % interval."""


def wilson(successes: float, n: int, z: float = Z95) -> tuple[float, float]:
    """The score interval of a share. Source: Wilson 1927, JASA 22(158).

    Raises:
        ValueError: n < 1, or successes outside 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} are not a share")
    share = successes / n
    scale = 1 + z * z / n
    middle = (share + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends the formula gives exactly 0 and 1; rounding may miss them.
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == n else min(1.0, middle + half)
    return low, high


def mean_interval(values: Sequence[float], z: float = Z95) -> tuple[float, float, float]:
    """Mean, low and high by the normal approximation; of one value, all three are that value.

    Raises:
        ValueError: no values.
    """
    return clustered_interval(values, range(len(values)), z)


def clustered_interval(
    values: Sequence[float], clusters: Sequence[Hashable], z: float = Z95
) -> tuple[float, float, float]:
    """Mean, low and high when values of one cluster (one problem's samples) are dependent.

    With one value a cluster this is `mean_interval`: variance s^2 / n with n - 1 in s^2.
    Source: arXiv:2411.00640, section 2.2, with the small-sample factor G / (G - 1).

    Raises:
        ValueError: no values, or another number of clusters.
    """
    if not values or len(values) != len(clusters):
        raise ValueError(f"{len(values)} values and {len(clusters)} cluster names")
    n = len(values)
    mean = math.fsum(values) / n
    deviations: dict[Hashable, float] = {}
    for value, cluster in zip(values, clusters, strict=True):
        deviations[cluster] = deviations.get(cluster, 0.0) + value - mean
    groups = len(deviations)
    if groups == 1:
        return mean, mean, mean
    variance = math.fsum(d * d for d in deviations.values()) * groups / (groups - 1) / (n * n)
    half = z * math.sqrt(variance)
    return mean, mean - half, mean + half
