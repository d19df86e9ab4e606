"""The machine of a run, chosen once, and the models that its stages left, on that machine.

What is where in a run's directory is `stages.context`'s duty.
"""

import hashlib
from dataclasses import replace

from penjing.artifacts.lines import read_record, write_atomic
from penjing.artifacts.records import to_json
from penjing.artifacts.stage import append_event
from penjing.config.training import TrainingConfig
from penjing.model.build import build_model
from penjing.model.initialization import initialize
from penjing.model.kernels import CPU_KERNELS
from penjing.model.language_model import LanguageModel
from penjing.model.weights import load_weights, resized, shortened
from penjing.runtime import Machine, Runtime, open_runtime
from penjing.seeds import seed_for
from penjing.stages.context import StageContext
from penjing.train.checkpoint import final_checkpoint


def open_machine(context: StageContext) -> Runtime:
    """The device and precision of this run: measured once, then read from `machine.json`."""
    path = context.run_dir / "machine.json"
    recorded = read_record(path, Machine) if path.exists() else None
    wanted = context.config.runtime
    hidden_size = context.config.model.shape(vocab_size=1).hidden_size
    runtime, machine = open_runtime(
        wanted.device, wanted.dtype, wanted.threads, recorded, hidden_size
    )
    machine = replace(machine, attention=CPU_KERNELS if machine.device == "cpu" else "")
    if machine != recorded:
        write_atomic(path, f"{to_json(machine)}\n".encode())
    if recorded is not None:
        before, now = _kernels(recorded), _kernels(machine)
        if before != now:
            message = f"the run began on {before}, now on {now}: bits may differ"
            append_event(context.run_dir, "warning", "runtime", message)
    return runtime


def _kernels(machine: Machine) -> str:
    """What decides the bits, beside torch."""
    return f"{machine.cpu}, attention {machine.attention or 'by the device'}"


def load_model(context: StageContext, stage: str) -> LanguageModel:
    """The final weights of a finished stage, verified, on this run's device."""
    runtime = open_machine(context)
    model = load_weights(final_checkpoint(context.directory(stage)), runtime.dtype)
    return model.to(runtime.device)


def starting_model(
    context: StageContext, stage: str, section: TrainingConfig
) -> tuple[LanguageModel, str]:
    """What a stage trains, on this run's device, and where it comes from: a folder that the run
    file names (`from`), a new initialization (pretrain), or the stage before.

    Raises:
        ArtifactError: the folder is of another architecture or its ids do not fit the tokenizer.
    """
    config, runtime = context.config, open_machine(context)
    tokenizer = context.tokenizer()
    if section.from_ is not None:
        folder = context.base / section.from_
        model = resized(load_weights(folder, runtime.dtype), tokenizer.vocab_size)
        tokens = config.model.max_position_embeddings
        return shortened(model, tokens).to(runtime.device), section.from_
    if stage == "pretrain":
        model = build_model(config.model.shape(tokenizer.vocab_size), runtime.dtype)
        initialize(model, seed_for(config.seed, "initialization"))
        return model.to(runtime.device), "initialization"
    start = context.previous_stage(stage)
    return load_model(context, start), start


def checkpoint_digest(context: StageContext, stage: str) -> str:
    """The sha256 of the final checkpoint's list of file hashes: names its weights exactly."""
    listing = final_checkpoint(context.directory(stage)) / "files.json"
    return hashlib.sha256(listing.read_bytes()).hexdigest()
