"""Which curves a run has: what each stage optimized and measured, then what spans the run."""

import re
from collections.abc import Callable, Iterator
from functools import partial

from penjing.artifacts.records import StepRecord, TimingRecord
from penjing.report.collect import TRAINED, RunReport, StageReport
from penjing.report.figures import Chart, Point, Series
from penjing.report.findings import NEXT_TOKEN

StepValue = Callable[[StepRecord], float | None]
REQUESTED, REALISED = "requested_share.", "realised_share."
RUN_STEP = "step of the whole run"
TimingValue = Callable[[TimingRecord], float | None]


def curves(report: RunReport) -> tuple[Chart, ...]:
    """Every chart that has a point."""
    stages = [stage for stage in report.trained if stage.steps]
    charts = [chart for stage in stages for chart in (_loss(stage), *_values(stage))]
    keys = dict.fromkeys(key for s in stages for r in s.steps for key in r.values)
    for key in (key for key in keys if key.endswith("_bpb")):
        title = key.replace("_", " ").replace("bpb", "bits per byte")
        charts.append(_whole(stages, title, "bits", step=partial(_value, key)))
        sources = [other for other in keys if other.startswith(f"{key}.")]
        trained = [one for one in sources if one.partition(".")[2] in _trained_sources(report)]
        if sources := trained or sources:
            charts.append(_by_source(stages, f"{title} by source", sources))
    charts += [chart for stage in stages for chart in _shares(stage)]
    charts.append(_whole(stages, "learning-rate factor", "", step=lambda r: r.schedule))
    speed = _whole(stages, "throughput", "tokens/s", timing=lambda r: r.tokens_per_second)
    memory = _whole(stages, "peak memory", "GiB", timing=lambda r: r.peak_memory_bytes / 2**30)
    return tuple(c for c in (*charts, speed, memory) if any(s.points for s in c.series))


def _value(key: str, record: StepRecord) -> float | None:
    return record.values.get(key)


def _color(stage: StageReport) -> int:
    return TRAINED.index(stage.name) + 1


def _loss(stage: StageReport) -> Chart:
    points = tuple((float(r.step), r.loss) for r in stage.steps if r.loss is not None)
    unit = "nats" if stage.name in NEXT_TOKEN else ""
    return Chart(f"{stage.name}: loss", (Series("loss", points, _color(stage)),), unit, raw=True)


def _values(stage: StageReport) -> Iterator[Chart]:
    """What a stage adds to its steps: scores between 0 and 1 together, anything else alone."""
    lines: dict[str, list[Point]] = {}
    for record in stage.steps:
        for key, value in record.values.items():
            if "." not in key and not key.endswith("_bpb") and key != "utilization":
                lines.setdefault(key, []).append((record.step, value))
    scores = [
        key for key in lines if re.search("reward|accuracy|correct|pass|exact_match|token_f1", key)
    ]
    if scores:
        series = (Series(key, tuple(lines[key]), 1 + i % 6) for i, key in enumerate(scores))
        yield Chart(f"{stage.name}: reward and accuracy", tuple(series), low=0.0, high=1.0)
    for key in (key for key in lines if key not in scores):
        line = Series(key, tuple(lines[key]), _color(stage))
        yield Chart(f"{stage.name}: {key.replace('_', ' ')}", (line,))


def _trained_sources(report: RunReport) -> set[str]:
    """Of which some stage took rows: a chart of every source that has text would be a tangle."""
    shares = (share for stage in report.trained for share in stage.result("mixture") or ())
    return {share["source"] for share in shares}


def _by_source(stages: list[StageReport], title: str, keys: list[str]) -> Chart:
    """One line a source, through all stages."""
    lines: dict[str, list[Point]] = {key: [] for key in keys}
    first, marks = 0, []
    for stage in stages:
        for record in stage.steps:
            for key in keys:
                if key in record.values:
                    lines[key].append((float(first + record.step), record.values[key]))
        first += stage.steps[-1].step
        marks.append(float(first))
    series = (
        Series(key.partition(".")[2], tuple(points), 1 + number % 6)
        for number, (key, points) in enumerate(lines.items())
    )
    return Chart(title, tuple(series), "bits", RUN_STEP, tuple(marks[:-1]))


def _shares(stage: StageReport) -> Iterator[Chart]:
    """What the sources of a mixture that changes were given, from one evaluation to the next."""
    looked = [r for r in stage.steps if any(key.startswith(REALISED) for key in r.values)]
    asked = {tuple(v for k, v in r.values.items() if k.startswith(REQUESTED)) for r in looked}
    if len(asked) < 2:
        return
    lines: dict[str, list[Point]] = {}
    for record in looked:
        for key, value in record.values.items():
            if key.startswith(REALISED):
                lines.setdefault(key.removeprefix(REALISED), []).append((record.step, value))
    series = (
        Series(source, tuple(points), 1 + number % 6)
        for number, (source, points) in enumerate(lines.items())
    )
    yield Chart(f"{stage.name}: shares of rows", tuple(series), low=0.0, high=1.0)


def _whole(
    stages: list[StageReport],
    title: str,
    unit: str,
    *,
    step: StepValue = lambda _: None,
    timing: TimingValue = lambda _: None,
) -> Chart:
    """One line a stage, the stages one after the other."""
    series, first = [], 0
    for stage in stages:
        values = [(r.step, step(r)) for r in stage.steps]
        values += [(r.step, timing(r)) for r in stage.timings]
        points = tuple((float(first + at), y) for at, y in values if y is not None)
        series.append(Series(stage.name, points, _color(stage), first))
        first += stage.steps[-1].step
    marks = tuple(float(line.first) for line in series[1:])
    low = None if unit == "bits" else 0.0
    return Chart(title, tuple(series), unit, RUN_STEP, marks, low)
