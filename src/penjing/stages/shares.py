"""What a stage's mixture comes to: shares asked for and given, epochs, and sources that run out."""

from collections import Counter
from typing import Any

from penjing.artifacts.progress import Progress
from penjing.artifacts.stage import append_event
from penjing.data.batches import RowStream
from penjing.data.packing import overlong
from penjing.stages.context import StageContext
from penjing.train.job import Probe, ProbeResult


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


def shares_probe(stream: RowStream, every_steps: int) -> Probe:
    """Of the rows since the probe looked last: each source's share, as it was asked for
    (`requested_share.SOURCE`) and given (`realised_share.SOURCE`).
    """

    def run(step: int) -> ProbeResult:
        first = (step - 1) // every_steps * every_steps
        rows = range(first * stream.rows_per_step, step * stream.rows_per_step)
        drawn = Counter(stream.plan.source_of(row)[0] for row in rows)
        asked = zip(*map(stream.plan.weights, rows), strict=True)
        values = {}
        for number, (source, weights) in enumerate(zip(stream.plan.sources, asked, strict=True)):
            values[f"requested_share.{source}"] = sum(weights) / len(rows)
            values[f"realised_share.{source}"] = drawn[number] / len(rows)
        return ProbeResult(values=values)

    return Probe("shares", every_steps, run)
