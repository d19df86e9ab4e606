import sys
from pathlib import Path
from types import ModuleType

import pytest

from penjing.errors import ConfigError
from penjing.train.trackers import open_trackers


class Fake(ModuleType):
    """What Penjing asks of wandb and of trackio."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, object]] = []

    def init(self, **options: object) -> "Fake":
        self.calls.append(("init", options))
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        self.calls.append(("log", (step, values)))

    def finish(self) -> None:
        self.calls.append(("finish", None))


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_is_told_every_step_under_the_run_and_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fake = Fake(name)
    monkeypatch.setitem(sys.modules, name, fake)
    (tracker,) = open_trackers([name], tmp_path, "sft", "tiny")
    tracker.log(3, {"sft/loss": 1.5})
    tracker.close()
    assert [call for call, _ in fake.calls] == ["init", "log", "finish"]
    options = fake.calls[0][1]
    assert isinstance(options, dict)
    assert (options["project"], options["name"]) == ("penjing", "tiny-sft")
    assert fake.calls[1][1] == (3, {"sft/loss": 1.5})


def test_one_that_is_not_installed_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboard.summary", None)
    with pytest.raises(ConfigError, match=r'pip install "penjing\[tensorboard\]"'):
        open_trackers(["tensorboard"], tmp_path, "sft", "tiny")
