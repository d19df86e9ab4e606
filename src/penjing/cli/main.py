"""The command line: argv in, exit code out; what the verbs do is `stages`' duty.

Stages are imported inside their verbs, so that `--help` and `check` never load torch.
"""

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

from penjing.artifacts.progress import Progress
from penjing.cli import looking
from penjing.cli.screen import Screen, show_error
from penjing.config.loading import load_run, parse_run, section_of
from penjing.config.schema import STAGE_NAMES, RunConfig
from penjing.data.corpus import Conduct, parse_task
from penjing.errors import ConfigError, PenjingError

HELP = """\
Grow a small chat model from raw text: one TOML file, one command.

begin
  demo              grow the packaged demo model on this machine, in minutes
  inspect PATH ...  look at files: rows, forms, lengths, languages, duplicates, bad rows, samples
  new NAME          look at your files and write a commented run file: NAME.toml
  check RUN.toml    find every mistake in a run file, at once
  plan RUN.toml     what it will read and train on, and what that costs here
  bench RUN.toml    how fast it trains here, and where the time goes

grow
  train RUN.toml    every stage of the run; go on where it stopped
  edit RUN.toml     take over new sources and another mixture while a stage is being trained

one stage at a time, in this order
  clean             leave out duplicates, bad texts, and what evaluation sets hold (optional)
  tokenizer         learn the vocabulary from the run's sources
  shards            turn text and conversations into token files
  pretrain          learn to continue text
  midtrain          blend conversations in
  sft               learn to answer as the assistant
  dpo               learn to prefer the better of two answers
  rl                learn from rewards on problems that can be checked
  evaluate          measure every trained stage on held-out problems
  report            write the run's report

talk
  chat RUN          talk to a trained run, such as runs/tiny

keep
  runs              list runs; delete and restore them; pin checkpoints
"""

EXAMPLES = """\
examples
  penjing demo
  penjing chat runs/tiny
  penjing inspect texts chats.jsonl
  penjing new bonsai --data texts/*.txt
  penjing train bonsai.toml --set pretrain.steps=2000
  penjing sft bonsai.toml --redo

`penjing VERB --help` tells more. Interrupting a training stage (Ctrl-C) saves it and exits with
75; the same command goes on from there. Exit codes: 0 done, 1 failed, 2 a mistake in the command
or run file, 75 stopped and resumable, 130 interrupted.
"""

PLAN = """\
Say what a run will read and train on: documents, bytes and tokens of each source, epochs, tokens
planned and consumed (exact once its shards are made), and what it will cost here: time, memory,
disk and money, from 20 steps on this device. Nothing is written.
"""

EDIT = """\
Take over what changed in the run file of a run that is being trained: new sources, and mixtures.
Every source goes on where it is; `penjing train` then goes on.
"""

BENCH = """\
Take some steps of a stage on random rows: tokens a second, MFU by both conventions, the share of
what matrix products reach here, memory, compiling, and where a step's time goes.
"""

RUNS = """\
List the runs of a folder; or put one into the trash and take it back, keep a checkpoint for good
(pin) or no longer (unpin). Nothing is deleted at once: the trash is the folder .trash.
"""

CORPUS_STAGES = ("clean", "tokenizer", "shards")
PARTS = ("count", "reduce", "train", "eval")
VERBS = (
    *("demo", "inspect", "new", "check", "plan", "bench", "train", "edit"),
    *(*STAGE_NAMES, "chat", "runs"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; failures are told on standard error."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    # Read when torch is loaded: threads that spin while they wait make a shared machine 2 to 6
    # times slower, threads that sleep at once an idle one by a third (docs/notebook.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        _refuse_unknown_verb(arguments)
        return _run(_parser().parse_args(arguments))
    except PenjingError as error:
        show_error(str(error))
        return error.exit_code
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        show_error(f"{where}{error.strerror or error}")
        return 1
    except KeyboardInterrupt:
        show_error("interrupted")
        return 130
    except SystemExit as stop:  # argparse, after it has said why
        return stop.code if isinstance(stop.code, int) else 1


def _refuse_unknown_verb(arguments: Sequence[str]) -> None:
    if arguments and not arguments[0].startswith("-") and arguments[0] not in VERBS:
        near = difflib.get_close_matches(arguments[0], VERBS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(VERBS)}"
        raise ConfigError(f"found the verb {arguments[0]!r}; {hint} (`penjing --help` explains)")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="penjing",
        usage="penjing VERB ... [options]",
        description=HELP,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(
        dest="verb", required=True, prog="penjing", help=argparse.SUPPRESS
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="one JSON object a line on stdout")
    settings = argparse.ArgumentParser(add_help=False, parents=[common])
    settings.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one value"
    )
    runs = argparse.ArgumentParser(add_help=False, parents=[settings])
    runs.add_argument("--runs", type=Path, default=Path("runs"), help="folder of runs (./runs)")
    for stage in STAGE_NAMES:
        verb = verbs.add_parser(stage, parents=[runs], description=f"Do the stage {stage}.")
        verb.add_argument("run_file", type=Path, metavar="RUN.toml")
        verb.add_argument(
            "--redo", action="store_true", help="do it and all after it again; the old is kept"
        )
        if stage in CORPUS_STAGES:
            _add_corpus_options(verb, stage)
    for name, text in (("train", "Do every stage of a run."), ("demo", "Grow the demo model.")):
        verb = verbs.add_parser(name, parents=[runs], description=text)
        if name == "train":
            verb.add_argument("run_file", type=Path, metavar="RUN.toml")
        verb.add_argument("--redo", choices=STAGE_NAMES, help="do it and all after it again")
        verb.add_argument(
            "--extend", action="store_true", help="go on to a longer horizon (more steps)"
        )
    _add_edit(verbs.add_parser("edit", parents=[runs], description=EDIT))
    for name, text in (("check", "Check a run file."), ("plan", PLAN)):
        verb = verbs.add_parser(name, parents=[runs], description=text)
        verb.add_argument("run_file", type=Path, metavar="RUN.toml")
        if name == "plan":
            _add_plan(verb)
    _add_bench(verbs.add_parser("bench", parents=[runs], description=BENCH))
    verb = verbs.add_parser("new", parents=[common], description="Write a run file.")
    verb.add_argument("name", metavar="NAME")
    verb.add_argument(
        "--data",
        type=Path,
        nargs="+",
        default=[],
        metavar="PATH",
        help="files and folders; left out: DATA_PATH (and VAL_PATH) of the file .env",
    )
    _add_inspect(
        verbs.add_parser("inspect", parents=[common], description="Look at files; change none.")
    )
    _add_runs(verbs.add_parser("runs", parents=[common], description=RUNS))
    _add_chat(verbs.add_parser("chat", description="Talk to a trained run."))
    return parser


def _add_corpus_options(verb: argparse.ArgumentParser, stage: str) -> None:
    """How a job over the corpus is run; what it makes is said by the run file alone."""
    if stage == "tokenizer":
        verb.add_argument("--part", choices=PARTS, help="do this part alone")
    verb.add_argument("--task", metavar="I/N", help="do every N-th chunk, from the I-th on, alone")
    verb.add_argument("--engine", choices=("local", "ray"), default="local", help="where (local)")
    verb.add_argument("--no-resume", action="store_true", help="make finished chunks again, too")


def _add_inspect(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("paths", nargs="+", metavar="PATH", help="files, folders, globs, URLs")
    verb.add_argument("--text-field", default="text", help="key of a document's text (text)")


def _add_bench(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run_file", type=Path, metavar="RUN.toml")
    verb.add_argument("--stage", choices=("pretrain", "midtrain", "sft"), default="pretrain")
    verb.add_argument("--steps", type=int, default=10, help="steps that are measured (10)")


def _add_runs(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--runs", type=Path, default=Path("runs"), help="folder of runs (./runs)")
    what = verb.add_mutually_exclusive_group()
    what.add_argument("--delete", metavar="NAME", help="put this run into the trash")
    what.add_argument("--restore", metavar="NAME", help="take it back")
    what.add_argument("--pin", metavar="NAME/STAGE/step-N", help="never delete this checkpoint")
    what.add_argument("--unpin", metavar="NAME/STAGE/step-N", help="treat it as the others again")


def _add_plan(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--depth", metavar="D,D,...", help="compare these depths")
    verb.add_argument("--price", type=float, metavar="P", help="of this machine, an hour")
    verb.add_argument("--quick", action="store_true", help="take no steps: no time, no memory")


def _add_edit(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run_file", type=Path, metavar="RUN.toml")
    verb.add_argument(
        "--blend-tokens",
        type=int,
        metavar="N",
        help="the new shares come in over so many tokens (a twentieth of the stage)",
    )
    verb.add_argument("--abrupt", action="store_true", help="let many rows change at once")


def _add_chat(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", type=Path, metavar="RUN", help="a run's directory: runs/NAME")
    verb.add_argument("--stage", choices=STAGE_NAMES, help="which stage's model (the last)")
    verb.add_argument("--step", type=int, help="which checkpoint (the newest)")
    verb.add_argument("--system", metavar="TEXT", help="a system message")
    verb.add_argument("--temperature", type=float, default=0.7, help="0 is greedy (0.7)")
    verb.add_argument("--seed", type=int, default=1, help="same seed, same answers (1)")


LOOKING: dict[str, Callable[[argparse.Namespace, Screen], bool | None]] = {
    "new": looking.new,
    "inspect": looking.inspect,
    "check": looking.check,
    "plan": looking.plan,
    "bench": looking.bench,
    "runs": looking.runs,
}


def _run(options: argparse.Namespace) -> int:
    if options.verb == "chat":
        return _chat(options)
    run_dir, failed = None, False
    with Screen(json=options.json) as screen:
        if options.verb in LOOKING:
            failed = bool(LOOKING[options.verb](options, screen))
        elif options.verb == "edit":
            _edit(options, screen)
        else:
            run_dir = _train(options, screen)
    in_person = not options.json and sys.stdin.isatty() and sys.stdout.isatty()
    if run_dir and options.verb == "demo" and in_person:
        return _chat(_parser().parse_args(["chat", str(run_dir)]))
    return int(failed)


def _train(options: argparse.Namespace, screen: Screen) -> Path:
    if options.verb == "demo":
        packaged = resources.files("penjing.configs") / "tiny.toml"
        base, label = Path.cwd(), "tiny.toml"
        config = parse_run(packaged.read_text(encoding="utf-8"), label, options.set)
    else:
        base, label = options.run_file.parent, str(options.run_file)
        config = load_run(options.run_file, options.set)
    only = options.verb if options.verb in STAGE_NAMES else None
    redo = options.redo if only is None else only if options.redo else None
    for stage in (only, redo):
        if stage and section_of(config, stage) is None:
            raise ConfigError(f"{label}: found no [{stage}], so this run has no such stage")

    if only in CORPUS_STAGES:
        return _do_corpus_stage(options, config, base, screen)

    from penjing.stages.pipeline import train

    extend = only is None and options.extend
    run_dir = train(
        config, base, options.runs, only=only, redo=redo, extend=extend, show=screen.show
    )
    if only is None:
        for text in (
            f"{run_dir} is grown; `penjing chat {run_dir}` talks to it",
            f"the report: {run_dir / 'report' / 'report.html'}",
        ):
            screen.show(Progress(options.verb, "message", text=text))
    return run_dir


def _do_corpus_stage(
    options: argparse.Namespace, config: RunConfig, base: Path, screen: Screen
) -> Path:
    stage, part = options.verb, getattr(options, "part", None)
    if part == "eval":
        from penjing.stages.compression import evaluate_run

        return evaluate_run(config, base, options.runs, screen.show)
    task = parse_task(options.task) if options.task else None
    if task and stage == "tokenizer" and part not in ("count", "reduce"):
        raise ConfigError("--task: found it without --part count or --part reduce")
    conduct = Conduct(options.engine, task, resume=not options.no_resume)

    from penjing.stages.corpus import do_part, do_stage

    if part in ("count", "reduce") or task:
        do_part(config, base, options.runs, stage, part, conduct, screen.show)
        return Path(options.runs / config.name)
    return do_stage(
        config, base, options.runs, stage, part, conduct, screen.show, redo=options.redo
    )


def _edit(options: argparse.Namespace, screen: Screen) -> None:
    from penjing.stages.edit import Wishes, edit

    config, wishes = (
        load_run(options.run_file, options.set),
        Wishes(options.blend_tokens, options.abrupt),
    )
    edit(config, options.run_file.parent, options.runs, wishes, screen.show)
    text = f"recorded; `penjing train {options.run_file}` goes on with it"
    screen.show(Progress("edit", "message", text=text))


def _chat(options: argparse.Namespace) -> int:
    from penjing.stages.chat import chat

    return chat(
        options.run,
        options.stage,
        options.step,
        options.system,
        options.temperature,
        options.seed,
    )


if __name__ == "__main__":
    sys.exit(main())
