import pytest

from penjing.config.model import ModelConfig
from penjing.config.training import TrainingConfig
from penjing.model.build import build_model
from penjing.runtime import open_runtime
from penjing.stages.training import microbatch_rows


@pytest.mark.parametrize(
    ("at_most", "of_a_step", "found"), [(8, 10, 5), (8, 8, 8), (8, 12, 6), (8, 3, 3), (6, 7, 4)]
)
def test_a_step_is_cut_into_parts_as_equal_as_can_be(
    at_most: int, of_a_step: int, found: int
) -> None:
    runtime, _ = open_runtime("cpu", "float32", None)
    shape = ModelConfig(depth=1, max_position_embeddings=64).shape(300)
    section = TrainingConfig(microbatch_rows=at_most)
    assert microbatch_rows(section, build_model(shape), runtime, of_a_step) == found
