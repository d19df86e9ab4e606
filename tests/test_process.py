import resource
import sys

import pytest

from penjing.process import keep_freed_memory


@pytest.mark.skipif(sys.platform != "linux", reason="a system without glibc need not follow")
def test_freed_memory_is_used_again_without_asking_the_system() -> None:
    keep_freed_memory()
    for _ in range(6):  # the heap grows until what is asked for fits into what was freed
        _fill(64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    _fill(64)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults < 64 * 256 / 4  # 256 pages a MiB


def _fill(mebibytes: int) -> None:
    assert len(b"x" * (mebibytes * 2**20))
