"""Dark Key-to-Door: what pays, what is seen, and pairs of each split."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.embedding.recurrent import sight_of
from metaql.errors import ConfigError, UnknownNameError
from metaql.tasks.families import KeyToDoor, make
from metaql.tasks.families.key_to_door import Walker

LEFT, DOWN, RIGHT, UP, STAY = range(5)
KEY = jax.random.key(0)


def room(key=1, door=3):
    task = KeyToDoor(4).sample(KEY, "train")
    return task._replace(key=jnp.asarray(key), door=jnp.asarray(door))


def walk(task, cell, actions):
    """Rewards, ends and cells of a walk."""
    state, found = Walker(jnp.asarray(cell), jnp.asarray(False)), []
    for action in actions:
        outcome = task.step(KEY, state, jnp.asarray(action))
        state = outcome.next_state
        found.append((float(outcome.reward), bool(outcome.terminated), int(task.observe(state))))
    return found


def test_the_key_pays_once_and_the_door_only_with_it():
    assert walk(room(), 0, [RIGHT, STAY, RIGHT, RIGHT]) == [
        (1.0, False, 1),
        (0.0, False, 1),
        (0.0, False, 2),
        (1.0, True, 3),
    ]
    assert walk(room(), 7, [UP, STAY]) == [(0.0, False, 3), (0.0, False, 3)]


def test_walls_keep_one_in_place():
    assert [cell for _, _, cell in walk(room(), 0, [LEFT, UP, DOWN, LEFT])] == [0, 0, 4, 4]


def test_only_the_cell_is_seen():
    task = room()
    seen = [task.observe(Walker(jnp.asarray(5), jnp.asarray(has))) for has in (False, True)]
    assert int(seen[0]) == int(seen[1]) == 5
    assert sight_of(task).numbers == 16


def pairs(family, split, seed, count=4000):
    tasks = family.tasks(jax.random.key(seed), count, split)
    return set(zip(np.asarray(tasks.key).tolist(), np.asarray(tasks.door).tolist(), strict=True))


@pytest.mark.parametrize("family", [KeyToDoor.toy(), KeyToDoor()])
def test_splits_share_no_pair_and_use_all(family):
    cells = family.size**2
    found = {split: pairs(family, split, 3, 20_000) for split in ("train", "validation", "test")}
    assert not found["train"] & found["validation"]
    assert not found["train"] & found["test"]
    assert not found["validation"] & found["test"]
    assert all(key != door and door < cells for key, door in set().union(*found.values()))
    everything = cells * (cells - 1)
    assert sum(map(len, found.values())) > 0.9 * everything
    assert len(found["train"]) > 0.65 * everything
    # No direction is kept from training: a rule that can be seen would be learned.
    assert {(door - key) % cells for key, door in found["train"]} == set(range(1, cells))


def test_episodes_start_anywhere_without_the_key():
    task = room()
    starts = jax.vmap(task.reset)(jax.random.split(KEY, 500))
    assert set(np.asarray(starts.cell).tolist()) == set(range(16))
    assert not np.asarray(starts.has_key).any()


def test_bad_requests_are_refused():
    with pytest.raises(ConfigError, match="size=2"):
        make("key_to_door", size=2)
    with pytest.raises(UnknownNameError):
        KeyToDoor.toy().tasks(KEY, 2, "trian")
