import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from penjing.artifacts import disk
from penjing.artifacts.directories import verified
from penjing.artifacts.lines import LineLog, read_records
from penjing.artifacts.progress import Progress
from penjing.artifacts.records import Event, SampleRecord, StepRecord, TimingRecord
from penjing.config.training import CadenceConfig, OptimizerConfig, ScheduleConfig
from penjing.data.batches import Batch
from penjing.errors import ArtifactError, StoppedEarly
from penjing.model.language_model import LanguageModel
from penjing.model.transformer import Transformer
from penjing.runtime import Runtime
from penjing.train.checkpoint import TokenizerBundle, final_checkpoint
from penjing.train.fit import FitResult, fit
from penjing.train.job import FitJob, Probe, ProbeResult
from penjing.train.objectives import Loss, next_token
from penjing.train.optimizer import build_optimizer
from penjing.train.schedule import factor

STEPS = 5
BUNDLE = TokenizerBundle({"tokenizer.json": b"{}"}, "digest", end_of_text=22, im_end=23)

MakeJob = Callable[..., FitJob[Batch]]


@pytest.fixture
def make_job(make_model: Callable[..., Transformer], make_batch: Callable[..., Batch]) -> MakeJob:
    """A stage of 5 steps with a checkpoint every second; `at_step` runs in a probe of each step."""

    def make(run_dir: Path, at_step: Callable[[int], None] = lambda step: None) -> FitJob[Batch]:
        model, optimizer = make_model(), OptimizerConfig(embedding_learning_rate=0.02)

        def look(step: int) -> ProbeResult:
            torch.rand(3)  # a careless probe
            sample = SampleRecord("sft", step, "hi", f"at {step}", 2, "stop", 0.7, 1)
            value = float(model.model.norm.weight.detach().mean())
            return ProbeResult({"norm": value}, (sample,))

        def disturb(step: int) -> ProbeResult:
            at_step(step)
            return ProbeResult()

        return FitJob(
            directory=run_dir / "sft",
            stage="sft",
            seed=1,
            runtime=Runtime(torch.device("cpu"), torch.float32),
            model=model,
            optimizer=build_optimizer(model, optimizer),
            objective=next_token,
            open_batches=lambda done: map(make_batch, range(done, 100)),
            schedule=lambda step: factor(step, STEPS, ScheduleConfig(2, 0.5)),
            steps=STEPS,
            rows_per_step=6,
            microbatch_rows=4,
            max_grad_norm=1.0,
            cadence=CadenceConfig(checkpoint_every_steps=2, keep_checkpoints=2),
            probes=(Probe("look", 2, look), Probe("disturb", 1, disturb)),
            tokenizer=BUNDLE,
            show=lambda progress: None,
        )

    return make


def kept_bytes(result: FitResult) -> dict[str, bytes]:
    """All that must be the same however often the run was stopped."""
    stage = result.checkpoint.parent
    logs = {name: (stage / name).read_bytes() for name in ("metrics.jsonl", "samples.jsonl")}
    return logs | {path.name: path.read_bytes() for path in sorted(result.checkpoint.iterdir())}


@pytest.fixture
def straight(make_job: MakeJob, tmp_path: Path) -> dict[str, bytes]:
    return kept_bytes(fit(make_job(tmp_path / "straight")))


class KilledError(Exception):
    pass


def test_a_stage_that_reads_its_numbers_late_leaves_the_same_bytes_stopped_or_not(
    make_job: MakeJob,
    straight: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FitJob, "reads_late", True)
    assert kept_bytes(fit(make_job(tmp_path / "late"))) == straight

    def stop(step: int) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedEarly):
        fit(make_job(tmp_path / "stopped", at_step=stop))
    assert kept_bytes(fit(make_job(tmp_path / "stopped"))) == straight


def test_a_stage_leaves_records_of_every_step_and_a_complete_checkpoint(
    make_job: MakeJob, tmp_path: Path
) -> None:
    shown: list[Progress] = []
    result = fit(replace(make_job(tmp_path), show=shown.append))
    stage = tmp_path / "sft"
    steps = list(read_records(stage / "metrics.jsonl", StepRecord))
    assert [record.step for record in steps] == [1, 2, 3, 4, 5]
    assert ["norm" in record.values for record in steps] == [False, True, False, True, True]
    assert all(record.values["utilization"] == 1 for record in steps)
    assert [record.step for record in read_records(stage / "samples.jsonl", SampleRecord)] == [
        2,
        4,
        5,
    ]
    timings = list(read_records(stage / "timings.jsonl", TimingRecord))
    assert len(timings) == STEPS
    assert all(0 < timing.data_seconds < timing.seconds for timing in timings)
    assert result.checkpoint == verified(final_checkpoint(stage))
    assert {path.name for path in result.checkpoint.iterdir()} >= {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "state.json",
        "optimizer.safetensors",
    }
    state = json.loads((result.checkpoint / "state.json").read_text())
    assert (state["step"], state["position"], state["tokens"]) == (5, 30, 5 * 48)
    assert (result.steps, result.tokens, result.skipped_steps) == (5, 240, 0)
    assert [progress.done for progress in shown if progress.kind == "progress"] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("killed_at", range(1, STEPS + 1))
def test_a_run_killed_at_any_step_ends_as_one_that_was_not(
    make_job: MakeJob, tmp_path: Path, straight: dict[str, bytes], killed_at: int
) -> None:
    def kill(step: int) -> None:
        if step == killed_at:
            raise KilledError

    with pytest.raises(KilledError):
        fit(make_job(tmp_path, kill))
    result = fit(make_job(tmp_path))
    assert result.resumed_from_step == (killed_at - 1) // 2 * 2
    assert kept_bytes(result) == straight


def test_a_finished_stage_takes_no_further_step(make_job: MakeJob, tmp_path: Path) -> None:
    first = fit(make_job(tmp_path))

    def fail(step: int) -> None:
        raise AssertionError

    again = fit(make_job(tmp_path, fail))
    assert (again.checkpoint, again.tokens, again.loss) == (
        first.checkpoint,
        first.tokens,
        first.loss,
    )


def test_probes_do_not_change_what_is_trained(
    make_job: MakeJob, tmp_path: Path, straight: dict[str, bytes]
) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    result = fit(replace(make_job(tmp_path), probes=()))
    assert (result.checkpoint / "model.safetensors").read_bytes() == straight["model.safetensors"]
    fit(make_job(tmp_path / "probed"))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_the_run_resumes_to_the_same_end(
    make_job: MakeJob, tmp_path: Path, straight: dict[str, bytes], number: signal.Signals
) -> None:
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]

    def ask(step: int) -> None:
        if step == 3:
            os.kill(os.getpid(), number)

    with pytest.raises(StoppedEarly, match="step 3 of 5"):
        fit(make_job(tmp_path, ask))
    assert handlers == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    result = fit(make_job(tmp_path))
    assert result.resumed_from_step == 3
    assert kept_bytes(result) == straight


def test_a_signal_in_the_last_probe_leaves_its_record_to_the_resume(
    make_job: MakeJob, tmp_path: Path, straight: dict[str, bytes]
) -> None:
    def ask(step: int) -> None:
        if step == STEPS:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedEarly, match="step 5 of 5"):
        fit(make_job(tmp_path, ask))
    assert kept_bytes(fit(make_job(tmp_path))) == straight


def test_a_signal_in_a_probe_or_in_a_step_interrupts_it_and_costs_nothing(
    make_job: MakeJob, tmp_path: Path, straight: dict[str, bytes]
) -> None:
    def ask(step: int) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("the probe went on")

    with pytest.raises(StoppedEarly, match="step 3 of 5"):
        fit(make_job(tmp_path, ask))
    assert len((tmp_path / "sft" / "metrics.jsonl").read_text().splitlines()) == 2
    job = make_job(tmp_path)
    calls = []

    def objective(model: LanguageModel, batch: Batch) -> Loss:
        calls.append(batch)
        if len(calls) == 1:  # of two microbatches of step 4
            os.kill(os.getpid(), signal.SIGTERM)
        return next_token(model, batch)

    with pytest.raises(StoppedEarly, match="step 3 of 5"):
        fit(replace(job, objective=objective))
    assert len(calls) == 1
    assert kept_bytes(fit(make_job(tmp_path))) == straight


def test_a_stage_stopped_in_its_first_step_begins_again(
    make_job: MakeJob, tmp_path: Path, straight: dict[str, bytes]
) -> None:
    def objective(model: LanguageModel, batch: Batch) -> Loss:
        os.kill(os.getpid(), signal.SIGTERM)
        return next_token(model, batch)

    with pytest.raises(StoppedEarly, match="step 0 of 5"):
        fit(replace(make_job(tmp_path), objective=objective))
    assert not list((tmp_path / "sft").glob("step-*"))
    assert kept_bytes(fit(make_job(tmp_path))) == straight


def test_a_second_signal_stops_at_once(make_job: MakeJob, tmp_path: Path) -> None:
    def ask_twice(step: int) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(make_job(tmp_path, ask_twice))
    assert not list((tmp_path / "sft").glob("step-*"))


def test_a_damaged_checkpoint_is_put_aside_for_the_one_before(
    make_job: MakeJob, tmp_path: Path, straight: dict[str, bytes]
) -> None:
    def kill(step: int) -> None:
        if step == STEPS:
            raise KilledError

    with pytest.raises(KilledError):
        fit(make_job(tmp_path, kill))
    weights = tmp_path / "sft" / "step-000004" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    result = fit(make_job(tmp_path))
    assert result.resumed_from_step == 2
    assert kept_bytes(result) == straight
    kinds = [event.kind for event in read_records(tmp_path / "events.jsonl", Event)]
    assert kinds == ["warning", "resumed"]


def test_a_full_disk_leaves_the_checkpoint_before(
    make_job: MakeJob,
    tmp_path: Path,
    straight: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_file = disk.write_file
    monkeypatch.setattr("penjing.train.fit.MAX_PAUSES", 0)

    def full(path: Path, data: bytes) -> None:
        if "step-000004" in str(path):
            raise OSError(28, "No space left on device")
        write_file(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "write_file", full)
        with pytest.raises(ArtifactError, match=r"step-000004.*No space left"):
            fit(make_job(tmp_path))
    assert [path.name for path in (tmp_path / "sft").iterdir() if path.is_dir()] == ["step-000002"]
    assert kept_bytes(fit(make_job(tmp_path))) == straight


def test_a_full_disk_is_waited_for(
    make_job: MakeJob,
    tmp_path: Path,
    straight: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_file, tries = disk.write_file, list[Path]()

    def full_at_first(path: Path, data: bytes) -> None:
        if "step-000004" in str(path) and len(tries) < 3:
            tries.append(path)
            raise OSError(28, "No space left on device")
        write_file(path, data)

    monkeypatch.setattr("penjing.train.fit.PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(disk, "write_file", full_at_first)
    assert kept_bytes(fit(make_job(tmp_path))) == straight
    events = [event.message for event in read_records(tmp_path / "events.jsonl", Event)]
    assert len(events) == 1
    assert events[0].startswith("paused: ")


def test_pinned_checkpoints_and_every_so_many_are_kept(make_job: MakeJob, tmp_path: Path) -> None:
    (tmp_path / "sft").mkdir()
    (tmp_path / "sft" / "pins").write_text("step-000001\n")
    cadence = CadenceConfig(checkpoint_every_steps=1, keep_checkpoints=1, keep_every_steps=2)
    fit(replace(make_job(tmp_path), cadence=cadence))
    found = sorted(path.name for path in (tmp_path / "sft").glob("step-*"))
    assert found == ["step-000001", "step-000002", "step-000004", "step-000005"]


def test_only_the_newest_checkpoints_are_kept(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(tmp_path)
    fit(replace(job, cadence=CadenceConfig(checkpoint_every_steps=1, keep_checkpoints=2)))
    found = sorted(path.name for path in (tmp_path / "sft").glob("step-*"))
    assert found == ["step-000004", "step-000005"]


@pytest.mark.parametrize(
    "change",
    [
        {"tokenizer": replace(BUNDLE, digest="another")},
        {"seed": 2},
        {"steps": 3},
    ],
)
def test_a_checkpoint_of_something_else_is_refused(
    make_job: MakeJob, tmp_path: Path, change: dict[str, object]
) -> None:
    fit(make_job(tmp_path))
    with pytest.raises(ArtifactError, match="step-000005"):
        fit(replace(make_job(tmp_path), **change))  # type: ignore[arg-type]


def test_further_logs_are_cut_back_to_the_checkpoint(make_job: MakeJob, tmp_path: Path) -> None:
    log = LineLog(tmp_path / "rollouts.jsonl")
    for step in (1, 2, 3):
        log.append(TimingRecord(step, 1.0, 1.0, 1.0, 1))
    fit(replace(make_job(tmp_path), logs=(log,)))
    log.close()
    assert (tmp_path / "rollouts.jsonl").read_bytes() == b""


def test_the_final_checkpoint_is_never_an_earlier_one(make_job: MakeJob, tmp_path: Path) -> None:
    result = fit(make_job(tmp_path))
    (result.checkpoint / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"step-000005.config\.json was altered"):
        final_checkpoint(tmp_path / "sft")
    with pytest.raises(ArtifactError, match="no checkpoint"):
        final_checkpoint(tmp_path)
