"""The few functions through which artifacts change a disk; tests wrap them to inject faults.

What the changes mean is `artifacts.directories`' and `artifacts.lines`' duty.
"""

import os
import shutil
from pathlib import Path
from typing import BinaryIO


def write_file(path: Path, data: bytes) -> None:
    """Write and fsync a whole file."""
    with path.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def append(handle: BinaryIO, data: bytes) -> None:
    """Hand bytes to the operating system: they survive a kill, not a power cut."""
    handle.write(data)
    handle.flush()


def sync(path: Path) -> None:
    """Fsync an existing file or directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(source: Path, target: Path) -> None:
    """Rename atomically; an existing file at `target` is replaced."""
    source.replace(target)


def remove(path: Path) -> None:
    """Delete a file or a whole directory, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
