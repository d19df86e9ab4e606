"""The rl stage: policy gradient on generated problems, with the calculator inside rollouts.

The rollout stream is handed the live model and samples when the loop asks for its next batch;
every rollout is recorded in `rl/rollouts.jsonl`.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from penjing.artifacts.lines import LineLog
from penjing.config.training import RlConfig
from penjing.data.batches import Batch, RolloutBatch
from penjing.data.mixture import Segment
from penjing.data.order import permute
from penjing.errors import ConfigError
from penjing.evaluate.generative import answer_of, answer_problems
from penjing.generate.engine import Completion
from penjing.generate.rollouts import RolloutPrompt, Score, sample_rollouts
from penjing.generate.sampling import Sampling
from penjing.generate.tools import calculator_turn
from penjing.model.language_model import LanguageModel
from penjing.runtime import Runtime
from penjing.seeds import seed_for
from penjing.stages.context import StageContext
from penjing.stages.machine import load_model, open_machine
from penjing.stages.next_token import open_stream
from penjing.stages.problems import problems
from penjing.stages.training import training_job, training_summary
from penjing.tasks.contract import Problem
from penjing.tasks.suite import TASKS, Task
from penjing.text.template import render_prompt
from penjing.text.tokenizer import Tokenizer
from penjing.train.fit import fit
from penjing.train.job import Probe, ProbeResult
from penjing.train.objectives import PolicyGradient, balance_retention

TRAINING_PROBLEMS = 1024
"""Problems drawn once; each epoch visits them in another order."""

RESAMPLES = 4
"""Further prompts tried when every group of a step has the same reward throughout."""


class RolloutStream:
    """Batches of graded rollouts of the live model, one a step; draws depend on the step alone."""

    def __init__(
        self,
        section: RlConfig,
        model: LanguageModel,
        tokenizer: Tokenizer,
        task: Task,
        pool: Sequence[Problem],
        retention: Iterator[Batch] | None,
        log: LineLog,
        runtime: Runtime,
        seed: int,
    ) -> None:
        self._section, self._model, self._tokenizer = section, model, tokenizer
        self._task, self._pool, self._seed = task, pool, seed
        self._retention, self._log, self._runtime = retention, log, runtime
        self._by_id = {problem.id: problem for problem in pool}
        self.values: Mapping[str, float] = {}

    def batches(self, step: int) -> Iterator[RolloutBatch]:
        """One batch for each step after `step`."""
        while True:
            step += 1
            yield self._batch(step)

    def _batch(self, step: int) -> RolloutBatch:
        section = self._section
        retention = next(self._retention) if self._retention is not None else None
        for attempt in range(RESAMPLES):
            rollouts = sample_rollouts(
                self._model,
                [self._prompt(problem) for problem in self._chosen(step, attempt)],
                self._grade,
                end_of_text=self._tokenizer.end_of_text,
                stop_ids=(self._tokenizer.im_end, self._tokenizer.end_of_text),
                answer_turn=calculator_turn(self._tokenizer),
                num_generations=section.num_generations,
                sampling=Sampling(
                    temperature=section.temperature,
                    max_new_tokens=section.max_completion_length,
                ),
                seed=seed_for(self._seed, "rollouts", step, attempt),
                step=step,
            )
            for record in rollouts.records:
                self._log.append(record)
            self.values = rollouts.values
            if rollouts.batch is not None:
                kept = dataclasses.replace(rollouts.batch, retention=retention)
                return balance_retention(kept, self._runtime)
        return _nothing_to_learn()

    def _chosen(self, step: int, attempt: int) -> list[Problem]:
        """This step's problems: each epoch of the pool is another permutation of it."""
        count, size = self._section.prompts_per_step, len(self._pool)
        first = ((step - 1) * RESAMPLES + attempt) * count
        chosen = []
        for place in range(first, first + count):
            epoch, index = divmod(place, size)
            key = seed_for(self._seed, "problems", epoch)
            chosen.append(self._pool[permute(index, size, key)])
        return chosen

    def _prompt(self, problem: Problem) -> RolloutPrompt:
        return RolloutPrompt(problem.id, tuple(render_prompt(self._tokenizer, problem.prompt)))

    def _grade(self, prompt_id: str, completion: Completion) -> Score:
        problem = self._by_id[prompt_id]
        return Score(
            reward=self._task.grade(problem, answer_of(self._tokenizer, completion)).score,
            prompt=problem.prompt.messages[-1].text,
            text=self._tokenizer.decode(completion.ids),
        )


def run(context: StageContext) -> dict[str, Any]:
    """Trains `rl/` from the last finished training stage."""
    config, section, runtime = context.config, context.config.rl, open_machine(context)
    assert section is not None
    start = context.previous_stage("rl")
    tokenizer = context.tokenizer()
    model = load_model(context, start)
    task = _find_task(section.task)
    pool = problems(task.name, "train", config.seed, TRAINING_PROBLEMS)
    log = LineLog(context.directory("rl") / "rollouts.jsonl")
    seed = seed_for(config.seed, "rl")

    opened: list[RolloutStream] = []

    def open_batches(step: int) -> Iterator[RolloutBatch]:
        retention = _retention(context, section, tokenizer, runtime, step)
        stream = RolloutStream(section, model, tokenizer, task, pool, retention, log, runtime, seed)
        opened.append(stream)
        return stream.batches(step)

    job = training_job(
        context,
        "rl",
        section,
        model,
        objective=PolicyGradient(
            section.kl_beta,
            load_model(context, start) if section.kl_beta else None,
            section.retention_weight,
        ),
        open_batches=open_batches,
        steps=section.steps,
        rows_per_step=section.prompts_per_step * section.num_generations,
        probes=(
            Probe("rollouts", 1, lambda _: _rolled_out(opened), instant=True),
            _accuracy_probe(config.seed, section, task, model, tokenizer),
        ),
        logs=(log,),
        skips_spikes=False,
    )
    result = fit(job)
    log.close()
    summary = training_summary(result, start, model, planned_tokens=None)
    return summary | {"task": task.name, "problems": len(pool)}


def _rolled_out(opened: Sequence[RolloutStream]) -> ProbeResult:
    """What the step's rollouts were like; nothing, where a record is finished after a resume."""
    return ProbeResult(values=opened[-1].values if opened else {})


def _find_task(name: str) -> Task:
    """Raises ConfigError for a task that has no reward to give."""
    rewarded = {task.name: task for task in TASKS if task.generative}
    if name not in rewarded:
        raise ConfigError(f"rl.task is {name!r}; wanted one of {', '.join(rewarded)}")
    return rewarded[name]


def _accuracy_probe(
    seed: int, section: RlConfig, task: Task, model: LanguageModel, tokenizer: Tokenizer
) -> Probe:
    """Greedy accuracy on validation problems, which training never sees."""
    held_out = problems(task.name, "validation", seed, section.probe_problems)
    sampling = Sampling(temperature=0.0, max_new_tokens=section.max_completion_length)

    def run(_: int) -> ProbeResult:
        answered = answer_problems(
            model, tokenizer, held_out, task.grade, sampling=sampling, seed=seed
        )
        score = sum(one.record.score for one in answered) / len(answered)
        return ProbeResult(values={"validation_accuracy": score})

    return Probe("validation_accuracy", section.cadence.evaluate_every_steps, run)


def _retention(
    context: StageContext, section: RlConfig, tokenizer: Tokenizer, runtime: Runtime, step: int
) -> Iterator[Batch] | None:
    """Rows of other skills trained along; None where the run wants none."""
    rows, sft = section.retention_rows, context.config.sft
    mixture = section.retention or (sft.mixture if sft else ())
    if not rows or not mixture:
        return None
    segments = (Segment(0, mixture, section.steps * rows),)
    stream = open_stream(context, "rl", segments, rows, tokenizer, runtime)
    return stream.step_batches(step * rows)


def _nothing_to_learn() -> RolloutBatch:
    """A step whose groups were all right or all wrong: without targets, so the loop skips it.

    Retention rows are left out: alone they would drag the policy back to what it was shown.
    """
    none = torch.zeros((0, 1), dtype=torch.int64)
    empty = Batch(none, none, none.float(), none)
    return RolloutBatch(empty, torch.zeros(0), none.float(), retention=None)
