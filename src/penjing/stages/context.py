"""What every stage is handed: the run file, where the run lives, and how to show progress.

Opening the machine is here too, since its choice is recorded once a run.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penjing.artifacts.directories import verified
from penjing.artifacts.lines import write_atomic
from penjing.artifacts.progress import Progress
from penjing.artifacts.stage import append_event, read_manifest
from penjing.config.schema import STAGE_NAMES, RunConfig
from penjing.errors import ArtifactError
from penjing.model.size import parameters
from penjing.model.transformer import Transformer
from penjing.model.weights import load_weights
from penjing.runtime import Machine, Runtime, open_runtime
from penjing.text.tokenizer import Tokenizer, load_tokenizer, tokenizer_files
from penjing.train.checkpoint import TokenizerBundle, final_checkpoint
from penjing.train.fit import FitResult

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
        recorded = Machine(**json.loads(path.read_text())) if path.exists() else None
        wanted = self.config.runtime
        runtime, machine = open_runtime(
            wanted.device, wanted.dtype, wanted.threads, recorded=recorded
        )
        if machine != recorded:
            text = json.dumps(dataclasses.asdict(machine), indent=2)
            write_atomic(path, text.encode())
        if recorded is not None and machine.cpu != recorded.cpu:
            message = f"the run began on {recorded.cpu}, now on {machine.cpu}: bits may differ"
            append_event(self.run_dir, "warning", "runtime", message)
        return runtime

    def previous_stage(self, stage: str) -> str:
        """The last finished training stage before `stage`.

        Raises:
            ArtifactError: there is none.
        """
        for name in reversed(STAGE_NAMES[: STAGE_NAMES.index(stage)]):
            if name in TRAINED_STAGES and read_manifest(self.directory(name)) is not None:
                return name
        raise ArtifactError(
            f"{self.run_dir}: {stage} starts from a trained model, and no earlier stage of this "
            "run is finished; run `penjing train` with the run file"
        )

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


def tokenizer_bundle(tokenizer: Tokenizer) -> TokenizerBundle:
    """The tokenizer as every checkpoint of the run carries it."""
    return TokenizerBundle(
        files=tokenizer_files(tokenizer),
        digest=tokenizer.digest,
        end_of_text=tokenizer.end_of_text,
        im_end=tokenizer.im_end,
    )


def training_summary(
    result: FitResult, start_stage: str, model: Transformer, planned_tokens: int | None
) -> dict[str, Any]:
    """What every training stage's manifest says of its end; not every stage can plan its tokens."""
    return {
        "parameters": parameters(model.shape).total,
        "planned_tokens": planned_tokens,
        "steps": result.steps,
        "tokens": result.tokens,
        "targets": result.targets,
        "skipped_steps": result.skipped_steps,
        "final_loss": result.loss,
        "start_stage": start_stage,
        "checkpoint": result.checkpoint.name,
        "resumed_from_step": result.resumed_from_step,
    }
