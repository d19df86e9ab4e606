"""The length of a stage in every form, planned once and kept."""

from dataclasses import replace
from pathlib import Path

import pytest

from penjing.config.model import ModelConfig
from penjing.config.training import MixtureShare, TrainingConfig
from penjing.errors import ArtifactError, ConfigError
from penjing.model.size import flops_per_token, parameters
from penjing.stages.horizon import Measures, open_plan, read_plan, steps_of

SHAPE = ModelConfig(depth=2, hidden_size=64, head_dim=32, max_position_embeddings=64).shape(512)
MEASURES = Measures(SHAPE, rows_an_epoch=lambda: 1001, seconds_per_step=lambda: 0.4)
SHARES = (MixtureShare("stories", 0.9, 0.1), MixtureShare("chats", 0.1, 0.9))
SECTION = TrainingConfig(steps=10, tokens_per_step=128, mixture=SHARES)


@pytest.mark.parametrize(
    ("form", "amount", "steps"),
    [
        ("steps", 7, 7),
        ("tokens", 1280, 10),
        ("tokens", 1281, 11),
        ("flops", 128.0 * 6 * flops_per_token(SHAPE, 64), 6),
        ("tokens_per_parameter", 20.0, -(-20 * parameters(SHAPE).total // 128)),
        ("epochs", 2.0, 1001),
        ("seconds", 60.0, 150),
        ("tokens", 1, 1),
    ],
)
def test_every_form_of_a_length_comes_to_steps(form: str, amount: float, steps: int) -> None:
    section = replace(SECTION, **{"steps": None, form: amount})  # type: ignore[arg-type]

    assert steps_of(section, MEASURES) == steps


def test_none_and_two_lengths_are_refused() -> None:
    for section in (replace(SECTION, steps=None), replace(SECTION, tokens=5)):
        with pytest.raises(ConfigError, match="wanted exactly one"):
            steps_of(section, MEASURES)


def test_a_plan_is_made_once_and_read_again(tmp_path: Path) -> None:
    timed = replace(SECTION, steps=None, seconds=60.0)
    plan = open_plan(tmp_path, timed, MEASURES)
    slower = replace(MEASURES, seconds_per_step=lambda: 9.0)

    assert open_plan(tmp_path, timed, slower) == plan == read_plan(tmp_path)
    assert (plan.steps, plan.segments[0].total_rows) == (150, 300)


def test_a_longer_stage_keeps_the_blend_of_rows_that_were_trained_on(tmp_path: Path) -> None:
    first = open_plan(tmp_path, SECTION, MEASURES)

    longer = open_plan(tmp_path, replace(SECTION, steps=30), MEASURES)

    assert longer.steps == 30
    assert longer.segments == first.segments


def test_a_damaged_plan_is_named(tmp_path: Path) -> None:
    open_plan(tmp_path, SECTION, MEASURES)
    path = tmp_path / "plan.json"
    path.write_text(path.read_text().replace("0.9", '"x"'))

    with pytest.raises(ArtifactError, match=r"plan\.json: is no plan of a stage .*stories"):
        read_plan(tmp_path)
