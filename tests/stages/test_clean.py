"""Documents that are left out: why, which, and that the rest stays as it was."""

import json
from pathlib import Path
from typing import Any

import pytest

from penjing.artifacts.stage import read_manifest
from penjing.cli.main import main
from penjing.config.cleaning import CleanConfig
from penjing.data.shards import Shard, open_shard
from penjing.stages.cleaning import evaluation_runs
from penjing.text.tokenizer import load_tokenizer

pytest.importorskip("datasketch")
RUN = """\
[model]
depth = 1
max_position_embeddings = 64
[sources.tales]
paths = ["tales/*.jsonl"]
[sources.poems]
paths = ["poems.jsonl"]
[tokenizer]
vocab_size = 300
[shards]
validation_fraction = 0.2
[pretrain]
steps = 1
tokens_per_step = 64
mixture = { tales = 1, poems = 1 }
"""
WORDS = "the old tree stood in a small pot and grew seven leaves while rain fell on stones".split()
QUESTION = "Which of the seven small trees in the garden of the old king grew the most leaves?"


def tale(number: int, words: int = 60) -> str:
    """A text like no other."""
    state, found = 7919 * (number + 1), []
    for _ in range(words):
        state = (state * 1103515245 + 12345) % 2**31
        found.append(WORDS[state >> 16 & 15] + str(state >> 20 & 7))
    return " ".join(found)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Two sources with planted duplicates, a planted question, a short and a foreign text."""
    texts = [tale(n) for n in range(40)]
    near = texts[5].split()
    near[30] = "otherwise"
    planted = (
        f"{tale(90, 30)} WHICH of the seven, small trees -- in the garden of the old king GREW"
    )
    tales = [*texts[:20], f"  {texts[3]}\n", " ".join(near), "short", planted, *texts[20:]]
    (tmp_path / "tales").mkdir()
    for part in range(4):
        rows = [json.dumps({"text": text}) + "\n" for text in tales[part * 11 : part * 11 + 11]]
        (tmp_path / "tales" / f"{part}.jsonl").write_text("".join(rows))
    poems = [texts[7], tale(50), tale(51), tale(52), f"{tale(53)} of the seven small trees in the"]
    (tmp_path / "poems.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in poems))
    (tmp_path / "eval.jsonl").write_text(json.dumps({"question": {"text": [QUESTION, "yes"]}}))
    return tmp_path


def grow(base: Path, name: str, clean: str, *options: str) -> Path:
    """The first stages of a run with this section, into a folder of runs of its own."""
    (base / "run.toml").write_text(RUN + clean)
    for stage in ("clean", "tokenizer", "shards") if clean else ("tokenizer", "shards"):
        words = [stage, str(base / "run.toml"), "--runs", str(base / name), *options]
        assert main(words) == 0
    return base / name / "run"


CLEAN = """
[clean]
near_duplicates = 0.7
min_characters = 10
decontaminate = ["eval.jsonl"]
"""


def counts(run: Path) -> dict[str, Any]:
    manifest = read_manifest(run / "clean")
    assert manifest is not None
    return {source["name"]: source for source in manifest.results["sources"]}


def texts_of(run: Path, source: str) -> dict[str, set[str]]:
    tokenizer = load_tokenizer(run / "tokenizer")
    found = {}
    for split in ("train", "validation"):
        shard: Shard = open_shard(run / "shards", f"{source}.{split}", tokenizer.digest)
        lengths = shard.lengths().tolist()
        found[split] = {
            tokenizer.decode(shard.read(n, 1, size)[0].tolist()) for n, size in enumerate(lengths)
        }
    return found


def test_planted_texts_are_left_out_by_tokenizer_and_shards_and_no_other(base: Path) -> None:
    run, plain = grow(base, "cleaned", CLEAN), grow(base, "plain", "")

    found = counts(run)
    assert (found["tales"]["documents"], found["tales"]["kept"]) == (44, 40)
    assert found["tales"]["dropped"] == {
        "contaminated": 1,
        "exact duplicate": 1,
        "near duplicate": 1,
        "too short": 1,
    }
    assert found["poems"]["dropped"] == {"exact duplicate": 1}
    examples = [json.loads(x) for x in (run / "clean" / "examples.jsonl").read_text().splitlines()]
    exact = [one for one in examples if one["reason"] == "exact duplicate"]
    assert exact[0]["where"] == "tales: tales/1.jsonl, document 10"
    assert exact[0]["like"] == "tales: tales/0.jsonl, document 4"
    for source in ("tales", "poems"):
        before, after = texts_of(plain, source), texts_of(run, source)
        for split in ("train", "validation"):  # nothing changed sides
            assert after[split] <= before[split]
    manifest = read_manifest(run / "tokenizer")
    assert manifest is not None
    assert manifest.results["texts"] == 44


@pytest.mark.parametrize("options", [(), ("--no-resume",)])
def test_what_is_left_out_does_not_depend_on_chunks(base: Path, options: tuple[str, ...]) -> None:
    whole = grow(base, "whole", CLEAN)
    cut = grow(base, "cut", CLEAN + "chunk_files = 1\n", *options)

    for name in ("dropped.npy", "files.jsonl"):
        assert (whole / "clean" / name).read_bytes() == (cut / "clean" / name).read_bytes()
    assert counts(whole) == counts(cut)


def test_tasks_of_a_shell_make_the_same(base: Path) -> None:
    whole = grow(base, "whole", CLEAN + "chunk_files = 1\n")
    words = ["clean", str(base / "run.toml"), "--runs", str(base / "tasks")]
    for task in ("2/3", "1/3", "3/3"):
        assert main([*words, "--task", task]) == 0
    assert main(words) == 0

    assert counts(base / "tasks" / "run") == counts(whole)


def test_a_local_ray_makes_the_same(base: Path) -> None:
    ray = pytest.importorskip("ray")
    whole = grow(base, "whole", CLEAN + "chunk_files = 1\n")
    words = ["clean", str(base / "run.toml"), "--runs", str(base / "ray"), "--engine", "ray"]
    try:
        assert main(words) == 0
    finally:
        ray.shutdown()

    assert counts(base / "ray" / "run") == counts(whole)


def test_a_file_that_changed_since_is_told(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grow(base, "runs", CLEAN)
    (base / "poems.jsonl").write_text('{"text": "another"}\n')
    words = ["shards", str(base / "run.toml"), "--runs", str(base / "runs"), "--redo"]

    assert main(words) == 1
    assert "poems.jsonl: was not there, or another, when the stage clean" in capsys.readouterr().err


def test_a_run_without_text_has_nothing_to_clean(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = RUN.replace("[sources.tales]", '[sources.tales]\nkind = "conversations"')
    text = text.replace("[sources.poems]", '[sources.poems]\nkind = "conversations"')
    (base / "run.toml").write_text(text + "[clean]\n")

    assert main(["clean", str(base / "run.toml"), "--runs", str(base / "runs")]) == 2
    assert "found no source of text" in capsys.readouterr().err


def test_filters_of_quality_and_language(base: Path) -> None:
    pytest.importorskip("py3langid")
    french = "Le vieil arbre se tenait dans un petit pot, et chaque printemps il lui poussait "
    english = "The old tree stood in a small pot, and every spring it grew some seven new leaves. "
    rows = [
        english * 2,
        french * 2,
        "盆景是一种古老的艺术，小小的树木在浅盆中生长了几百年，四季常青。" * 2,
    ]
    rows += ["\n".join(f"- item {n}" for n in range(12)), "court"]
    path = base / "poems.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))

    run = grow(base, "runs", '[clean]\nquality = true\nlanguages = ["en", "zh"]\n')

    assert counts(run)["poems"]["dropped"] == {"language: fr": 1, "quality: bullet lines": 1}


@pytest.mark.parametrize(
    ("text", "shared"),
    [
        (QUESTION.upper().replace(" ", "\n"), True),
        (" ".join(QUESTION.split()[:12]), False),
        (" ".join(QUESTION.split()[1:14]), True),
    ],
)
def test_thirteen_words_in_any_writing_are_found_and_twelve_are_not(
    base: Path,
    text: str,
    shared: bool,
) -> None:
    config = CleanConfig(decontaminate=("eval.jsonl",))
    known = set(evaluation_runs(config, base).tolist())
    (base / "text.jsonl").write_text(json.dumps({"text": text}))

    own = evaluation_runs(CleanConfig(decontaminate=("text.jsonl",)), base)
    assert bool(known & set(own.tolist())) == shared


def test_a_run_of_chinese_characters_is_found(base: Path) -> None:
    (base / "eval.jsonl").write_text(json.dumps({"q": "下列哪一种树木最适合制作盆景？"}))
    (base / "text.jsonl").write_text(
        json.dumps({"t": "他问道：“下列哪一种树木最适合制作盆景”，众人不答。"})
    )

    runs = [
        evaluation_runs(CleanConfig(decontaminate=(name,)), base).tolist()
        for name in ("eval.jsonl", "text.jsonl")
    ]
    assert set(runs[0]) <= set(runs[1])
    assert runs[0]
