import pytest

from penjing.config.loading import dump_run, parse_run
from penjing.config.scaling import RATES, scaled_rate, scaled_tokens_per_step

RUN = """
[model]
depth = {depth}
max_position_embeddings = 64
[sources.stories]
synthetic = "stories"
rows = 10
[pretrain]
steps = 2
mixture = {{ stories = 1 }}
{rest}
"""


def test_what_is_left_out_follows_from_the_width() -> None:
    run = parse_run(RUN.format(depth=16, rest=""), "run.toml")
    assert run.pretrain is not None
    optimizer = run.pretrain.optimizer
    assert {name: getattr(optimizer, name) for name in RATES} == {
        name: scaled_rate(name, 1024) for name in RATES
    }
    assert optimizer.embedding_learning_rate == pytest.approx(0.1)
    assert run.pretrain.tokens_per_step == scaled_tokens_per_step(1024, 64)
    assert run.pretrain.tokens_per_step % 64 == 0


def test_what_is_given_stays() -> None:
    rest = "tokens_per_step = 128\noptimizer = { head_learning_rate = 0.5 }"
    run = parse_run(RUN.format(depth=16, rest=rest), "run.toml")
    assert run.pretrain is not None
    assert run.pretrain.tokens_per_step == 128
    assert run.pretrain.optimizer.head_learning_rate == 0.5
    assert run.pretrain.optimizer.embedding_learning_rate == pytest.approx(0.1)


def test_the_resolved_file_states_what_followed() -> None:
    run = parse_run(RUN.format(depth=16, rest=""), "run.toml")
    again = parse_run(dump_run(run), "config.toml", ["model.depth=4"])
    assert again.pretrain == run.pretrain


def test_a_step_has_at_least_one_row() -> None:
    assert scaled_tokens_per_step(64, 8192) == 8192
