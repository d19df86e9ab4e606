"""What a run is: one frozen dataclass a TOML table, standard library only.

The model's table is `config.model`'s, those of training stages are `config.training`'s.

Reading and checking files is `config.loading`'s duty; nothing here touches a disk.
A field is *identity* (it changes what is made) or *conduct* (how it is made); only identity
fields enter a stage's digest.
"""

from dataclasses import dataclass, field
from typing import Literal

from penjing.config.cleaning import CleanConfig
from penjing.config.fields import Problems, setting
from penjing.config.model import ModelConfig
from penjing.config.training import DpoConfig, RlConfig, TrainingConfig

TRACKERS = ("tensorboard", "wandb", "trackio")

STAGE_NAMES = (
    "clean",
    "tokenizer",
    "shards",
    "pretrain",
    "midtrain",
    "sft",
    "dpo",
    "rl",
    "evaluate",
    "report",
)


@dataclass(frozen=True)
class RuntimeConfig:
    """`[runtime]`: where and in which precision the run computes."""

    device: Literal["auto", "cpu", "cuda", "xpu", "mps"] = setting(
        "auto", "auto takes the first accelerator found, else the CPU", conduct=True
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "auto",
        "precision of matrix products; auto measures float32 and bfloat16 once a run",
        conduct=True,
    )
    compile: Literal["auto", "block", "off"] = setting(
        "auto",
        "compile the model's repeated block for training; auto: where the stage is long enough",
        conduct=True,
    )
    gradient_checkpointing: bool = setting(
        False,
        "make a block's activations again in the backward pass: a third more work, little memory",
        conduct=True,
    )
    trackers: tuple[str, ...] = setting(
        (), "besides the logs: tensorboard, wandb, trackio (each an extra)", conduct=True
    )
    threads: int | None = setting(None, "CPU threads; default: all cores", at_least=1, conduct=True)
    cache: str | None = setting(None, "folder of remote files; default: RUNS/.cache", conduct=True)
    cache_bytes: int = setting(
        20_000_000_000, "size of the cache, besides files in use", at_least=0, conduct=True
    )
    data_workers: int | None = setting(
        None,
        "threads that make batches ahead; default: 1 with an accelerator, else 0",
        at_least=0,
        at_most=64,
        conduct=True,
    )
    prefetch_steps: int = setting(
        2, "steps whose batches they make ahead", at_least=1, at_most=64, conduct=True
    )
    data_memory_bytes: int = setting(
        2**31, "memory for shards that were read; the rest is read again", at_least=0, conduct=True
    )
    state: str | None = setting(None, "folder or URL of chunks; default: the run's", conduct=True)

    def problems(self) -> Problems:
        unknown = [name for name in self.trackers if name not in TRACKERS]
        wanted = ", ".join(TRACKERS)
        return [("trackers", f"found {name!r}: wanted some of {wanted}") for name in unknown]


@dataclass(frozen=True)
class SourceConfig:
    """`[sources.NAME]`: a set of files, or one of Penjing's own generators."""

    name: str
    kind: Literal["documents", "conversations", "preferences"] = setting(
        "documents", "what a row is"
    )
    paths: tuple[str, ...] = setting((), "files, globs or URLs, relative to the run file")
    validation_paths: tuple[str, ...] = setting(
        (), "files held out whole; without them, a share of the rows is (validation_fraction)"
    )
    checksums: str | None = setting(
        None, "file or URL of lines `SHA256  NAME`: every file must have its digest"
    )
    text_field: str = setting("text", "the key or column that holds a document's text")
    token_dtype: Literal["uint16", "uint32"] | None = setting(
        None, "of the ids in raw .bin files; default: uint16"
    )
    token_end: int | None = setting(
        None, "the id between documents in .bin and .npy files of ids", at_least=0
    )
    synthetic: str | None = setting(None, "name of a built-in generator, instead of paths")
    rows: int | None = setting(
        None, "rows to generate (synthetic) or to read at most (files)", at_least=1
    )
    tool_share: float | None = setting(
        None, "share of products shown with the calculator; default: all", at_least=0, at_most=1
    )
    file_characters: int | None = setting(
        None, "characters of text in one file, for `penjing plan`", at_least=1, conduct=True
    )
    language: str | None = setting(None, "language code, for the report")
    licence: str | None = setting(None, "licence of the text, for the report")

    def problems(self) -> Problems:
        if bool(self.paths) == bool(self.synthetic):
            return [("paths", "give either paths or synthetic, and not both")]
        if self.synthetic and not self.rows:
            return [("rows", "a synthetic source needs the number of rows to generate")]
        if self.validation_paths and (self.synthetic or self.kind == "preferences"):
            return [("validation_paths", "only documents and conversations of files have them")]
        return []


@dataclass(frozen=True)
class TokenizerConfig:
    """`[tokenizer]`: byte-level BPE, trained on every source of the run or taken from a file."""

    from_: str | None = setting(
        None,
        "take this vocabulary (tokenizer.json, .tiktoken, vocab.json) instead of training one",
    )
    vocab_size: int | None = setting(
        None,
        "ids in all: 256 bytes, merges, 16 special tokens; default 8192, or those of `from`",
        at_least=272,
        at_most=2**20,
    )
    pattern: str | None = setting(
        None,
        "how text is cut into words: qwen2 (default), llama3, cl100k, nanochat, gpt2, o200k, or a "
        "regular expression (slow)",
    )
    exact: bool = setting(False, "train on every word, whatever memory that takes")
    train_memory_bytes: int = setting(
        256_000_000, "memory of training: rare words are sampled to fit", at_least=2**20
    )
    languages: bool = setting(
        False, "besides the one for all, a tokenizer for each language of the sources"
    )
    max_chars: int | None = setting(
        None, "characters read, shared evenly among the sources; default: all", at_least=1
    )
    max_docs: int | None = setting(
        None, "texts read, shared evenly among the sources; default: all", at_least=1
    )
    doc_cap_chars: int | None = setting(
        None, "characters read of each text; default: all", at_least=1
    )
    memory_bytes: int = setting(
        256_000_000,
        "memory of counting, over all workers; full, it goes to disk",
        at_least=2**20,
        conduct=True,
    )
    chunk_files: int | None = setting(
        None, "files of a chunk; default: as hold 256 MB of text", at_least=1, conduct=True
    )
    workers: int | None = setting(
        None, "processes that count; default: one a core", at_least=1, conduct=True
    )
    partition_bits: int = setting(
        8, "counts lie in 2 ** this parts, merged one by one", at_least=0, at_most=16, conduct=True
    )

    @property
    def trained_vocab_size(self) -> int:
        return self.vocab_size or 8192

    @property
    def trained_pattern(self) -> str:
        return self.pattern or "qwen2"


@dataclass(frozen=True)
class ShardsConfig:
    """`[shards]`: token files on disk, one set a source."""

    validation_fraction: float = setting(
        0.01, "share of rows kept for validation, chosen by content hash", above=0, at_most=0.5
    )
    max_bad_row_fraction: float = setting(
        0.001, "stop when more than this share of rows cannot be read", at_least=0, at_most=1
    )
    chunk_files: int | None = setting(
        None, "files of a chunk; default: as hold 256 MB of text", at_least=1, conduct=True
    )
    workers: int | None = setting(
        None, "processes that encode; default: one a core", at_least=1, conduct=True
    )


@dataclass(frozen=True)
class EvaluateConfig:
    """`[evaluate]`: every trained stage, measured on the same held-out problems."""

    tasks: tuple[str, ...] = setting((), "generated tasks; empty: all of them")
    problems_per_task: int = setting(100, "held-out problems of each task", at_least=1)
    samples_per_problem: int = setting(
        4, "sampled answers a problem, beside the greedy one (tasks that are sampled)", at_least=1
    )
    validation_rows: int = setting(64, "packed validation rows for bits per byte", at_least=1)
    max_new_tokens: int = setting(96, "longest answer, in tokens", at_least=1)


@dataclass(frozen=True)
class ReportConfig:
    """`[report]`: what the report shows."""

    samples_shown: int = setting(6, "samples of each stage and prompt", at_least=1, conduct=True)


@dataclass(frozen=True)
class RunConfig:
    """One run file, whole. Read by `config`, `stages` and `cli` only.

    A stage whose table is absent is not part of the run (`None`).
    """

    name: str
    seed: int = setting(1, "every random draw derives from it", at_least=0, at_most=2**31 - 1)
    model: ModelConfig = field(default_factory=ModelConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    sources: tuple[SourceConfig, ...] = ()
    clean: CleanConfig | None = None
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    shards: ShardsConfig = field(default_factory=ShardsConfig)
    pretrain: TrainingConfig | None = None
    midtrain: TrainingConfig | None = None
    sft: TrainingConfig | None = None
    dpo: DpoConfig | None = None
    rl: RlConfig | None = None
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    report: ReportConfig = field(default_factory=ReportConfig)

    def source(self, name: str) -> SourceConfig:
        """The source of that name; `config.loading` has made sure that it exists."""
        return next(source for source in self.sources if source.name == name)
