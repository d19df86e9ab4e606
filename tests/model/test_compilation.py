from dataclasses import replace

import pytest
import torch
from torch._dynamo.utils import counters

from penjing.config.model import ModelConfig
from penjing.config.training import OptimizerConfig
from penjing.data.batches import Batch
from penjing.model.attention import DocumentAttention, rotation
from penjing.model.build import build_model
from penjing.model.causal import causal_blocks
from penjing.model.compilation import compile_block
from penjing.model.initialization import initialize
from penjing.model.kernels import chunk_loss
from penjing.model.language_model import LanguageModel
from penjing.model.likelihood import token_logprobs
from penjing.runtime import Runtime
from penjing.train.loop import StepResult, train_steps
from penjing.train.objectives import next_token
from penjing.train.optimizer import build_optimizer

RUNTIME = Runtime(torch.device("cpu"), torch.float32)


def make() -> LanguageModel:
    torch.set_num_threads(1)
    model = build_model(
        ModelConfig(depth=3, hidden_size=32, head_dim=16, max_position_embeddings=80).shape(60)
    )
    initialize(model, 1)
    return model


def batch(step: int) -> Batch:
    """Documents of other lengths each time."""
    dice = torch.Generator().manual_seed(step)
    ids = torch.randint(60, (4, 81), generator=dice)
    documents = (torch.rand((4, 80), generator=dice) < 0.05).long().cumsum(1)
    return Batch(ids[:, :-1], ids[:, 1:], torch.ones(4, 80), documents)


def steps_of(model: LanguageModel) -> list[StepResult]:
    return list(
        train_steps(
            model,
            build_optimizer(model, OptimizerConfig()),
            next_token,
            map(batch, range(100)),
            RUNTIME,
            steps=range(1, 7),
            microbatch_rows=2,
            schedule=lambda _: 1.0,
            max_grad_norm=1.0,
        )
    )


@pytest.mark.filterwarnings("default")  # torch warns of itself while it compiles
def test_a_compiled_block_trains_as_the_eager_one_and_is_compiled_once() -> None:
    eager, compiled = make(), make()
    done = compile_block(compiled, 2, 80)
    assert not done.failure
    before = counters["stats"]["unique_graphs"]
    found = steps_of(compiled)
    with torch.no_grad():  # a probe, in another shape
        token_logprobs(compiled, *(torch.zeros((3, 33), dtype=torch.int64),) * 2)
    assert counters["stats"]["unique_graphs"] == before
    for one, other in zip(found, steps_of(eager), strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-4)
        assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-3)


def test_what_cannot_be_compiled_runs_eagerly_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> object:
        def call(*_: object) -> None:
            raise RuntimeError("no C++ compiler was found\nmore")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    model = make()
    assert compile_block(model, 2, 80).failure == "no C++ compiler was found"
    assert model.compiled_block is None
    assert steps_of(model)[-1].skipped is None


@pytest.mark.filterwarnings("default")  # torch warns of itself while it compiles
@pytest.mark.parametrize("softcap", [None, 4.0])
def test_the_head_s_loss_is_compiled_to_what_it_is_eagerly(softcap: float | None) -> None:
    # As on an accelerator: `compile_block` leaves it eager on a CPU.
    compiled = torch.compile(chunk_loss, dynamic=False, fullgraph=True)
    dice = torch.Generator().manual_seed(1)
    logits, weights = 3 * torch.randn(9, 60, generator=dice), torch.rand(9, 1, generator=dice)
    targets = torch.randint(60, (9, 1), generator=dice)
    for dtype in (torch.float32, torch.bfloat16):
        found = compiled(logits.to(dtype, copy=True), targets, weights, softcap)
        wanted = chunk_loss(logits.to(dtype, copy=True), targets, weights, softcap)
        torch.testing.assert_close(found, wanted)


@pytest.mark.filterwarnings("default")  # torch warns of itself while it compiles
def test_a_block_with_flex_attention_is_traced_once_for_all_documents() -> None:
    # As on an accelerator, but forward alone: torch has no backward pass of it on a CPU.
    model = make()
    for weight in model.parameters():
        torch.nn.init.normal_(weight.requires_grad_(False), std=0.1)
    block = next(model.blocks())
    compiled = torch.compile(type(block).forward, dynamic=False, fullgraph=True, backend="eager")
    before = counters["stats"]["unique_graphs"]
    for step in range(3):
        rows = batch(step)
        attend = DocumentAttention.of(rows.tokens, rows.document_ids)
        in_blocks = replace(attend, blocks=causal_blocks(attend.starts))
        angles = rotation(attend.positions, 16, 1e4, torch.float32)
        x = torch.randn(4, 80, 32, generator=torch.Generator().manual_seed(step))
        found = compiled(block, x, angles, in_blocks)
        torch.testing.assert_close(found, block(x, angles, attend), atol=1e-4, rtol=1e-4)
    assert counters["stats"]["unique_graphs"] == before + 1
