"""The chat verb: a conversation in the terminal with a run's model."""

from pathlib import Path

from penjing.chat.session import load
from penjing.chat.terminal import chat as chat_in_terminal


def chat(
    run: Path,
    stage: str | None,
    step: int | None,
    system: str | None,
    temperature: float,
    seed: int,
) -> int:
    """Talks until the person leaves; returns the exit code."""
    model = load(run, stage=stage, step=step)
    return chat_in_terminal(model, system=system, temperature=temperature, seed=seed)
