"""What a reader of the report must be warned of; how warnings look is `report.page`' duty."""

from collections.abc import Iterator
from itertools import pairwise

from penjing.artifacts.records import StepRecord, TaskResult
from penjing.report.collect import TRAINED, RunReport, StageReport

NEXT_TOKEN = ("pretrain", "midtrain", "sft")
MOST_EPOCHS = 4  # repeated data is about as good as new up to here. Source: arXiv:2305.16264
LOSS_JUMP = 0.5  # nats
OVERLONG = {
    "drop_oldest": "their oldest turns are left out",
    "split": "they go on in further rows",
    "drop": "they are left out",
}
DROPPED = {"overlong_pairs": "pairs longer than the context", "bad_rows": "unusable rows"}


def chance(result: TaskResult) -> str:
    """“at chance” when the interval includes the better baseline, “below chance”, or nothing."""
    baselines = [b for b in (result.random_baseline, result.majority_baseline) if b is not None]
    if not baselines or result.low is None or result.high is None or result.low > max(baselines):
        return ""
    return "below chance" if result.high < max(baselines) else "at chance"


def last_scores(report: RunReport) -> list[TaskResult]:
    """The scores of the last evaluated stage, those that could not be run left out."""
    known = [result for result in report.results if result.value is not None]
    stages = [name for name in TRAINED if any(result.stage == name for result in known)]
    return [result for result in known if stages and result.stage == stages[-1]]


def warnings(report: RunReport) -> list[str]:
    """Every warning, the gravest first."""
    found = [f"unreadable: {message}" for message in report.unreadable]
    found += [stage.state for stage in report.stages if stage.status != "ok"]
    for stage in report.trained:
        found += _training(stage)
    found += _jumps(report)
    found += _data(report)
    at_chance = [f"{r.task} {r.metric}" for r in last_scores(report) if chance(r)]
    if at_chance:
        stage_name = last_scores(report)[0].stage
        found.append(f"{stage_name} is no better than chance at: {', '.join(at_chance)}")
    found += _environment(report)
    found += [f"{e.stage}: {e.message}" for e in report.events if e.kind == "warning"]
    return list(dict.fromkeys(found))


def _training(stage: StageReport) -> Iterator[str]:
    for reason in sorted({step.skipped for step in stage.steps} - {""}):
        skipped = [step.step for step in stage.steps if step.skipped == reason]
        which = ", ".join(map(str, skipped[:5])) + (", …" if len(skipped) > 5 else "")
        yield f"{stage.name} skipped steps for the reason “{reason}” ({len(skipped)}): {which}"
    for share in stage.result("mixture") or ():
        if share["epochs"] > MOST_EPOCHS:
            yield (
                f"{stage.name} read source {share['source']} {share['epochs']:.1f} times: "
                f"beyond {MOST_EPOCHS} epochs repeated text teaches little (arXiv:2305.16264)"
            )
        if share.get("overlong"):
            yield (
                f"{stage.name}: {share['overlong']} conversations of {share['source']} are longer "
                f"than a row; {OVERLONG.get(stage.result('overlong'), 'they are cut')}"
            )
    for key, what in DROPPED.items():
        if stage.result(key):
            yield f"{stage.name} left out {stage.result(key)} {what}"


def _jumps(report: RunReport) -> Iterator[str]:
    stages = [s for s in report.trained if s.name in NEXT_TOKEN and s.steps]
    for before, after in pairwise(stages):
        end, start = _mean_loss(before.steps[-5:]), _mean_loss(after.steps[:5])
        if end is not None and start is not None and start > end + LOSS_JUMP:
            yield f"loss rises from {end:.2f} (end of {before.name}) to {start:.2f} ({after.name})"


def _mean_loss(steps: tuple[StepRecord, ...]) -> float | None:
    losses = [step.loss for step in steps if step.loss is not None]
    return sum(losses) / len(losses) if losses else None


def _data(report: RunReport) -> Iterator[str]:
    shards = report.stage("shards")
    for source in (shards.result("sources") if shards else None) or ():
        if source.get("bad_rows"):
            yield f"source {source.get('name')}: {source['bad_rows']} rows quarantined"


def _environment(report: RunReport) -> Iterator[str]:
    commits = {manifest.versions.get("git_commit", "") for manifest in report.manifests}
    if any(commit.endswith("+") for commit in commits):
        yield "the checkout had uncommitted changes (git_commit ends in +)"
    for name in sorted({key for manifest in report.manifests for key in manifest.versions}):
        values = sorted({manifest.versions.get(name, "none") for manifest in report.manifests})
        if len(values) > 1:
            yield f"stages were made with different versions of {name}: {', '.join(values)}"
