"""The one factor in [0, 1] by which all learning rates follow a stage's course. Pure."""

from penjing.config.training import ScheduleConfig


def factor(step: int, steps: int, config: ScheduleConfig) -> float:
    """Linear warm-up, constant, linear warm-down.

    Args:
        step: the update's number, 1 to `steps`; the factor would reach 0 one step after the last.
        steps: updates of the stage.
        config: lengths of both ramps; where they overlap the lower one counts.
    """
    factors = [1.0]
    if config.warmup_steps:
        factors.append(step / config.warmup_steps)
    warmdown_steps = round(config.warmdown_fraction * steps)
    if warmdown_steps:
        factors.append((steps + 1 - step) / warmdown_steps)
    return max(0.0, min(factors))
