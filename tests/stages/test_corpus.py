"""The tokenizer and shards stages: the same bytes however the work over the corpus was cut."""

import gzip
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from penjing.artifacts import directories, remote
from penjing.artifacts.progress import Progress
from penjing.artifacts.stage import read_manifest
from penjing.cli.main import main
from penjing.config.loading import parse_run
from penjing.config.schema import RunConfig
from penjing.data import corpus
from penjing.data.corpus import Conduct
from penjing.errors import ArtifactError, ConfigError, DataError
from penjing.stages import counting
from penjing.stages.corpus import do_part, do_stage
from penjing.text.bpe import count_words, train_merges
from penjing.text.tokenizer import load_tokenizer

RUN = """
[sources.tales]
paths = ["tales/*"]
language = "en"

[sources.poems]
paths = ["poems.jsonl"]
language = "zh"

[sources.identity]
kind = "conversations"
synthetic = "identity"
rows = 40

[tokenizer]
vocab_size = 400
chunk_files = 2

[shards]
validation_fraction = 0.2
chunk_files = 2

[pretrain]
steps = 9
tokens_per_step = 256
mixture = { tales = 1.0 }
"""
WORDS = "the tree stood in a small pot and grew seven leaves while rain fell on old stones".split()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Two sources of files: seven of English words, one of Chinese."""
    rng = random.Random(5)
    (tmp_path / "tales").mkdir()
    for number in range(7):
        texts = [" ".join(rng.choices(WORDS, k=rng.randrange(1, 60))) for _ in range(20)]
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        path = tmp_path / "tales" / f"{number}.jsonl"
        if number % 2:
            path.with_suffix(".jsonl.gz").write_bytes(gzip.compress(lines.encode()))
        else:
            path.write_text(lines)
    poems = ["".join(rng.choices("盆景小树石上雨落叶", k=rng.randrange(1, 40))) for _ in range(30)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in poems)
    (tmp_path / "poems.jsonl").write_text(lines + '{"text": 7}\n')
    return tmp_path


@pytest.fixture
def url() -> Iterator[str]:
    """A place that no file system shares, empty before and after."""
    MemoryFileSystem.store.clear()
    yield "memory://state"
    MemoryFileSystem.store.clear()


def config(*overrides: str) -> RunConfig:
    return parse_run(RUN, "grove.toml", ["shards.max_bad_row_fraction=0.1", *overrides])


def grow(
    base: Path, name: str, run: RunConfig, conduct: Conduct | None = None, *, redo: bool = False
) -> tuple[Path, list[Progress]]:
    """Both stages, into a folder of runs of that name; the run's directory, and what was told."""
    told: list[Progress] = []
    for stage in ("tokenizer", "shards"):
        run_dir = do_stage(
            run, base, base / name, stage, None, conduct or Conduct(), told.append, redo=redo
        )
        redo = False
    return run_dir, told


def made(run_dir: Path) -> dict[str, bytes]:
    """Every file that the two stages made, but for their manifests."""
    paths = [p for stage in ("tokenizer", "shards") for p in (run_dir / stage).rglob("*")]
    files = [path for path in paths if path.is_file() and path.name != "stage.json"]
    return {path.relative_to(run_dir).as_posix(): path.read_bytes() for path in files}


def texts_of(base: Path) -> list[list[str]]:
    """The documents of the two sources of files, read the slow way."""
    tales = []
    for path in sorted((base / "tales").iterdir()):
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        tales += [json.loads(line)["text"] for line in data.splitlines()]
    poems = [json.loads(line)["text"] for line in (base / "poems.jsonl").read_text().splitlines()]
    return [tales, [text for text in poems if isinstance(text, str)]]


@pytest.fixture
def in_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "SMALL_BYTES", 0)


def test_merges_and_shards_do_not_depend_on_chunks_memory_or_partitions(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = made(grow(base, "two", config())[0])
    assert len(wanted) > 15
    others = config("tokenizer.chunk_files=1", "shards.chunk_files=1", "tokenizer.partition_bits=3")
    assert made(grow(base, "one", others)[0]) == wanted
    monkeypatch.setattr(counting, "MERGED_BYTES", 64)  # the reduce in many chunks, too
    tiny = config("tokenizer.memory_bytes=1048576", "shards.chunk_files=3")
    tiny = replace(tiny, tokenizer=replace(tiny.tokenizer, chunk_files=None, memory_bytes=999))
    assert made(grow(base, "tiny", tiny)[0]) == wanted


@pytest.mark.usefixtures("in_processes")
def test_merges_and_shards_do_not_depend_on_the_number_of_processes(base: Path) -> None:
    wanted = made(grow(base, "one", config("tokenizer.workers=1", "shards.workers=1"))[0])
    found, told = grow(base, "two", config("tokenizer.workers=2", "shards.workers=2"))
    assert made(found) == wanted
    shown = [news for news in told if (news.stage, news.kind) == ("shards", "progress")]
    assert dict(shown[-1].values)["tokens_per_second"] > 0


def test_tasks_of_any_machine_make_the_same(base: Path) -> None:
    wanted = made(grow(base, "whole", config())[0])
    run, runs = config(), base / "parts"

    def part(name: str | None, stage: str, *task: int) -> None:
        conduct = Conduct(task=task or None)  # type: ignore[arg-type]
        do_part(run, base, runs, stage, name, conduct, lambda _: None)

    part("count", "tokenizer", 1, 3)
    part("count", "tokenizer", 3, 3)
    with pytest.raises(ArtifactError, match=r"chunks are not finished.* do `--part count` first"):
        part("reduce", "tokenizer")
    part("count", "tokenizer", 2, 3)
    with pytest.raises(ArtifactError, match="do `--part reduce` first"):
        do_stage(run, base, runs, "tokenizer", "train", Conduct(), lambda _: None, redo=False)
    part("reduce", "tokenizer")
    for stage, name in (("tokenizer", "train"), ("shards", None)):
        if stage == "shards":
            part(None, "shards", 2, 2)
        do_stage(run, base, runs, stage, name, Conduct(), lambda _: None, redo=False)

    assert made(runs / "grove") == wanted


def test_machines_that_share_nothing_but_a_url_make_the_same(base: Path, url: str) -> None:
    wanted = made(grow(base, "whole", config())[0])
    run = config(f"runtime.state={url}")

    def part(machine: str, stage: str, name: str | None, *task: int) -> None:
        conduct = Conduct(task=task or None)  # type: ignore[arg-type]
        do_part(run, base, base / machine, stage, name, conduct, lambda _: None)

    def whole(machine: str, stage: str, name: str | None) -> Path:
        runs = base / machine
        return do_stage(run, base, runs, stage, name, Conduct(), lambda _: None, redo=False)

    part("a", "tokenizer", "count", 1, 2)
    with pytest.raises(ArtifactError, match=r"chunks are not finished.* do `--part count` first"):
        part("b", "tokenizer", "reduce")
    part("b", "tokenizer", "count", 2, 2)
    part("c", "tokenizer", "reduce")
    run_dir = whole("a", "tokenizer", "train")
    copytree(run_dir / "tokenizer", base / "b" / "grove" / "tokenizer")
    part("b", "shards", None, 1, 2)
    whole("a", "shards", None)

    assert made(run_dir) == wanted
    assert not list(run_dir.glob("*.work"))


def test_texts_at_a_url_make_the_same_as_those_on_disk(base: Path, url: str) -> None:
    wanted = made(grow(base, "disk", config())[0])
    for path in [*(base / "tales").iterdir(), base / "poems.jsonl"]:
        remote.place(f"{url}/{path.relative_to(base)}", base, "here").write_bytes(path.read_bytes())
    text = RUN.replace('"tales/*"', f'"{url}/tales/*"').replace('"poems.', f'"{url}/poems.')
    run = parse_run(text, "grove.toml", ["shards.max_bad_row_fraction=0.1"])
    found = made(grow(base, "there", run)[0])

    assert {name for name in found if found[name] != wanted[name]} <= {
        "shards/poems.quarantine.jsonl",  # the bad row's file is called by its URL there
        "shards/files.json",
        "tokenizer/quarantine.jsonl",
        "tokenizer/files.json",
    }
    before = {chunk.name for chunk in (base / "there/grove/tokenizer.work/count").iterdir()}
    remote.place(f"{url}/poems.jsonl", base, "here").write_text('{"text": "盆景"}\n')
    grow(base, "there", run, redo=True)
    after = {chunk.name for chunk in (base / "there/grove/tokenizer.work/count").iterdir()}
    assert len(after - before) == 1  # a changed file at a URL is another input


def test_a_url_that_names_no_file_is_told(base: Path, url: str) -> None:
    run = parse_run(RUN.replace('"tales/*"', f'"{url}/nothing/*"'), "grove.toml")
    with pytest.raises(DataError, match=r"memory://state/nothing/\*: no such file"):
        grow(base, "runs", run)


def test_a_damaged_run_file_at_a_url_is_named_and_only_its_chunk_counted_again(
    base: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directories, "SMALL_BYTES", 0)  # as if the run files were large
    run = config(f"runtime.state={url}")

    def part(name: str) -> None:
        do_part(run, base, base / "runs", "tokenizer", name, Conduct(), lambda _: None)

    part("count")
    store = MemoryFileSystem.store
    runs = {name: bytes(file.getvalue()) for name, file in store.items() if name.endswith(".run")}
    broken = sorted(runs)[2]
    data = bytearray(runs[broken])
    data[-1] ^= 1
    store[broken].seek(0)
    store[broken].write(bytes(data))
    before = {name: file.created for name, file in store.items()}
    with pytest.raises(ArtifactError, match=r"000.run: .*count again \(only the damaged chunk"):
        part("reduce")
    part("count")

    assert {name: bytes(store[name].getvalue()) for name in runs} == runs
    again = {name for name, created in before.items() if store[name].created != created}
    assert {name.rpartition("/")[0] for name in again if "chunk-" in name} == {
        broken.rpartition("/")[0]
    }
    part("reduce")


def test_only_what_a_change_touches_is_counted_again(base: Path) -> None:
    def counted(run_dir: Path) -> dict[str, int]:
        chunks = (run_dir / "tokenizer.work" / "count").glob("chunk-*")
        return {path.name: (path / "chunk.json").stat().st_mtime_ns for path in chunks}

    run_dir, _ = grow(base, "runs", config())
    before = counted(run_dir)
    assert len(before) == 6
    grow(base, "runs", config("tokenizer.vocab_size=300"), redo=True)
    assert counted(run_dir) == before  # another size is only trained again

    os.utime(base / "poems.jsonl", ns=(1, 1))
    grow(base, "runs", config("tokenizer.vocab_size=300"), redo=True)
    assert len(set(before.items()) - set(counted(run_dir).items())) == 1

    grow(base, "runs", config("tokenizer.pattern=gpt2"), redo=True)
    assert not set(before) & set(counted(run_dir))  # and old counts are gone
    assert len(counted(run_dir)) == 6


def test_a_limit_is_shared_by_the_sources_and_read_from_the_first_text(base: Path) -> None:
    run = config("tokenizer.max_chars=4000", "tokenizer.vocab_size=330")
    run = replace(run, sources=run.sources[:2])
    kept = []
    for texts in texts_of(base):
        left = 2000
        for text in texts:
            if left > 0:
                kept.append(text)
            left -= len(text)

    tokenizer = load_tokenizer(grow(base, "runs", run)[0] / "tokenizer")

    merges = train_merges(count_words(kept), 330 - 272)
    joined = tuple(left + right for left, right in merges)
    assert tokenizer.token_bytes[256:314] == joined
    manifest = read_manifest(base / "runs" / "grove" / "tokenizer")
    assert manifest is not None
    assert manifest.results["texts"] == len(kept)
    assert manifest.results["characters"] == sum(map(len, kept))


def test_every_language_gets_a_tokenizer_of_its_own_beside_the_one_for_all(base: Path) -> None:
    run_dir, _ = grow(base, "runs", config("tokenizer.languages=true", "tokenizer.vocab_size=300"))
    alone = config("tokenizer.vocab_size=300")
    alone = replace(alone, sources=alone.sources[:1])
    wanted, _ = grow(base, "alone", alone)
    everything, _ = grow(base, "all", config("tokenizer.vocab_size=300"))

    english = (run_dir / "tokenizer" / "en" / "tokenizer.json").read_bytes()
    assert english == (wanted / "tokenizer" / "tokenizer.json").read_bytes()
    for_all = (run_dir / "tokenizer" / "tokenizer.json").read_bytes()
    assert for_all == (everything / "tokenizer" / "tokenizer.json").read_bytes()
    chinese = load_tokenizer(run_dir / "tokenizer" / "zh")
    assert len(chinese.encode("盆景盆景")) < len(
        load_tokenizer(run_dir / "tokenizer" / "en").encode("盆景盆景")
    )
    manifest = read_manifest(run_dir / "tokenizer")
    assert manifest is not None
    assert manifest.results["languages"].keys() == {"en", "zh"}
    nameless = replace(
        run_config := config("tokenizer.languages=true"), sources=run_config.sources[2:]
    )
    with pytest.raises(ConfigError, match="languages"):
        grow(base, "nameless", nameless)


def test_words_are_sampled_when_memory_is_short_unless_all_are_wanted(base: Path) -> None:
    def facts(name: str, **settings: Any) -> dict[str, Any]:
        run = config()
        run = replace(run, tokenizer=replace(run.tokenizer, **settings))
        manifest = read_manifest(grow(base, name, run)[0] / "tokenizer")
        assert manifest is not None
        return manifest.results

    short = facts("short", train_memory_bytes=20_000)
    exact = facts("exact", train_memory_bytes=20_000, exact=True)
    plenty = facts("plenty")
    assert short["threshold"] > 1
    assert 0.3 < short["kept_mass"] < 1
    assert (exact["threshold"], exact["kept_mass"]) == (1, 1.0)
    assert plenty["last_merge_count"] >= 2
    assert exact["digest"] == plenty["digest"] != short["digest"]


def test_a_pattern_of_ones_own_is_taken_and_said(base: Path) -> None:
    run_dir, told = grow(base, "runs", config("tokenizer.pattern='\\w+|\\W'"))
    assert any("which is slow" in news.text for news in told)
    tokenizer = load_tokenizer(run_dir / "tokenizer")
    assert tokenizer.decode(tokenizer.encode("the tree stood")) == "the tree stood"
    with pytest.raises(ConfigError, match=r"tokenizer.pattern: found '\('"):
        grow(base, "wrong", config("tokenizer.pattern='('"))


def test_files_held_out_whole_are_all_the_validation_there_is(base: Path) -> None:
    run = config()
    tales = replace(run.sources[0], paths=("tales/*.jsonl",), validation_paths=("tales/*.gz",))
    run_dir, _ = grow(base, "runs", replace(run, sources=(tales,)))
    manifest = read_manifest(run_dir / "shards")
    assert manifest is not None
    (found,) = manifest.results["sources"]
    assert (found["documents"], found["validation_documents"]) == (80, 60)


def test_bad_rows_of_every_chunk_are_listed_together(base: Path) -> None:
    with (base / "tales" / "2.jsonl").open("a") as file:
        file.write("no json\n")
    run_dir, _ = grow(base, "runs", config())
    lines = (run_dir / "tokenizer" / "quarantine.jsonl").read_text().splitlines()
    found = [(row["file"], row["line"]) for row in map(json.loads, lines)]
    assert found == [("tales/2.jsonl", 21), ("poems.jsonl", 31)]
    manifest = read_manifest(run_dir / "tokenizer")
    assert manifest is not None
    assert manifest.results["bad_rows"] == 2


def test_a_damaged_run_file_is_counted_again_and_no_other(base: Path) -> None:
    run_dir, _ = grow(base, "runs", config())
    wanted = made(run_dir)
    count = run_dir / "tokenizer.work" / "count"
    before = {path.name: (path / "chunk.json").stat().st_mtime_ns for path in count.glob("chunk-*")}
    path = sorted(count.glob("chunk-*/000.run"))[2]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)

    _, told = grow(base, "runs", config(), redo=True)

    assert made(run_dir) == wanted
    assert sum("made again, since" in news.text for news in told) == 1
    after = {path.name: (path / "chunk.json").stat().st_mtime_ns for path in count.glob("chunk-*")}
    assert {name for name in after if after[name] != before[name]} == {path.parent.name}


def test_the_command_line_takes_parts_and_tasks(
    base: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(base)
    (base / "grove.toml").write_text(RUN.replace("0.2", "0.2\nmax_bad_row_fraction = 0.1"))
    for words in ("--part count --task 1/2", "--part count --task 2/2", "--part reduce", ""):
        assert main(["tokenizer", "grove.toml", *words.split()]) == 0
    assert main("shards grove.toml --task 2/2 --no-resume".split()) == 0
    assert not (base / "runs" / "grove" / "shards").exists()
    assert main(["shards", "grove.toml"]) == 0
    assert (base / "runs" / "grove" / "shards" / "stage.json").exists()
    capsys.readouterr()
    assert main("tokenizer grove.toml --task 1/2".split()) == 2
    assert "--part count" in capsys.readouterr().err


MEMORY = """
import resource, sys
from pathlib import Path
from penjing.config.loading import load_run
from penjing.data.corpus import Conduct
from penjing.stages.corpus import do_stage
base = Path(sys.argv[1])
run = load_run(base / "run.toml")
do_stage(run, base, base / "runs", "tokenizer", None, Conduct(), lambda _: None, redo=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_eight_times_the_text_needs_no_more_memory(tmp_path: Path) -> None:
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefghij", k=rng.randrange(2, 9))) for _ in range(20_000)]
    lines = [json.dumps({"text": " ".join(rng.choices(words, k=200))}) for _ in range(600)]
    peaks = []
    for times in (1, 8):
        base = tmp_path / str(times)
        base.mkdir()
        for number in range(times):
            (base / f"{number}.jsonl").write_text("\n".join(lines))
        (base / "run.toml").write_text(
            "sources.all.paths = ['*.jsonl']\npretrain.mixture.all = 1.0\npretrain.steps = 9\n"
            "[tokenizer]\nvocab_size = 512\nmemory_bytes = 2_000_000\nworkers = 1\nexact = true\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(base)],
            env={**os.environ, "PYTHONPATH": str(Path(counting.__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout))
    assert peaks[1] <= 1.1 * peaks[0], peaks


def test_two_workers_of_a_local_ray_learn_the_same_merges(base: Path) -> None:
    ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")
    wanted = made(grow(base, "here", config())[0])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        found = made(grow(base, "ray", config(), Conduct(engine="ray"))[0])
    finally:
        ray.shutdown()
    assert found == wanted


def test_without_ray_its_engine_says_what_to_install(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'penjing\[ray\]'"):
        grow(base, "ray", config(), Conduct(engine="ray"))
