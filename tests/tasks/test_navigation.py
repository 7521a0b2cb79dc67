"""Navigation: its dynamics by hand, its layouts, its splits."""

from __future__ import annotations

from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.tasks import exact
from metaql.tasks.families import SPLITS, Navigation
from metaql.tasks.families.navigation import (
    FREE,
    GOAL,
    HOLE,
    LESSER_GOAL,
    START,
    WALL,
    Layout,
    Rules,
    grid_task,
    layout_hash,
    solvable,
)

KEY = jax.random.key(0)
# Compiled once for all layouts of one padding: operation by operation they cost seconds.
build = jax.jit(grid_task, static_argnames=("stay", "horizon"))
is_solvable, number_of = jax.jit(solvable), jax.jit(layout_hash)


def on_host(tree):
    return jax.tree.map(np.asarray, tree)


def layout_of(picture, sends_back=False, pad_to=None):
    kinds = {".": FREE, "#": WALL, "o": HOLE, "G": GOAL, "g": LESSER_GOAL, "S": START}
    cells = [kinds[cell] for row in picture for cell in row]
    kind = np.zeros(pad_to or len(cells), np.int32)
    kind[: len(cells)] = cells
    return Layout(
        jnp.asarray(len(picture)),
        jnp.asarray(len(picture[0])),
        jnp.asarray(kind),
        jnp.asarray(sends_back),
    )


def rules_of(slip=0.0, step_cost=0.0, penalty=0.0, lesser=0.5):
    return Rules(*(jnp.asarray(x, jnp.float32) for x in (slip, step_cost, penalty, lesser)))


def test_a_grid_worked_out_by_hand():
    #  S . #
    #  o g G   cells 0 1 2 / 3 4 5, one row of padding
    layout = layout_of(("S.#", "ogG"), pad_to=9)
    rules = rules_of(slip=0.2, step_cost=0.01, penalty=0.3, lesser=0.4)
    task = on_host(build(layout, rules, stay=True, horizon=None))
    left, down, right, up, stay = range(5)
    expected = {
        (0, left): {0: 0.9, 3: 0.1},
        (0, down): {3: 0.8, 0: 0.1, 1: 0.1},
        (0, right): {1: 0.8, 3: 0.1, 0: 0.1},
        (0, stay): {0: 1.0},
        (1, right): {1: 0.9, 4: 0.1},  # the wall
        (1, down): {4: 0.8, 0: 0.1, 1: 0.1},
        (1, up): {1: 0.9, 0: 0.1},
        (4, down): {4: 1.0},  # a goal: nothing follows
        (2, left): {2: 1.0},  # a wall: nobody is there
        (7, left): {7: 1.0},  # padding
    }
    for (state, action), row in expected.items():
        wanted = np.zeros(9)
        wanted[list(row)] = list(row.values())
        np.testing.assert_allclose(task.transition[state, action], wanted, atol=1e-6)
    assert task.reward[0, down, 3] == pytest.approx(-0.31)
    assert task.reward[0, down, 1] == pytest.approx(-0.01)
    assert task.reward[1, down, 4] == pytest.approx(0.39)
    assert task.reward[4].max() == 0
    assert task.reward[4].min() == 0
    assert task.termination[0, 0].tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0]
    assert task.initial.tolist() == [1] + [0] * 8
    assert task.state_mask.tolist() == [True] * 6 + [False] * 3
    assert int(task.horizon) == 24
    # Straight to the lesser goal: right, then down (the hole is worth less than nothing).
    calm = build(layout, rules_of(step_cost=0.01, lesser=0.4), stay=True, horizon=None)
    assert float(exact.optimal_return(calm)) == pytest.approx(0.4 - 0.02, abs=1e-5)


def test_a_hole_that_sends_back_is_paid_for_and_does_not_end():
    layout = layout_of(("So", ".G"), sends_back=True)
    task = on_host(build(layout, rules_of(slip=0.5, penalty=1.0), stay=False, horizon=9))
    up, right = 3, 2
    assert task.termination[0, 0].tolist() == [0, 0, 0, 1]
    # Up from the start: half stays, a quarter slips left (stays), a quarter falls and is put back.
    assert task.transition[0, up].tolist() == [1, 0, 0, 0]
    assert task.reward[0, up, 0] == pytest.approx(-0.25)
    # Right: half falls, a quarter slips up (stays), a quarter slips down.
    np.testing.assert_allclose(task.transition[0, right], [0.75, 0, 0.25, 0])
    assert task.reward[0, right, 0] == pytest.approx(-0.5 / 0.75)
    assert task.action_mask.shape == (4,)


@pytest.mark.parametrize(
    ("picture", "answer"),
    [
        (("S.", ".G"), True),
        (("S#", "#G"), False),
        (("So", ".G"), True),
        (("So.", "o.G"), False),
        (("Sg.", "#.G"), False),  # a lesser goal ends the way
        (("S#.", ".#G"), False),
        (("S#..", ".#.G", "...."), True),
        (("#S", "G#"), False),
    ],
)
def test_solvable(picture, answer):
    for pad_to in (12, 25):
        assert bool(is_solvable(layout_of(picture, pad_to=pad_to))) is answer


def test_the_hash_sees_the_moves_and_not_the_padding():
    def number(*picture, pad_to=9, **options):
        return int(number_of(layout_of(picture, pad_to=pad_to, **options)))

    base = number("S.o", ".#G")
    assert number("S.o", ".#G", pad_to=25) == base
    others = [
        number("S.o", ".#G", sends_back=True),
        number("..o", "S#G"),
        number("S..", ".#G"),
        number("S.", ".#", "oG"),
        number("S.o", ".#G", "###"),
        number("S.#", ".#G"),
    ]
    assert len({base, *others}) == 7
    # From the start, a wall and a hole that puts you back there are the same.
    assert number("So", ".G", sends_back=True) == number("S#", ".G", sends_back=True) != base


def solvable_by_search(layout, index):
    rows, cols = int(layout.rows[index]), int(layout.cols[index])
    grid = layout.kind[index][: rows * cols].reshape(rows, cols)
    queue = deque(map(tuple, np.argwhere(grid == START)))
    seen = set(queue)
    while queue:
        row, col = queue.popleft()
        for near in ((row, col - 1), (row + 1, col), (row, col + 1), (row - 1, col)):
            inside = 0 <= near[0] < rows and 0 <= near[1] < cols
            if inside and near not in seen and grid[near] in (FREE, GOAL):
                seen.add(near)
                queue.append(near)
    return tuple(np.argwhere(grid == GOAL)[0]) in seen


def test_layouts_are_solvable_and_of_one_split():
    family = Navigation(2, 3)
    found = {}
    for split in SPLITS:
        draw = jax.jit(jax.vmap(lambda key, split=split: family.sample_layout(key, split)))
        layout = on_host(draw(jax.random.split(KEY, 3000)))
        assert all(solvable_by_search(layout, i) for i in range(300))
        assert set(layout.rows.tolist()) == set(layout.cols.tolist()) == {2, 3}
        assert set(np.unique(layout.kind)) == {FREE, WALL, HOLE, GOAL, LESSER_GOAL, START}
        leaves = [layout.rows, layout.cols, layout.sends_back, *layout.kind.T]
        found[split] = list(zip(*(x.tolist() for x in leaves), strict=True))
    train, validation, test = (set(found[split]) for split in SPLITS)
    assert not train & validation
    assert not train & test
    assert not validation & test
    # Chance alone would not keep them apart: within a split layouts do come back.
    assert len(test) < 0.8 * len(found["test"])
