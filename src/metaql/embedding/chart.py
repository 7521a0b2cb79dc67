"""What was met where, if states are the cells of a grid: the part of the embedding that needs no learning.

A recurrent state of a few dozen numbers cannot keep in mind which of eighty cells were searched already,
and "left of here" would have to be learned in every cell anew. A chart keeps it exactly, and is looked at
from where one stands, so that what is near is always in the same place (the egocentric reading of Parisotto
& Salakhutdinov 2018, "Neural Map", arXiv 1702.08360; theirs is written by a network, this one by rule).
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from metaql.types import Transition

LAYERS = 3
"""Maps that a view is made of: cells met before and after an episode's first reward, and what they paid."""


class Chart(NamedTuple):
    """Of one lifetime, on a grid of R rows and C columns whose cells are numbered row by row."""

    met: Float[Array, "2 R C"]
    """1 in cells that were arrived in: before an episode had paid anything ([0]), and after ([1])."""
    paid: Float[Array, "R C"]
    """Last reward other than 0 that arriving there brought."""
    rewarded: Bool[Array, ""]
    """Whether this episode has paid anything yet: what opened a door once tells what is behind it."""

    def after(self, seen: Transition) -> Chart:
        """With one transition put down, its reward in units of the largest."""
        here = (jnp.arange(self.paid.size) == seen.next_state).reshape(self.paid.shape)
        phase = (jnp.arange(2) == self.rewarded)[:, None, None]
        ended = seen.terminated | seen.truncated
        return Chart(
            met=jnp.where(here & phase, 1.0, self.met),
            paid=jnp.where(here & (seen.reward != 0), seen.reward, self.paid),
            rewarded=(self.rewarded | (seen.reward > 0)) & ~ended,
        )

    def view(self, cell: Int[Array, ""]) -> Float[Array, " V"]:
        """The whole chart around one cell, ``[LAYERS, 2 R - 1, 2 C - 1]`` in a row, then `rewarded`.

        Beyond the edge all is met and pays nothing.
        """
        rows, columns = self.paid.shape
        edge = ((1, 1), (1, 1))
        met = jnp.pad(self.met, ((0, 0), *edge), constant_values=1.0)
        layers = jnp.concatenate([met, jnp.pad(self.paid, edge)[None]])
        row, column = jnp.divmod(cell, columns)
        down = jnp.clip(row + 1 + jnp.arange(1 - rows, rows), 0, rows + 1)
        across = jnp.clip(column + 1 + jnp.arange(1 - columns, columns), 0, columns + 1)
        view = layers[:, down][:, :, across]
        return jnp.append(view.reshape(-1), self.rewarded.astype(jnp.float32))


def blank_chart(rows: int, columns: int) -> Chart:
    """Nothing met."""
    shape = (rows, columns)
    return Chart(jnp.zeros((2, *shape)), jnp.zeros(shape), jnp.zeros((), bool))
