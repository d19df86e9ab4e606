"""The machine of a run, chosen once, and the models that its stages left, on that machine.

What is where in a run's directory is `stages.context`'s duty.
"""

import hashlib

from penjing.artifacts.lines import read_record, write_atomic
from penjing.artifacts.records import to_json
from penjing.artifacts.stage import append_event
from penjing.model.language_model import LanguageModel
from penjing.model.weights import load_weights
from penjing.runtime import Machine, Runtime, open_runtime
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
    if machine != recorded:
        write_atomic(path, f"{to_json(machine)}\n".encode())
    if recorded is not None and machine.cpu != recorded.cpu:
        message = f"the run began on {recorded.cpu}, now on {machine.cpu}: bits may differ"
        append_event(context.run_dir, "warning", "runtime", message)
    return runtime


def load_model(context: StageContext, stage: str) -> LanguageModel:
    """The final weights of a finished stage, verified, on this run's device."""
    runtime = open_machine(context)
    model = load_weights(final_checkpoint(context.directory(stage)), runtime.dtype)
    return model.to(runtime.device)


def checkpoint_digest(context: StageContext, stage: str) -> str:
    """The sha256 of the final checkpoint's list of file hashes: names its weights exactly."""
    listing = final_checkpoint(context.directory(stage)) / "files.json"
    return hashlib.sha256(listing.read_bytes()).hexdigest()
