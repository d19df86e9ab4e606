"""What a stage will cost, from steps on this device."""

import json
from pathlib import Path

import pytest

from penjing.artifacts.records import Manifest
from penjing.artifacts.stage import write_manifest
from penjing.cli.main import main
from penjing.config.loading import load_run
from penjing.config.training import TrainingConfig
from penjing.stages.calibration import at_depth
from penjing.stages.forecast import disk_bytes, expected_loss, forecast
from penjing.stages.plan import plan_run

SMALL = Path(__file__).parents[1] / "small.toml"


def test_the_verb_forecasts_every_stage_at_a_depth(
    small_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["plan", str(SMALL), "--runs", str(small_run.parent), "--depth", "1", "--price", "2"]
    assert main([*words, "--json"]) == 0
    news = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = [one["values"] for one in news if "cpu_seconds" in one["values"]]
    assert [one["depth"] for one in found] == [1, 1, 1]
    assert all(0 < one["seconds"] < 60 for one in found)
    assert all(1e8 < one["memory_bytes"] < 4e9 for one in found)
    text = "\n".join(one["text"] for one in news)
    assert "at 2 an hour" in text
    assert "expected loss: unknown" in text


def test_a_wrong_depth_is_a_clear_mistake(small_run: Path) -> None:
    words = ["plan", str(SMALL), "--runs", str(small_run.parent), "--depth", "four"]
    assert main(words) == 2


def test_other_depths_derive_their_width_again() -> None:
    config = load_run(SMALL)
    assert at_depth(config, 3).model.shape(300).hidden_size == 192
    assert at_depth(config, 3).model.max_position_embeddings == (
        config.model.max_position_embeddings
    )


def test_checkpoints_hold_weights_and_optimizer(small_run: Path) -> None:
    config = load_run(SMALL)
    assert isinstance(config.pretrain, TrainingConfig)
    shape = config.model.shape(plan_run(config, SMALL.parent, small_run.parent).vocab_size)
    kept = sorted((small_run / "pretrain").glob("step-*"))
    one = sum(path.stat().st_size for path in kept[-1].iterdir())
    planned = disk_bytes(shape, config.pretrain)
    assert planned == pytest.approx(one * (config.pretrain.cadence.keep_checkpoints + 1), rel=0.5)


def test_no_loss_is_expected_of_text_that_was_not_trained_on(small_run: Path) -> None:
    found = expected_loss(load_run(SMALL), small_run.parent, "pretrain", 1e9)
    assert found == (None, None)


def test_a_power_law_through_three_runs_is_asked_near_them(small_run: Path, tmp_path: Path) -> None:
    from penjing.artifacts.stage import read_manifest
    from penjing.stages.upkeep import manifest_digest

    config = load_run(SMALL)
    own = read_manifest(small_run / "shards")
    assert own is not None
    (tmp_path / config.name).mkdir()
    (tmp_path / config.name / "shards").symlink_to(small_run / "shards")
    for number, flops in enumerate((1e12, 4e12, 16e12)):
        directory = tmp_path / f"run{number}" / "pretrain"
        directory.mkdir(parents=True)
        results = {"final_bpb": 2.0 * (flops / 1e12) ** -0.05, "flops": flops}
        identity = Manifest(
            **{**vars(own), "stage": "pretrain", "results": results},
        )
        inputs = {"shards": manifest_digest(own)}
        write_manifest(directory, Manifest(**{**vars(identity), "inputs": inputs}))
    loss, error = expected_loss(config, tmp_path, "pretrain", 32e12)
    assert loss == pytest.approx(2.0 * 32**-0.05, rel=1e-3)
    assert error is not None
    assert error < 0.05
    assert expected_loss(config, tmp_path, "pretrain", 1e15) == (None, None)


def test_without_a_calibration_memory_is_that_of_the_rows_that_a_step_has(
    small_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penjing.stages.forecast.CALIBRATION_SECONDS", 0.0)
    found = []
    for at_most in (1, 800):
        config = load_run(SMALL, [f"pretrain.microbatch_rows={at_most}"])
        facts = plan_run(config, SMALL.parent, small_run.parent)
        planned = forecast(config, facts, facts.stages[0], small_run.parent)
        assert planned is not None
        found.append(planned.memory_bytes)
    one_row, whole_step = found
    assert one_row < whole_step < 8 * one_row
