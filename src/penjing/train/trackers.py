"""Other places for a step's numbers: TensorBoard, Weights & Biases, trackio, each an extra.

They only receive; the logs in the run's directory are what Penjing itself reads.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penjing.errors import ConfigError
from penjing.train.journal import Tracker


class TensorBoard:
    """Event files in `RUN/tensorboard`."""

    def __init__(self, run_dir: Path, stage: str) -> None:
        from tensorboard.summary import Writer

        self._writer: Any = Writer(str(run_dir / "tensorboard" / stage))

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class Module:
    """wandb, or trackio, which has the same functions; one run a stage, resumed by its name."""

    def __init__(self, module: Any, project: str, name: str, options: dict[str, Any]) -> None:
        self._run = module.init(project=project, name=name, **options)
        self._module = module

    def log(self, step: int, values: dict[str, float]) -> None:
        self._module.log(values, step=step)

    def close(self) -> None:
        self._module.finish()


def open_trackers(names: Sequence[str], run_dir: Path, stage: str, run: str) -> tuple[Tracker, ...]:
    """The trackers of `runtime.trackers`; wandb reads its own environment (WANDB_MODE=offline).

    Raises:
        ConfigError: the package of one is not installed.
    """
    return tuple(_open(name, run_dir, stage, run) for name in names)


def _open(name: str, run_dir: Path, stage: str, run: str) -> Tracker:
    try:
        if name == "tensorboard":
            return TensorBoard(run_dir, stage)
        if name == "wandb":
            import wandb

            options = {"id": f"{run}-{stage}", "resume": "allow", "dir": str(run_dir)}
            return Module(wandb, "penjing", f"{run}-{stage}", options)
        import trackio

        return Module(trackio, "penjing", f"{run}-{stage}", {"resume": "allow"})
    except ImportError as error:
        raise ConfigError(
            f'runtime.trackers has "{name}", which is not installed ({error}): '
            f'pip install "penjing[{name}]", or leave it out'
        ) from error
