"""Grow a small chat model from raw text, and talk to it: `penjing.load(path).chat("Hello")`.

Importing this package loads neither torch nor any room of it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the one place: `load` is typed, and importing penjing stays free of torch
    from penjing.chat.session import Model

__all__ = ["load"]


def load(path: str | Path, *, stage: str | None = None, step: int | None = None) -> "Model":
    """The model of a run directory, or of one checkpoint directory, ready to chat.

    Args:
        path: `runs/NAME` (its last finished stage of rl, dpo, sft, midtrain, pretrain is taken),
            or a checkpoint such as `runs/NAME/sft/step-000400`.
        stage: take this stage of the run instead.
        step: take this checkpoint of the stage instead of its last.

    Raises:
        ArtifactError: nothing trained there, or a file of the checkpoint was altered.
    """
    from penjing.chat.session import load as load_model

    return load_model(Path(path), stage=stage, step=step)
