"""The list of stages, and the verb that does all of them.

What is done about a finished, stale or unfinished one is `stages.upkeep`'s duty.
"""

from pathlib import Path

from penjing.config.schema import RunConfig
from penjing.stages import dpo, evaluate, midtrain, pretrain, report, rl, sft
from penjing.stages.context import TRAINED_STAGES, Show
from penjing.stages.corpus import CORPUS_STAGES
from penjing.stages.upkeep import Stage, grow

STAGES = (
    *CORPUS_STAGES,
    Stage("pretrain", ("shards",), pretrain.run),
    Stage("midtrain", ("shards", "pretrain"), midtrain.run),
    Stage("sft", ("shards", "pretrain", "midtrain"), sft.run),
    Stage("dpo", ("tokenizer", "pretrain", "midtrain", "sft"), dpo.run),
    Stage("rl", ("shards", "pretrain", "midtrain", "sft", "dpo"), rl.run),
    Stage("evaluate", ("shards", *TRAINED_STAGES), evaluate.run),
    Stage("report", (), report.run),
)


def train(
    config: RunConfig,
    base: Path,
    runs: Path,
    *,
    only: str | None,
    redo: str | None,
    extend: bool,
    show: Show,
) -> Path:
    """Brings every stage of a run up to date, or `only` one: see `upkeep.grow`."""
    return grow(STAGES, config, base, runs, only=only, redo=redo, extend=extend, show=show)
