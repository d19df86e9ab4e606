"""The whole way: one run file grows a model, measures it, reports it, and it can be talked to."""

import json
from pathlib import Path

import penjing
from penjing.artifacts.directories import verified
from penjing.artifacts.lines import read_record, read_records
from penjing.artifacts.records import StepRecord, TaskResult
from penjing.artifacts.stage import read_manifest
from penjing.stages.context import TRAINED_STAGES


def test_every_checkpoint_verifies_and_every_step_is_logged(small_run: Path) -> None:
    for stage in TRAINED_STAGES:
        steps = [record.step for record in read_records(metrics(small_run, stage), StepRecord)]
        manifest = read_manifest(small_run / stage)
        assert manifest is not None
        assert steps == list(range(1, manifest.results["steps"] + 1))
        verified(small_run / stage / str(manifest.results["checkpoint"]))


def metrics(run: Path, stage: str) -> Path:
    return run / stage / "metrics.jsonl"


def test_pretraining_lowers_validation_bits_per_byte(small_run: Path) -> None:
    records = read_records(metrics(small_run, "pretrain"), StepRecord)
    curve = [r.values["validation_bpb"] for r in records if "validation_bpb" in r.values]

    assert curve[-1] < curve[0]


def test_the_blend_ends_where_it_was_asked_to(small_run: Path) -> None:
    manifest = read_manifest(small_run / "midtrain")
    assert manifest is not None
    realised = {entry["source"]: entry["realised"] for entry in manifest.results["mixture"]}

    assert abs(realised["stories"] - 0.65) < 0.15
    assert abs(sum(realised.values()) - 1) < 1e-9


def test_every_rollout_is_recorded_with_its_reward(small_run: Path) -> None:
    lines = (small_run / "rl" / "rollouts.jsonl").read_text().splitlines()
    rollouts = [json.loads(line) for line in lines]

    assert len(rollouts) % 16 == 0
    assert {rollout["step"] for rollout in rollouts} == {1, 2, 3, 4}
    assert {rollout["reward"] for rollout in rollouts} <= {0.0, 1.0}


def test_rl_takes_steps_so_that_its_weights_change(small_run: Path) -> None:
    records = read_records(metrics(small_run, "rl"), StepRecord)

    assert sum(record.skipped == "" for record in records) >= 2


def test_every_score_has_n_interval_and_baselines_or_a_reason(small_run: Path) -> None:
    paths = sorted((small_run / "evaluate").glob("*.*.*.json"))
    results = [read_record(path, TaskResult) for path in paths]

    assert {result.stage for result in results} == set(TRAINED_STAGES)
    for result in results:
        if result.value is None:
            assert result.reason
        elif result.task != "text":
            assert result.n > 0
            assert result.low is not None
            assert result.high is not None
            assert result.low <= result.value <= result.high


def test_the_report_stands_alone_and_misses_no_stage(small_run: Path) -> None:
    page = (small_run / "report" / "report.html").read_text()
    data = json.loads((small_run / "report" / "report.json").read_text())

    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert "<script" not in page
    assert {stage["status"] for stage in data["stages"] if stage["name"] != "report"} == {"ok"}


def test_the_model_answers_from_python(small_run: Path) -> None:
    model = penjing.load(small_run)

    answer = model.chat("Who are you?", temperature=0.0, max_new_tokens=8)

    assert isinstance(answer, str)
    assert answer == model.chat("Who are you?", temperature=0.0, max_new_tokens=8)
    assert "<|" not in answer
