"""Tiny models and batches for the training tests."""

from collections.abc import Callable

import pytest
import torch

from penjing.config.model import ModelShape
from penjing.config.training import OptimizerConfig
from penjing.data.batches import Batch
from penjing.model.initialization import initialize
from penjing.model.transformer import Transformer
from penjing.runtime import make_generator

SHAPE = ModelShape(24, 1, 16, 2, 1, 8, 24, 12, 10_000.0, 1e-6, tie_word_embeddings=False)


@pytest.fixture(params=["muon", "adamw"])
def optimizer_config(request: pytest.FixtureRequest) -> OptimizerConfig:
    """Each kind in turn."""
    return OptimizerConfig(
        kind=request.param, learning_rate=0.01, embedding_learning_rate=0.05, weight_decay=0.01
    )


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def make_model() -> Callable[..., Transformer]:
    def make(seed: int = 0, dtype: torch.dtype = torch.float32) -> Transformer:
        model = Transformer(SHAPE)
        initialize(model, seed)
        generator = make_generator(seed)
        with torch.no_grad():  # the recipe's zeros would hide gradients from most weights
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        return model.to(dtype)

    return make


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    def make(seed: int = 0, rows: int = 6, tokens: int = 8) -> Batch:
        """Rows with very different numbers of trained targets."""
        generator = make_generator(seed)
        ids = torch.randint(0, SHAPE.vocab_size, (rows, tokens + 1), generator=generator)
        trained = torch.arange(tokens) <= (torch.arange(rows) * 3 % tokens)[:, None]
        documents = (torch.arange(tokens) >= 5).long().expand(rows, tokens)
        return Batch(ids[:, :-1], ids[:, 1:], trained.float(), documents)

    return make
