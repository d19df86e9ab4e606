"""The midtrain stage: pretraining text blended gradually into conversations."""

from typing import Any

from penjing.stages.context import StageContext
from penjing.stages.machine import load_model
from penjing.stages.next_token import train_on_mixture


def run(context: StageContext) -> dict[str, Any]:
    """Trains `midtrain/` from the last finished training stage."""
    section = context.config.midtrain
    assert section is not None
    start = context.previous_stage("midtrain")
    return train_on_mixture(context, "midtrain", section, load_model(context, start), start)
