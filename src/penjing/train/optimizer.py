"""Muon for matrices and AdamW for the rest, or AdamW alone; rates follow one schedule factor.

Muon is batched by shape, since one matrix at a time costs 16 % of a small step. Gradients come
divided and clipped from `train.loop`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from penjing.config.training import OptimizerConfig
from penjing.errors import ArtifactError, ConfigError
from penjing.model.language_model import LanguageModel

Coefficients = Sequence[tuple[float, float, float]]

POLAR_EXPRESS: Coefficients = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
"""Five iterations, safety factor 2e-2, for singular values from 0.001 of a matrix's norm up.
Source: arXiv:2505.16932, as in nanochat.
"""

SHORT_POLAR_EXPRESS: Coefficients = (
    (7.532412647430585, -20.61396856009367, 14.527162447882123),
    (3.1549808203788445, -2.274093434676468, 0.45425934476722707),
    (2.220368481492071, -1.595890991367548, 0.410951482877403),
)
"""Three, by the same algorithm with the same safety factor, for singular values from 0.02 up."""

SHORT_WIDTH = 384
"""Up to here three iterations learn as much a step as five: measured at 192, where they take a
tenth off it (docs/notebook.md). A wider matrix has more of its norm in small singular values.
"""

SAFETY = 1.02
"""Singular values must not exceed 1 when the iteration begins, in bfloat16 too."""

LENGTHENED = 1.4
"""Most by which `_lengthened` makes an update longer: three iterations leave it 0.72 to 0.79 of an
orthogonal matrix's norm on square matrices of training and 0.86 to 0.93 on others, five 0.97 to
1.01 (docs/notebook.md).
"""

EXACT_DTYPES = (torch.float32, torch.float64)
"""Those in which the small product of a long matrix may stand for the matrix."""

ROW_DECAY = 0.95
"""Of NorMuon's mean squares."""

ADAMW_EPS = 1e-10
"""Rare rows of the embedding have tiny gradients. Source: nanochat."""


def orthogonalize(matrices: Tensor, coefficients: Coefficients, dtype: torch.dtype) -> Tensor:
    """(K, rows, columns), each with its singular values moved close to 1.

    Source: arXiv:2502.16982, section 2.1; each iteration is a X + (b A + c A A) X with A = X X'.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).to(dtype)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * SAFETY).clamp(min=1e-7)
    rows, columns = x.shape[-2:]
    if dtype in EXACT_DTYPES and columns > 1.5 * rows:
        x = _gram_polynomial(x @ x.mT, coefficients) @ x
    else:
        for a, b, c in coefficients:
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _gram_polynomial(gram: Tensor, coefficients: Coefficients) -> Tensor:
    """(K, rows, rows), what all iterations multiply X by: they are polynomials of A = X X', which
    is small, so they need not touch X. It saves work where X is longer than 1.5 times its rows.
    """
    product = _gram_factor(gram, *coefficients[0])
    factor = product
    for abc in coefficients[1:]:
        gram = factor @ gram @ factor
        factor = _gram_factor(gram, *abc)
        product = factor @ product
    return product


def _gram_factor(gram: Tensor, a: float, b: float, c: float) -> Tensor:
    """One iteration: a + b A + c A A."""
    factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    factor.diagonal(dim1=-2, dim2=-1).add_(a)
    return factor


class Muon:
    """Momentum, orthogonalized. Nesterov; step scaled by sqrt(max(1, rows / columns)).

    Source: https://kellerjordan.github.io/posts/muon.
    """

    def __init__(
        self,
        matrices: Mapping[str, Parameter],
        *,
        learning_rate: float,
        weight_decay: float,
        dtype: torch.dtype,
        coefficients: Coefficients | None = None,
        cautious: bool = False,
        normalized: bool = False,
    ) -> None:
        self._learning_rate, self._weight_decay = learning_rate, weight_decay
        self._dtype, self._coefficients = dtype, coefficients
        self._orthogonalize = orthogonalize
        self._cautious = cautious
        by_shape: dict[torch.Size, list[tuple[str, Parameter]]] = {}
        for name, matrix in matrices.items():
            by_shape.setdefault(matrix.shape, []).append((name, matrix))
        self._groups = [
            (members, torch.stack([torch.zeros_like(matrix) for _, matrix in members]).detach())
            for members in by_shape.values()
        ]
        self._row_squares = [
            torch.zeros_like(buffer[..., :1]) if normalized else None for _, buffer in self._groups
        ]

    @torch.no_grad()
    def compile(self) -> None:
        """Compile the iteration for every shape; raises RuntimeError where that fails."""
        compiled: Any = torch.compile(orthogonalize, dynamic=False)
        for _, buffer in self._groups:
            compiled(buffer, self._iterations(buffer), self._dtype)
        self._orthogonalize = compiled

    @torch.no_grad()
    def step(self, factor: float, momentum: float, good: Tensor | None = None) -> None:
        """One update from the gradients, at `factor` times the peak rate; none if `good`, (), is
        false.
        """
        rate = factor * self._learning_rate
        for (members, buffer), squares in zip(self._groups, self._row_squares, strict=True):
            gradients = torch.stack(
                [matrix.grad for _, matrix in members if matrix.grad is not None]
            )
            if good is not None:
                gradients = gradients.where(good, 0.0)
            buffer.lerp_(gradients, _if(good, 1 - momentum, 0.0, buffer))
            coefficients = self._iterations(buffer)
            update = self._orthogonalize(
                gradients.lerp_(buffer, momentum), coefficients, self._dtype
            ).to(buffer.dtype)
            if coefficients is SHORT_POLAR_EXPRESS:
                update = _lengthened(update)
            if squares is not None:
                update = _evened(update, squares, good)
            if good is not None:
                update = update.where(good, 0.0)
            rows, columns = buffer.shape[-2:]
            scale = max(1.0, rows / columns) ** 0.5
            matrices: list[Tensor] = [matrix for _, matrix in members]
            changes = list(update.unbind())
            if self._cautious and self._weight_decay:
                for matrix, change in zip(matrices, changes, strict=True):
                    shrinks = (change * matrix > 0).to(matrix.dtype)
                    matrix.mul_(1 - rate * self._weight_decay * shrinks)
            else:
                torch._foreach_mul_(matrices, _if(good, 1 - rate * self._weight_decay, 1.0, buffer))
            torch._foreach_add_(matrices, changes, alpha=-rate * scale)

    def _iterations(self, buffer: Tensor) -> Coefficients:
        if self._coefficients is not None:
            return self._coefficients
        return SHORT_POLAR_EXPRESS if min(buffer.shape[-2:]) <= SHORT_WIDTH else POLAR_EXPRESS

    def state_tensors(self) -> dict[str, Tensor]:
        """Views, by name: writing into them loads a state."""
        found = {}
        for (members, buffer), squares in zip(self._groups, self._row_squares, strict=True):
            for number, (name, _) in enumerate(members):
                found[f"{name}.momentum"] = buffer[number]
                if squares is not None:
                    found[f"{name}.row_squares"] = squares[number]
        return found


def _if(good: Tensor | None, value: float, otherwise: float, like: Tensor) -> Any:
    """A number that the device chooses, if it is to judge the step."""
    if good is None:
        return value
    return torch.where(good, like.new_full((), value), like.new_full((), otherwise))


def _lengthened(update: Tensor) -> Tensor:
    """The update with an orthogonal matrix's norm, if that is near: a rate then means the same
    after three iterations, which leave small singular values small, as after five.
    """
    length: Tensor = update.norm(dim=(-2, -1), keepdim=True)
    missing: Tensor = min(update.shape[-2:]) ** 0.5 / length
    return update * missing.clamp(max=LENGTHENED)


def _evened(update: Tensor, squares: Tensor, good: Tensor | None) -> Tensor:
    """The update with its rows divided by the root of their running mean square, as long as before.

    Source: NorMuon, arXiv:2510.05491, algorithm 1.
    """
    length = update.norm(dim=(-2, -1), keepdim=True)
    squares.lerp_(update.square().mean(-1, keepdim=True), _if(good, 1 - ROW_DECAY, 0.0, squares))
    update = update * squares.clamp(min=1e-10).rsqrt()
    evened_length: Tensor = update.norm(dim=(-2, -1), keepdim=True)
    evened: Tensor = update * (length / evened_length.clamp(min=1e-10))
    return evened


def muon_momentum(updates: int) -> float:
    """0.85 at first, 0.95 from the 100th update on."""
    return 0.85 + 0.1 * min(1.0, updates / 100)


class Optimizer:
    """All weights of one model. `updates` counts applied steps and is part of the state."""

    def __init__(
        self,
        kind: str,
        muon: Muon | None,
        adamw: torch.optim.Optimizer,
        names: Mapping[Tensor, str],
    ) -> None:
        self.kind = kind
        self._muon, self._adamw, self._names = muon, adamw, names
        self.updates = 0

    def compile(self) -> None:
        """Compile what Muon computes, which on an accelerator is many small kernels; AdamW's are
        fused already. Raises RuntimeError where that fails, and then runs eagerly.
        """
        if self._muon is not None:
            self._muon.compile()

    @property
    def leaves_out_bad_steps(self) -> bool:
        """Whether `step` takes `good`: torch's fused AdamW does, that of 8 bits does not."""
        return self.kind != "adamw8bit"

    def step(self, factor: float, good: Tensor | None = None) -> None:
        """Apply the gradients at `factor` times the peak rates.

        With `good`, (), a step of which it is false changes nothing, and nobody waits for the
        device to know; `settle` tells whether it counts.
        """
        if self._muon is not None:
            self._muon.step(factor, muon_momentum(self.updates), good)
        for group in self._adamw.param_groups:
            group["lr"] = factor * group["peak"]
        # As torch.amp.GradScaler tells it.
        self._adamw.found_inf = None if good is None else (~good).float()  # type: ignore[attr-defined]
        self._adamw.step()
        if good is None:
            self.settle(applied=True)

    def settle(self, *, applied: bool) -> None:
        """Count the last step, if it was applied."""
        self.updates += applied

    def state_tensors(self) -> dict[str, Tensor]:
        """The whole state by name, as tensors that share no memory."""
        found = {"updates": torch.tensor(self.updates)}
        if self._muon is not None:
            found |= self._muon.state_tensors()
        for parameter, state in self._adamw.state.items():
            for key, value in state.items():
                if key != "step" and isinstance(value, Tensor):
                    found[f"{self._names[parameter]}.{key}"] = value
        return {name: value.detach().cpu().clone() for name, value in found.items()}

    @torch.no_grad()
    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from `state_tensors()` of an optimizer of the same kind and model.

        Raises:
            ArtifactError: tensors are missing or have other shapes.
        """
        try:
            self.updates = int(tensors["updates"])
            if self._muon is not None:
                for name, value in self._muon.state_tensors().items():
                    value.copy_(tensors[name])
            for group in self._adamw.param_groups:
                for parameter in group["params"] if self.updates else ():
                    self._adamw.state[parameter] = self._moments(parameter, tensors)
        except (KeyError, RuntimeError) as error:
            raise ArtifactError(
                f"optimizer.safetensors is of another optimizer or model ({error}); the run file "
                "asks for this one: continue with the file that began the run, or redo the stage"
            ) from error

    def _moments(self, parameter: Parameter, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        name, device = self._names[parameter], parameter.device
        if self.kind == "adamw8bit":  # quantized: what there is depends on the weight's size
            own = {key.removeprefix(f"{name}."): tensors[key] for key in _of(name, tensors)}
            if not own:
                raise KeyError(f"{name}.state1")
            return {"step": self.updates} | {k: v.clone().to(device) for k, v in own.items()}
        state = {"step": torch.tensor(float(self.updates), device=device)}
        for moment in ("exp_avg", "exp_avg_sq"):
            state[moment] = torch.empty_like(parameter).copy_(tensors[f"{name}.{moment}"])
        return state


def _of(name: str, tensors: Mapping[str, Tensor]) -> list[str]:
    """Keys of one weight: `NAME.KEY`, and no longer ones."""
    return [key for key in tensors if key.rpartition(".")[0] == name]


def build_optimizer(model: LanguageModel, config: OptimizerConfig) -> Optimizer:
    """The optimizer of `[STAGE.optimizer]`; Muon computes in the model's compute dtype.

    A tied embedding is trained as the head that it also is.
    """
    named = dict(model.named_parameters())
    names: dict[Tensor, str] = {parameter: name for name, parameter in named.items()}
    muon, groups = None, _adamw_groups(named, config)
    if config.kind == "muon":
        matrices = {name: value for name, value in named.items() if _is_matrix(name, value)}
        muon = Muon(
            matrices,
            learning_rate=config.matrix_learning_rate,
            weight_decay=config.weight_decay,
            # float16 has too few exponents for the iteration.
            dtype=torch.float32 if model.compute_dtype == torch.float16 else model.compute_dtype,
            cautious=config.cautious,
            normalized=config.normalized,
        )
    if config.kind == "adamw8bit":
        return Optimizer(config.kind, None, _adamw_of_8_bits(groups), names)
    adamw = torch.optim.AdamW(groups, eps=ADAMW_EPS, fused=True)
    return Optimizer(config.kind, muon, adamw, names)


def _adamw_of_8_bits(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Source: arXiv:2110.02861, as bitsandbytes has it; small weights keep 32 bits."""
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise ConfigError(
            'optimizer.kind is "adamw8bit", which needs bitsandbytes: pip install "penjing[bits8]"'
        ) from error
    found: torch.optim.Optimizer = AdamW8bit(groups, eps=1e-8)
    return found


EMBEDDINGS = ("embed_tokens", "wte", "wpe", "value_embeds")
"""Tables of rows, one of which a token takes."""


def _is_embedding(name: str) -> bool:
    return not set(EMBEDDINGS).isdisjoint(name.split("."))


def _is_matrix(name: str, parameter: Parameter) -> bool:
    return parameter.ndim == 2 and not _is_embedding(name) and name != "lm_head.weight"


def _adamw_groups(named: Mapping[str, Parameter], config: OptimizerConfig) -> list[dict[str, Any]]:
    """Parameters with the same settings together: one fused pass each."""
    groups: dict[tuple[float, tuple[float, float], float], list[Parameter]] = {}
    for name, parameter in named.items():
        decay = 0.0
        if config.kind != "muon":
            peak, betas = config.learning_rate, (config.beta1, config.beta2)
            decay = config.weight_decay if parameter.ndim == 2 else 0.0
        elif _is_matrix(name, parameter):
            continue
        elif parameter.ndim == 1:
            peak, betas = config.norm_learning_rate, (0.9, 0.95)
        elif _is_embedding(name) and "lm_head.weight" in named:
            peak, betas = config.embedding_learning_rate, (0.8, 0.995)
        else:
            peak, betas = config.head_learning_rate, (0.8, 0.96)
        groups.setdefault((peak, betas, decay), []).append(parameter)
    return [
        {"params": members, "lr": peak, "peak": peak, "betas": betas, "weight_decay": decay}
        for (peak, betas, decay), members in groups.items()
    ]
