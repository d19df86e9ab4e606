"""What this process was started as and what it has used; torch is not needed to know.

Devices and what is done among ranks are `runtime`'s duty.
"""

import os
import resource
import sys
from pathlib import Path


def started_ranks() -> int:
    """How many processes torchrun started together with this one; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def cpu_seconds() -> float:
    """CPU time of this process and its finished children so far, in seconds."""
    return sum(os.times()[:4])


def peak_memory_bytes() -> int:
    """The most memory that this process has held; macOS counts in bytes, Linux in KiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def memory_bytes() -> int:
    """The memory that this process holds now; where the system does not say, the most it held."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_memory_bytes()
    return pages * os.sysconf("SC_PAGE_SIZE")
