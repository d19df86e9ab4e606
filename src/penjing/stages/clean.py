"""The clean stage: which documents the tokenizer and the shards leave out, and why.

Signatures are a job over the corpus (`stages.cleaning`); here all are compared, in the order of the
run file, so that of alike documents the first stays however the work was cut. No torch is loaded.
"""

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penjing.artifacts.directories import discard, fetched, staged, verified
from penjing.artifacts.stage import read_manifest
from penjing.config.cleaning import CleanConfig
from penjing.config.schema import SourceConfig
from penjing.data.chunks import Finished, Job
from penjing.data.signatures import near_duplicates
from penjing.errors import ConfigError
from penjing.stages.cleaning import HASHES, REASONS, SIGNATURE_SIZE, SIGNATURES, clean_job
from penjing.stages.context import StageContext
from penjing.stages.inputs import DroppedFiles
from penjing.stages.jobs import run_stage_job

FILES, DROPPED, EXAMPLES = "files.jsonl", "dropped.npy", "examples.jsonl"
EXAMPLES_A_REASON = 20


def run(context: StageContext) -> dict[str, Any]:
    """Writes which documents of each file are dropped; returns counts by source and reason.

    Raises:
        ConfigError: the run has no source of text.
    """
    return _make(context, _job(context), context.directory("clean"), None)


def add_sources(
    context: StageContext, names: Sequence[str], old: Path, target: Path
) -> dict[str, Any]:
    """The finished stage `old`, and what is dropped of these sources, as the directory `target`.

    They are compared with each other alone: signatures of the old sources are not kept.
    """
    sources = [source for source in context.config.sources if source.name in names]
    return _make(context, _job_of(context, sources), target, verified(old))


def _make(context: StageContext, job: Job, target: Path, old: Path | None) -> dict[str, Any]:
    finished = _run(context, job)
    assert context.config.clean is not None
    with staged(target) as directory:
        results = _decide(context.config.clean, finished, directory, old)
    if job.directory.exists():
        discard(job.directory)
    return results


def run_part(context: StageContext) -> None:
    """One task's share of the signatures; whatever is finished is left alone."""
    _run(context, _job(context))


def _job(context: StageContext) -> Job:
    job = _job_of(context, context.config.sources)
    if not job.chunks:
        raise ConfigError("clean: found no source of text: take [clean] out of the run file")
    return job


def _job_of(context: StageContext, sources: Sequence[SourceConfig]) -> Job:
    config = context.config
    assert config.clean is not None
    where = (context.base, config.seed, context.cache)
    return clean_job(context.work_directory("clean"), config.clean, sources, *where)


def _run(context: StageContext, job: Job) -> list[Finished]:
    assert context.config.clean is not None
    return run_stage_job(
        context,
        "clean",
        job,
        context.config.clean.workers,
        part_of=lambda chunk: chunk.task,
        values=lambda news: (("documents", float(news.made)),),
    )


@dataclass(frozen=True)
class _Known:
    """All documents in order: hashes (N, 2), signatures (N, 128) or (0, 128), and why each is
    dropped, "" if it is not (N,).
    """

    hashes: NDArray[np.uint64]
    signatures: NDArray[np.uint32]
    reasons: list[str]


@dataclass(frozen=True)
class _File:
    """A file's documents among all: [start, start + documents). `name` is "" for a source that is
    generated or read up to a limit.
    """

    source: str
    name: str
    size: int
    version: int
    start: int
    documents: int


def _decide(
    config: CleanConfig, finished: Sequence[Finished], directory: Path, old: Path | None
) -> dict[str, Any]:
    known, files = _gather(finished), _files(finished)
    alike = _mark_exact(known) if config.exact_duplicates else {}
    if config.near_duplicates is not None:
        left = [place for place, reason in enumerate(known.reasons) if not reason]
        near = near_duplicates(known.signatures, left, config.near_duplicates)
        for place in near:
            known.reasons[place] = "near duplicate"
        alike |= near
    _write_dropped(known, files, directory, old)
    _write_examples(known, files, alike, finished, directory)
    before = read_manifest(old) if old else None
    sources = list(before.results["sources"]) if before else []
    for name in dict.fromkeys(file.source for file in files):
        own = [file for file in files if file.source == name]
        reasons = Counter(
            reason for file in own for reason in known.reasons[file.start :][: file.documents]
        )
        kept = reasons.pop("", 0)
        facts = {"name": name, "documents": kept + reasons.total(), "kept": kept}
        of_chunks = [one for one in finished if one.chunk.task.source.name == name]
        facts["bytes"] = sum(one.results["bytes"] for one in of_chunks)
        sources.append(facts | {"dropped": dict(sorted(reasons.items()))})
    return {"sources": sources}


def _files(finished: Sequence[Finished]) -> list[_File]:
    files, start = list[_File](), 0
    for one in finished:
        part, counts = one.chunk.task, one.results["documents"]
        inputs = [(file.name, file.bytes, file.mtime_ns) for file in part.inputs]
        if len(inputs) != len(counts):
            inputs = [("", 0, 0)]
        for facts, count in zip(inputs, counts, strict=True):
            files.append(_File(part.source.name, *facts, start, count))
            start += count
    return files


def _write_dropped(
    known: _Known, files: Sequence[_File], directory: Path, old: Path | None
) -> None:
    dropped: list[int] = _array(old / DROPPED).tolist() if old else []
    lines = (old / FILES).read_text().splitlines(keepends=True) if old else []
    for file in files:
        reasons = known.reasons[file.start : file.start + file.documents]
        own = [number for number, reason in enumerate(reasons) if reason]
        facts = (file.source, file.name, file.size, file.version, len(dropped), len(own))
        lines.append(json.dumps(facts, ensure_ascii=False) + "\n")
        dropped += own
    np.save(directory / DROPPED, np.array(dropped, dtype=np.int64))
    (directory / FILES).write_text("".join(lines))


def _write_examples(
    known: _Known,
    files: Sequence[_File],
    alike: Mapping[int, int],
    finished: Sequence[Finished],
    directory: Path,
) -> None:
    """Some documents of each reason: where each is, how it begins, and which one it is like."""
    starts = [file.start for file in files]

    def place_of(place: int) -> str:
        file = files[bisect_right(starts, place) - 1]
        return f"{file.source}: {file.name or 'its rows'}, document {place - file.start + 1}"

    begins = {}
    start = 0
    for one in finished:
        for number, text in one.results["beginnings"]:
            begins[start + number] = text
        start += sum(one.results["documents"])
    shown, lines = Counter[str](), []
    for place, reason in enumerate(known.reasons):
        if reason and shown[reason] < EXAMPLES_A_REASON:
            shown[reason] += 1
            line = {"reason": reason, "where": place_of(place), "begins": begins.get(place)}
            line |= {"like": place_of(alike[place])} if place in alike else {}
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    (directory / EXAMPLES).write_text("".join(lines))


def _gather(finished: Sequence[Finished]) -> _Known:
    hashes = [np.empty((0, 2), dtype=np.uint64)]
    signatures = [np.empty((0, SIGNATURE_SIZE), dtype=np.uint32)]
    reasons = list[str]()
    for one in finished:
        with fetched(one.directory, "*.npy") as folder:
            hashes.append(_array(folder / HASHES))
            signatures.append(_array(folder / SIGNATURES))
            names = one.results["reasons"]
            reasons += [names[code] for code in _array(folder / REASONS).tolist()]
    return _Known(np.concatenate(hashes), np.concatenate(signatures), reasons)


def _array(path: Path) -> NDArray[Any]:
    with path.open("rb") as file:
        found: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return found


def _mark_exact(known: _Known) -> dict[int, int]:
    """Of documents with one hash that are not dropped for themselves, all but the first: their
    places, and that of the first.
    """
    left = np.array([not reason for reason in known.reasons], dtype=np.bool_)
    places = np.flatnonzero(left)
    _, first, inverse = np.unique(
        known.hashes[places], axis=0, return_index=True, return_inverse=True
    )
    firsts = first[inverse.reshape(-1)]
    again = firsts != np.arange(len(places))
    found = dict(zip(places[again].tolist(), places[firsts[again]].tolist(), strict=True))
    for place in found:
        known.reasons[place] = "exact duplicate"
    return found


def dropped_files(context: StageContext, directory: Path | None = None) -> DroppedFiles | None:
    """What the run's clean stage, or another in `directory`, left out; None of a run without one.

    Raises:
        ArtifactError: it is damaged.
    """
    if context.config.clean is None:
        return None
    folder = verified(directory or context.directory("clean"))
    dropped, found = _array(folder / DROPPED), {}
    for line in (folder / FILES).read_text().splitlines():
        source, name, size, version, first, count = json.loads(line)
        found[source, name] = (size, version, dropped[first : first + count])
    return DroppedFiles(found)
