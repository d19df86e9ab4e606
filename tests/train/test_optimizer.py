import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.nn import Parameter

from penjing.config.training import OptimizerConfig
from penjing.errors import ArtifactError, ConfigError
from penjing.model.transformer import Transformer
from penjing.runtime import make_generator
from penjing.train.optimizer import (
    POLAR_EXPRESS,
    SAFETY,
    SHORT_POLAR_EXPRESS,
    Coefficients,
    Muon,
    build_optimizer,
    muon_momentum,
    orthogonalize,
)

MakeModel = Callable[..., Transformer]

CLASSIC = ((3.4445, -4.775, 2.0315),) * 5


def fill_gradients(model: Transformer, seed: int) -> None:
    generator = make_generator(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize(
    ("coefficients", "shape"),
    [
        (POLAR_EXPRESS, (3, 12, 40)),
        (POLAR_EXPRESS, (2, 40, 12)),
        (POLAR_EXPRESS, (1, 24, 24)),
        (SHORT_POLAR_EXPRESS, (3, 12, 40)),
        (SHORT_POLAR_EXPRESS, (2, 40, 12)),
        (SHORT_POLAR_EXPRESS, (1, 24, 36)),  # a square one has values below 0.02 of its norm
    ],
)
def test_orthogonalization_moves_singular_values_close_to_one(
    coefficients: Coefficients, shape: tuple[int, int, int]
) -> None:
    matrices = torch.randn(shape, generator=make_generator(1))
    found = orthogonalize(matrices, coefficients, torch.float32)
    values = torch.linalg.svdvals(found)
    assert 0.84 < values.min() <= values.max() < 1.16
    assert torch.linalg.svdvals(matrices).max() > 3
    assert not orthogonalize(torch.zeros(shape), coefficients, torch.float32).any()


def test_a_narrow_matrix_takes_three_iterations_and_their_missing_length_and_a_wide_one_five() -> (
    None
):
    sizes = {"narrow": (384, 500), "wide": (385, 385)}
    matrices = {name: Parameter(torch.zeros(size)) for name, size in sizes.items()}
    muon = Muon(matrices, learning_rate=1.0, weight_decay=0.0, dtype=torch.float32)
    for matrix in matrices.values():
        matrix.grad = torch.randn(matrix.shape, generator=make_generator(5))
    muon.step(1.0, momentum=0.0)
    for name, coefficients in (("narrow", SHORT_POLAR_EXPRESS), ("wide", POLAR_EXPRESS)):
        gradient = matrices[name].grad
        assert gradient is not None
        wanted = -orthogonalize(gradient[None], coefficients, torch.float32)[0]
        if name == "narrow":
            wanted *= 384**0.5 / wanted.norm()
        torch.testing.assert_close(matrices[name].detach(), wanted)


def test_an_update_is_lengthened_by_no_more_than_what_few_iterations_may_have_left_out() -> None:
    ones = torch.zeros(2, 12, 20)
    ones[0, 0, 0] = 1.0  # of rank one: a whole orthogonal matrix's norm would be 3.5
    matrix = Parameter(torch.zeros(12, 20))
    muon = Muon({"a": matrix}, learning_rate=1.0, weight_decay=0.0, dtype=torch.float32)
    matrix.grad = ones[0].clone()
    muon.step(1.0, momentum=0.0)
    assert 1.0 < matrix.detach().norm() < 1.6
    before = matrix.detach().clone()
    matrix.grad = ones[1]
    muon.step(1.0, momentum=0.0)
    assert torch.equal(matrix.detach(), before)


@pytest.mark.parametrize("shape", [(3, 12, 40), (2, 40, 12), (2, 12, 16), (1, 24, 24)])
def test_long_matrices_are_orthogonalized_by_their_small_products_to_the_same(
    shape: tuple[int, int, int],
) -> None:
    u, _, v = torch.linalg.svd(torch.randn(shape, generator=make_generator(2)).double(), False)
    matrices = u * torch.logspace(0, -3, u.shape[-1], dtype=torch.float64) @ v
    twin = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) * SAFETY)
    for a, b, c in POLAR_EXPRESS:
        gram = twin @ twin.mT
        twin = a * twin + b * gram @ twin + c * gram @ gram @ twin
    found = orthogonalize(matrices.float(), POLAR_EXPRESS, torch.float32)
    torch.testing.assert_close(found.double(), twin, rtol=0.0, atol=1e-3)
    found = orthogonalize(matrices, POLAR_EXPRESS, torch.float64)
    torch.testing.assert_close(found, twin)


def test_batched_muon_equals_torch_one_matrix_at_a_time() -> None:
    generator = make_generator(3)
    shapes = [(12, 20), (20, 12), (12, 20), (16, 16), (12, 20)]
    ours = {str(i): Parameter(torch.randn(s, generator=generator)) for i, s in enumerate(shapes)}
    theirs = [Parameter(value.detach().clone()) for value in ours.values()]
    muon = Muon(
        ours, learning_rate=0.04, weight_decay=0.1, dtype=torch.bfloat16, coefficients=CLASSIC
    )
    twin = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, momentum=0.9)
    for _ in range(4):
        for own, other in zip(ours.values(), theirs, strict=True):
            own.grad = torch.randn(own.shape, generator=generator)
            other.grad = own.grad.clone()
        muon.step(0.5, momentum=0.9)
        twin.step()  # type: ignore[no-untyped-call]
    for own, other in zip(ours.values(), theirs, strict=True):
        # bfloat16 rounds at 0.4 %; the singular values here start within 2 % (SAFETY) as well.
        torch.testing.assert_close(own, other, rtol=0.0, atol=0.01)


def test_the_momentum_rises_from_85_to_95_percent_over_100_updates() -> None:
    assert [muon_momentum(n) for n in (0, 50, 100, 500)] == pytest.approx([0.85, 0.9, 0.95, 0.95])


def test_every_weight_moves_and_a_factor_of_zero_moves_none(
    make_model: MakeModel, optimizer_config: OptimizerConfig
) -> None:
    model = make_model()
    optimizer = build_optimizer(model, optimizer_config)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    fill_gradients(model, 1)
    optimizer.step(0.0)
    assert all(map(torch.equal, before, model.parameters()))
    optimizer.step(1.0)
    for old, new in zip(before, model.parameters(), strict=True):
        assert (old != new).all()


def test_rates_are_those_of_the_configuration(make_model: MakeModel) -> None:
    model = make_model()
    config = OptimizerConfig(
        matrix_learning_rate=0.03,
        embedding_learning_rate=0.2,
        head_learning_rate=0.005,
        norm_learning_rate=0.07,
    )
    optimizer = build_optimizer(model, config)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    fill_gradients(model, 2)
    optimizer.step(0.5)
    moved = {name: (value - before[name]).detach() for name, value in model.named_parameters()}
    # The first step of AdamW is the rate itself, whatever the gradient.
    for name, rate in (("model.embed_tokens", 0.2), ("lm_head", 0.005), ("model.norm", 0.07)):
        assert moved[f"{name}.weight"].abs().mean().item() == pytest.approx(rate / 2, rel=1e-3)
    # Muon's moves every direction alike; this matrix has 24 rows and 16 columns.
    spectral = torch.linalg.svdvals(moved["model.layers.0.mlp.gate_proj.weight"])
    assert spectral.mean().item() == pytest.approx(0.015 * (24 / 16) ** 0.5, rel=0.15)


def test_a_restored_optimizer_continues_with_the_same_bits(
    make_model: MakeModel, optimizer_config: OptimizerConfig
) -> None:
    straight = make_model()
    optimizer = build_optimizer(straight, optimizer_config)
    for seed in range(3):
        fill_gradients(straight, seed)
        optimizer.step(1.0)
    resumed = make_model()
    resumed.load_state_dict(straight.state_dict())
    restored = build_optimizer(resumed, optimizer_config)
    restored.load_state_tensors(optimizer.state_tensors())
    for model, one in ((straight, optimizer), (resumed, restored)):
        fill_gradients(model, 9)
        one.step(0.7)
    assert all(map(torch.equal, straight.parameters(), resumed.parameters()))


def test_a_tied_embedding_moves_at_the_rate_of_the_head(make_model: MakeModel) -> None:
    model = Transformer(replace(make_model().shape, tie_word_embeddings=True))
    optimizer = build_optimizer(model, OptimizerConfig(head_learning_rate=0.005))
    fill_gradients(model, 2)
    optimizer.step(1.0)
    moved = model.head_weight.detach().abs().mean()  # from zero
    assert moved.item() == pytest.approx(0.005, rel=1e-3)


def test_the_state_of_another_optimizer_is_refused(make_model: MakeModel) -> None:
    adamw = build_optimizer(make_model(), OptimizerConfig(kind="adamw"))
    muon = build_optimizer(make_model(), OptimizerConfig())
    with pytest.raises(ArtifactError, match="another optimizer"):
        muon.load_state_tensors(adamw.state_tensors())


def goes_on_from_its_state(make_model: MakeModel, config: OptimizerConfig) -> bool:
    """Whether an optimizer that takes over after two updates makes the third and fourth alike."""
    model, twin = make_model(), make_model()
    optimizer, other = build_optimizer(model, config), build_optimizer(twin, config)
    for step in range(4):
        fill_gradients(model, step)
        optimizer.step(1.0)
        if step == 1:
            other.load_state_tensors(optimizer.state_tensors())
            twin.load_state_dict(model.state_dict())
        elif step > 1:
            fill_gradients(twin, step)
            other.step(1.0)
    return all(map(torch.equal, model.parameters(), twin.parameters()))


@pytest.mark.parametrize("options", [{"normalized": True}, {"cautious": True, "weight_decay": 0.1}])
def test_muon_s_options_go_on_from_their_state(
    make_model: MakeModel, options: dict[str, object]
) -> None:
    config = replace(OptimizerConfig(), **options)  # type: ignore[arg-type]
    assert goes_on_from_its_state(make_model, config)


def test_normalized_updates_have_rows_of_like_length_and_the_length_of_before() -> None:
    matrix = Parameter(torch.zeros(8, 16))
    muon = Muon(
        {"m": matrix}, learning_rate=1.0, weight_decay=0.0, dtype=torch.float32, normalized=True
    )
    generator = make_generator(2)
    scales = torch.arange(1, 9)[:, None] / 8
    for _ in range(30):
        matrix.grad = torch.randn(8, 16, generator=generator) * scales
        before = matrix.detach().clone()
        muon.step(1.0, momentum=0.9)
    change = matrix.detach() - before
    rows = change.norm(dim=1)
    assert float(rows.max() / rows.min()) < 2.0
    assert float(change.norm()) == pytest.approx(8**0.5, rel=0.2)


def test_cautious_decay_leaves_weights_that_grow_alone() -> None:
    matrix = Parameter(torch.ones(4, 4))
    muon = Muon(
        {"m": matrix}, learning_rate=0.1, weight_decay=1.0, dtype=torch.float32, cautious=True
    )
    matrix.grad = -torch.eye(4)  # the diagonal grows
    muon.step(1.0, momentum=0.0)
    assert bool((matrix.diagonal() > 1.0).all())


def test_adamw_of_8_bits_names_its_extra(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(ConfigError, match=r'pip install "penjing\[bits8\]"'):
        build_optimizer(make_model(), OptimizerConfig(kind="adamw8bit"))


def test_adamw_of_8_bits_goes_on_from_its_state(make_model: MakeModel) -> None:
    pytest.importorskip("bitsandbytes")
    config = OptimizerConfig(kind="adamw8bit", learning_rate=1e-2)
    assert goes_on_from_its_state(make_model, config)


@pytest.mark.filterwarnings("default")  # torch warns of itself while it compiles
def test_a_compiled_optimizer_moves_weights_as_the_eager_one(make_model: MakeModel) -> None:
    moved = []
    for compiled in (False, True):
        model = make_model()
        optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.1))
        if compiled:
            optimizer.compile()
        for seed in (1, 2):
            fill_gradients(model, seed)
            optimizer.step(1.0)
        moved.append(list(model.parameters()))
    for eager, other in zip(*moved, strict=True):
        torch.testing.assert_close(other, eager, atol=1e-5, rtol=1e-4)
