"""Rates and batch that follow from the model's width, where the run file does not give them.

The sections' own defaults hold at a width of 256. Both rules are powers of the width, sourced and
measured again on stories (docs/notebook.md); `config.toml` states what came out.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from penjing.config.schema import RunConfig
from penjing.config.training import OptimizerConfig, TrainingConfig

WIDTH = 256
"""Width at which the defaults hold."""

RATES = (
    "matrix_learning_rate",
    "embedding_learning_rate",
    "head_learning_rate",
    "norm_learning_rate",
)
RATE_POWER = -0.5
"""Sources: for AdamW nanochat, after arXiv:2203.03466; for Muon our own measurement, -0.55."""

SCALED_STAGES = ("pretrain", "midtrain", "sft")


def scaled_rate(name: str, hidden_size: int) -> float:
    """A peak rate for a model of that width, to two digits."""
    rate: float = getattr(OptimizerConfig(), name)
    return float(f"{rate * (hidden_size / WIDTH) ** RATE_POWER:.2g}")


def scaled_tokens_per_step(hidden_size: int, row_tokens: int) -> int:
    """Whole rows, as near as they come to what the width asks for: in proportion to it.

    Source: our own measurement, a power of 1.15. For runs of a few tokens a parameter: the best
    batch also grows with the run's tokens (arXiv:2505.13738), so long ones give their own.
    """
    wanted = TrainingConfig().tokens_per_step * hidden_size / WIDTH
    return max(1, round(wanted / row_tokens)) * row_tokens


def with_scaled_defaults(config: RunConfig, table: Mapping[str, Any]) -> RunConfig:
    """The run with what its file, `table`, leaves out filled in by the model's width."""
    changed: dict[str, Any] = {}
    shape = config.model.shape(vocab_size=1)
    for stage in SCALED_STAGES:
        section, written = getattr(config, stage), table.get(stage)
        if section is None or not isinstance(written, dict):
            continue
        given = written.get("optimizer")
        given = given if isinstance(given, dict) else {}
        rates: dict[str, Any] = {
            name: scaled_rate(name, shape.hidden_size) for name in RATES if name not in given
        }
        changed[stage] = replace(section, optimizer=replace(section.optimizer, **rates))
        if "tokens_per_step" not in written:
            tokens = scaled_tokens_per_step(shape.hidden_size, shape.max_position_embeddings)
            changed[stage] = replace(changed[stage], tokens_per_step=tokens)
    return replace(config, **changed)
