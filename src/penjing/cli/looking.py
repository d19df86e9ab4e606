"""The verbs that look, plan and measure, and write at most a run file; told through the screen.

Parsing arguments and growing runs is `cli.main`'s duty.
"""

import argparse
from pathlib import Path

from penjing.artifacts.progress import Progress
from penjing.cli.screen import Screen
from penjing.config.loading import load_run, section_of
from penjing.config.schema import STAGE_NAMES, RunConfig
from penjing.errors import ConfigError


def plan(options: argparse.Namespace, screen: Screen) -> None:
    from penjing.stages.plan import lines, plan_run

    config = load_run(options.run_file, options.set)
    facts = plan_run(config, options.run_file.parent, options.runs)
    for line in lines(facts):
        screen.show(Progress("plan", "message", text=line))
    for stage in facts.stages:
        numbers = ("steps", "rows_per_step", "tokens_per_step", "tokens", "consumed", "flops")
        found = ((name, getattr(stage, name)) for name in numbers)
        values = tuple((name, float(value)) for name, value in found if value is not None)
        screen.show(Progress("plan", "finished", values=values, text=stage.name))
    if not options.quick:
        _forecast(options, config, screen)


def _forecast(options: argparse.Namespace, config: RunConfig, screen: Screen) -> None:
    from penjing.stages.calibration import at_depth
    from penjing.stages.forecast import forecast, lines, values
    from penjing.stages.plan import plan_run

    try:
        depths = [int(depth) for depth in options.depth.split(",")] if options.depth else []
    except ValueError as error:
        raise ConfigError(f"--depth {options.depth}: wanted numbers, 4,6,8") from error
    for one in [at_depth(config, depth) for depth in depths] or [config]:
        facts = plan_run(one, options.run_file.parent, options.runs)
        for stage in facts.stages:
            told = f"asking this machine about {stage.name}, {facts.parameters:,} parameters"
            screen.show(Progress("plan", "message", text=told))
            found = forecast(one, facts, stage, options.runs)
            if found is None:
                continue
            for line in lines(found, options.price):
                screen.show(Progress("plan", "message", text=line))
            screen.show(Progress("plan", "finished", values=values(found), text=stage.name))


def bench(options: argparse.Namespace, screen: Screen) -> None:
    from penjing.stages.bench import bench, lines
    from penjing.stages.plan import plan_run

    config = load_run(options.run_file, options.set)
    if section_of(config, options.stage) is None:
        raise ConfigError(f"{options.run_file}: found no [{options.stage}] to measure")
    facts = plan_run(config, options.run_file.parent, options.runs)
    found = bench(config, options.stage, facts.vocab_size, options.steps)
    for line in lines(found):
        screen.show(Progress("bench", "message", text=line))
    numbers = ("tokens_per_second", "mfu", "published_mfu", "of_matmul", "peak_memory_bytes")
    values = tuple((name, float(getattr(found, name))) for name in numbers)
    screen.show(Progress("bench", "finished", values=values, text=options.stage))


def runs(options: argparse.Namespace, screen: Screen) -> None:
    from penjing.stages.runs import act, list_runs

    wishes = ((name, getattr(options, name)) for name in ("delete", "restore", "pin", "unpin"))
    wanted = next(((name, value) for name, value in wishes if value), None)
    told = list_runs(options.runs) if wanted is None else [act(options.runs, *wanted)]
    for line in told:
        screen.show(Progress("runs", "message", text=line))


def check(options: argparse.Namespace, screen: Screen) -> None:
    config = load_run(options.run_file, options.set)
    vocab_size = config.tokenizer.trained_vocab_size
    if config.tokenizer.from_ is not None:
        from penjing.stages.vocabulary import taken_vocabulary

        tokenizer, remarks = taken_vocabulary(config.tokenizer, options.run_file.parent)
        vocab_size = tokenizer.vocab_size
        for remark in remarks:
            screen.show(Progress("check", "message", text=f"tokenizer.from: {remark}"))
    for line in _summary(config, vocab_size):
        screen.show(Progress("check", "message", text=line))


def _summary(config: RunConfig, vocab_size: int) -> list[str]:
    shape = config.model.shape(vocab_size)
    stages = [stage for stage in STAGE_NAMES if section_of(config, stage) is not None]
    return [
        f"run {config.name}: no mistakes found",
        f"model: {shape.num_hidden_layers} layers, {shape.hidden_size} wide, "
        f"{shape.max_position_embeddings} tokens of context, {shape.vocab_size:,} ids",
        f"sources: {', '.join(source.name for source in config.sources)}",
        f"stages: {', '.join(stages)}",
    ]


def new(options: argparse.Namespace, screen: Screen) -> None:
    from penjing.stages.new import new_run

    path = new_run(options.name, options.data, Path.cwd())
    text = f"wrote {path.name}; `penjing train {path.name}` grows it"
    screen.show(Progress("new", "message", text=text))


def inspect(options: argparse.Namespace, screen: Screen) -> bool:
    """Whether a file could not be read to its end."""
    from penjing.stages.inspect import inspect, lines

    failed = False
    for found in inspect(options.paths, options.text_field, screen.show):
        for line in lines(found):
            screen.show(Progress("inspect", "message", text=line))
        numbers = ("rows", "bytes", "characters", "duplicates", "bad")
        values = tuple((name, float(getattr(found, name))) for name in numbers)
        screen.show(Progress("inspect", "finished", values=values, text=found.file))
        failed = failed or bool(found.problem)
    return failed
