"""The packaged recipes of published models: they load, have their sizes, and train."""

from dataclasses import replace
from importlib import resources
from itertools import islice

import pytest
import torch

from penjing.config.loading import parse_run
from penjing.config.model import ModelShape
from penjing.config.schema import RunConfig
from penjing.config.training import TrainingConfig
from penjing.model.build import build_model
from penjing.model.initialization import initialize
from penjing.model.size import parameters, published_flops_per_token
from penjing.runtime import Runtime
from penjing.stages.calibration import random_batches
from penjing.stages.horizon import Measures, steps_of
from penjing.train.loop import train_steps
from penjing.train.objectives import next_token
from penjing.train.optimizer import build_optimizer

VOCABULARY = {"rangeflow-124m": 50_273, "zac-500m": 50_273}
PARAMETERS = {
    "rangeflow-124m": 124_452_096,
    "nanozh-10m": 12_466_176,
    "nanozh-100m": 101_585_920,
    "nanozh-300m": 311_515_136,
    "nanochat-d10": 133_038_080,
    "nanochat-d20": 560_988_160,
    "nanochat-d20-speedrun": 560_988_160,
    "nanochat-d26": 1_081_999_360,
    "zac-500m": 524_871_680,
}


def recipe(name: str) -> RunConfig:
    text = (resources.files("penjing.configs") / f"{name}.toml").read_text(encoding="utf-8")
    return parse_run(text, f"{name}.toml")


def shape_of(name: str) -> ModelShape:
    config = recipe(name)
    return config.model.shape(VOCABULARY.get(name) or config.tokenizer.trained_vocab_size)


def test_every_packaged_file_is_a_recipe_or_the_demo() -> None:
    names = {path.name for path in resources.files("penjing.configs").iterdir()}
    found = {name.removesuffix(".toml") for name in names if name.endswith(".toml")}
    assert found == {*PARAMETERS, "tiny"}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_recipe_has_its_published_size(name: str) -> None:
    shape = shape_of(name)
    with torch.device("meta"):
        model = build_model(shape)
    found = sum(parameter.numel() for parameter in model.parameters())
    assert found == parameters(shape).total == PARAMETERS[name]


def test_a_published_run_has_its_steps_tokens_and_operations() -> None:
    section, shape = recipe("nanochat-d10").pretrain, shape_of("nanochat-d10")
    assert section is not None
    steps = steps_of(section, Measures(shape, lambda: 1, lambda: 1.0))
    tokens = steps * section.tokens_per_step
    assert (steps, tokens) == (5_075, 2_660_761_600)
    operations = tokens * published_flops_per_token(shape, shape.max_position_embeddings)
    assert operations == pytest.approx(1.872795e18, rel=1e-6)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_narrow_twin_of_a_recipe_takes_steps(name: str) -> None:
    torch.set_num_threads(1)
    config = recipe(name)
    assert isinstance(config.pretrain, TrainingConfig)
    model_config = replace(
        config.model,
        num_hidden_layers=2,
        hidden_size=40,
        num_attention_heads=2,
        head_dim=20,
        intermediate_size=80,
        max_position_embeddings=64,
    )
    model = build_model(model_config.shape(300))
    initialize(model, 1)
    optimizer = config.pretrain.optimizer
    if optimizer.kind == "adamw8bit":  # of the extra; the same steps but for rounding
        optimizer = replace(optimizer, kind="adamw")
    results = train_steps(
        model,
        build_optimizer(model, optimizer),
        next_token,
        random_batches(2, model.shape),
        Runtime(torch.device("cpu"), torch.float32),
        steps=range(1, 21),
        microbatch_rows=2,
        schedule=lambda _: 0.1,
        max_grad_norm=1.0,
    )
    losses = [result.loss for result in islice(results, 20)]
    assert len(losses) == 20
    assert losses[0] == pytest.approx(5.7, abs=0.1)
    assert all(loss < 7 for loss in losses)
