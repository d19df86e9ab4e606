"""The sections of training stages: mixtures, optimizer, schedule, cadence, and the stages' own.

What a whole run is, is `config.schema`'s duty.
"""

from dataclasses import dataclass, field
from typing import Literal

from penjing.config.fields import Problems, setting

HORIZONS = ("steps", "tokens", "flops", "tokens_per_parameter", "epochs", "seconds")
"""The forms in which the length of a stage may be given: exactly one of them."""

_HORIZONS = ", ".join(HORIZONS)

PROMPT_SETS = ("base-v1", "stories-v1", "completions-v1", "knowledge-v1", "chat-v1")
"""Sets of fixed prompts (`tasks.prompt_sets`)."""


@dataclass(frozen=True)
class MixtureShare:
    """A source's share of rows: `start`, blended to `end` over the stage; or `points`, (tokens of
    the stage, share), blended from one to the next; or what `epochs` over the stage take.

    In TOML: `stories = 0.9`, `stories = [0.9, 0.4]`, or a table with `share` (either of these),
    `points` or `epochs`, and with `blend` and `max_epochs`. Shares are relative: what `epochs`
    leave is divided in proportion. After `max_epochs` the others take a source's rows.
    """

    source: str
    start: float
    end: float
    points: tuple[tuple[int, float], ...] = ()
    blend: Literal["linear", "cosine"] = "linear"
    epochs: float | None = None
    max_epochs: int | None = None


@dataclass(frozen=True)
class OptimizerConfig:
    """`[STAGE.optimizer]`: Muon for matrices with AdamW for the rest, or AdamW alone."""

    kind: Literal["muon", "adamw", "adamw8bit"] = setting(
        "muon",
        "muon: matrices by Muon, the rest by AdamW; adamw; adamw8bit: its moments in 8 bits "
        "(extra bits8)",
    )
    matrix_learning_rate: float = setting(0.02, "peak rate of Muon (muon only)", at_least=0)
    embedding_learning_rate: float = setting(
        0.2, "peak rate of the embedding; default: falls with width (muon only)", at_least=0
    )
    head_learning_rate: float = setting(
        0.005, "peak rate of the head; default: falls with width (muon only)", at_least=0
    )
    norm_learning_rate: float = setting(
        0.01, "peak rate of norm scales; default: falls with width (muon only)", at_least=0
    )
    learning_rate: float = setting(3e-4, "peak rate of every weight (adamw only)", at_least=0)
    beta1: float = setting(
        0.9, "decay of the mean of gradients (adamw only)", at_least=0, at_most=1, later=True
    )
    beta2: float = setting(
        0.95, "decay of the mean square (adamw only)", at_least=0, at_most=1, later=True
    )
    weight_decay: float = setting(0.0, "decoupled weight decay of matrices", at_least=0)
    cautious: bool = setting(
        False, "decay only weights that the update makes smaller, too (muon only)", later=True
    )
    normalized: bool = setting(
        False, "even out the updates of a matrix's rows: NorMuon (muon only)", later=True
    )
    max_grad_norm: float = setting(1.0, "gradients are scaled down to this norm", above=0)


@dataclass(frozen=True)
class ScheduleConfig:
    """`[STAGE.schedule]`: linear warm-up, then one of three courses down to `final_fraction`."""

    warmup_steps: int = setting(20, "steps from 0 to the peak rates", at_least=0)
    warmdown_fraction: float = setting(
        0.5, "share of the stage's steps that fall (constant only)", at_least=0, at_most=1
    )
    kind: Literal["constant", "cosine", "linear"] = setting(
        "constant",
        "after the warm-up: constant, then linear over warmdown_fraction; or cosine or linear over "
        "all the rest",
        later=True,
    )
    final_fraction: float = setting(
        0.0, "share of the peak rates left at the end", at_least=0, at_most=1, later=True
    )


@dataclass(frozen=True)
class CadenceConfig:
    """`[STAGE.cadence]`: when a training stage looks up from its work. All of it is conduct."""

    checkpoint_every_steps: int = setting(100, "a resumable checkpoint", at_least=1, conduct=True)
    keep_checkpoints: int = setting(2, "newest checkpoints kept", at_least=1, conduct=True)
    keep_every_steps: int | None = setting(
        None, "checkpoints of every so many steps are kept for good", at_least=1, conduct=True
    )
    evaluate_every_steps: int = setting(50, "validation bits per byte", at_least=1, conduct=True)
    sample_every_steps: int = setting(100, "samples on fixed prompts", at_least=1, conduct=True)


@dataclass(frozen=True)
class SampledConfig:
    """What every training stage says of the samples that it takes. All of it is conduct."""

    sample_prompts: tuple[str, ...] = setting((), "fixed prompts of the samples", conduct=True)
    sample_sets: tuple[str, ...] = setting(
        (), f"named sets of fixed prompts: {', '.join(PROMPT_SETS)}", conduct=True
    )
    sample_tokens: int = setting(64, "longest sample, in tokens", at_least=1, conduct=True)

    def problems(self) -> Problems:
        wanted = ", ".join(PROMPT_SETS)
        unknown = [name for name in self.sample_sets if name not in PROMPT_SETS]
        return [("sample_sets", f"found {name!r}: wanted some of {wanted}") for name in unknown]


@dataclass(frozen=True)
class TrainingConfig(SampledConfig):
    """`[pretrain]`, `[midtrain]`, `[sft]`: next-token training on a mixture of sources."""

    steps: int | None = setting(None, "the stage's length: optimizer updates", at_least=1)
    tokens: int | None = setting(None, "the stage's length: positions, over all ranks", at_least=1)
    flops: float | None = setting(
        None, "the stage's length: operations, 6 a weight and token, attention besides", above=0
    )
    tokens_per_parameter: float | None = setting(
        None, "the stage's length: tokens for each parameter of the model", above=0
    )
    epochs: float | None = setting(
        None, "the stage's length: as many rows as its sources have, so many times", above=0
    )
    seconds: float | None = setting(
        None, "the stage's length: training time, by the speed measured at its start", above=0
    )
    tokens_per_step: int = setting(
        2560, "tokens of one update, over all ranks; default: grows with width", at_least=16
    )
    microbatch_rows: int | Literal["auto"] = setting(
        8,
        "rows of one forward pass; auto: the most that memory holds (a CPU: 4,096 tokens)",
        at_least=1,
        conduct=True,
    )
    from_: str | None = setting(
        None, "folder of a Hugging Face model (Qwen3, GPT-2) to start from, instead of the stage's"
    )
    mixture: tuple[MixtureShare, ...] = setting(
        (), "shares of rows by source: a number, [start, end], or a table (docs/artifacts.md)"
    )
    cut: Literal["anywhere", "overlong"] = setting(
        "anywhere",
        "texts cut: anywhere, so that 99.6 % of positions are filled; or only those longer than a "
        "row, so that short texts stay whole",
    )
    overlong: Literal["drop_oldest", "split", "drop"] = setting(
        "drop_oldest",
        "conversations longer than a row: drop their oldest turns, split them, or drop them",
    )
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    cadence: CadenceConfig = field(default_factory=CadenceConfig)
    validation_rows: int = setting(
        32, "packed validation rows scored by a probe", at_least=1, conduct=True
    )

    def problems(self) -> Problems:
        given = [form for form in HORIZONS if getattr(self, form) is not None]
        if len(given) == 1:
            return super().problems()
        found = " and ".join(given) or "no length"
        return [(given[-1] if given else "steps", f"{found}: give exactly one of {_HORIZONS}")]


@dataclass(frozen=True)
class DpoConfig(SampledConfig):
    """`[dpo]`: direct preference optimization (arXiv:2305.18290)."""

    source: str = setting("preferences", "a source of kind preferences")
    steps: int = setting(40, "optimizer updates", at_least=1)
    pairs_per_step: int = setting(16, "preference pairs of one update", at_least=1)
    microbatch_rows: int = setting(8, "pairs of one forward pass", at_least=1, conduct=True)
    beta: float = setting(0.1, "strength of the pull towards the reference", above=0)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    cadence: CadenceConfig = field(default_factory=CadenceConfig)


@dataclass(frozen=True)
class RlConfig(SampledConfig):
    """`[rl]`: policy gradient with a group baseline (arXiv:2402.03300, arXiv:2503.20783)."""

    task: str = setting("products", "the generated task that gives the reward")
    steps: int = setting(50, "optimizer updates", at_least=1)
    prompts_per_step: int = setting(16, "problems of one update", at_least=1)
    num_generations: int = setting(8, "answers sampled for each problem", at_least=2)
    max_completion_length: int = setting(96, "tokens of an answer with tool turns", at_least=1)
    temperature: float = setting(1.0, "sampling temperature", above=0)
    kl_beta: float = setting(0.0, "weight of the KL penalty towards the stage's start", at_least=0)
    retention_rows: int = setting(
        0, "SFT rows trained along in every step, so that other skills stay", at_least=0
    )
    retention: tuple[MixtureShare, ...] = setting((), "their shares by source; empty: sft.mixture")
    retention_weight: float = setting(1.0, "weight of their loss", at_least=0)
    microbatch_rows: int = setting(64, "rollouts of one forward pass", at_least=1, conduct=True)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    cadence: CadenceConfig = field(default_factory=CadenceConfig)
    probe_problems: int = setting(64, "held-out problems of a probe", at_least=1, conduct=True)
