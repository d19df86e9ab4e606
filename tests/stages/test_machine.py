"""What a stage starts from."""

import json
import shutil
from pathlib import Path

from penjing.cli.main import main
from penjing.train.checkpoint import final_checkpoint

SMALL = Path(__file__).parents[1] / "small.toml"


def first_loss(run: Path, stage: str) -> float:
    line = (run / stage / "metrics.jsonl").read_text().splitlines()[0]
    return float(json.loads(line)["loss"])


def test_a_stage_starts_from_a_hugging_face_folder(small_run: Path, tmp_path: Path) -> None:
    run = tmp_path / small_run.name
    run.mkdir()
    shutil.copy(small_run / "machine.json", run)
    for stage in ("tokenizer", "shards"):
        shutil.copytree(small_run / stage, run / stage)
    folder = final_checkpoint(small_run / "sft")
    words = ["pretrain", str(SMALL), "--runs", str(tmp_path), "--set", f"pretrain.from={folder}"]
    assert main(words) == 0
    manifest = json.loads((run / "pretrain" / "stage.json").read_text())
    assert manifest["results"]["start_stage"] == str(folder)
    assert first_loss(run, "pretrain") < first_loss(small_run, "pretrain") - 0.05
    assert manifest["results"]["final_bpb"] > 0


def test_a_folder_of_another_kind_is_refused(small_run: Path, tmp_path: Path) -> None:
    run = tmp_path / small_run.name
    run.mkdir()
    for stage in ("tokenizer", "shards"):
        shutil.copytree(small_run / stage, run / stage)
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "config.json").write_text('{"model_type": "llama"}')
    place = f"pretrain.from={tmp_path / 'llama'}"
    assert main(["pretrain", str(SMALL), "--runs", str(tmp_path), "--set", place]) == 1
