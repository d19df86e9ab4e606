"""How fast a stage trains here, and where its step's time goes."""

import json
from pathlib import Path

import pytest

from penjing.cli.main import main

SMALL = Path(__file__).parents[1] / "small.toml"


def test_a_bench_tells_speed_utilization_memory_and_shares(
    small_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", str(SMALL), "--runs", str(small_run.parent), "--steps", "3", "--json"]
    assert main([*words, "--set", "runtime.compile=off"]) == 0
    news = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    values = news[-1]["values"]
    assert values["tokens_per_second"] > 100
    assert 0 < values["mfu"] < values["published_mfu"]
    text = "\n".join(one["text"] for one in news)
    for part in ("matrix products", "0 recompiles", "not compiled", "softmax and loss"):
        assert part in text


def test_a_stage_that_the_run_does_not_have_is_a_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "few.toml"
    path.write_text('[sources.a]\nsynthetic = "stories"\nrows = 10\n')
    assert main(["bench", str(path), "--stage", "sft"]) == 2
    assert "found no [sft]" in capsys.readouterr().err
