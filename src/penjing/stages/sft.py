"""The sft stage: conversations alone, with loss on what the assistant says."""

from typing import Any

from penjing.stages.context import StageContext
from penjing.stages.machine import starting_model
from penjing.stages.next_token import train_on_mixture


def run(context: StageContext) -> dict[str, Any]:
    """Trains `sft/` from the stage before, or from a model that the run file names."""
    section = context.config.sft
    assert section is not None
    model, start = starting_model(context, "sft", section)
    return train_on_mixture(context, "sft", section, model, start)
