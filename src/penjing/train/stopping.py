"""Stop requests: the first SIGINT or SIGTERM asks for an orderly stop, the second ends at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class InterruptedProbeError(Exception):
    """A stop was asked for while nothing was changed that could not be done again."""


class StopRequest:
    """Whether a stop was asked for."""

    def __init__(self) -> None:
        self._requested = threading.Event()
        self._may_interrupt = False

    def requested(self) -> bool:
        return self._requested.is_set()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Inside, a stop request raises InterruptedProbeError at once: for work that only looks."""
        self._may_interrupt = True
        try:
            if self.requested():
                raise InterruptedProbeError
            yield
        finally:
            self._may_interrupt = False

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """The signals' handler."""
        del number, frame
        if self.requested():
            raise KeyboardInterrupt
        self._requested.set()
        if self._may_interrupt:
            raise InterruptedProbeError


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Handles both signals inside the block; only the main thread can."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, request.on_signal) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
