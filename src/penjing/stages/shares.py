"""What a stage's mixture comes to: shares asked for and given, epochs, and sources that run out."""

from itertools import pairwise
from typing import Any

from penjing.artifacts.progress import Progress
from penjing.artifacts.stage import append_event
from penjing.data.batches import RowStream
from penjing.data.packing import overlong
from penjing.stages.context import StageContext

COURSE_STRETCHES = 24
"""Into which a stage is divided to show how its shares went."""


def warn_of_exhaustion(context: StageContext, stage: str, stream: RowStream, steps: int) -> None:
    """Says which sources will be read as often as they may be before the stage ends."""
    if all(share.max_epochs is None for part in stream.segments for share in part.shares):
        return
    stream.plan.source_of(steps * stream.rows_per_step - 1)
    for source, row in stream.plan.exhausted.items():
        step = row // stream.rows_per_step + 1
        message = (
            f"{source} reaches its max_epochs at step {step} of {steps}; from then on the other "
            "sources take its rows"
        )
        append_event(context.run_dir, "warning", stage, message, step=step)
        context.show(Progress(stage, "message", text=f"warning: {message}"))


def shares_of(stream: RowStream, tokens: int, steps: int) -> list[dict[str, Any]]:
    """Of each source: the shares of rows asked for and given, and how often it was read.

    `epochs` takes the stage's tokens as spread over the sources like its rows: packing fills the
    rows of all sources nearly alike.
    """
    plan, rows = stream.plan, steps * stream.rows_per_step
    realised, requested = plan.realised(rows), plan.requested(rows)
    return [
        {
            "source": source,
            "requested_start": plan.weights(0)[number],
            "requested_end": plan.weights(rows - 1)[number],
            "requested": requested[source],
            "realised": realised[source],
            "epochs": realised[source] * tokens / shard.tokens,
            "exhausted_at_row": plan.exhausted.get(source),
            "overlong": overlong(shard.lengths(), stream.row_tokens)
            if shard.kind == "conversations"
            else 0,
        }
        for number, (source, shard) in enumerate(zip(plan.sources, stream.shards, strict=True))
    ]


def course_of(stream: RowStream, steps: int) -> list[dict[str, Any]]:
    """The shares asked for and given in each stretch of the stage; empty where they are constant.

    Each has `step`, its last, and `requested` and `realised` by source.
    """
    plan, rows = stream.plan, steps * stream.rows_per_step
    moments = [rows * number // COURSE_STRETCHES for number in range(COURSE_STRETCHES + 1)]
    if all(plan.weights(row) == plan.weights(0) for row in moments) and not plan.exhausted:
        return []
    course = []
    for start, stop in pairwise(moments):
        if start == stop:
            continue
        drawn = [plan.source_of(row)[0] for row in range(start, stop)]
        asked = zip(*map(plan.weights, range(start, stop)), strict=True)
        course.append(
            {
                "step": -(-stop // stream.rows_per_step),
                "requested": dict(zip(plan.sources, map(_mean, asked), strict=True)),
                "realised": {
                    source: drawn.count(number) / len(drawn)
                    for number, source in enumerate(plan.sources)
                },
            }
        )
    return course


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values)
