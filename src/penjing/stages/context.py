"""What every stage is handed: the run file, where the run lives, and how to show progress.

Torch is not loaded here: opening the machine and models is `stages.machine`'s duty.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from penjing.artifacts.directories import verified
from penjing.artifacts.progress import Progress
from penjing.artifacts.remote import place
from penjing.artifacts.stage import read_manifest
from penjing.config.schema import RunConfig
from penjing.data.corpus import Conduct
from penjing.errors import ArtifactError
from penjing.sources.cache import Cache
from penjing.text.tokenizer import Tokenizer, load_tokenizer

Show = Callable[[Progress], None]

TRAINED_STAGES = ("pretrain", "midtrain", "sft", "dpo", "rl")


@dataclass(frozen=True)
class StageContext:
    """One run, as its stages see it. `base` is the folder that the run file's paths start from."""

    config: RunConfig
    base: Path
    run_dir: Path
    show: Show
    conduct: Conduct = field(default_factory=Conduct)
    """How jobs over the corpus are run."""
    part: str | None = None
    """The one part of the tokenizer's work that is to be done: count, reduce or train."""

    def directory(self, stage: str) -> Path:
        return self.run_dir / stage

    def conduct_with(self, workers: int | None) -> Conduct:
        """How jobs are run, with so many local processes; None: one a core."""
        return replace(self.conduct, workers=workers or os.cpu_count() or 1)

    @property
    def cache(self) -> Cache:
        """Where remote files are kept: one folder for all runs beside each other."""
        wanted = self.config.runtime
        folder = self.base / wanted.cache if wanted.cache else self.run_dir.parent / ".cache"
        return Cache(folder, wanted.cache_bytes)

    def work_directory(self, stage: str) -> Path:
        """Where a job over the corpus keeps its finished chunks: a folder, or a place at a URL.

        Raises:
            ConfigError: `runtime.state` is a URL that cannot be used here.
        """
        state = self.config.runtime.state
        run = place(state, self.base, "runtime.state") / self.config.name if state else self.run_dir
        return run / f"{stage}.work"

    def trained_stages(self) -> list[str]:
        """The finished training stages of this run, in order.

        A directory whose table has left the run file is no part of the run.
        """
        return [
            name
            for name in TRAINED_STAGES
            if getattr(self.config, name) is not None
            and read_manifest(self.directory(name)) is not None
        ]

    def previous_stage(self, stage: str) -> str:
        """The last finished training stage before `stage`.

        Raises:
            ArtifactError: there is none.
        """
        before = TRAINED_STAGES[: TRAINED_STAGES.index(stage)]
        found = [name for name in self.trained_stages() if name in before]
        if not found:
            raise ArtifactError(
                f"{self.run_dir}: {stage} starts from a trained model, and no earlier stage of "
                "this run is finished; run `penjing train` with the run file"
            )
        return found[-1]

    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer, as the tokenizer stage left it."""
        return load_tokenizer(verified(self.directory("tokenizer")))
