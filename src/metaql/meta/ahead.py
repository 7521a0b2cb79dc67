"""Programs compiled ahead, on threads of their own, while the caller goes on.

Python traces and lowers one program at a time, XLA compiles beside it: whoever lowers the next program while
the last one is compiled waits for the longer of both alone.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax

_SETTINGS: Any = jax.config
_WORKERS = 2
_UNDER_WAY: dict[Callable[..., Any], Future[Any]] = {}
"""Jitted function -> its compilation, done or under way, for which nobody has waited yet."""


@functools.cache
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=_WORKERS, thread_name_prefix="metaql-compile")


def _forget() -> None:
    """In a forked process, which has no such threads."""
    _UNDER_WAY.clear()
    _workers.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def compile_aside(program: Any, *arguments: Any) -> None:
    """Lower a jitted function for arguments like these now, and have it compiled while the caller goes on.

    Args:
        program: from `jax.jit`; `wait` for it before it is called, or it is compiled once more.
        *arguments: arrays, or their shapes.
    """
    before = _UNDER_WAY.get(program)
    if _SETTINGS.jax_disable_jit or (before is not None and not before.done()):
        return  # nothing is compiled, or it may be this
    lowered = program.lower(*arguments)
    with contextlib.suppress(RuntimeError):  # the interpreter is about to end
        _UNDER_WAY[program] = _workers().submit(lowered.compile)


def wait(program: Callable[..., Any]) -> None:
    """Until nothing of this function is being compiled; what failed will fail again when it is called."""
    compilation = _UNDER_WAY.get(program)
    if compilation is None:
        return
    compilation.exception()
    if _UNDER_WAY.get(program) is compilation:
        _UNDER_WAY.pop(program, None)
