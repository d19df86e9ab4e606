"""What one training stage is to `train.fit`: its model, its batches, its probes, and when it looks.

Nothing is done here.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic

from penjing.artifacts.lines import LineLog
from penjing.artifacts.progress import Progress
from penjing.artifacts.records import SampleRecord
from penjing.config.training import CadenceConfig
from penjing.model.language_model import LanguageModel
from penjing.runtime import Runtime
from penjing.train.checkpoint import TokenizerBundle
from penjing.train.journal import Tracker
from penjing.train.loop import BatchT, Objective, may_read_late
from penjing.train.optimizer import Optimizer


@dataclass(frozen=True)
class ProbeResult:
    """What a probe saw: numbers for the step's record, and samples."""

    values: Mapping[str, float] = field(default_factory=dict)
    samples: tuple[SampleRecord, ...] = ()


@dataclass(frozen=True)
class Probe:
    """A look at the model every so many steps and after the last, with seeds of its own.

    A stop interrupts it, and it is run again when training goes on; not if it is `instant`, as
    those are that tell what the step's batch knew.
    """

    name: str
    every_steps: int
    run: Callable[[int], ProbeResult]
    instant: bool = False


@dataclass(frozen=True)
class FitJob(Generic[BatchT]):
    """One stage's training, whole.

    `open_batches(done)` gives this rank's batches after `done` steps, the same ones however often
    it is called; `schedule` maps a step's number, from 1, to the factor of all rates; `logs` are
    further logs with a "step" in each line, cut back on a resume like the stage's own;
    `skips_spikes`: whether steps whose loss jumps are skipped (rewards jump by nature).
    """

    directory: Path
    stage: str
    seed: int
    runtime: Runtime
    model: LanguageModel
    optimizer: Optimizer
    objective: Objective[BatchT]
    open_batches: Callable[[int], Iterator[BatchT]]
    schedule: Callable[[int], float]
    steps: int
    rows_per_step: int
    microbatch_rows: int
    max_grad_norm: float
    cadence: CadenceConfig
    probes: tuple[Probe, ...]
    tokenizer: TokenizerBundle
    show: Callable[[Progress], None]
    logs: tuple[LineLog, ...] = ()
    trackers: tuple[Tracker, ...] = ()
    flops_per_token: float = 0.0
    skips_spikes: bool = True

    @property
    def reads_late(self) -> bool:
        """Whether the loop is to read a step's numbers when the next step is under way: not where
        probes ask about the step's batch.
        """
        asked = any(probe.instant for probe in self.probes)
        return may_read_late(self.runtime, self.model, self.optimizer) and not asked
