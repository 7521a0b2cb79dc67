"""What grids have in common: which cell lies next to which, and what can be reached."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def neighbours(
    rows: Int[Array, ""] | int, cols: Int[Array, ""] | int, num_cells: int | None = None
) -> Int[Array, "S 4"]:
    """The cell reached from each cell by left, down, right, up; edges keep you in place.

    Args:
        rows: height of the grid.
        cols: width of the grid; cells are numbered row by row.
        num_cells: length of the result when ``rows`` and ``cols`` are traced; what lies beyond
            ``rows * cols`` are not cells, and their rows mean nothing.
    """
    cell = jnp.arange(rows * cols if num_cells is None else num_cells)
    row, col = cell // cols, cell % cols
    moved = (
        row * cols + jnp.maximum(col - 1, 0),
        jnp.minimum(row + 1, rows - 1) * cols + col,
        row * cols + jnp.minimum(col + 1, cols - 1),
        jnp.maximum(row - 1, 0) * cols + col,
    )
    return jnp.stack(moved, -1).astype(jnp.int32)


def reachable(
    adjacent: Int[Array, "S 4"], passable: Bool[Array, " S"], start: Int[Array, ""]
) -> Bool[Array, " S"]:
    """Cells that can be reached from ``start`` through passable cells (itself among them)."""

    def grow(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        reached, _ = carry
        grown = (reached | reached[adjacent].any(-1)) & passable
        return grown, jnp.any(grown != reached)

    first = (jnp.arange(passable.shape[0]) == start) & passable
    return jax.lax.while_loop(lambda carry: carry[1], grow, (first, jnp.asarray(True)))[0]
