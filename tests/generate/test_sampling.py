"""Taking tokens from distributions that can be computed by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.errors import ConfigError
from penjing.generate.sampling import Sampling, choose, uniforms

LOGITS = torch.tensor([0.1, 0.4, 0.2, 0.25, 0.05]).log()
ROUGH = torch.randn(4, 50, generator=torch.Generator().manual_seed(3))


def reachable(sampling: Sampling, logits: torch.Tensor = LOGITS) -> dict[int, float]:
    """Every token that a fine grid of uniforms reaches, with its probability."""
    grid = ((np.arange(4000) + 0.5) / 4000).astype(np.float32)
    tokens, logprobs = choose(logits.expand(4000, -1), [sampling] * 4000, grid)
    return dict(zip(tokens.tolist(), np.exp(logprobs).tolist(), strict=True))


def test_a_uniform_picks_the_token_whose_share_of_the_line_holds_it() -> None:
    grid = np.array([0.0, 0.09, 0.11, 0.49, 0.51, 0.69, 0.71, 0.94, 0.96], np.float32)
    tokens, logprobs = choose(LOGITS.expand(9, -1), [Sampling()] * 9, grid)
    assert tokens.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    assert logprobs == pytest.approx(LOGITS.numpy()[tokens], abs=1e-6)


def test_the_largest_uniform_still_picks_a_token_that_is_possible() -> None:
    largest = np.full(2, np.nextafter(np.float32(1), np.float32(0)))
    impossible_last = torch.tensor([[0.3, 0.7, 0.0], [0.999, 0.001, 0.0]]).log()
    assert choose(impossible_last, [Sampling()] * 2, largest)[0].tolist() == [1, 1]


def test_sampled_frequencies_match_the_probabilities() -> None:
    n = 20_000
    tokens, _ = choose(LOGITS.expand(n, -1), [Sampling()] * n, uniforms(7, n))
    expected = LOGITS.exp().numpy() * n
    chi_square = (((np.bincount(tokens, minlength=5) - expected) ** 2) / expected).sum()
    assert chi_square < 13.3  # 99 % of 4 degrees of freedom


def test_temperature_sharpens_the_distribution_that_is_reported() -> None:
    wanted = (LOGITS / 0.5).softmax(-1)
    found = reachable(Sampling(temperature=0.5))
    assert found == pytest.approx(dict(enumerate(wanted.tolist())), abs=1e-5)


def test_top_k_keeps_exactly_k_tokens_and_renormalizes() -> None:
    assert reachable(Sampling(top_k=2)) == pytest.approx({1: 0.4 / 0.65, 3: 0.25 / 0.65}, abs=1e-5)
    assert reachable(Sampling(top_k=2), torch.zeros(5)) == pytest.approx({0: 0.5, 1: 0.5})


def test_top_p_keeps_the_fewest_tokens_that_reach_p() -> None:
    assert reachable(Sampling(top_p=0.6)) == pytest.approx(
        {1: 0.4 / 0.65, 3: 0.25 / 0.65}, abs=1e-5
    )
    assert set(reachable(Sampling(top_p=0.7))) == {1, 2, 3}
    assert set(reachable(Sampling(top_p=1e-6))) == {1}


def test_top_p_counts_shares_of_what_top_k_left() -> None:
    assert set(reachable(Sampling(top_k=2, top_p=0.61))) == {1}  # 0.4 / 0.65 = 0.615
    assert set(reachable(Sampling(top_k=2, top_p=0.62))) == {1, 3}


def test_temperature_zero_takes_the_most_probable_token_with_certainty() -> None:
    draws = uniforms(1, 4)
    for samplings in ([Sampling(temperature=0)] * 4, [Sampling(temperature=0)] * 3 + [Sampling()]):
        tokens, logprobs = choose(ROUGH, samplings, draws)
        assert tokens[:3].tolist() == ROUGH.argmax(-1)[:3].tolist()
        assert logprobs[:3].tolist() == [0, 0, 0]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.builds(
            Sampling,
            temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
            top_k=st.sampled_from([0, 1, 7]),
            top_p=st.sampled_from([0.2, 0.9, 1.0]),
        ),
        min_size=4,
        max_size=4,
    ),
    st.integers(0, 2**63 - 1),
)
def test_a_row_does_not_depend_on_the_rows_beside_it(samplings: list[Sampling], seed: int) -> None:
    draws = uniforms(seed, 4)
    tokens, logprobs = choose(ROUGH, samplings, draws)
    for row in range(4):
        alone = choose(ROUGH[row : row + 1], samplings[row : row + 1], draws[row : row + 1])
        assert alone[0][0] == tokens[row]
        assert alone[1][0] == pytest.approx(logprobs[row], abs=1e-5)


def test_uniform_number_i_does_not_depend_on_how_many_are_drawn() -> None:
    assert uniforms(5, 100)[:10].tolist() == uniforms(5, 10).tolist()
    assert uniforms(5, 10).tolist() != uniforms(6, 10).tolist()


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", -0.1), ("temperature", float("nan")), ("top_k", -1), ("top_p", 0.0),
     ("top_p", 1.1), ("max_new_tokens", 0)],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        Sampling(**{name: value})  # type: ignore[arg-type]
