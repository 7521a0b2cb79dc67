"""Ctrl-C that is not lost.

Python raises `KeyboardInterrupt` wherever it happens to be. In a callback of the garbage collector, as JAX
has one, it is printed and forgotten, and within an import it comes out as another error.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn


class _Came:
    """Whether a Ctrl-C came in this process."""

    pending = False


def watch() -> None:
    """Note every Ctrl-C from now on, unless somebody handles it in a way of their own."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def pending() -> bool:
    """Whether one came."""
    return _Came.pending


def check() -> None:
    """Raise `KeyboardInterrupt` if one came: where it is safe to stop, and sure to be noticed."""
    if _Came.pending:
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    del number, frame
    _Came.pending = True
    raise KeyboardInterrupt
