"""The pretrain stage: next-token training from an initialization, on packed documents."""

from typing import Any

from penjing.stages.context import StageContext
from penjing.stages.machine import starting_model
from penjing.stages.next_token import train_on_mixture


def run(context: StageContext) -> dict[str, Any]:
    """Trains `pretrain/` from random weights, or a model that the run file names."""
    section = context.config.pretrain
    assert section is not None
    model, start = starting_model(context, "pretrain", section)
    return train_on_mixture(context, "pretrain", section, model, start)
