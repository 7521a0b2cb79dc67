"""Drawing from a row of probabilities, where rounding could let an impossible entry through."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from metaql.tasks.finite import _draw


def test_an_impossible_entry_is_not_drawn_where_the_running_sum_rounds_up():
    rng = np.random.default_rng(0)
    rows = rng.random((200, 500)) * (rng.random((200, 500)) < 0.3)
    rows = np.float32(rows / rows.sum(-1, keepdims=True))
    cumulative = np.asarray(jax.jit(lambda p: jnp.cumsum(p, -1))(rows))
    rises = (np.diff(cumulative) > 0) & (rows[:, 1:] == 0)
    assert rises.any()  # else this test tests nothing
    at = np.argwhere(rises)[:200]
    aimed = cumulative[at[:, 0], at[:, 1]] / cumulative[at[:, 0], -1]
    drawn = jax.jit(jax.vmap(_draw))(rows[at[:, 0]], jnp.asarray(aimed))
    assert (rows[at[:, 0], np.asarray(drawn)] > 0).all()


def test_the_largest_uniform_draws_a_possible_entry():
    rows = jnp.array([[0.3, 0.7, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    for u, expected in ((0.0, [0, 3]), (1.0 - 2.0**-23, [1, 3])):
        drawn = jax.vmap(_draw, in_axes=(0, None))(rows, jnp.float32(u))
        np.testing.assert_array_equal(drawn, expected)
