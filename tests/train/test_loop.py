from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import repeat

import pytest
import torch
from torch import Tensor

from penjing.config.training import OptimizerConfig
from penjing.data.batches import Batch
from penjing.errors import ConfigError, DataError
from penjing.model.language_model import LanguageModel
from penjing.runtime import Runtime
from penjing.train.loop import Objective, StepResult, Updater, Watch, may_read_late, train_steps
from penjing.train.objectives import Loss, next_token
from penjing.train.optimizer import build_optimizer

MakeModel = Callable[..., LanguageModel]
MakeBatch = Callable[..., Batch]

RUNTIME = Runtime(torch.device("cpu"), torch.float32)


class PlainDescent:
    """weights -= rate x gradient; keeps the last gradients."""

    def __init__(self, model: LanguageModel, rate: float = 0.1) -> None:
        self.model, self.rate = model, rate
        self.gradients: list[Tensor] = []

    def step(self, factor: float, good: Tensor | None = None) -> None:
        assert good is None
        self.gradients = []
        with torch.no_grad():
            for parameter in self.model.parameters():
                assert parameter.grad is not None
                self.gradients.append(parameter.grad.clone())
                parameter.sub_(parameter.grad, alpha=factor * self.rate)

    def settle(self, *, applied: bool) -> None: ...

    @property
    def leaves_out_bad_steps(self) -> bool:
        return False


def run(
    model: LanguageModel,
    batches: Iterator[Batch],
    *,
    updater: Updater | None = None,
    objective: Objective[Batch] = next_token,
    steps: int = 1,
    microbatch_rows: int = 6,
    max_grad_norm: float = 1e9,
    watch: Watch | None = None,
    reads_late: bool = False,
) -> list[StepResult]:
    results = train_steps(
        model,
        updater or PlainDescent(model),
        objective,
        batches,
        RUNTIME,
        steps=range(1, steps + 1),
        microbatch_rows=microbatch_rows,
        schedule=lambda step: 1.0,
        max_grad_norm=max_grad_norm,
        watch=watch or Watch(),
        reads_late=reads_late,
    )
    return list(results)


def weights(model: LanguageModel) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def gradient(model: LanguageModel, batch: Batch, microbatch_rows: int) -> Tensor:
    updater = PlainDescent(model, rate=0.0)
    run(model, iter([batch]), updater=updater, microbatch_rows=microbatch_rows)
    return torch.cat([value.flatten() for value in updater.gradients])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_the_gradient_is_that_of_the_mean_over_all_targets_however_rows_are_cut(
    make_model: MakeModel, make_batch: MakeBatch, dtype: torch.dtype, tolerance: float
) -> None:
    model, batch = make_model(dtype=dtype), make_batch()
    loss = next_token(model, batch)
    (loss.total / loss.terms).backward()  # type: ignore[no-untyped-call]
    wanted = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    for microbatch_rows in range(1, 8):
        found = gradient(model, batch, microbatch_rows)
        assert (found - wanted).norm() <= tolerance * wanted.norm()


def test_weights_after_plain_steps_do_not_depend_on_the_cut(
    make_model: MakeModel, make_batch: MakeBatch
) -> None:
    ends = []
    for microbatch_rows in (1, 4, 6):
        model = make_model()
        run(model, map(make_batch, range(3)), steps=3, microbatch_rows=microbatch_rows)
        ends.append(weights(model))
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=1e-5, atol=1e-7)


def test_losses_with_the_real_optimizer_do_not_depend_on_the_cut(
    make_model: MakeModel, make_batch: MakeBatch, optimizer_config: OptimizerConfig
) -> None:
    losses = []
    for microbatch_rows in (1, 6):
        model = make_model()
        updater = build_optimizer(model, optimizer_config)
        batches = map(make_batch, range(20))
        found = run(model, batches, updater=updater, steps=20, microbatch_rows=microbatch_rows)
        losses.append([result.loss for result in found])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_a_step_reports_its_targets_its_tokens_and_its_mean_loss(
    make_model: MakeModel, make_batch: MakeBatch
) -> None:
    model, batch = make_model(), make_batch()
    logprobs = model(batch.tokens, batch.document_ids).log_softmax(-1)
    picked = logprobs.gather(-1, batch.targets[..., None])[..., 0]
    (result,) = run(model, iter([batch]), microbatch_rows=4)
    assert result.targets == int(batch.loss_weights.sum())
    assert result.tokens == 48
    assert result.loss == pytest.approx(
        -float(picked[batch.loss_weights > 0].mean().detach()), rel=1e-5
    )
    assert result.skipped is None


def test_gradients_are_clipped_to_the_norm_and_reported_before_it(
    make_model: MakeModel, make_batch: MakeBatch
) -> None:
    model = make_model()
    updater = PlainDescent(model)
    (result,) = run(model, iter([make_batch()]), updater=updater, max_grad_norm=0.01)
    norm = torch.cat([value.flatten() for value in updater.gradients]).norm()
    assert float(norm) == pytest.approx(0.01, rel=1e-4)
    assert result.grad_norm > 0.01


class Spoiled:
    """next_token, but at one call the loss or the gradient is not finite."""

    def __init__(self, at_call: int, *, gradient_only: bool) -> None:
        self.calls, self.at_call, self.gradient_only = 0, at_call, gradient_only

    def __call__(self, model: LanguageModel, batch: Batch) -> Loss:
        self.calls += 1
        loss = next_token(model, batch)
        if self.calls != self.at_call:
            return loss
        if self.gradient_only:  # sqrt has an infinite slope at 0
            return replace(loss, total=loss.total + (0 * loss.total).abs().sqrt())
        return replace(loss, total=loss.total * float("nan"))


@pytest.mark.parametrize("gradient_only", [False, True])
def test_what_is_not_finite_never_reaches_the_weights(
    make_model: MakeModel, make_batch: MakeBatch, gradient_only: bool
) -> None:
    model, twin = make_model(), make_model()
    updater = build_optimizer(model, OptimizerConfig())
    spoiled = Spoiled(4, gradient_only=gradient_only)  # second microbatch of the second step
    batches = [make_batch(step) for step in (1, 2, 3)]
    found = run(
        model, iter(batches), updater=updater, objective=spoiled, steps=3, microbatch_rows=3
    )
    assert [result.skipped for result in found] == [None, "not finite", None]
    twins = build_optimizer(twin, OptimizerConfig())
    run(twin, iter([batches[0], batches[2]]), updater=twins, steps=2, microbatch_rows=3)
    assert torch.equal(weights(model), weights(twin))
    for name, value in updater.state_tensors().items():
        assert torch.equal(value, twins.state_tensors()[name])


def test_a_batch_without_trained_targets_is_skipped(
    make_model: MakeModel, make_batch: MakeBatch
) -> None:
    model, batch = make_model(), make_batch()
    before = weights(model)
    untrained = replace(batch, loss_weights=torch.zeros_like(batch.loss_weights))
    (result,) = run(model, iter([untrained]))
    assert (result.skipped, result.targets) == ("no targets", 0)
    assert torch.equal(weights(model), before)


class SmallMemory:
    """next_token on a device that holds `rows` rows."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __call__(self, model: LanguageModel, batch: Batch) -> Loss:
        if batch.rows > self.rows:
            raise torch.OutOfMemoryError("injected")
        return next_token(model, batch)


def test_out_of_memory_halves_the_microbatch_and_gives_the_result_of_the_half(
    make_model: MakeModel, make_batch: MakeBatch
) -> None:
    model, twin = make_model(), make_model()
    halved = run(
        model,
        map(make_batch, range(3)),
        objective=SmallMemory(2),
        steps=3,
        microbatch_rows=4,
    )
    plain = run(twin, map(make_batch, range(3)), steps=3, microbatch_rows=2)
    assert halved == plain
    assert torch.equal(weights(model), weights(twin))


def test_a_row_that_does_not_fit_is_a_clear_error(
    make_model: MakeModel, make_batch: MakeBatch
) -> None:
    with pytest.raises(ConfigError, match="one row a microbatch"):
        run(make_model(), iter([make_batch()]), objective=SmallMemory(0))


def test_batches_that_end_early_are_an_error(make_model: MakeModel, make_batch: MakeBatch) -> None:
    with pytest.raises(DataError, match="before step 2"):
        run(make_model(), iter([make_batch()]), steps=2)


def test_a_batch_is_drawn_only_when_its_step_begins(
    make_model: MakeModel, make_batch: MakeBatch
) -> None:
    drawn = []

    def batches() -> Iterator[Batch]:
        for step in range(1, 4):
            drawn.append(step)
            yield make_batch(step)

    model = make_model()
    steps = train_steps(
        model,
        PlainDescent(model),
        next_token,
        batches(),
        RUNTIME,
        steps=range(1, 4),
        microbatch_rows=6,
        schedule=lambda step: 1.0,
        max_grad_norm=1.0,
    )
    next(steps)
    assert drawn == [1]


def test_a_batch_is_memorized(
    make_model: MakeModel, make_batch: MakeBatch, optimizer_config: OptimizerConfig
) -> None:
    model = make_model()
    updater = build_optimizer(model, optimizer_config)
    found = run(model, repeat(make_batch()), updater=updater, steps=80, max_grad_norm=1.0)
    assert found[0].loss > 2.5
    assert found[-1].loss < 0.1


class Eventful:
    """next_token: a loss of NaN at the third step, twenty times as high at the fifth; out of memory
    above four rows.
    """

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, model: LanguageModel, batch: Batch) -> Loss:
        if batch.rows > 4:
            raise torch.OutOfMemoryError("injected")
        loss = next_token(model, batch)
        self.calls += 1
        by_call = {5: float("nan"), 9: 20.0}
        return replace(loss, total=loss.total * by_call.get(self.calls, 1.0))


@pytest.mark.parametrize(("normalized", "cautious"), [(False, False), (True, False), (False, True)])
def test_numbers_that_are_read_late_change_no_bit(
    make_model: MakeModel,
    make_batch: MakeBatch,
    optimizer_config: OptimizerConfig,
    normalized: bool,
    cautious: bool,
) -> None:
    untrained = replace(make_batch(), loss_weights=torch.zeros(6, 8))

    def learn(*, reads_late: bool) -> list[object]:
        model = make_model()
        updater = build_optimizer(
            model, replace(optimizer_config, normalized=normalized, cautious=cautious)
        )
        seen: list[object] = []
        results = train_steps(
            model,
            updater,
            Eventful(),
            iter([*map(make_batch, range(6)), untrained, *map(make_batch, range(6, 9))]),
            RUNTIME,
            steps=range(1, 11),
            microbatch_rows=8,
            schedule=lambda step: 1 / step,
            max_grad_norm=0.5,
            watch=Watch(highest_loss=lambda: 30.0, skip_steps={9}),
            reads_late=reads_late,
        )
        for result in results:
            state = updater.state_tensors()
            seen += [repr(result), weights(model).tolist()]
            seen += [state[name].tolist() for name in sorted(state)]
        return seen

    wanted = learn(reads_late=False)
    assert learn(reads_late=True) == wanted
    told = " ".join(word for word in wanted if isinstance(word, str))
    reasons = ("not finite", "spike", "no targets", "skip list")
    assert [told.count(f"skipped={reason!r}") for reason in reasons] == [1, 1, 1, 1]


def test_a_stop_in_the_middle_of_a_step_still_tells_of_the_one_before(
    make_model: MakeModel, make_batch: MakeBatch
) -> None:
    asked = iter([False, False, True])
    model = make_model()
    found = run(
        model,
        map(make_batch, range(9)),
        updater=build_optimizer(model, OptimizerConfig()),
        steps=9,
        watch=Watch(stop=lambda: next(asked)),
        reads_late=True,
    )
    assert [result.step for result in found] == [1, 2]


def test_numbers_are_read_late_only_by_one_accelerator_that_need_not_know_them_first(
    make_model: MakeModel,
) -> None:
    model = make_model()
    optimizer = build_optimizer(model, OptimizerConfig())
    alone = Runtime(torch.device("cuda"), torch.float32)
    assert may_read_late(alone, model, optimizer)
    assert not may_read_late(RUNTIME, model, optimizer)
    assert not may_read_late(replace(alone, world_size=2), model, optimizer)
    assert not may_read_late(alone, model, PlainDescent(model))
    model.dtype = torch.float16
    assert not may_read_late(alone, model, optimizer)
