"""Hidden goals: the exact value of Bayes-optimal behaviour in GridNavi, and goals of each split."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.errors import ConfigError
from metaql.tasks.exact import optimal_return
from metaql.tasks.families import DarkRoom, GridNavi, make
from metaql.types import Outcome

PUBLISHED = GridNavi(shared=True)
SEARCH = [divmod(cell, 5) for cell in (5, 10, 15, 20, 21, 16, 11, 12, 7, 8, 13, 18, 17, 22, 23)]
"""Cells after each of the 15 steps of a first episode, as (row, column)."""
MOVES = ((0, -1), (1, 0), (0, 1), (-1, 0), (0, 0))


def cell(place):
    return 5 * place[0] + place[1]


def lived(task, actions):
    """Return of an episode of these actions, by the task's own arrays."""
    state, total = task.reset(jax.random.key(0)), 0.0
    for action in actions:
        outcome: Outcome = task.step(jax.random.key(0), state, jnp.asarray(action))
        state, total = outcome.next_state, total + float(outcome.reward)
    return total


def actions_along(path, goal, start=(0, 0)):
    """Actions along a path until the goal is met; then stay."""
    here, found = start, []
    for place in path:
        if here == goal:
            break
        found.append(MOVES.index((place[0] - here[0], place[1] - here[1])))
        here = place
    return found + [4] * (15 - len(found))


def test_bayes_optimal_totals_of_grid_navi():
    """First episode 4.000, every later one 11.071: reached, and no policy can do better.

    Upper bounds: later episodes cannot beat knowing the goal. In the first, one step visits at most one
    new cell and the nearest goals are two steps away, so at best one goal each is found at steps
    2, 3, ..., 15; a goal found at step t pays 1 instead of -0.1 from then on, 16 - t times.
    """
    goals = PUBLISHED.goals["test"]
    assert len(goals) == 21
    bound = sum(16 - t for t in range(2, 16)) * 1.1 / 21 - 15 * 0.1
    assert bound == pytest.approx(4.0)
    known = [float(optimal_return(PUBLISHED.task(goal))) for goal in goals]
    assert np.mean(known) == pytest.approx(11.0714, abs=1e-3)

    met = {cell(place) for place in SEARCH}
    rest = sorted(set(goals) - met, key=lambda number: sum(divmod(number, 5)))
    # What the search leaves lies along one shortest way: walking it finds each as soon as can be.
    for near, far in itertools.pairwise(rest):
        row, column = np.subtract(divmod(far, 5), divmod(near, 5))
        assert row >= 0
        assert column >= 0
    first, second = [], []
    for goal in goals:
        place, task = divmod(goal, 5), PUBLISHED.task(goal)
        first.append(lived(task, actions_along(SEARCH, place)))
        way = [divmod(goal, 5)] if goal in met else [divmod(each, 5) for each in rest]
        second.append(lived(task, actions_along(_steps(way), place)))
    assert np.mean(first) == pytest.approx(4.0, abs=1e-5)
    assert np.mean(second) == pytest.approx(11.0714, abs=1e-3)


def _steps(places, start=(0, 0)):
    """A shortest way through places that lie along one."""
    path, here = [], start
    for place in places:
        while here != place:
            down = here[0] < place[0]
            here = (here[0] + down, here[1] + (not down))
            path.append(here)
    return path


@pytest.mark.parametrize("family", [GridNavi(), DarkRoom()])
def test_splits_share_no_goal(family):
    goals = [set(family.goals[split]) for split in ("train", "validation", "test")]
    assert all(not a & b for a, b in itertools.combinations(goals, 2))
    every = len(goals[0] | goals[1] | goals[2])
    assert every == (21 if isinstance(family, GridNavi) else 80)
    assert len(goals[0]) > len(goals[1]) + len(goals[2])


def test_goals_are_shared_only_where_asked_for():
    assert PUBLISHED.goals["train"] == PUBLISHED.goals["test"]
    assert GridNavi().goals["train"] != GridNavi().goals["test"]


def test_the_dark_room_pays_on_its_goal_only():
    room = DarkRoom()
    task = room.task(room.start + 1)
    right = MOVES.index((0, 1))
    assert lived(task, [right] + [4] * 19) == 20.0
    assert lived(task, [4] * 20) == 0.0
    assert float(optimal_return(task)) == pytest.approx(20.0)


def test_a_room_too_small_is_refused():
    with pytest.raises(ConfigError, match="size=2"):
        make("dark_room", size=2)
