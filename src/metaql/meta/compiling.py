"""How programs are compiled: those of many small arrays in up to half the time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np

_PLAIN = {"xla_cpu_use_fusion_emitters": False}
"""XLA's older code generator takes as little as half the time to compile programs of many small arrays."""


def suited(function: Callable[..., Any], learner: Any) -> Callable[..., Any]:
    """The function, compiled in the way that suits a learner; once for all its calls."""
    return _compiled(function, getattr(learner, "compiles_plainly", False))


@functools.cache
def _compiled(function: Callable[..., Any], plainly: bool) -> Callable[..., Any]:
    options: dict[str, Any] = {"compiler_options": compile_options(small=False)} if plainly else {}
    return eqx.filter_jit(function, **options)


@functools.cache
def compile_options(small: bool) -> dict[str, Any] | None:
    """Options that compile fast, where this version of XLA has them.

    Args:
        small: a program that optimising takes longer than it saves.
    """
    hurried = {"xla_backend_optimization_level": 0} if small else {}
    for options in (_PLAIN | hurried, hurried):
        try:
            jax.jit(lambda x: x, compiler_options=options)(np.float32(0.0))
        except jax.errors.JaxRuntimeError:
            continue
        return options
    return None
