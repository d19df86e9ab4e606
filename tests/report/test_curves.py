"""Which curves a run has."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from penjing.report.collect import collect
from penjing.report.curves import curves


def test_charts_stand_in_the_order_in_which_a_stage_records_its_values(
    write_run: Callable[..., Path],
) -> None:
    report = collect(write_run())
    names = [f"value {number}" for number in range(20)]
    stages = tuple(
        replace(
            stage,
            steps=tuple(replace(step, values=dict.fromkeys(names, 2.0)) for step in stage.steps),
        )
        for stage in report.stages
        if stage.name == "dpo"
    )
    titles = [chart.title for chart in curves(replace(report, stages=stages))]
    assert [title for title in titles if "value" in title] == [f"dpo: {name}" for name in names]
