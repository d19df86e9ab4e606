"""Reading a run directory."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from penjing.report.collect import collect, to_json

Write = Callable[..., Path]


def test_a_finished_run_is_read_whole(write_run: Write) -> None:
    report = collect(write_run())
    assert [stage.status for stage in report.stages] == ["ok"] * 8
    assert report.name == "tiny"
    assert report.parameters == 7_345_408
    sft = report.stage("sft")
    assert sft is not None
    assert sft.tokens == 120 * 2048
    assert len(sft.steps) == 120
    assert sft.validation_bpb is not None
    assert not report.unreadable


def test_a_failed_stage_has_its_reason_and_later_ones_are_missing(write_run: Write) -> None:
    report = collect(write_run(until="pretrain", failure="loss became NaN"))
    status = {stage.name: stage.status for stage in report.stages}
    assert status["pretrain"] == "ok"
    assert status["midtrain"] == "failed"
    assert status["rl"] == "missing"
    midtrain = report.stage("midtrain")
    assert midtrain is not None
    assert "loss became NaN" in midtrain.reason


def test_a_started_stage_without_an_end_is_running(write_run: Write) -> None:
    run = write_run(until="shards", failure="x")
    lines = (run / "events.jsonl").read_text().splitlines()
    (run / "events.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    pretrain = collect(run).stage("pretrain")
    assert pretrain is not None
    assert pretrain.status == "running"
    assert pretrain.final_loss is None


def test_damaged_files_are_named_and_the_rest_is_read(write_run: Write) -> None:
    run = write_run()
    (run / "sft" / "stage.json").write_text("{")
    (run / "machine.json").write_text("[")
    with (run / "rl" / "metrics.jsonl").open("a") as log:
        log.write("no json\n")
    report = collect(run)
    named = " ".join(report.unreadable)
    assert all(name in named for name in ("sft/stage.json", "machine.json", "rl/metrics.jsonl"))
    rl = report.stage("rl")
    assert rl is not None
    assert len(rl.steps) == 50


def test_an_empty_directory_is_a_run_of_which_nothing_is_known(tmp_path: Path) -> None:
    report = collect(tmp_path)
    assert report.parameters is None
    assert {stage.status for stage in report.stages} == {"missing"}


def test_stage_changes_are_paired_by_problem(write_run: Write) -> None:
    deltas = {(d.task, d.before, d.after): d for d in collect(write_run()).deltas}
    change = deltas["products", "dpo", "rl"]
    assert change.value == pytest.approx(0.56)
    assert change.low < change.value < change.high
    assert change.n == 100


def test_rollouts_are_the_same_every_time_and_good_ones_score_higher(write_run: Write) -> None:
    run = write_run()
    rollouts = collect(run).rollouts
    assert rollouts == collect(run).rollouts
    assert rollouts.count == 200
    assert {r.reward for r in rollouts.good} == {1.0}
    assert {r.reward for r in rollouts.bad} == {0.0}


def test_the_json_holds_every_stage_and_is_valid(write_run: Write) -> None:
    value = json.loads(to_json(collect(write_run())))
    assert value["schema_version"] == 1
    assert len(value["stages"]) == 8
