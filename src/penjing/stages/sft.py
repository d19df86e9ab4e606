"""The sft stage: conversations alone, with loss on what the assistant says."""

from typing import Any

from penjing.stages.context import StageContext
from penjing.stages.machine import load_model
from penjing.stages.next_token import train_on_mixture


def run(context: StageContext) -> dict[str, Any]:
    """Trains `sft/` from the last finished training stage."""
    section = context.config.sft
    assert section is not None
    start = context.previous_stage("sft")
    return train_on_mixture(context, "sft", section, load_model(context, start), start)
