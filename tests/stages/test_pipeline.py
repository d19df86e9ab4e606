"""A run is brought up to date with its file: nothing twice, nothing stale, nothing lost."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from penjing.artifacts.lines import read_records
from penjing.artifacts.progress import Progress
from penjing.artifacts.records import Event
from penjing.artifacts.stage import read_manifest
from penjing.config.loading import load_run
from penjing.config.schema import RunConfig
from penjing.errors import ArtifactError, ConfigError
from penjing.stages.context import TRAINED_STAGES, StageContext
from penjing.stages.pipeline import STAGES, train
from penjing.stages.upkeep import stage_identity

OWN_STAGES = [stage for stage in STAGES if stage.name != "clean"]  # the small run has no [clean]
SMALL = Path(__file__).parents[1] / "small.toml"


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished small run, to be changed."""
    return Path(shutil.copytree(small_run, tmp_path / "runs" / "small"))


def bring_up_to_date(
    run: Path,
    config: RunConfig,
    *,
    only: str | None = None,
    redo: str | None = None,
    extend: bool = False,
) -> list[Progress]:
    seen: list[Progress] = []
    train(config, SMALL.parent, run.parent, only=only, redo=redo, extend=extend, show=seen.append)
    return seen


def test_every_stage_of_the_small_run_is_finished(small_run: Path) -> None:
    for stage in OWN_STAGES:
        manifest = read_manifest(small_run / stage.name)
        assert manifest is not None, stage.name
        assert manifest.seconds > 0


def test_a_finished_run_is_left_alone_but_for_its_report(run: Path) -> None:
    before = (run / "rl" / "stage.json").read_bytes()

    seen = bring_up_to_date(run, load_run(SMALL))

    skipped = [progress.stage for progress in seen if progress.kind == "skipped"]
    assert skipped == [stage.name for stage in OWN_STAGES if stage.name != "report"]
    assert (run / "rl" / "stage.json").read_bytes() == before


def test_a_stale_stage_stops_the_run_and_names_the_field(run: Path) -> None:
    config = load_run(SMALL, ["sft.optimizer.matrix_learning_rate=0.02"])

    with pytest.raises(ConfigError, match=r"sft.*\n.*sft.optimizer.matrix_learning_rate: was"):
        bring_up_to_date(run, config)

    assert read_manifest(run / "sft") is not None


def test_conduct_may_change_without_making_a_stage_stale(run: Path) -> None:
    config = load_run(SMALL, ["sft.cadence.checkpoint_every_steps=2", "sft.microbatch_rows=1"])

    seen = bring_up_to_date(run, config, only="sft")

    assert [progress.kind for progress in seen] == ["skipped"]


def test_redo_keeps_the_old_stage_and_all_after_it_aside(run: Path) -> None:
    old = read_manifest(run / "dpo")
    config = load_run(SMALL, ["dpo.beta=0.2"])

    bring_up_to_date(run, config, redo="dpo")

    new = read_manifest(run / "dpo")
    assert new is not None
    assert old is not None
    assert (old.identity["dpo.beta"], new.identity["dpo.beta"]) == (0.1, 0.2)
    assert read_manifest(run / "dpo.old-1") == old
    assert (run / "rl.old-1").exists()
    assert not (run / "sft.old-1").exists()


def test_extend_goes_on_from_the_last_checkpoint(run: Path) -> None:
    config = load_run(SMALL, ["pretrain.steps=10"])
    with pytest.raises(ConfigError, match="--extend"):
        bring_up_to_date(run, config, only="pretrain")

    bring_up_to_date(run, config, only="pretrain", extend=True)

    manifest = read_manifest(run / "pretrain")
    assert manifest is not None
    assert (manifest.results["steps"], manifest.results["resumed_from_step"]) == (10, 8)


def test_a_changed_seed_makes_every_stage_stale() -> None:
    config = load_run(SMALL)
    other = dataclasses.replace(config, seed=8)

    for stage in OWN_STAGES:
        assert stage_identity(config, stage.name) != stage_identity(other, stage.name)


def test_a_stage_whose_needs_are_missing_says_which(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="needs the stage shards"):
        bring_up_to_date(tmp_path / "small", load_run(SMALL), only="pretrain")


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")

    with pytest.raises(ConfigError, match="found 2 processes"):
        bring_up_to_date(tmp_path / "small", load_run(SMALL))

    assert not (tmp_path / "small").exists()


def test_what_a_stage_consumed_stands_in_its_results(small_run: Path) -> None:
    for stage in TRAINED_STAGES:
        manifest = read_manifest(small_run / stage)
        assert manifest is not None
        results = manifest.results
        assert results["parameters"] > 100_000
        if stage == "dpo":
            assert results["tokens"] == pytest.approx(results["planned_tokens"], rel=0.2)
            assert (results["overlong_pairs"], results["bad_rows"]) == (0, 0)
        for share in results.get("mixture", ()):
            assert 0 < share["epochs"] < 4
            assert share.keys() >= {"source", "requested_start", "requested_end", "realised"}


def test_events_tell_when_each_stage_began_and_ended(small_run: Path) -> None:
    events = list(read_records(small_run / "events.jsonl", Event))

    for stage in OWN_STAGES:
        kinds = [event.kind for event in events if event.stage == stage.name]
        assert kinds[0] == "started"
        assert kinds[-1] == "finished"


def test_a_stage_whose_table_has_left_the_run_file_is_no_start(run: Path) -> None:
    config = dataclasses.replace(load_run(SMALL), midtrain=None)
    context = StageContext(config, SMALL.parent, run, show=lambda _: None)

    assert (run / "midtrain" / "stage.json").exists()
    assert context.previous_stage("sft") == "pretrain"
    assert "midtrain" not in context.trained_stages()
