"""The chart: what was met where, and how it looks from a cell."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from metaql.embedding.chart import LAYERS, blank_chart
from metaql.types import Transition

ROWS, COLUMNS = 3, 4


def put_down(chart, *steps):
    """After steps of (cell, reward, ended)."""
    away, off = jnp.asarray(0), jnp.asarray(False)
    for cell, reward, ended in steps:
        there = (jnp.asarray(reward), jnp.asarray(cell), jnp.asarray(ended))
        chart = chart.after(Transition(away, away, *there, truncated=off))
    return chart


def layers_from(chart, cell):
    view = np.asarray(chart.view(jnp.asarray(cell)))
    return view[:-1].reshape(LAYERS, 2 * ROWS - 1, 2 * COLUMNS - 1), bool(view[-1])


def test_cells_are_met_before_and_after_the_first_reward_of_an_episode():
    steps = [(5, 0.0, False), (6, 1.0, False), (7, 0.0, False), (11, 1.0, True), (10, 0.0, False)]
    met = np.asarray(put_down(blank_chart(ROWS, COLUMNS), *steps).met).reshape(2, -1)
    # What pays first is still met before anything has paid; a new episode begins anew, the chart does not.
    assert np.flatnonzero(met[0]).tolist() == [5, 6, 10]
    assert np.flatnonzero(met[1]).tolist() == [7, 11]


def test_a_cost_is_written_down_but_opens_nothing():
    chart = put_down(blank_chart(ROWS, COLUMNS), (1, -0.1, False), (2, -0.1, False))
    assert not chart.rewarded
    assert not chart.met[1].any()
    np.testing.assert_allclose(chart.paid[0], [0.0, -0.1, -0.1, 0.0])


def test_a_cell_keeps_the_last_reward_it_paid():
    chart = put_down(blank_chart(ROWS, COLUMNS), (6, 1.0, False), (6, 0.0, True))
    assert float(chart.paid[1, 2]) == 1.0  # a key is there once an episode
    assert float(put_down(chart, (6, -0.1, False)).paid[1, 2]) == np.float32(-0.1)  # it moved


@pytest.mark.parametrize("cell", range(ROWS * COLUMNS))
def test_a_view_has_every_cell_where_it_lies_from_here(cell):
    chart = put_down(blank_chart(ROWS, COLUMNS), (1, 0.5, False), (11, 1.0, False))
    layers, rewarded = layers_from(chart, cell)
    assert rewarded
    expected = np.zeros_like(layers)
    expected[:2] = 1.0  # walls all around
    row, column = divmod(cell, COLUMNS)
    field = np.concatenate([chart.met, np.asarray(chart.paid)[None]])
    top, left = ROWS - 1 - row, COLUMNS - 1 - column
    expected[:, top : top + ROWS, left : left + COLUMNS] = field
    np.testing.assert_array_equal(layers, expected)
