"""The stages that work over the whole corpus, alone or in parts that any machine may do.

Torch is not loaded here, so that a worker is small and starts at once.
"""

from pathlib import Path

from penjing.config.schema import RunConfig
from penjing.data.corpus import Conduct
from penjing.stages import clean, shards, tokenizer
from penjing.stages.context import Show, StageContext
from penjing.stages.upkeep import Stage, grow

CORPUS_STAGES = (
    Stage("clean", (), clean.run),
    Stage("tokenizer", ("clean",), tokenizer.run),
    Stage("shards", ("clean", "tokenizer"), shards.run),
)
_PARTS = {"clean": clean.run_part, "tokenizer": tokenizer.run_part, "shards": shards.run_part}


def do_stage(
    config: RunConfig,
    base: Path,
    runs: Path,
    stage: str,
    part: str | None,
    conduct: Conduct,
    show: Show,
    *,
    redo: bool,
) -> Path:
    """Brings one of these stages up to date: see `upkeep.grow`."""
    return grow(
        CORPUS_STAGES,
        config,
        base,
        runs,
        only=stage,
        redo=stage if redo else None,
        extend=False,
        show=show,
        conduct=conduct,
        part=part,
    )


def do_part(
    config: RunConfig,
    base: Path,
    runs: Path,
    stage: str,
    part: str | None,
    conduct: Conduct,
    show: Show,
) -> None:
    """Does the chunks of `conduct.task` (all of them, if it is None) that are not finished.

    No manifest is written and no lock is taken: all state is finished chunks.

    Args:
        config: the run.
        base: the folder from which the sources' paths start.
        runs: the folder of runs.
        stage: clean, tokenizer or shards.
        part: of the tokenizer: count or reduce.
        conduct: task and engine.
        show: receives what the screen shows.

    Raises:
        ArtifactError: a chunk is missing that this part reads.
    """
    context = StageContext(config, base, runs / config.name, show, conduct, part)
    _PARTS[stage](context)
