"""What the whole test session shares: single-threaded torch, and one small run trained once."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from penjing.model.transformer import Transformer

# A busy machine is no reason to fail: laws are tested here, not speed.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# Before anything imports torch, and for the processes that tests start: two cores are shared, and
# small tensors gain nothing from threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SMALL = Path(__file__).with_name("small.toml")


def grow(runs: Path, *overrides: str) -> Path:
    """Every stage of tests/small.toml, into that folder of runs."""
    from penjing.config.loading import load_run
    from penjing.stages.pipeline import train

    return train(
        load_run(SMALL, overrides),
        SMALL.parent,
        runs,
        only=None,
        redo=None,
        extend=False,
        show=lambda _: None,
    )


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run of tests/small.toml, every stage; copy it before changing anything."""
    import torch

    torch.set_num_threads(1)
    return grow(tmp_path_factory.mktemp("runs"))


def random_transformer(vocab_size: int) -> "Transformer":
    """The smallest model that says something: one layer, random weights, always the same."""
    import torch

    from penjing.config.model import ModelConfig
    from penjing.model.transformer import Transformer

    model = Transformer(ModelConfig(depth=1, hidden_size=16, head_dim=8).shape(vocab_size))
    torch.manual_seed(0)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.05)
    return model
