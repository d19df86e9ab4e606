from dataclasses import replace

import pytest

from penjing.config.training import DpoConfig, TrainingConfig
from penjing.model.transformer import Transformer
from penjing.stages.samples import sample_probe
from penjing.text.tokenizer import Tokenizer, train_tokenizer
from tests.conftest import random_transformer

SECTION = TrainingConfig(
    steps=1, sample_prompts=("Once",), sample_tokens=3, sample_sets=("knowledge-v1", "base-v1")
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["Once upon a time the capital of Japan was there."] * 3, 300)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Transformer:
    return random_transformer(tokenizer.vocab_size)


def test_own_prompts_and_sets_are_sampled_each_in_its_own_way(
    model: Transformer, tokenizer: Tokenizer
) -> None:
    seen = sample_probe("pretrain", SECTION, model, tokenizer, 1).run(5)
    names = [sample.prompt_set for sample in seen.samples]
    assert names == [""] + ["knowledge-v1"] * 23 + ["base-v1"] * 7
    longest = {
        name: max(one.tokens for one in seen.samples if one.prompt_set == name) for name in names
    }
    assert longest == {"": 3, "knowledge-v1": 8, "base-v1": 16}
    assert {one.temperature for one in seen.samples} == {0.7, 0.3, 0.0}
    assert len({one.seed for one in seen.samples}) == len(seen.samples)
    assert set(seen.values) == {"knowledge-v1/exact_match", "knowledge-v1/token_f1"}
    assert sample_probe("pretrain", SECTION, model, tokenizer, 1).run(5) == seen


def test_a_prompt_is_answered_alike_whatever_is_asked_beside_it(
    model: Transformer, tokenizer: Tokenizer
) -> None:
    alone = replace(SECTION, sample_sets=())
    together = sample_probe("pretrain", SECTION, model, tokenizer, 1).run(5)
    assert sample_probe("pretrain", alone, model, tokenizer, 1).run(5).samples == (
        together.samples[0],
    )


def test_a_model_that_knows_an_answer_scores(
    model: Transformer, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tokenizer, "decode", lambda self, ids: " Tokyo, the city")
    seen = sample_probe("pretrain", SECTION, model, tokenizer, 1).run(5)
    assert seen.values["knowledge-v1/exact_match"] == pytest.approx(1 / 23)


def test_later_stages_are_asked_in_conversations(model: Transformer, tokenizer: Tokenizer) -> None:
    section = DpoConfig(sample_prompts=("Who?",), sample_sets=("chat-v1",), sample_tokens=2)
    seen = sample_probe("dpo", section, model, tokenizer, 1).run(1)
    assert [sample.group for sample in seen.samples][:4] == ["", "system", "system", "system"]
    assert seen.values == {}


def test_a_set_that_there_is_not_is_named_with_those_there_are() -> None:
    ((where, what),) = replace(SECTION, sample_sets=("base-v7",)).problems()
    assert where == "sample_sets"
    assert "'base-v7': wanted some of base-v1" in what
