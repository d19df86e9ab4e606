"""What this process was started as, what it has used, and that it keeps what it frees; torch is not
needed for that.

Devices and what is done among ranks are `runtime`'s duty.
"""

import ctypes
import os
import resource
import sys
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of `mallopt`. Source: malloc.h of glibc."""


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


def keep_freed_memory() -> None:
    """Freed memory is used again, instead of going back to the system and being asked for anew.

    A training step frees and allocates the same sizes as the one before; by default glibc hands
    what is large back, and a step of 4,096 tokens spent a twentieth of its time on zeroed pages
    (docs/notebook.md). Blocks of half a GiB and more still go back. Does nothing without glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_MMAP_THRESHOLD, 2**29)
