"""Which split an exercise belongs to, by a hash of its key alone.

Seeds, row counts and the order of drawing change nothing: a key is on one side for ever.
"""

import hashlib
from typing import Literal, get_args

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


def split_of(key: str) -> Split:
    """Seven keys of ten are for training, one for validation, two for the test."""
    bucket = hashlib.sha256(f"split/{key}".encode()).digest()[0] % 10
    if bucket < 7:
        return "train"
    return "validation" if bucket == 7 else "test"
