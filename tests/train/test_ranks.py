"""Two gloo ranks against one process; run as a script, this file is one of the ranks."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from penjing.config.model import ModelShape
from penjing.config.training import CadenceConfig, OptimizerConfig
from penjing.data.batches import Batch
from penjing.errors import PenjingError
from penjing.model.initialization import initialize
from penjing.model.transformer import Transformer
from penjing.runtime import Runtime, make_generator, open_runtime
from penjing.train.checkpoint import TokenizerBundle
from penjing.train.fit import fit
from penjing.train.job import FitJob
from penjing.train.objectives import Loss, next_token
from penjing.train.optimizer import build_optimizer

SHAPE = ModelShape(24, 1, 16, 2, 1, 8, 24, 12, 10_000.0, 1e-6, tie_word_embeddings=False)
BUNDLE = TokenizerBundle({}, "digest", end_of_text=22, im_end=23)


def step_batch(step: int, runtime: Runtime) -> Batch:
    """This rank's rows of six; the ranks have different numbers of targets."""
    ids = torch.randint(0, 24, (6, 9), generator=make_generator(step))
    trained = (torch.arange(8) <= torch.arange(6)[:, None]).float()
    rows = slice(runtime.rank, None, runtime.world_size)
    documents = torch.zeros(6, 8, dtype=torch.int64)
    return Batch(ids[rows, :-1], ids[rows, 1:], trained[rows], documents[rows])


def small_memory_on_the_last_rank(runtime: Runtime) -> Any:
    def objective(model: Transformer, batch: Batch) -> Loss:
        if runtime.rank == runtime.world_size - 1 and batch.rows > 1:
            raise torch.OutOfMemoryError("injected")
        loss = next_token(model, batch)
        return replace(loss, maxima={"rows": torch.tensor(float(batch.rows))})

    return objective


def train(directory: Path) -> dict[str, Any]:
    runtime, _ = open_runtime("cpu", "float32", 1)
    model = Transformer(SHAPE)
    initialize(model, 3)

    def open_batches(done: int) -> Iterator[Batch]:
        return (step_batch(step, runtime) for step in range(done + 1, 100))

    job = FitJob(
        directory=directory / "sft",
        stage="sft",
        seed=1,
        runtime=runtime,
        model=model,
        optimizer=build_optimizer(model, OptimizerConfig()),
        objective=small_memory_on_the_last_rank(runtime),
        open_batches=open_batches,
        schedule=lambda step: 1.0,
        steps=3,
        rows_per_step=6,
        microbatch_rows=2,
        max_grad_norm=1.0,
        cadence=CadenceConfig(checkpoint_every_steps=2),
        probes=(),
        tokenizer=BUNDLE,
        show=lambda progress: None,
    )
    result = fit(job)
    weights = torch.cat([value.detach().flatten() for value in model.parameters()]).tolist()
    message = ""
    try:
        runtime.require_agreement("the rank", runtime.rank)
    except PenjingError as error:
        message = str(error)
    gathered = runtime.gather({"rank": runtime.rank, "value": float("nan")})
    return {
        "weights": weights,
        "loss": result.loss,
        "tokens": result.tokens,
        "disagreement": message,
        "gathered": [value["rank"] for value in gathered],
    }


def test_two_ranks_train_like_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    settings["PYTHONPATH"] = str(Path(__file__).parents[2] / "src")
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", __file__, str(tmp_path), str(rank)],
            env=os.environ | settings | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    alone = train(tmp_path / "alone")
    torch.use_deterministic_algorithms(False)
    assert [process.wait(timeout=100) for process in processes] == [0, 0]
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert ranks[0]["weights"] == ranks[1]["weights"]
    torch.testing.assert_close(
        torch.tensor(ranks[0]["weights"]), torch.tensor(alone["weights"]), rtol=1e-3, atol=2e-5
    )
    for found in ranks:
        assert abs(found["loss"] - alone["loss"]) < 1e-5
        assert found["tokens"] == alone["tokens"] == 3 * 48
        assert "rank 0 has 0, rank 1 has 1" in found["disagreement"]
        assert found["gathered"] == [0, 1]
    assert (tmp_path / "both" / "sft" / "step-000003" / "files.json").exists()
    metrics = (tmp_path / "both" / "sft" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["values"] for line in metrics] == [
        {"rows": 1.0, "utilization": 1.0}
    ] * 3


if __name__ == "__main__":
    out = Path(sys.argv[1])
    (out / f"rank{sys.argv[2]}.json").write_text(json.dumps(train(out / "both")))
