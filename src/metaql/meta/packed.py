"""Trees of arrays as one row of numbers.

The more arrays a compiled call takes and returns, the longer it holds the interpreter: where the call itself
is short, as beside an environment, rows halve that.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float


class Form(NamedTuple):
    """What was packed into one row of float32. Whole numbers are exact up to 2^24."""

    structure: Any
    leaves: tuple[jax.ShapeDtypeStruct, ...]

    def unpacked(self, row: Float[Array, " X"]) -> Any:
        """What was packed."""
        blank = [jnp.zeros(leaf.shape, leaf.dtype) for leaf in self.leaves]
        return ravel_pytree(self.structure.unflatten(blank))[1](row)


def form_of(tree: Any, axes: int = 0) -> Form:
    """Of one of those in ``tree``, whose leaves have so many axes before its own."""
    leaves, structure = jax.tree.flatten(tree)
    return Form(structure, tuple(jax.ShapeDtypeStruct(x.shape[axes:], x.dtype) for x in leaves))


@jax.jit
def packed(tree: Any) -> Float[Array, " X"]:
    """The row of a tree."""
    return ravel_pytree(tree)[0]
