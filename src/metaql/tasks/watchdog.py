"""A limit on how long a simulator may take to answer."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

_PARTS = 8
"""The time is measured in so many parts: one in which the process was stopped (Ctrl-Z) counts once, however
long that was."""
_FOREVER = 1e8
"""Seconds that are as good as no limit: what a timer takes ends somewhere beyond."""


@dataclass
class _Bell:
    """The alarm of the process: whether it was taken, and what it means. Touched by the main thread only."""

    taken: bool = False
    late: Callable[[], Exception] | None = None
    """Makes what is raised when time is up; None: nobody is waited for."""
    left: int = 0
    """Parts of the time."""


_BELL = _Bell()


def _able() -> bool:
    return hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()


def _ring(number: int, frame: Any) -> None:
    del number, frame
    _BELL.left -= 1
    if _BELL.late is not None and _BELL.left <= 0:
        raise _BELL.late()


@contextlib.contextmanager
def alarm_taken() -> Generator[None, None, None]:
    """Take the alarm for many uses of `answering_within` in the block, each of which is then cheap."""
    if _BELL.taken or not _able():
        yield
        return
    before = signal.signal(signal.SIGALRM, _ring)
    _BELL.taken = True
    try:
        yield
    finally:
        _BELL.taken = False
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def answering_within(seconds: float, late: Callable[[], Exception]) -> Generator[None, None, None]:
    """Raise what ``late`` makes if the block takes longer than ``seconds`` (infinite: never).

    By an alarm of the operating system, which only the main thread of a process can set and only where
    there is one: elsewhere nothing is limited. Blocks do not nest.
    """
    if not _able() or seconds > _FOREVER:
        yield
        return
    with alarm_taken():
        _BELL.late, _BELL.left = late, _PARTS
        signal.setitimer(signal.ITIMER_REAL, seconds / _PARTS, seconds / _PARTS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            _BELL.late = None
