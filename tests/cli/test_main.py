"""The command line: exit codes, help without torch, mistakes told well."""

import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penjing import errors
from penjing.artifacts.progress import Progress
from penjing.cli.main import VERBS, main
from penjing.config.schema import RunConfig

RUN = """\
[model]
max_position_embeddings = 64
[sources.stories]
synthetic = "stories"
rows = 10
[pretrain]
steps = 9
tokens_per_step = 64
mixture = { stories = 1 }
"""


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "bonsai.toml"
    path.write_text(RUN)
    return path


class Pipeline:
    """Stands for `stages.pipeline`: notes how it was called, then does what the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[dict[str, Any]] = []
        self.does: Callable[[dict[str, Any]], None] = lambda call: None
        module = types.ModuleType("penjing.stages.pipeline")
        module.train = self.train  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "penjing.stages.pipeline", module)

    def train(self, config: RunConfig, base: Path, runs: Path, **options: Any) -> Path:
        call = {"config": config, "base": base, "runs": runs, **options}
        self.calls.append(call)
        self.does(call)
        return runs / config.name


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    return Pipeline(monkeypatch)


HELP_CODE = """
import sys, time
from penjing.cli.main import main
code = main(["--help"])
loaded = {"torch", "rich", "numpy"} & set(sys.modules)
print(code, sorted(loaded), time.process_time())
"""


def test_help_is_quick_teaches_every_verb_and_loads_nothing_heavy() -> None:
    source = str(Path(errors.__file__).parents[1])
    answer = subprocess.run(
        [sys.executable, "-c", HELP_CODE],
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=True,
    )
    *text, facts = answer.stdout.splitlines()
    assert facts.startswith("0 [] ")
    assert float(facts.split()[-1]) < 0.5  # 0.1 s measured; a loaded machine is no failure
    for verb in VERBS:
        assert any(line.startswith(f"  {verb} ") for line in text), verb


def test_every_verb_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in VERBS:
        assert main([verb, "--help"]) == 0
        assert capsys.readouterr().out.startswith(f"usage: penjing {verb} ")


def test_check_says_what_the_run_is(run_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(run_file)]) == 0
    shown = capsys.readouterr().out
    assert "run bonsai: no mistakes found" in shown
    assert "4 layers, 256 wide, 64 tokens of context" in shown


def test_mistakes_exit_with_2_and_all_of_them(
    run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(run_file), "--set", "model.depth=0", "--set", "seed=x"]) == 2
    told = capsys.readouterr().err
    assert "--set model.depth: model.depth: found 0; wanted a whole number" in told
    assert "--set seed: seed" in told
    assert main(["check", "absent.toml"]) == 2
    assert main(["trian", "x.toml"]) == 2
    assert "did you mean train?" in capsys.readouterr().err
    assert main([]) == 2
    assert main(["train"]) == 2


def test_train_hands_the_run_to_the_pipeline(run_file: Path, pipeline: Pipeline) -> None:
    command = ["train", str(run_file), "--set", "seed=5", "--runs", "elsewhere", "--extend"]
    assert main([*command, "--redo", "pretrain"]) == 0
    [call] = pipeline.calls
    assert call["config"].seed == 5
    assert (call["base"], call["runs"]) == (run_file.parent, Path("elsewhere"))
    assert (call["only"], call["redo"], call["extend"]) == (None, "pretrain", True)


def test_a_stage_verb_does_only_its_stage(run_file: Path, pipeline: Pipeline) -> None:
    assert main(["pretrain", str(run_file)]) == 0
    assert main(["pretrain", str(run_file), "--redo"]) == 0
    asked = [(call["only"], call["redo"], call["extend"]) for call in pipeline.calls]
    assert asked == [("pretrain", None, False), ("pretrain", "pretrain", False)]


def test_a_stage_that_the_run_does_not_have_is_refused(
    run_file: Path, pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sft", str(run_file)]) == 2
    assert main(["train", str(run_file), "--redo", "rl"]) == 2
    assert "found no [sft]" in capsys.readouterr().err
    assert not pipeline.calls


def test_the_demo_is_packaged_and_sound(pipeline: Pipeline) -> None:
    assert main(["demo", "--set", "seed=3"]) == 0
    [call] = pipeline.calls
    assert (call["config"].name, call["config"].seed) == ("tiny", 3)
    assert call["runs"] == Path("runs")


def test_the_demo_ends_in_a_chat_when_a_person_is_there(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chats: list[tuple[Any, ...]] = []
    module = types.ModuleType("penjing.stages.chat")
    module.chat = lambda *given: chats.append(given) or 0  # type: ignore[attr-defined,func-returns-value]
    monkeypatch.setitem(sys.modules, "penjing.stages.chat", module)
    assert main(["demo"]) == 0  # standard input and output are no terminals here
    assert not chats
    told = capsys.readouterr().out
    assert "penjing chat runs/tiny" in told
    assert "the report: runs/tiny/report/report.html" in told
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main(["demo", "--json"]) == 0
    assert not chats
    assert main(["demo"]) == 0
    assert chats == [(Path("runs/tiny"), None, None, None, 0.7, 1)]


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (errors.ArtifactError("runs/x is being written"), 1, "runs/x is being written"),
        (errors.StoppedEarly("saved step 4"), 75, "saved step 4"),
        (errors.ConfigError("stale"), 2, "stale"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device", "m.bin"), 1, "m.bin: No space left on device"),
    ],
)
def test_failures_have_their_exit_code_and_no_traceback(
    run_file: Path,
    pipeline: Pipeline,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    told: str,
) -> None:
    def fail(call: dict[str, Any]) -> None:
        raise error

    pipeline.does = fail
    assert main(["train", str(run_file)]) == code
    assert capsys.readouterr().err == f"penjing: {told}\n"


def test_json_gives_one_object_a_line(
    run_file: Path, pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline.does = lambda call: call["show"](
        Progress("pretrain", "progress", 1, 4, (("loss", 2.5), ("grad_norm", float("inf"))))
    )
    assert main(["train", str(run_file), "--json"]) == 0
    news = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert news[0] == {
        "stage": "pretrain",
        "kind": "progress",
        "done": 1,
        "total": 4,
        "values": {"loss": 2.5, "grad_norm": None},
        "text": "",
    }
    assert news[1]["kind"] == "message"
