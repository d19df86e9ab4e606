import json
import time
from collections.abc import Iterator
from dataclasses import asdict, replace

import pytest
import torch

from penjing import runtime
from penjing.errors import ConfigError
from penjing.process import cpu_seconds, peak_memory_bytes
from penjing.runtime import (
    DEVICES,
    Machine,
    make_generator,
    open_runtime,
    out_of_memory,
    probe_dtype,
)


@pytest.fixture(autouse=True)
def settings_restored() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(device: torch.device, hidden_size: int) -> tuple[str, dict[str, float]]:
        raise AssertionError("measured again")

    monkeypatch.setattr(runtime, "probe_dtype", fail)


def test_the_probe_measures_both_dtypes_in_half_a_second() -> None:
    begun = time.process_time()
    dtype, rates = probe_dtype(torch.device("cpu"), 4096)
    assert time.process_time() - begun < 0.5 * torch.get_num_threads() + 0.5
    assert set(rates) == {"float32", "bfloat16"}
    assert dtype == ("bfloat16" if rates["bfloat16"] >= 1.2 * rates["float32"] else "float32")


def test_the_choice_is_repeated_from_its_record(no_probe: None) -> None:
    _, machine = open_runtime("cpu", "float32", 1)
    recorded = replace(machine, dtype="bfloat16", measurements={"bfloat16": 9.0})
    found, again = open_runtime(
        "auto" if len(found_devices()) == 1 else "cpu", "auto", None, recorded
    )
    assert again == Machine(**json.loads(json.dumps(asdict(recorded))))
    assert (found.dtype, found.threads) == (torch.bfloat16, 1)


def found_devices() -> list[str]:
    return [name for name, row in DEVICES.items() if row.available()]


def test_another_processor_measures_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "probe_dtype", lambda *_: ("float32", {"float32": 1.0}))
    _, machine = open_runtime("cpu", "float32", 1)
    recorded = replace(machine, cpu="another", dtype="bfloat16")
    found, chosen = open_runtime("cpu", "auto", 1, recorded)
    assert (found.dtype, chosen.dtype, chosen.cpu) == (torch.float32, "float32", machine.cpu)


def test_what_the_run_file_says_is_not_measured(no_probe: None) -> None:
    found, machine = open_runtime("cpu", "bfloat16", 2)
    assert (found.dtype, found.threads, torch.get_num_threads()) == (torch.bfloat16, 2, 2)
    assert (machine.dtype, machine.measurements) == ("bfloat16", {})
    assert torch.are_deterministic_algorithms_enabled()


def test_a_device_that_is_not_there_is_refused_with_those_that_are() -> None:
    missing = next(name for name in DEVICES if name not in found_devices())
    with pytest.raises(ConfigError, match=rf"'{missing}'.*available are .*cpu"):
        open_runtime(missing, "float32", 1)


def test_failed_allocations_are_told_from_other_errors() -> None:
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert out_of_memory(caught.value)
    assert not out_of_memory(RuntimeError("shapes differ"))


def test_generators_of_one_seed_draw_the_same() -> None:
    first, second = (torch.rand(4, generator=make_generator(7)) for _ in range(2))
    assert torch.equal(first, second)


def test_time_and_memory_are_measured() -> None:
    before = cpu_seconds()
    data = bytearray(2**26)
    assert peak_memory_bytes() > len(data)
    assert cpu_seconds() >= before
