"""What a CPU promises, on an NVIDIA device; skipped where there is none."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from penjing.artifacts.lines import read_records
from penjing.artifacts.records import StepRecord
from penjing.config.model import ModelConfig, ModelShape
from penjing.config.training import OptimizerConfig
from penjing.data.batches import Batch
from penjing.data.feeding import Feeding, feed
from penjing.generate.engine import Completion, Request, generate
from penjing.generate.sampling import Sampling
from penjing.model.build import build_model
from penjing.model.compilation import compile_block
from penjing.model.initialization import initialize
from penjing.model.language_model import LanguageModel
from penjing.model.likelihood import token_logprobs
from penjing.model.transformer import Transformer
from penjing.runtime import DEVICES, Runtime, make_generator
from penjing.stages.context import TRAINED_STAGES
from penjing.train.checkpoint import (
    TokenizerBundle,
    TrainingState,
    load_checkpoint,
    save_checkpoint,
)
from penjing.train.loop import StepResult, train_steps
from penjing.train.objectives import next_token
from penjing.train.optimizer import build_optimizer
from tests.conftest import grow
from tests.faults.stream_campaign import make_stream

pytestmark = pytest.mark.skipif(not DEVICES["cuda"].available(), reason="no CUDA device")

SHAPE = ModelShape(61, 2, 32, 4, 2, 16, 48, 256, 10_000.0, 1e-6, tie_word_embeddings=False)


def make_model(device: str, dtype: torch.dtype = torch.float32) -> Transformer:
    model = Transformer(SHAPE)
    initialize(model, 3)
    generator = make_generator(4)
    with torch.no_grad():  # the recipe's zeros would hide gradients from most weights
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.to(dtype).to(device)


def make_batch(seed: int = 0, rows: int = 6, tokens: int = 150) -> Batch:
    ids = torch.randint(0, SHAPE.vocab_size, (rows, tokens + 1), generator=make_generator(seed))
    trained = torch.arange(tokens) <= (torch.arange(rows) * 53 % tokens)[:, None]
    documents = torch.arange(tokens) // torch.tensor([[40], [150], [70], [90], [149], [10]])[:rows]
    return Batch(ids[:, :-1], ids[:, 1:], trained.float(), documents)


def steps(
    model: LanguageModel,
    *,
    count: int,
    microbatch_rows: int = 6,
    compiled: bool = False,
) -> list[StepResult]:
    device = model.head_weight.device
    batches: Iterator[Batch] = map(make_batch, range(count))
    config = OptimizerConfig(kind="muon", learning_rate=0.01, embedding_learning_rate=0.05)
    optimizer = build_optimizer(model, config)
    if compiled:
        optimizer.compile()
    taken = train_steps(
        model,
        optimizer,
        next_token,
        batches,
        Runtime(device, torch.float32),
        steps=range(1, count + 1),
        microbatch_rows=microbatch_rows,
        schedule=lambda step: 1.0,
        max_grad_norm=1.0,
    )
    return list(taken)


def gradient(model: Transformer, batch: Batch) -> Tensor:
    next_token(model, batch).total.backward()  # type: ignore[no-untyped-call]
    parts = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return torch.cat(parts).cpu()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
def test_loss_and_gradient_equal_those_of_a_cpu(dtype: torch.dtype, tolerance: float) -> None:
    batch = make_batch()
    wanted = gradient(make_model("cpu", dtype), batch)
    found = gradient(make_model("cuda", dtype), batch.to("cuda"))

    assert (found - wanted).norm() <= tolerance * wanted.norm()


def test_losses_of_twenty_steps_equal_those_of_a_cpu_however_rows_are_cut() -> None:
    wanted = [result.loss for result in steps(make_model("cpu"), count=20)]
    for microbatch_rows in (6, 4, 1):
        found = steps(make_model("cuda"), count=20, microbatch_rows=microbatch_rows)
        assert [result.loss for result in found] == pytest.approx(wanted, abs=1e-3)


def test_numbers_that_are_read_late_are_the_same_and_nothing_waits_for_the_device() -> None:
    wanted = [result.loss for result in steps(make_model("cuda"), count=8)]
    model, device = make_model("cuda"), torch.device("cuda")
    ready = [make_batch(seed).to(device) for seed in range(8)]
    config = OptimizerConfig(kind="muon", learning_rate=0.01, embedding_learning_rate=0.05)
    taken = train_steps(
        model,
        build_optimizer(model, config),
        next_token,
        iter(ready),
        Runtime(device, torch.float32),
        steps=range(1, 9),
        microbatch_rows=6,
        schedule=lambda step: 1.0,
        max_grad_norm=1.0,
        reads_late=True,
    )
    found = [next(taken).loss]  # what is made once may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        found += [result.loss for result in taken]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert found == pytest.approx(wanted, abs=1e-3)


@pytest.mark.filterwarnings("default")  # torch warns of itself while it compiles
@pytest.mark.parametrize("architecture", ["qwen3", "gpt2", "racing"])
def test_a_compiled_block_and_optimizer_learn_as_on_a_cpu(
    architecture: Literal["qwen3", "gpt2", "racing"],
) -> None:
    def make(device: str) -> LanguageModel:
        config = ModelConfig(architecture=architecture, depth=2, hidden_size=64, head_dim=16)
        model = build_model(config.shape(SHAPE.vocab_size))
        initialize(model, 1)
        return model.to(device)

    wanted = [result.loss for result in steps(make("cpu"), count=20)]
    model = make("cuda")
    assert not compile_block(model, 6, 150).failure
    found = steps(model, count=20, compiled=True)
    assert [result.loss for result in found] == pytest.approx(wanted, abs=1e-3)


def test_a_checkpoint_goes_from_a_cpu_to_the_device_and_back(tmp_path: Path) -> None:
    def loss(model: LanguageModel) -> float:
        with torch.no_grad():
            found = next_token(model, make_batch(9).to(model.head_weight.device))
            return float(found.total) / float(found.terms)

    losses, directory = [], tmp_path
    bundle, model = TokenizerBundle({}, "", 0, 0), make_model("cpu")
    steps(model, count=3)
    losses.append(loss(model))
    for number, device in enumerate(("cuda", "cpu"), start=1):
        optimizer = build_optimizer(model, OptimizerConfig())
        state = TrainingState("pretrain", 1, "", optimizer.kind, step=number)
        path = save_checkpoint(directory, state, model, optimizer, bundle, keep=9)
        model = make_model(device)
        load_checkpoint(path, model, build_optimizer(model, OptimizerConfig()), state)
        losses.append(loss(model))
    assert losses == pytest.approx([losses[0]] * 3, abs=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_another_first_document_leaves_the_second_bit_identical(dtype: torch.dtype) -> None:
    model = make_model("cuda")
    model.dtype = dtype
    batch = make_batch().to("cuda")
    changed = batch.tokens.clone()
    changed[0, :40] = (changed[0, :40] + 1) % SHAPE.vocab_size
    first, second = model(batch.tokens, batch.document_ids), model(changed, batch.document_ids)

    assert torch.equal(first[0, 40:], second[0, 40:])
    assert not torch.allclose(first[0, :40], second[0, :40])


def test_sampled_logprobs_are_those_of_a_full_forward_pass() -> None:
    model = make_model("cuda")
    wanted = [
        Request(tuple(range(1, 2 + n)), Sampling(max_new_tokens=30), seed=n) for n in range(20)
    ]
    completions: list[Completion] = generate(model, wanted, stop_ids=(60, 59), slots=7)
    for request, completion in zip(wanted, completions, strict=True):
        ids = torch.tensor([request.prompt + completion.ids], device="cuda")
        with torch.no_grad():
            full = token_logprobs(model, ids[:, :-1], ids[:, 1:])[0, len(request.prompt) - 1 :]
        assert full.cpu().tolist() == pytest.approx(completion.logprobs, abs=1e-4)


def losses(run: Path, stage: str) -> list[float]:
    records = read_records(run / stage / "metrics.jsonl", StepRecord)
    return [record.loss for record in records if record.loss is not None]


def test_the_whole_way_runs_there_with_the_losses_of_a_cpu(small_run: Path, tmp_path: Path) -> None:
    run = grow(tmp_path, "runtime.device=cuda", "runtime.dtype=float32")
    for stage in ("pretrain", "midtrain", "sft"):
        assert losses(run, stage) == pytest.approx(losses(small_run, stage), abs=0.02)


def test_the_whole_way_runs_there_as_the_probe_chooses(tmp_path: Path) -> None:
    run = grow(tmp_path, "runtime.device=auto", "runtime.dtype=auto")

    assert '"device": "cuda"' in (run / "machine.json").read_text()
    for stage in TRAINED_STAGES:
        assert losses(run, stage)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("wish", ["dtype=bfloat16", "gradient_checkpointing=true", "compile=block"])
def test_precisions_kept_activations_and_compiled_code_change_losses_by_rounding(
    wish: str, small_run: Path, tmp_path: Path
) -> None:
    run = grow(tmp_path, "runtime.device=cuda", "runtime.dtype=float32", f"runtime.{wish}")
    for stage in ("pretrain", "midtrain", "sft"):
        assert losses(run, stage) == pytest.approx(losses(small_run, stage), abs=0.05)


def test_float16_begins_with_the_same_loss_and_learns_once_its_scale_fits(
    small_run: Path, tmp_path: Path
) -> None:
    run = grow(tmp_path, "runtime.device=cuda", "runtime.dtype=float16")
    found, wanted = losses(run, "pretrain"), losses(small_run, "pretrain")
    assert found[0] == pytest.approx(wanted[0], abs=0.01)
    assert found[-1] < found[0]  # steps whose gradients overflowed were left out


def test_batches_of_workers_in_pinned_memory_are_those_made_in_turn(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    wanted = list(islice(stream.step_batches(0), 40))
    ahead = feed(stream, 0, Feeding(2, prefetch_steps=4, pinned=True))

    for batch, made in zip(wanted, ahead, strict=False):
        assert made.tokens.is_pinned()
        there = made.to("cuda")
        for name, tensor in vars(batch).items():
            assert torch.equal(getattr(there, name).cpu(), tensor)


def test_losses_do_not_depend_on_who_makes_the_batches(tmp_path: Path) -> None:
    turns, ahead = (
        grow(tmp_path / str(workers), "runtime.device=cuda", f"runtime.data_workers={workers}")
        for workers in (0, 2)
    )
    for stage in ("pretrain", "midtrain", "sft"):
        assert losses(ahead, stage) == pytest.approx(losses(turns, stage), abs=1e-4)
