"""A model is trained on the vocabulary of another tool, through the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from penjing.artifacts.stage import read_manifest
from penjing.cli.main import main
from penjing.data.shards import open_shard
from penjing.text.tokenizer import load_tokenizer

RUN = """\
[model]
depth = 1
hidden_size = 32
head_dim = 16
max_position_embeddings = 64
[runtime]
device = "cpu"
dtype = "float32"
threads = 1
[tokenizer]
from = "theirs/tokenizer.json"
[shards]
validation_fraction = 0.3
[sources.mine]
paths = ["*.txt"]
[pretrain]
steps = 2
tokens_per_step = 64
sample_prompts = ["The tree"]
sample_tokens = 4
mixture = { mine = 1 }
"""
TEXT = "Tree %d stood in a small pot. It grew %d leaves, and it's asleep now.\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run file, texts, and a vocabulary that Hugging Face's library trained on others."""
    (tmp_path / "mine.toml").write_text(RUN)
    for number in range(20):
        (tmp_path / f"{number}.txt").write_text(TEXT % (number, number))
    theirs = tokenizers.Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    theirs.train_from_iterator([TEXT] * 5, trainer)
    (tmp_path / "theirs").mkdir()
    theirs.save(str(tmp_path / "theirs" / "tokenizer.json"))
    return tmp_path


def test_a_run_takes_a_foreign_vocabulary_and_trains_on_its_ids(folder: Path) -> None:
    theirs = tokenizers.Tokenizer.from_file(str(folder / "theirs" / "tokenizer.json"))
    size = theirs.get_vocab_size() + 15  # it has <|endoftext|> already
    file, runs = str(folder / "mine.toml"), ["--runs", str(folder / "runs")]

    assert main(["check", file]) == 0
    assert all(main([stage, file, *runs]) == 0 for stage in ("tokenizer", "shards", "pretrain"))

    run = folder / "runs" / "mine"
    manifest = read_manifest(run / "tokenizer")
    assert manifest is not None
    assert manifest.identity["tokenizer.from"] == "theirs/tokenizer.json"
    assert manifest.results["vocab_size"] == size
    checkpoint = run / "pretrain" / "step-000002"
    assert json.loads((checkpoint / "config.json").read_text())["vocab_size"] == size
    ours = load_tokenizer(checkpoint)
    shard = open_shard(run / "shards", "mine.train", ours.digest)
    ids = shard.read(0, 0, 10_000)[0].tolist()
    assert ids[0] == ours.end_of_text == 0
    assert ids[1:] == theirs.encode(ours.decode(ids[1:])).ids
    again = tokenizers.Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    assert again.encode("The tree's leaves").ids == theirs.encode("The tree's leaves").ids
    assert again.token_to_id("<|im_end|>") == ours.im_end


def test_files_of_their_ids_make_the_shards_of_their_text(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tokenizers.Tokenizer.from_file(str(folder / "theirs" / "tokenizer.json"))
    texts = [(folder / name).read_text() for name in sorted(f"{n}.txt" for n in range(20))]
    ids = [one for text in texts for one in (*theirs.encode(text).ids, 0)]
    np.array(ids, dtype="<u2").tofile(folder / "ids.bin")
    run_file = folder / "mine.toml"
    run_file.write_text(
        RUN.replace("[pretrain]", '[sources.ids]\npaths = ["ids.bin"]\ntoken_end = 0\n[pretrain]')
    )
    command = [str(run_file), "--runs", str(folder / "runs")]

    assert main(["tokenizer", *command]) == 0
    assert main(["shards", *command]) == 0

    shards = folder / "runs" / "mine" / "shards"
    for split in ("train", "validation"):
        for suffix in ("bin", "idx", "json"):
            text = (shards / f"mine.{split}.{suffix}").read_bytes()
            assert (shards / f"ids.{split}.{suffix}").read_bytes() == text
    run_file.write_text(run_file.read_text().replace("token_end = 0", "token_end = 5"))
    assert main(["shards", *command, "--redo"]) == 1
    assert "the id 0, which is no text in the run's tokenizer" in capsys.readouterr().err


def test_ids_of_another_vocabulary_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tokenizers.Tokenizer.from_file(str(folder / "theirs" / "tokenizer.json"))
    letters = [one for letter in "The tree stood" for one in theirs.encode(letter).ids]
    np.array([*letters, 0] * 9, dtype="<u2").tofile(folder / "ids.bin")
    run_file = folder / "mine.toml"
    run_file.write_text(RUN.replace('paths = ["*.txt"]', 'paths = ["ids.bin"]\ntoken_end = 0'))
    command = [str(run_file), "--runs", str(folder / "runs")]

    assert main(["tokenizer", *command]) == 0
    assert main(["shards", *command]) == 1
    assert "they are of another one" in capsys.readouterr().err


def test_check_says_how_many_ids_there_are(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(folder / "mine.toml")]) == 0
    theirs = tokenizers.Tokenizer.from_file(str(folder / "theirs" / "tokenizer.json"))
    assert f"{theirs.get_vocab_size() + 15} ids" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("tokenizer.vocab_size=512", "tokenizer.vocab_size: found 512"),
        ("tokenizer.from=nowhere.json", "nowhere.json cannot be read"),
        ("tokenizer.from=0.txt", "no known form"),
    ],
)
def test_check_finds_what_does_not_fit(
    folder: Path, setting: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(folder / "mine.toml"), "--set", setting]) == 2
    assert message in capsys.readouterr().err


def test_there_is_nothing_to_count_for_a_taken_vocabulary(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, runs = str(folder / "mine.toml"), ["--runs", str(folder / "runs")]
    for part in ("count", "reduce", "train"):
        assert main(["tokenizer", file, *runs, "--part", part]) == 2
        assert "nothing to count" in capsys.readouterr().err
