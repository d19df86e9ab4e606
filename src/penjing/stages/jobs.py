"""Runs a stage's job over the corpus: remote files are fetched ahead, and the screen is told."""

from collections.abc import Callable

from penjing.artifacts.directories import exists
from penjing.artifacts.progress import Progress
from penjing.data.chunks import Chunk, Finished, Job
from penjing.data.corpus import JobProgress, run_job
from penjing.sources.cache import fetching_ahead
from penjing.stages.context import StageContext
from penjing.stages.inputs import SourcePart, remote_files

Values = tuple[tuple[str, float], ...]


def run_stage_job(
    context: StageContext,
    stage: str,
    job: Job,
    workers: int | None,
    *,
    part_of: Callable[[Chunk], SourcePart | None],
    values: Callable[[JobProgress], Values],
    text: str = "",
) -> list[Finished]:
    """Does what is not yet done of a job's chunks; returns all of them, in order.

    Args:
        context: the run.
        stage: what the screen calls it.
        job: the chunks.
        workers: local processes; None: one a core.
        part_of: the part of a source that a chunk reads, if it reads one.
        values: what the screen shows of how far it is.
        text: said with the progress.
    """

    def report(news: JobProgress) -> None:
        if news.text:
            context.show(Progress(stage, "message", text=news.text))
        fetched = (("fetched_bytes", float(fetching.fetched)),) if fetching.files else ()
        shown = (*values(news), *fetched)
        context.show(Progress(stage, "progress", news.done, news.total, values=shown, text=text))

    lacking = (chunk for chunk in job.chunks if not exists(job.directory / chunk.name))
    parts = [part for chunk in lacking if (part := part_of(chunk)) is not None]
    with fetching_ahead(remote_files(parts), context.cache) as fetching:
        return run_job(job, context.conduct_with(workers), report)
