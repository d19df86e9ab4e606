"""What every stage is handed: the run file, where the run lives, and how to show progress.

Opening the machine is here too, since its choice is recorded once a run.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from penjing.artifacts.directories import verified
from penjing.artifacts.lines import read_record, write_atomic
from penjing.artifacts.progress import Progress
from penjing.artifacts.records import to_json
from penjing.artifacts.stage import append_event, read_manifest
from penjing.config.schema import RunConfig
from penjing.errors import ArtifactError
from penjing.model.transformer import Transformer
from penjing.model.weights import load_weights
from penjing.runtime import Machine, Runtime, open_runtime
from penjing.text.tokenizer import Tokenizer, load_tokenizer
from penjing.train.checkpoint import final_checkpoint

Show = Callable[[Progress], None]

TRAINED_STAGES = ("pretrain", "midtrain", "sft", "dpo", "rl")


@dataclass(frozen=True)
class StageContext:
    """One run, as its stages see it. `base` is the folder that the run file's paths start from."""

    config: RunConfig
    base: Path
    run_dir: Path
    show: Show

    def directory(self, stage: str) -> Path:
        return self.run_dir / stage

    def runtime(self) -> Runtime:
        """The device and precision of this run: measured once, then read from `machine.json`."""
        path = self.run_dir / "machine.json"
        recorded = read_record(path, Machine) if path.exists() else None
        wanted = self.config.runtime
        runtime, machine = open_runtime(
            wanted.device, wanted.dtype, wanted.threads, recorded=recorded
        )
        if machine != recorded:
            write_atomic(path, f"{to_json(machine)}\n".encode())
        if recorded is not None and machine.cpu != recorded.cpu:
            message = f"the run began on {recorded.cpu}, now on {machine.cpu}: bits may differ"
            append_event(self.run_dir, "warning", "runtime", message)
        return runtime

    def trained_stages(self) -> list[str]:
        """The finished training stages of this run, in order.

        A directory whose table has left the run file is no part of the run.
        """
        return [
            name
            for name in TRAINED_STAGES
            if getattr(self.config, name) is not None
            and read_manifest(self.directory(name)) is not None
        ]

    def previous_stage(self, stage: str) -> str:
        """The last finished training stage before `stage`.

        Raises:
            ArtifactError: there is none.
        """
        before = TRAINED_STAGES[: TRAINED_STAGES.index(stage)]
        found = [name for name in self.trained_stages() if name in before]
        if not found:
            raise ArtifactError(
                f"{self.run_dir}: {stage} starts from a trained model, and no earlier stage of "
                "this run is finished; run `penjing train` with the run file"
            )
        return found[-1]

    def load_model(self, stage: str) -> Transformer:
        """The final weights of a finished stage, verified, on this run's device."""
        runtime = self.runtime()
        model = load_weights(final_checkpoint(self.directory(stage)), runtime.dtype)
        return model.to(runtime.device)

    def checkpoint_digest(self, stage: str) -> str:
        """The sha256 of the final checkpoint's list of file hashes: names its weights exactly."""
        listing = final_checkpoint(self.directory(stage)) / "files.json"
        return hashlib.sha256(listing.read_bytes()).hexdigest()

    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer, as the tokenizer stage left it."""
        return load_tokenizer(verified(self.directory("tokenizer")))
