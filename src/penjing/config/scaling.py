"""Rates and batch that follow from the model's size, where the run file does not give them.

Each rule is a power of the model's width, sourced and measured again on stories
(docs/notebook.md); `config.toml` states what came out.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from penjing.config.schema import RunConfig
from penjing.config.training import TrainingConfig

WIDTH = 256
"""Width at which the constants below hold."""

RATES = {
    "matrix_learning_rate": (0.02, -0.5),
    "embedding_learning_rate": (0.2, -0.5),
    "head_learning_rate": (0.005, -0.5),
    "norm_learning_rate": (0.01, -0.5),
}
"""The peak rate at `WIDTH` and the power of the width by which it changes.

Sources: for AdamW nanochat, after arXiv:2203.03466; for Muon our own measurement alone, -0.55.
"""

STEP_TOKENS, STEP_POWER = 2048, 1.0
"""Tokens a step at `WIDTH`, and the power: measured 1.15. For runs of a few tokens a parameter: the
best batch also grows with the run's tokens (arXiv:2505.13738), so long ones give their own.
"""

SCALED_STAGES = ("pretrain", "midtrain", "sft")


def scaled_rate(name: str, hidden_size: int) -> float:
    """A peak rate for a model of that width, to two digits."""
    rate, power = RATES[name]
    return float(f"{rate * (hidden_size / WIDTH) ** power:.2g}")


def scaled_tokens_per_step(hidden_size: int, row_tokens: int) -> int:
    """Whole rows, as near as they come to what the width asks for."""
    wanted: float = STEP_TOKENS * (hidden_size / WIDTH) ** STEP_POWER
    return max(1, round(wanted / row_tokens)) * row_tokens


def with_scaled_defaults(config: RunConfig, table: Mapping[str, Any]) -> RunConfig:
    """The run with what its file, `table`, leaves out filled in by the model's width."""
    changed: dict[str, TrainingConfig] = {}
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
        section = replace(section, optimizer=replace(section.optimizer, **rates))
        if "tokens_per_step" not in written:
            tokens = scaled_tokens_per_step(shape.hidden_size, shape.max_position_embeddings)
            section = replace(section, tokens_per_step=tokens)
        changed[stage] = section
    return replace(config, **changed)  # type: ignore[arg-type]
