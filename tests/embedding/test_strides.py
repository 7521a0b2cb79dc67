"""What actions add to a state's number: learned where numbers mean something, left alone elsewhere."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.embedding.evidence import base_weights, no_evidence
from metaql.embedding.hyperprior import broad
from metaql.embedding.judging import observe
from metaql.embedding.profiles import WIDTH
from metaql.embedding.strides import ROOM, chance_of, leads, no_strides, walk
from metaql.types import TaskSpec, Transition

SIDE = 5
MOVES = ((0, -1), (1, 0), (0, 1), (-1, 0))


def onto(state, action):
    """A move on an open grid read row by row; its border keeps in place."""
    row, column = divmod(state, SIDE)
    row, column = row + MOVES[action][0], column + MOVES[action][1]
    return row * SIDE + column if 0 <= row < SIDE and 0 <= column < SIDE else state


def spec(numbers=None):
    numbers = None if numbers is None else jnp.asarray(numbers, jnp.int32)
    whole = (jnp.asarray(50), jnp.asarray(9), jnp.asarray(SIDE**2))
    return TaskSpec(jnp.ones(SIDE**2, bool), jnp.ones(4, bool), *whole, numbers=numbers)


def step(state, action, there):
    no, numbers = jnp.zeros((), bool), (jnp.asarray(x) for x in (state, action))
    return Transition(*numbers, jnp.zeros(()), jnp.asarray(there), no, no)


def walked(length, name=range(SIDE**2), seed=0, states=None):
    """A random walk, each state called by its name, as (state, action, next state)."""
    rng, state, rows = np.random.default_rng(seed), 12, []
    for _ in range(length):
        state = int(rng.choice(states)) if states is not None else state
        action = int(rng.integers(4))
        there = onto(state, action)
        rows.append((int(name[state]), action, int(name[there])))
        state = there
    return rows


@eqx.filter_jit
def see(seen, about, transition):
    return observe(seen, broad(), about, transition)


def evidence(rows, about, slots=4):
    seen = no_evidence(about, slots)
    for row in rows:
        seen = see(seen, about, step(*row))
    return seen


def predicted(seen, about, state, action):
    """Predicted probability of every state that was met, by row."""
    return chances(leads(seen.strides, about, seen.met))[state, action]


def chances(found):
    """Of arriving in every row, and last in those never met, ``[S, A, S + 1]``."""
    rows = jnp.eye(found.row.shape[0] + 1)
    return np.moveaxis(np.asarray(found.expectation(rows[:, :-1], rows[:, -1])), 0, -1)


def test_a_pair_has_no_fewer_slots_than_outcome_profiles():
    assert evidence(walked(5), spec(), slots=1).successors.counts.shape[-1] == WIDTH


def test_an_untried_pair_is_foreseen_where_others_were_tried():
    inner = [6, 7, 8, 11, 13, 16, 17, 18]
    seen = evidence(walked(40, states=inner), spec())
    seen = see(seen, spec(), step(7, 1, 12))  # the middle is met, but nothing was ever tried in it
    assert seen.pair.visits[12].sum() == 0
    for action in range(4):
        assert predicted(seen, spec(), 12, action)[onto(12, action)] > 0.85


def test_a_wall_is_learned_from_all_actions_at_once():
    rows = walked(60, states=[6, 7, 8, 11, 12, 13, 16, 17, 18])
    blocked = [(10, 0, 10)] * 4  # the left border
    seen = evidence([*rows, *blocked], spec())
    assert predicted(seen, spec(), 10, 0)[10] > 0.8
    assert predicted(seen, spec(), 12, 0)[11] > 0.85


def test_what_is_in_the_way_keeps_in_place_and_is_no_habit():
    """Two cells in a corridor closed at both ends: what an action does is told from walls."""
    ahead, back = ([(7, 2, 8), (8, 2, 8)] * 6, [(8, 0, 7), (7, 0, 7)] * 6)
    strides = evidence([*ahead, *back], spec()).strides
    right, left, still = (np.flatnonzero(np.asarray(strides.size) == d)[0] for d in (1, -1, 0))
    effect, access = np.asarray(strides.effect), np.asarray(strides.access)
    assert effect[2, right] > 0.8
    assert effect[0, left] > 0.8
    assert effect[2, still] < 0.2
    assert effect[0, still] < 0.2
    assert access[7, right] == 1
    assert access[8, right] < 0.1
    assert access[8, left] == 1
    assert access[7, left] < 0.1
    np.testing.assert_allclose(effect[[0, 2]].sum(-1), 1.0, rtol=1e-5)


def test_slips_are_told_from_all_cells_together():
    """One in five steps slips; a cell where none did yet expects it all the same."""
    rows = [(state, 2, state + 1) for state in (6, 7, 11, 12, 16, 17) for _ in range(4)]
    rows += [(state, 2, state + SIDE) for state in (6, 7, 11, 12, 16, 17)]
    rows += [(state, 1, state + SIDE) for state in (8, 13)]  # it is open below, by another action
    seen = evidence(rows, spec())
    assert seen.pair.visits[8, 2] == 0
    assert abs(predicted(seen, spec(), 8, 2)[13] - 0.2) < 0.06


def test_no_stride_leaves_the_task():
    seen = evidence(walked(60, states=[6, 7, 8, 11, 12, 13]), spec())
    seen = see(seen, spec(), step(1, 2, 2))
    outside = ~np.isin(np.asarray(leads(seen.strides, spec(), seen.met).row[2]), range(SIDE**2 + 1))
    assert not outside.any()
    # Up from the first row would be a number below 0: it can only keep in place.
    assert predicted(seen, spec(), 2, 3)[2] > 0.85


def test_rows_may_be_in_any_order_if_numbers_are_told():
    order = np.random.default_rng(1).permutation(SIDE**2)  # row -> number
    row_of = np.argsort(order)
    plain = evidence(walked(50), spec())
    shuffled = evidence(walked(50, name=row_of), spec(order))
    np.testing.assert_allclose(shuffled.log_spread, plain.log_spread, rtol=1e-4, atol=1e-3)
    for state in np.flatnonzero(np.asarray(plain.met)):
        np.testing.assert_allclose(
            predicted(shuffled, spec(order), row_of[state], 2)[row_of],
            predicted(plain, spec(), state, 2)[:-1],
            atol=1e-4,
        )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_whether_numbers_mean_anything_is_inferred(seed):
    def trusted(name):
        seen = evidence(walked(120, name, seed), spec())
        return float(base_weights(seen, broad())[1].sum())

    assert trusted(np.arange(SIDE**2)) > 0.95
    assert trusted(np.random.default_rng(seed).permutation(SIDE**2)) < 0.2


def test_the_most_frequent_strides_are_kept():
    strides, about = no_strides(SIDE**2, 4), spec()
    visits = jnp.zeros((SIDE**2, 4))
    for there in [3, 3, 3, *range(4, 4 + 2 * ROOM)]:
        made = step(0, 0, there)
        visits = visits.at[0, 0].add(1)
        strides = walk(strides, about, made, visits)
    assert 3 in np.asarray(strides.size)
    assert float(chance_of(strides, about, step(0, 0, 3))[0]) > 0.2
    assert np.isfinite(
        np.asarray(jax.tree.leaves(leads(strides, about, visits.sum(-1) > 0))[0])
    ).all()


def test_chances_are_chances():
    seen = evidence(walked(80, np.random.default_rng(3).permutation(SIDE**2)), spec())
    found = leads(seen.strides, spec(), seen.met)
    chance = chances(found)
    assert (chance >= 0).all()
    assert (chance.sum(-1) <= 1 + 1e-5).all()
    np.testing.assert_allclose(chance.sum(-1), found.known, atol=1e-5)
