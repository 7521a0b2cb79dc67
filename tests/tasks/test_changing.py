"""Tasks that change during a lifetime."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.errors import ConfigError, UnknownNameError
from metaql.meta.config import settings_for
from metaql.meta.lifetime import advance, begin_all
from metaql.tasks.families import Changing, GridNavi, make
from metaql.tasks.families.changing import ChangingTask
from metaql.types import Decision

KEY = jax.random.key(0)


class Down(NamedTuple):
    """A learner that goes down at first and then stays; it remembers steps of the episode."""

    def init(self, key, spec):
        return jnp.zeros((), jnp.int32)

    def act(self, key, memory, state):
        action = jnp.where(memory < 2, 1, 4)
        return Decision(action, jnp.zeros(5), jnp.zeros(5))

    def update(self, key, memory, transition):
        return jnp.where(transition.terminated | transition.truncated, 0, memory + 1)


def test_the_goal_moves_at_its_moment():
    """Two steps down lead to cell 10, which pays from step 4 of the second episode on, and not before."""
    navi = GridNavi(5, horizon=6)
    task = ChangingTask(navi.task(24), navi.task(10), jnp.asarray(1), jnp.asarray(4))
    tasks = jax.tree.map(lambda x: x[None], task)
    lives = begin_all(Down(), tasks, jax.random.split(KEY, 1), 3)
    _, record = advance(Down(), tasks, lives, 18)
    pays = np.asarray(record.transition.reward[:, 0]) > 0
    assert pays.tolist() == [False] * 10 + [True] * 2 + [False] + [True] * 5


def test_both_tasks_are_of_one_split_and_times_as_asked():
    family = Changing("grid_navi", earliest=1, latest=3)
    for split in ("train", "test"):
        tasks = family.tasks(KEY, 200, split)
        goals = set(family.of.goals[split])
        for part in (tasks.before, tasks.after):
            found = set(np.asarray(part.reward[:, 0, 0]).argmax(-1).tolist())
            assert found <= goals
            assert len(found) > 1
        assert set(np.asarray(tasks.episode).tolist()) == {1, 2, 3}
        assert np.asarray(tasks.moment).min() == 0
        assert np.asarray(tasks.moment).max() == 14
    differ = np.asarray(tasks.before.reward != tasks.after.reward).any((1, 2, 3))
    assert 0.3 < differ.mean() < 1.0


def test_it_is_made_by_name_and_checked():
    assert make("changing", of="cart_pole", earliest=0).of.name == "cart_pole"
    with pytest.raises(UnknownNameError, match="grid_navi"):
        Changing("grid_nav")
    with pytest.raises(ConfigError):
        Changing(earliest=3, latest=2)
    with pytest.raises(ConfigError):
        Changing(of=3)


def test_lifetimes_go_on_after_the_change():
    family = make("changing", of="pendulum", earliest=1, latest=2)
    assert family.suits == {**family.of.suits, "episodes": (6, 6)}
    assert settings_for(make("changing"), "auto", {}, "here").episodes == (8, 8)
    assert settings_for(make("changing"), "auto", {"episodes": [5, 5]}, "here").episodes == (5, 5)
