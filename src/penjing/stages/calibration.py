"""Some steps of a stage on this device, in a process of its own: what one costs in time and memory.

Rows are random ids: what they say does not change what they cost. Nothing of the run is touched.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch

from penjing.config.model import ModelShape
from penjing.config.schema import RunConfig
from penjing.config.training import TrainingConfig
from penjing.data.batches import Batch
from penjing.data.corpus import in_new_process
from penjing.generate.engine import Request, generate
from penjing.generate.sampling import Sampling
from penjing.model.build import build_model
from penjing.model.compilation import compile_block
from penjing.model.initialization import initialize
from penjing.model.language_model import LanguageModel
from penjing.model.likelihood import token_logprobs
from penjing.model.size import flops_per_token
from penjing.process import cpu_seconds
from penjing.runtime import Runtime, make_generator, open_runtime
from penjing.stages.horizon import rows_per_step
from penjing.stages.next_token import VALIDATION_ROWS
from penjing.stages.training import compilation_pays, microbatch_rows
from penjing.tasks.prompt_sets import prompt_set
from penjing.train.checkpoint import TokenizerBundle, TrainingState, save_checkpoint
from penjing.train.loop import train_steps
from penjing.train.objectives import next_token
from penjing.train.optimizer import Optimizer, build_optimizer

STEPS = 20
WARM_UP_STEPS = 4


@dataclass(frozen=True)
class Cost:
    """Wall and CPU seconds of one thing."""

    seconds: float
    cpu_seconds: float

    def times(self, count: float) -> "Cost":
        return Cost(self.seconds * count, self.cpu_seconds * count)

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)


@dataclass(frozen=True)
class Calibration:
    """What a stage's parts cost here, and the most memory that the process held."""

    start: Cost
    step: Cost
    validation: Cost
    samples: Cost
    checkpoint: Cost
    memory_bytes: int


def calibrate(config: RunConfig, stage: str, vocab_size: int, planned_steps: int) -> Calibration:
    """Measured in a new process, so that its memory is that of the stage alone."""
    return in_new_process(_measure, config, stage, vocab_size, planned_steps)


@dataclass(frozen=True)
class Opened:
    """An untrained model on its device, and the rows of its microbatches."""

    model: LanguageModel
    runtime: Runtime
    microbatch_rows: int


def open_untrained(config: RunConfig, section: TrainingConfig, vocab_size: int) -> Opened:
    """What a stage would train, as it would train it."""
    shape, wanted = config.model.shape(vocab_size), config.runtime
    runtime, _ = open_runtime(
        wanted.device, wanted.dtype, wanted.threads, hidden_size=shape.hidden_size
    )
    model = build_model(shape, runtime.dtype)
    initialize(model, config.seed)
    model = model.to(runtime.device)
    model.checkpoints_blocks = wanted.gradient_checkpointing
    rows = microbatch_rows(section, model, runtime, rows_per_step(section, shape))
    return Opened(model, runtime, rows)


def _measure(config: RunConfig, stage: str, vocab_size: int, planned_steps: int) -> Calibration:
    begun, section = _now(), getattr(config, stage)
    opened = open_untrained(config, section, vocab_size)
    model, runtime, shape = opened.model, opened.runtime, opened.model.shape
    flops = planned_steps * section.tokens_per_step
    flops *= flops_per_token(shape, shape.max_position_embeddings)
    if compilation_pays(config.runtime.compile, runtime, flops):
        compile_block(model, opened.microbatch_rows, shape.max_position_embeddings)
    optimizer = build_optimizer(model, section.optimizer)
    started = _since(begun)
    step = _step_cost(section, optimizer, opened)
    validation = _cost(lambda: _validate(section, model, runtime))
    samples = _cost(lambda: _sample(section, model))
    checkpoint = _cost(lambda: _save(stage, model, optimizer))
    memory = runtime.memory().peak_bytes
    return Calibration(started, step, validation, samples, checkpoint, memory)


def _step_cost(section: TrainingConfig, optimizer: Optimizer, opened: Opened) -> Cost:
    """The median step, after some that warm up."""
    found, begun = list[Cost](), _now()
    rows = rows_per_step(section, opened.model.shape)
    for _ in train_steps(
        opened.model,
        optimizer,
        next_token,
        random_batches(rows, opened.model.shape),
        opened.runtime,
        steps=range(1, STEPS + 1),
        microbatch_rows=opened.microbatch_rows,
        schedule=lambda _: 0.01,
        max_grad_norm=section.optimizer.max_grad_norm,
    ):
        found.append(_since(begun))
        begun = _now()
    warm = found[WARM_UP_STEPS:]
    return Cost(median(one.seconds for one in warm), median(one.cpu_seconds for one in warm))


def random_batches(rows: int, shape: ModelShape) -> Iterator[Batch]:
    """Random rows of documents of some 200 tokens."""
    dice, tokens = make_generator(1), shape.max_position_embeddings
    while True:
        ids = torch.randint(shape.vocab_size, (rows, tokens + 1), generator=dice)
        documents = (torch.rand((rows, tokens), generator=dice) < 1 / 200).long().cumsum(1)
        yield Batch(ids[:, :-1], ids[:, 1:], torch.ones(rows, tokens), documents)


@torch.no_grad()
def _validate(section: TrainingConfig, model: LanguageModel, runtime: Runtime) -> None:
    left = section.validation_rows
    while left > 0:
        rows = min(left, VALIDATION_ROWS)
        batch = next(random_batches(rows, model.shape)).to(runtime.device)
        token_logprobs(model, batch.tokens, batch.targets, batch.document_ids)
        left -= rows


@torch.no_grad()
def _sample(section: TrainingConfig, model: LanguageModel) -> None:
    lengths = [section.sample_tokens] * len(section.sample_prompts)
    for chosen in map(prompt_set, section.sample_sets):
        lengths += [chosen.max_new_tokens] * len(chosen.prompts)
    requests = [
        Request((1, 2, 3), Sampling(temperature=1.0, max_new_tokens=length), seed)
        for seed, length in enumerate(lengths)
    ]
    generate(model, requests, stop_ids=())


def _save(stage: str, model: LanguageModel, optimizer: Optimizer) -> None:
    bundle = TokenizerBundle({}, "", 0, 0)
    state = TrainingState(stage, 0, "", optimizer.kind, step=STEPS)
    with tempfile.TemporaryDirectory(prefix="penjing-") as folder:
        save_checkpoint(Path(folder), state, model, optimizer, bundle, keep=1)


def _cost(work: Callable[[], None]) -> Cost:
    begun = _now()
    work()
    return _since(begun)


def _now() -> Cost:
    return Cost(time.perf_counter(), cpu_seconds())


def _since(begun: Cost) -> Cost:
    now = _now()
    return Cost(now.seconds - begun.seconds, now.cpu_seconds - begun.cpu_seconds)


def at_depth(config: RunConfig, depth: int) -> RunConfig:
    """The run with another depth; what was given for the depth it had is derived again."""
    model = replace(
        config.model,
        depth=depth,
        num_hidden_layers=None,
        hidden_size=None,
        num_attention_heads=None,
        num_key_value_heads=None,
        intermediate_size=None,
    )
    return replace(config, model=model)
