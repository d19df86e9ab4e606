"""A mixture changed while its stage is trained: recorded, gradual, and no row read twice."""

import json
import shutil
from pathlib import Path

import pytest

from penjing.artifacts import disk
from penjing.artifacts.lines import read_records
from penjing.artifacts.records import EditRecord, StepRecord
from penjing.artifacts.stage import read_manifest
from penjing.cli.main import main
from penjing.config.loading import load_run
from penjing.data.batches import RowStream
from penjing.errors import ArtifactError
from penjing.stages.context import StageContext
from penjing.stages.horizon import StagePlan, read_plan
from penjing.stages.machine import open_machine
from penjing.stages.next_token import open_stream
from penjing.stages.upkeep import BEGUN

SMALL = Path(__file__).parents[1] / "small.toml"
PROSE = '[sources.poems]\nsynthetic = "stories"\nrows = 60\n\n[tokenizer]'


@pytest.fixture
def run_file(small_run: Path, tmp_path: Path) -> Path:
    """A run that stopped in pretraining, after step 6 of 8."""
    run = shutil.copytree(small_run, tmp_path / "runs" / "small")
    for later in ("midtrain", "sft", "dpo", "rl", "evaluate", "report"):
        shutil.rmtree(run / later)
    (run / "pretrain" / "stage.json").unlink()
    shutil.rmtree(run / "pretrain" / "step-000008")
    return Path(shutil.copy(SMALL, tmp_path / "small.toml"))


def change(run_file: Path, *pairs: tuple[str, str]) -> None:
    text = run_file.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    run_file.write_text(text)


def penjing(verb: str, run_file: Path, *options: str) -> int:
    return main([verb, str(run_file), "--runs", str(run_file.parent / "runs"), *options])


def rows_of(run_file: Path) -> RowStream:
    run = run_file.parent / "runs" / "small"
    context = StageContext(load_run(run_file), run_file.parent, run, lambda _: None)
    plan = read_plan(run / "pretrain")
    assert plan is not None
    tokenizer, runtime = context.tokenizer(), open_machine(context)
    return open_stream(context, "pretrain", plan.segments, 2, tokenizer, runtime)


def test_a_new_source_comes_in_and_the_old_one_goes_on_where_it_was(
    run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [rows_of(run_file).plan.source_of(row) for row in range(16)]
    change(run_file, ("[tokenizer]", PROSE))
    change(run_file, ("mixture = { stories = 1.0 }", "mixture = { stories = 1, poems = 1 }"))
    assert penjing("train", run_file) == 2
    assert "`penjing edit` adds sources" in capsys.readouterr().err

    assert penjing("edit", run_file, "--blend-tokens", "384") == 0

    run = run_file.parent / "runs" / "small"
    added, changed = read_records(run / "edits.jsonl", EditRecord)
    assert (added.added, changed.stage, changed.first_row) == (("poems",), "pretrain", 12)
    assert changed.shares == {"stories": [1.0, 0.5], "poems": [0.0, 0.5]}
    plan = rows_of(run_file).plan
    assert [plan.source_of(row) for row in range(12)] == before[:12]
    own = [within for source, within in map(plan.source_of, range(40)) if source == 0]
    assert own == list(range(len(own)))
    old = run / "shards.old-1" / "stories.train.bin"
    assert (run / "shards" / "stories.train.bin").read_bytes() == old.read_bytes()
    assert penjing("train", run_file, "--json") == 0
    assert '"skipped"' in capsys.readouterr().out
    steps = list(read_records(run / "pretrain" / "metrics.jsonl", StepRecord))
    assert [step.step for step in steps] == list(range(1, 9))
    manifest = read_manifest(run / "pretrain")
    assert manifest is not None
    assert [share["source"] for share in manifest.results["mixture"]] == ["stories", "poems"]
    assert penjing("train", run_file) == 0


def test_a_source_that_is_added_to_a_cleaned_run_is_cleaned_too(tmp_path: Path) -> None:
    text = "".join(
        json.dumps({"text": f"Tree {n // 2} grew {n // 2} leaves."}) + "\n" for n in range(60)
    )
    (tmp_path / "trees.jsonl").write_text(text)
    run_file = Path(shutil.copy(SMALL, tmp_path / "small.toml"))
    change(run_file, ("[tokenizer]", "[clean]\nmin_characters = 20\n\n[tokenizer]"))
    for stage in ("clean", "tokenizer", "shards", "pretrain"):
        assert penjing(stage, run_file) == 0
    run = tmp_path / "runs" / "small"
    (run / "pretrain" / "stage.json").unlink()
    shutil.rmtree(run / "pretrain" / "step-000008")
    change(run_file, ("[tokenizer]", '[sources.trees]\npaths = ["trees.jsonl"]\n\n[tokenizer]'))
    change(run_file, ("mixture = { stories = 1.0 }", "mixture = { stories = 1, trees = 1 }"))

    assert penjing("edit", run_file, "--blend-tokens", "384") == 0

    cleaned, encoded = read_manifest(run / "clean"), read_manifest(run / "shards")
    assert cleaned is not None
    assert encoded is not None
    trees = {one["name"]: one for one in cleaned.results["sources"]}["trees"]
    assert (trees["documents"], trees["kept"]) == (60, 30)
    made = {one["name"]: one for one in encoded.results["sources"]}["trees"]
    assert made["documents"] + made["validation_documents"] == 30
    for stage in ("clean", "tokenizer", "shards", "pretrain"):
        assert penjing(stage, run_file) == 0
    assert (run / "clean.old-1").exists()


def test_an_abrupt_switch_is_refused_unless_told(
    run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(run_file, ("[tokenizer]", PROSE))
    change(run_file, ("mixture = { stories = 1.0 }", "mixture = { stories = 1, poems = 1 }"))
    change(run_file, ("steps = 8", "steps = 800"))
    assert penjing("edit", run_file) == 2
    assert "--extend" in capsys.readouterr().err
    change(run_file, ("steps = 800", "steps = 8"))
    plan = run_file.parent / "runs" / "small" / "pretrain" / "plan.json"
    value = json.loads(plan.read_text()) | {"steps": 800}
    plan.write_text(json.dumps(value))

    assert penjing("edit", run_file, "--blend-tokens", "192") == 2
    told = capsys.readouterr().err
    assert "50% of the rows would change" in told
    assert "--blend-tokens of at least 3,072, or say --abrupt" in told
    assert penjing("edit", run_file, "--blend-tokens", "192", "--abrupt") == 0


def test_nothing_else_can_be_edited(run_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert penjing("edit", run_file) == 2
    assert "neither a new source nor another mixture" in capsys.readouterr().err
    change(run_file, ("vocab_size = 512", "vocab_size = 400"))
    assert penjing("edit", run_file) == 2
    assert "a change of tokenizer.vocab_size" in capsys.readouterr().err


@pytest.mark.parametrize("lost", range(1, 12))
def test_an_edit_that_is_killed_is_made_again(
    run_file: Path, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    """At every rename: afterwards the edit is there once, or it is made by the same command."""
    change(run_file, ("[tokenizer]", PROSE))
    change(run_file, ("mixture = { stories = 1.0 }", "mixture = { stories = 1, poems = 1 }"))
    renames, rename = 0, disk.rename

    def stop(source: Path, target: Path) -> None:
        nonlocal renames
        renames += 1
        if renames == lost:
            raise ArtifactError("killed here")
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "rename", stop)
        killed = penjing("edit", run_file) != 0
    assert not killed or penjing("edit", run_file) in (0, 2)

    run = run_file.parent / "runs" / "small"
    plan = read_plan(run / "pretrain")
    assert isinstance(plan, StagePlan)
    assert [part.first_row for part in plan.segments] == [0, 12]
    assert sum("poems" in edit.added for edit in read_records(run / "edits.jsonl", EditRecord)) == 1
    assert (run / "pretrain" / BEGUN).exists()
    assert penjing("train", run_file) == 0
