"""The clean stage's work over the corpus: what is known of each document of one chunk.

Which documents are dropped, once all are known, is the clean stage's duty. No torch is loaded here.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from penjing.config.cleaning import CleanConfig
from penjing.config.schema import SourceConfig
from penjing.data.chunks import Advance, Chunk, Job
from penjing.data.quality import broken_rule
from penjing.data.signatures import Hashes, exact_hash, minhash, run_hashes, split_words
from penjing.data.texts import join
from penjing.errors import ConfigError
from penjing.sources.cache import Cache
from penjing.sources.formats import read_file
from penjing.sources.listing import find_files
from penjing.sources.quarantine import Quarantine
from penjing.stages.inputs import SourcePart, source_parts
from penjing.text.bpe import utf8

FORMAT = 1
"""Of chunks: raised when code changes what is found, so that older chunks are made again."""

SHINGLE_WORDS = 5
SIGNATURE_SIZE = 128
LANGUAGE_CHARACTERS = 2000
FEWEST_LANGUAGE_CHARACTERS = 40
"""A shorter text may be of any language."""

BEGINNINGS = 20
"""Documents of each reason of which a chunk keeps the first bytes, for people."""

HASHES, REASONS, SIGNATURES = "hashes.npy", "reasons.npy", "signatures.npy"


@dataclass(frozen=True)
class Filters:
    """What every document is held against; `contaminated` are sorted hashes of runs of words."""

    config: CleanConfig
    contaminated: Hashes


def clean_job(
    directory: Path,
    config: CleanConfig,
    sources: Sequence[SourceConfig],
    base: Path,
    seed: int,
    cache: Cache,
) -> Job:
    """The plan: every source of documents, what is held out first, so that of two alike texts the
    one for validation stays.

    Raises:
        ConfigError: a package that a filter needs is missing.
    """
    _require_packages(config)
    contaminated = evaluation_runs(config, base)
    settings = {
        "format": FORMAT,
        "near": config.near_duplicates is not None,
        "min_characters": config.min_characters,
        "max_characters": config.max_characters,
        "quality": config.quality,
        "languages": list(config.languages),
        "contaminated": xxhash.xxh3_128_hexdigest(contaminated.tobytes()),
        "words": config.decontamination_words,
    }
    chunks = []
    for source in sources:
        if source.kind != "documents" or source.token_end is not None:
            continue
        kept_apart = replace(source, paths=source.validation_paths, rows=None)
        for files in ([kept_apart] if source.validation_paths else []) + [source]:
            number = config.chunk_files
            for part in source_parts(files, base, seed, cache, chunk_files=number, whole=False):
                own = settings | part.settings
                chunks.append(Chunk(part.label, own, part.inputs, part.size, part))
    return Job(directory, tuple(chunks), clean_chunk, Filters(config, contaminated))


def _require_packages(config: CleanConfig) -> None:
    try:
        if config.near_duplicates is not None:
            import datasketch  # noqa: F401 - only whether it is there
        if config.languages:
            import py3langid  # noqa: F401 - as above
    except ImportError as error:
        raise ConfigError(
            f"clean: the package {error.name} is missing: pip install 'penjing[clean]'"
        ) from error


def evaluation_runs(config: CleanConfig, base: Path) -> Hashes:
    """The hashes of every run of words in every text of the evaluation sets, sorted.

    Raises:
        DataError: a path names no file, or a file cannot be read.
    """
    found = [np.empty(0, dtype=np.uint64)]
    for path in find_files(config.decontaminate, base) if config.decontaminate else ():
        texts = [
            utf8(text)
            for row in read_file(path, path.name, None, Quarantine())
            for text in _texts_of(row.value)
        ]
        if texts:
            batch = join(texts)
            for words in split_words(batch.data, batch.ends):
                found.append(run_hashes(words, config.decontamination_words))
    return np.unique(np.concatenate(found))


def _texts_of(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts_of(inner)


def clean_chunk(
    filters: Filters, part: SourcePart, directory: Path, advance: Advance
) -> dict[str, Any]:
    """Writes hashes, reasons and signatures of the part's documents, in order."""
    quarantine = Quarantine()
    hashes, reasons, signatures = bytearray(), list[int](), list[NDArray[np.uint32]]()
    names: dict[str, int] = {"": 0}
    counts, num_bytes, begun = [], 0, Counter[int]()
    beginnings: list[tuple[int, str]] = []
    for batches in part.batches_by_file(quarantine):
        before = len(reasons)
        for batch in batches:
            texts = batch.texts()
            every: Sequence[Hashes | None] = [None] * len(texts)
            if _needs_words(filters):
                every = split_words(batch.data, batch.ends)
            for text, words in zip(texts, every, strict=True):
                reason = names.setdefault(_reason(filters, text, words), len(names))
                if begun[reason] < BEGINNINGS:
                    begun[reason] += 1
                    excerpt = text[:200].decode(errors="ignore")
                    beginnings.append((len(reasons), excerpt))
                hashes += exact_hash(text)
                reasons.append(reason)
                if filters.config.near_duplicates is not None:
                    assert words is not None
                    signatures.append(minhash(words, SHINGLE_WORDS, SIGNATURE_SIZE))
            num_bytes += len(batch.data)
            advance(num_bytes, len(reasons))
        counts.append(len(reasons) - before)
    np.save(directory / HASHES, np.frombuffer(bytes(hashes), dtype=np.uint64).reshape(-1, 2))
    np.save(directory / REASONS, np.array(reasons, dtype=np.uint8))
    empty = np.empty((0, SIGNATURE_SIZE), dtype=np.uint32)
    np.save(directory / SIGNATURES, np.stack(signatures) if signatures else empty)
    facts = {"reasons": list(names), "documents": counts, "bytes": num_bytes}
    return facts | {"beginnings": beginnings}


def _needs_words(filters: Filters) -> bool:
    return filters.config.near_duplicates is not None or len(filters.contaminated) > 0


def _reason(filters: Filters, raw: bytes, words: Hashes | None) -> str:
    """Why a document is dropped whatever the others are, or nothing."""
    config = filters.config
    text = raw.decode(errors="replace")
    if config.min_characters is not None and len(text) < config.min_characters:
        return "too short"
    if config.max_characters is not None and len(text) > config.max_characters:
        return "too long"
    if config.quality and (rule := broken_rule(text)):
        return f"quality: {rule}"
    if config.languages and (language := _language(text)) not in ("", *config.languages):
        return f"language: {language}"
    if words is not None and len(filters.contaminated):
        runs = run_hashes(words, config.decontamination_words)
        places = np.searchsorted(filters.contaminated, runs)
        places = np.minimum(places, len(filters.contaminated) - 1)
        if (filters.contaminated[places] == runs).any():
            return "contaminated"
    return ""


def _language(text: str) -> str:
    """The text's language by its beginning; nothing of a short one."""
    import py3langid

    if len(text) < FEWEST_LANGUAGE_CHARACTERS:
        return ""
    language = str(py3langid.classify(text[:LANGUAGE_CHARACTERS])[0])
    # Classical and colloquial Chinese is often taken for Wu or Cantonese (docs/notebook.md).
    return "zh" if language in ("wuu", "yue") else language
