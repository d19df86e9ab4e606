"""What a person sees while Penjing works: live bars, plain lines, or JSON lines.

Deciding what is worth telling is the stages' duty; they send `Progress`.
"""

# ruff: noqa: T201 - this module is the home of print

import io
import json
import math
import os
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, Protocol

from penjing.artifacts.progress import Progress

REDRAW_SECONDS = 0.2
SAMPLE_CHARACTERS = 160
SHORT_NAMES = {
    "validation_bpb": "bpb",
    "validation_chat_bpb": "chat bpb",
    "validation_accuracy": "held-out",
    "margin_accuracy": "preferred",
}
UNTOLD = frozenset(
    "retention_loss entropy sampler_kl max_logprob_difference reward_std frac_zero_variance "
    "completion_length truncated_ratio tool_calls generated_tokens margin chosen_logprob "
    "rejected_logprob utilization".split()
)
"""Metrics for the logs and the report, as those of single sources (`validation_bpb.SOURCE`) are: a
line on the screen has no room for them.
"""
UNITS = {"tokens_per_second": "tokens/s", "seconds": "s", "cpu_seconds": "CPU s"}


class _Display(Protocol):
    def show(self, progress: Progress) -> None: ...
    def close(self) -> None: ...


class Screen:
    """Standard output of one command; leaving the block puts the terminal back in order."""

    def __init__(self, *, json: bool) -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        self._display: _Display
        if json:
            self._display = _JsonLines()
        elif sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
            self._display = _LiveBars(colour=not os.environ.get("NO_COLOR"))
        else:
            self._display = _PlainLines()

    def __enter__(self) -> "Screen":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        self._display.close()
        return False

    def show(self, progress: Progress) -> None:
        self._display.show(progress)


def show_error(message: str) -> None:
    """A failure, on standard error."""
    print(f"penjing: {message}", file=sys.stderr, flush=True)


class _JsonLines:
    """One JSON object for each piece of news; numbers that are not finite become null."""

    def show(self, progress: Progress) -> None:
        values = {key: value if math.isfinite(value) else None for key, value in progress.values}
        news = {
            "stage": progress.stage,
            "kind": progress.kind,
            "done": progress.done,
            "total": progress.total,
            "values": values,
            "text": progress.text,
        }
        print(json.dumps(news, ensure_ascii=False), flush=True)

    def close(self) -> None:
        pass


class _PlainLines:
    """For files and pipes: one line for each tenth of a stage, with a sample beside it."""

    def __init__(self) -> None:
        self._tenth = -1
        self._sampled = -1
        self._course = _Course()

    def show(self, progress: Progress) -> None:
        tenth = progress.done * 10 // max(1, progress.total)
        if progress.kind == "started":
            self._tenth, self._sampled = -1, -2
        elif progress.kind == "progress":
            self._course.note(progress)
            if tenth == self._tenth:
                return
            self._tenth = tenth
        elif progress.kind == "sample":
            if self._sampled == self._tenth:
                return
            self._sampled = self._tenth
        print(self._line(progress), flush=True)

    def _line(self, progress: Progress) -> str:
        stage = f"{progress.stage:<9}"
        values: Mapping[str, float] = dict(progress.values)
        if progress.kind == "progress":
            values = self._course.values
        elif progress.kind == "finished":
            values = self._course.end(progress)
        words = [part for part in (_numbers(values), _one_line(progress.text)) if part]
        if progress.kind == "progress":
            percent = 100 * progress.done // max(1, progress.total)
            counts = f"{percent:>3} %  {progress.done:,}/{progress.total:,}"
            return "  ".join([stage, counts, *words, self._course.remaining(progress)]).rstrip()
        if progress.kind == "message":
            return f"{stage}  {progress.text}".rstrip()
        return "  ".join([stage, progress.kind, *words])

    def close(self) -> None:
        pass


class _LiveBars:
    """One line a stage that redraws itself; samples scroll by above."""

    def __init__(self, *, colour: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars
        from rich.table import Column

        self._console = Console(no_color=not colour, highlight=False, markup=False, emoji=False)
        self._bars = Bars(
            TextColumn("{task.fields[mark]} {task.description:<9}", markup=False),
            BarColumn(bar_width=24),
            TextColumn(
                "{task.percentage:>3.0f} %  {task.fields[numbers]}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis"),
            ),
            console=self._console,
            auto_refresh=False,
        )
        self._tasks: dict[str, Any] = {}
        self._course = _Course()
        self._drawn = 0.0

    def show(self, progress: Progress) -> None:
        if progress.kind in ("sample", "message"):
            mark = "› " if progress.kind == "sample" else ""
            text = _one_line(progress.text) if mark else progress.text
            from rich.text import Text

            self._console.print(Text(f"  {mark}{text}", style="dim" if mark else ""))
            return
        task = self._task(progress.stage)
        now = time.monotonic()
        if progress.kind == "progress":
            self._course.note(progress)
            if now - self._drawn < REDRAW_SECONDS and progress.done < progress.total:
                return
            parts = (_numbers(self._course.values), self._course.remaining(progress), progress.text)
            numbers = "  ".join(part for part in parts if part)
            total = max(1, progress.total)
            self._bars.update(task, completed=progress.done, total=total, numbers=numbers)
        elif progress.kind in ("finished", "skipped"):
            numbers = f"{_numbers(self._course.end(progress))}  {progress.text}".strip()
            self._bars.update(task, completed=1, total=1, mark="✓", numbers=numbers)
        self._drawn = now
        self._bars.refresh()

    def _task(self, stage: str) -> Any:
        if not self._tasks:
            self._bars.start()
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=1, mark="·", numbers="")
        return self._tasks[stage]

    def close(self) -> None:
        self._bars.stop()


class _Course:
    """A stage's latest numbers and its pace since its first news (a resume starts late)."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self._first: tuple[float, int] | None = None
        self._work = ("", 0)

    def note(self, progress: Progress) -> None:
        self.values |= dict(progress.values)
        work = (progress.text, progress.total)
        if self._first is None or work != self._work:  # a stage may have several works
            self._first, self._work = (time.monotonic(), progress.done), work

    def end(self, progress: Progress) -> Mapping[str, float]:
        """The last numbers of the stage that ends; the next one begins afresh."""
        values = self.values | dict(progress.values)
        self.values, self._first = {}, None
        return values

    def remaining(self, progress: Progress) -> str:
        if self._first is None or progress.done in (self._first[1], progress.total):
            return ""
        began, done = self._first
        pace = (time.monotonic() - began) / (progress.done - done)
        seconds = max(0, round(pace * (progress.total - progress.done)))
        return f"{seconds // 60}:{seconds % 60:02} left"


def _numbers(values: Mapping[str, float]) -> str:
    parts = []
    for key, value in values.items():
        if key in UNTOLD or "." in key:
            continue
        number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
        unit, name = UNITS.get(key), SHORT_NAMES.get(key, key)
        parts.append(f"{number} {unit}" if unit else f"{name} {number}")
    return "  ".join(parts)


def _one_line(text: str) -> str:
    """Model-written text without line breaks and terminal control characters, shortened."""
    line = "".join(char if char.isprintable() else " " for char in text)
    line = " ".join(line.split())
    return line if len(line) <= SAMPLE_CHARACTERS else f"{line[: SAMPLE_CHARACTERS - 1]}…"
