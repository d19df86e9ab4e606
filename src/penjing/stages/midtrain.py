"""The midtrain stage: pretraining text blended gradually into conversations."""

from typing import Any

from penjing.stages.context import StageContext
from penjing.stages.machine import starting_model
from penjing.stages.next_token import train_on_mixture


def run(context: StageContext) -> dict[str, Any]:
    """Trains `midtrain/` from the stage before, or from a model that the run file names."""
    section = context.config.midtrain
    assert section is not None
    model, start = starting_model(context, "midtrain", section)
    return train_on_mixture(context, "midtrain", section, model, start)
