"""A limit on how long a simulator may take to answer."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Generator


@contextlib.contextmanager
def answering_within(seconds: float, late: Callable[[], Exception]) -> Generator[None, None, None]:
    """Raise what ``late`` makes if the block takes longer than ``seconds``.

    By an alarm of the operating system, which only the main thread of a process can set and only where
    there is one: elsewhere nothing is limited.
    """
    able = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if not able:
        yield
        return

    def ring(number: int, frame: object) -> None:
        raise late()

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
