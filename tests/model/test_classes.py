"""What holds for every model class, and what each one alone promises."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from penjing.config.model import ModelConfig, ModelShape, find_num_heads
from penjing.config.training import OptimizerConfig
from penjing.errors import ArtifactError
from penjing.model.attention import KeyValueCache
from penjing.model.build import build_model
from penjing.model.gpt2 import Dropout
from penjing.model.initialization import initialize
from penjing.model.language_model import LanguageModel
from penjing.model.likelihood import token_logprobs, weighted_nll
from penjing.model.size import flops_per_token, parameters, published_flops_per_token
from penjing.model.weights import load_weights, resized, save_weights, shortened
from penjing.train.optimizer import build_optimizer

SHAPES = {
    "qwen3": ModelConfig(depth=3, hidden_size=32, head_dim=8, num_key_value_heads=2),
    "gpt2": ModelConfig("gpt2", depth=3, hidden_size=32, head_dim=8, dropout=0.1),
    "gpt2 tied": ModelConfig("gpt2", depth=2, hidden_size=32, tie_word_embeddings=True),
    "nanochat": ModelConfig("racing", depth=3, hidden_size=32, head_dim=8, logit_softcap=15.0),
    "racing": ModelConfig(
        "racing",
        depth=3,
        hidden_size=32,
        head_dim=8,
        num_key_value_heads=2,
        value_embeddings=True,
        residual_scalars=True,
    ),
}


def make(name: str, seed: int = 1) -> LanguageModel:
    torch.set_num_threads(1)
    model = build_model(SHAPES[name].shape(53))
    initialize(model, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # the recipes' zeros would hide most weights
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def ids(rows: int, tokens: int, seed: int = 0) -> Tensor:
    return torch.randint(53, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def save(model: LanguageModel, directory: Path) -> None:
    save_weights(model, directory, bos_token_id=50, eos_token_ids=(52, 50), pad_token_id=50)


@pytest.mark.parametrize("name", SHAPES)
def test_counts_are_those_of_the_model(name: str) -> None:
    model = make(name)
    counts = parameters(model.shape)
    assert counts.total == sum(parameter.numel() for parameter in model.parameters())
    state = build_optimizer(model, OptimizerConfig()).state_tensors()
    matrices = [p.numel() for n, p in model.named_parameters() if f"{n}.momentum" in state]
    assert counts.matmul == sum(matrices) + counts.embedding


@pytest.mark.parametrize("name", SHAPES)
def test_the_cache_and_documents_give_what_a_whole_row_gives(name: str) -> None:
    model, tokens = make(name), ids(2, 24)
    with torch.no_grad():
        full = model(tokens)
        documents = torch.tensor([[0] * 9 + [1] * 15] * 2)
        alone = model(tokens[:, 9:])
        torch.testing.assert_close(model(tokens, documents)[:, 9:], alone, atol=1e-4, rtol=0)
    cache = KeyValueCache.empty(model.shape, 2, 32, "cpu", torch.float32)
    done = 0
    for size in (7, 1, 16):
        part = tokens[:, done : done + size]
        logits = model.extend(cache, torch.arange(2), part, torch.full((2,), size))
        done += size
        torch.testing.assert_close(logits, full[:, done - 1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", SHAPES)
def test_the_fused_loss_and_checkpointed_blocks_give_the_naive_gradients(name: str) -> None:
    model, tokens, targets = make(name).double(), ids(3, 20), ids(3, 20, seed=1)
    weights = torch.rand(3, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    leaves = list(model.parameters())
    naive = -(token_logprobs(model, tokens, targets) * weights).sum()
    wanted = torch.autograd.grad(naive, leaves)
    for checkpointed in (False, True):
        model.checkpoints_blocks = checkpointed
        loss = weighted_nll(model, tokens, targets, weights)
        torch.testing.assert_close(loss, naive)
        for found, want in zip(torch.autograd.grad(loss, leaves), wanted, strict=True):
            torch.testing.assert_close(found, want, atol=1e-10, rtol=1e-7)


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_saved_is_what_is_loaded(tmp_path: Path, name: str) -> None:
    model = make(name)
    save(model, tmp_path)
    loaded = load_weights(tmp_path)
    assert loaded.shape == model.shape
    state = loaded.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    portable = json.loads((tmp_path / "config.json").read_text()).get("portable", True)
    assert portable == (model.shape.architecture != "racing")


@pytest.mark.parametrize("name", ["gpt2", "gpt2 tied"])
def test_transformers_computes_what_gpt2_computes(tmp_path: Path, name: str) -> None:
    transformers = pytest.importorskip("transformers")
    model, tokens = make(name), ids(2, 20)
    save(model, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(theirs).__name__ == "GPT2LMHeadModel"
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), theirs(tokens).logits, atol=1e-4, rtol=0)


def test_dropped_units_follow_from_row_and_step_whatever_the_microbatch() -> None:
    model, tokens, targets = make("gpt2"), ids(4, 16), ids(4, 16, seed=1)
    weights = torch.ones(4, 16)

    def loss(rows: slice, step: int) -> float:
        model.begin_step(step)
        part = (tokens[rows], targets[rows], weights[rows])
        return float(weighted_nll(model, *part).detach())

    whole = loss(slice(0, 4), 1)
    assert loss(slice(0, 1), 1) + loss(slice(1, 4), 1) == pytest.approx(whole, rel=1e-6)
    assert loss(slice(0, 4), 2) != pytest.approx(whole, rel=1e-4)
    dropped = Dropout(0.1, 3)(torch.ones(4, 64, 32), torch.arange(4))
    assert float((dropped == 0).float().mean()) == pytest.approx(0.1, abs=0.01)
    assert float(dropped.mean()) == pytest.approx(1, abs=0.02)


def test_a_published_run_comes_out_as_published() -> None:
    shape = ModelConfig(
        "racing", depth=10, head_dim=128, max_position_embeddings=2048, logit_softcap=15.0
    ).shape(65_536)
    assert (shape.num_attention_heads, shape.head_dim) == (5, 128)
    assert parameters(shape).total == 133_038_080
    assert published_flops_per_token(shape, 2048) == pytest.approx(7.038566e8, rel=1e-6)
    tokens = 20 * parameters(shape).total
    assert tokens == 2_660_761_600
    assert tokens / 524_288 == 5_075
    assert tokens * published_flops_per_token(shape, 2048) == pytest.approx(1.872795e18, rel=1e-6)
    d20 = ModelConfig("racing", depth=20).shape(65_536)
    assert parameters(d20).total == pytest.approx(561e6, rel=1e-3)
    gpt2 = ModelConfig("gpt2", depth=12, max_position_embeddings=1024, tie_word_embeddings=True)
    assert parameters(gpt2.shape(50_257)).total == 124_439_808


def test_conventions_differ_by_the_share_of_attention() -> None:
    shape = ModelConfig(depth=12, num_key_value_heads=12).shape(32_768)
    attention = 6 * 12 * 768 * 2048
    found = published_flops_per_token(shape, 2048) - flops_per_token(shape, 2048)
    assert found == attention


@pytest.mark.parametrize(("width", "heads"), [(640, 5), (1280, 10), (1664, 13), (192, 2), (100, 1)])
def test_heads_divide_the_width(width: int, heads: int) -> None:
    assert find_num_heads(width, 128) == heads


def test_what_means_nothing_to_an_architecture_is_refused() -> None:
    assert ModelConfig(dropout=0.1).problems()[0][0] == "dropout"
    assert ModelConfig("gpt2", rope_theta=5.0).problems()[0][0] == "rope_theta"
    assert ModelConfig("gpt2", num_key_value_heads=1).problems()[0][0] == "num_key_value_heads"
    assert not ModelConfig("racing", value_embeddings=True).problems()


def test_a_grown_vocabulary_begins_as_the_mean_and_rows_may_be_shortened() -> None:
    model = make("gpt2 tied")
    grown = resized(model, 60)
    assert grown.shape.vocab_size == 60
    table = model.head_weight
    torch.testing.assert_close(grown.head_weight[:53], table)
    torch.testing.assert_close(grown.head_weight[57], table.mean(0))
    with pytest.raises(ArtifactError, match="53 ids, the tokenizer 40"):
        resized(model, 40)
    short = shortened(grown, 32)
    with torch.no_grad():
        torch.testing.assert_close(short(ids(1, 20)), grown(ids(1, 20)))
    with pytest.raises(ArtifactError, match="learned positions for 32"):
        shortened(short, 64)


def test_shapes_of_before_are_read_as_the_portable_default() -> None:
    assert ModelShape(9, 1, 8, 1, 1, 8, 8, 8, 1e4, 1e-6, False).architecture == "qwen3"
