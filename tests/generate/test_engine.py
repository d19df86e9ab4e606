"""The batched engine against the slow obvious way: one row, the whole text, no cache."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from penjing.config.model import ModelShape
from penjing.errors import DataError
from penjing.generate.engine import Completion, Request, generate, stream
from penjing.generate.sampling import Sampling
from penjing.model.likelihood import token_logprobs
from penjing.model.transformer import Transformer

STOP, CALL = 63, 62
SHAPE = ModelShape(
    vocab_size=64,
    num_hidden_layers=2,
    hidden_size=32,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    intermediate_size=48,
    max_position_embeddings=64,
    rope_theta=10_000.0,
    rms_norm_eps=1e-6,
    tie_word_embeddings=False,
)
FORCED = (50, 51, 52, 53, 54)


@pytest.fixture(scope="module")
def model() -> Transformer:
    made = Transformer(SHAPE)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for weight in made.parameters():
            if weight.ndim == 2:
                weight.normal_(std=weight.shape[1] ** -0.5, generator=generator)
    return made


def requests(count: int, sampling: Sampling, *, group: int = 3) -> list[Request]:
    """Groups of equal prompts of different lengths, each request with its own seed."""
    return [
        Request(tuple((7 * (n // group) + i) % 60 for i in range(1 + n // group)), sampling, n)
        for n in range(count)
    ]


def answer(turn: Sequence[int]) -> tuple[int, ...]:
    """A tool that answers whatever turn has an even token before its stop."""
    return FORCED if len(turn) > 1 and turn[-2] % 2 == 0 else ()


def run(
    model: Transformer,
    wanted: Sequence[Request],
    answer_turn: Callable[[Sequence[int]], tuple[int, ...]] | None = answer,
    slots: int = 64,
) -> list[Completion]:
    stop_ids = (STOP, CALL, 61, 60)
    return generate(model, wanted, stop_ids=stop_ids, answer_turn=answer_turn, slots=slots)


def test_the_sampled_logprobs_are_those_of_a_full_forward_pass(model: Transformer) -> None:
    wanted = requests(24, Sampling(max_new_tokens=40))
    completions = run(model, wanted)
    assert sum(completion.tool_calls for completion in completions) > 3
    for request, completion in zip(wanted, completions, strict=True):
        ids = torch.tensor([request.prompt + completion.ids])
        with torch.no_grad():
            full = token_logprobs(model, ids[:, :-1], ids[:, 1:])[0, len(request.prompt) - 1 :]
        sampled = torch.tensor(completion.sampled)
        difference = full[sampled] - torch.tensor(completion.logprobs)[sampled]
        assert difference.abs().max() <= 1e-4


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_few_slots_and_refill_give_what_many_slots_give(model: Transformer, slots: int) -> None:
    wanted = requests(17, Sampling(max_new_tokens=30))
    for few, many in zip(run(model, wanted, slots=slots), run(model, wanted), strict=True):
        assert few.ids == many.ids
        assert few.sampled == many.sampled
        assert (few.finish_reason, few.tool_calls) == (many.finish_reason, many.tool_calls)
        assert few.logprobs == pytest.approx(many.logprobs, abs=1e-5)


def test_a_request_answers_alone_as_it_does_in_a_mixed_batch(model: Transformer) -> None:
    kinds = (Sampling(), Sampling(temperature=0), Sampling(top_k=5, max_new_tokens=9))
    wanted = [Request((1, 2, 3 + n), kinds[n % 3], n) for n in range(9)]
    together = run(model, wanted)
    assert [run(model, [request])[0].ids for request in wanted] == [one.ids for one in together]


def test_the_same_seed_repeats_and_another_seed_differs(model: Transformer) -> None:
    wanted = requests(8, Sampling(max_new_tokens=20), group=8)
    first = run(model, wanted)
    assert run(model, wanted) == first
    assert len({completion.ids for completion in first}) > 4


def test_greedy_is_the_argmax_of_the_full_forward_pass(model: Transformer) -> None:
    prompt = (4, 9, 16)
    greedy = Request(prompt, Sampling(temperature=0, max_new_tokens=25), seed=0)
    (completion,) = generate(model, [greedy], stop_ids=())
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(25):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    assert completion.ids == tuple(ids[3:])
    assert completion.finish_reason == "length"
    assert set(completion.logprobs) == {0.0}


def test_a_completion_ends_with_its_first_stop_token(model: Transformer) -> None:
    for completion in run(model, requests(30, Sampling(max_new_tokens=25)), answer_turn=None):
        stops = [place for place, token in enumerate(completion.ids) if token >= 60]
        ended = completion.finish_reason == "stop"
        assert stops == ([len(completion.ids) - 1] if ended else [])
        assert ended or len(completion.ids) == 25
        assert all(completion.sampled)


def test_forced_tokens_follow_the_call_and_are_not_sampled(model: Transformer) -> None:
    called = 0
    for completion in run(model, requests(30, Sampling(max_new_tokens=45))):
        forced = [place for place, own in enumerate(completion.sampled) if not own]
        assert tuple(completion.ids[place] for place in forced) == FORCED * completion.tool_calls
        assert all(completion.logprobs[place] == 0 for place in forced)
        for first in forced[:: len(FORCED)]:
            assert completion.ids[first - 1] >= 60
            assert completion.sampled[first + len(FORCED)]
        called += completion.tool_calls
    assert called > 5


def test_the_tool_sees_one_turn_at_a_time_and_one_call_too_many_ends_it(
    model: Transformer,
) -> None:
    turns: list[tuple[int, ...]] = []

    def always(turn: Sequence[int]) -> tuple[int, ...]:
        turns.append(tuple(turn))
        return FORCED

    request = Request((1, 2), Sampling(max_new_tokens=60), seed=2)
    everything = tuple(range(64))
    (completion,) = generate(
        model, [request], stop_ids=everything, answer_turn=always, max_tool_calls=2
    )
    a, b, c = turns
    assert completion.ids == (*a, *FORCED, *b, *FORCED, *c)
    assert [len(turn) for turn in turns] == [1, 1, 1]
    assert (completion.finish_reason, completion.tool_calls) == ("tool_limit", 2)


def test_an_answer_that_does_not_fit_ends_the_completion_by_length(model: Transformer) -> None:
    request = Request((1, 2), Sampling(max_new_tokens=6), seed=2)
    (completion,) = generate(
        model, [request], stop_ids=tuple(range(64)), answer_turn=lambda _: FORCED
    )
    assert (len(completion.ids), completion.finish_reason) == (1, "length")


def test_the_context_bounds_prompt_and_completion_together(model: Transformer) -> None:
    request = Request(tuple(range(60)), Sampling(max_new_tokens=50), seed=1)
    (completion,) = generate(model, [request], stop_ids=())
    assert (len(completion.ids), completion.finish_reason) == (4, "length")


@pytest.mark.parametrize("length", [0, 64, 65])
def test_a_prompt_without_room_is_refused_with_its_size(model: Transformer, length: int) -> None:
    wanted = [Request((1,), Sampling(), 0), Request((1,) * length, Sampling(), 0)]
    with pytest.raises(DataError, match=f"request 1: its prompt has {length} tokens"):
        generate(model, wanted, stop_ids=())


def test_no_requests_give_no_completions(model: Transformer) -> None:
    assert generate(model, [], stop_ids=()) == []


def test_a_stream_yields_what_generate_returns(model: Transformer) -> None:
    for request in requests(6, Sampling(max_new_tokens=30), group=1):
        iterator = stream(model, request, stop_ids=(STOP, CALL, 61, 60), answer_turn=answer)
        shown: list[int] = []
        with pytest.raises(StopIteration) as end:
            while True:
                shown.append(next(iterator))
        (whole,) = run(model, [request])
        assert tuple(shown) == whole.ids
        assert end.value.value == whole


def test_a_stream_that_nobody_reads_on_computes_nothing_more(
    model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    extend = Transformer.extend

    def counted(*args: Any) -> torch.Tensor:
        calls.append(1)
        return extend(*args)

    monkeypatch.setattr(Transformer, "extend", counted)
    iterator = stream(model, Request((1,), Sampling(), 0), stop_ids=())
    next(iterator)
    next(iterator)
    iterator.close()
    assert len(calls) == 2
    assert torch.is_grad_enabled()


def test_training_state_and_random_state_are_left_alone(model: Transformer) -> None:
    model.train()
    before = torch.get_rng_state()
    run(model, requests(6, Sampling(max_new_tokens=10)))
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())
    model.zero_grad()
