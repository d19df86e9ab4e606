"""The one factor in [0, 1] by which all learning rates follow a stage's course. Pure."""

import math

from penjing.config.training import ScheduleConfig


def factor(step: int, steps: int, config: ScheduleConfig) -> float:
    """Linear warm-up, then constant with a linear warm-down, or cosine, or linear.

    Args:
        step: the update's number, 1 to `steps`; the end would be reached one step after the last.
        steps: updates of the stage.
        config: lengths of both ramps; where they overlap the lower one counts. Cosine: equation 5
            of arXiv:1608.03983 without restarts.
    """
    left = steps + 1 - step
    if config.kind == "constant":
        warmdown_steps = round(config.warmdown_fraction * steps)
        down = left / warmdown_steps if warmdown_steps else 1.0
    else:
        down = left / max(1, steps + 1 - config.warmup_steps)
    down = max(0.0, min(1.0, down))
    if config.kind == "cosine":
        down = (1 - math.cos(math.pi * down)) / 2
    fallen = config.final_fraction + (1 - config.final_fraction) * down
    return min(fallen, step / config.warmup_steps) if config.warmup_steps else fallen
