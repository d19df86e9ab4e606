"""The pretrain stage: next-token training from an initialization, on packed documents."""

from typing import Any

from penjing.model.build import build_model
from penjing.model.initialization import initialize
from penjing.seeds import seed_for
from penjing.stages.context import StageContext
from penjing.stages.machine import open_machine
from penjing.stages.next_token import train_on_mixture


def run(context: StageContext) -> dict[str, Any]:
    """Trains `pretrain/` from random weights."""
    config, runtime = context.config, open_machine(context)
    assert config.pretrain is not None
    tokenizer = context.tokenizer()
    model = build_model(config.model.shape(tokenizer.vocab_size), runtime.dtype)
    initialize(model, seed_for(config.seed, "initialization"))
    return train_on_mixture(
        context, "pretrain", config.pretrain, model.to(runtime.device), "initialization"
    )
