"""What long work says while it runs; drawing it is the screen's duty."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Progress:
    """One piece of news of a stage: `done` of `total` units, and named numbers to show.

    `sample` and `message` carry their words in `text`; the others may.
    """

    stage: str
    kind: Literal["started", "progress", "sample", "finished", "skipped", "message"]
    done: int = 0
    total: int = 0
    values: tuple[tuple[str, float], ...] = ()
    text: str = ""
