"""A task embedding learned from nothing but transitions: a recurrent state that reads each of them.

It survives the ends of episodes and is empty at the start of a lifetime: what it holds is what this task
has shown (Duan et al. 2016, RL2, arXiv 1611.02779; Wang et al. 2016, arXiv 1611.05763). A transition is
read whole, after it happened, so the state that `act` sees knows the true last observation of an episode
that was cut off, and acting changes nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metaql.embedding.embed import Clock
from metaql.errors import UnsupportedSpaceError
from metaql.types import Observation, PRNGKey, Task, TaskSpec, Transition

CLOCK_FACTS = 4
"""Numbers that say what time it is in the lifetime."""
_LARGEST, _LEAST = 10.0, 1e-4
"""Deviations beyond which an observation is cut, and the least deviation that counts."""


class Sight(eqx.Module):
    """Observations as vectors of order one: one-hot numbers, or entries normalised to unit variance.

    Mean and variance are not learned by gradients: they are those of all that was observed in
    meta-training, and part of the agent.
    """

    mean: Float[Array, " D"]
    variance: Float[Array, " D"]
    count: Float[Array, ""]
    """Observations behind them."""
    numbers: int = eqx.field(static=True)
    """States, where observations are their numbers; 0: vectors."""
    columns: int = eqx.field(static=True)
    """Of a grid whose cells the numbers count row by row; 0: of no grid."""

    def __init__(self, *, numbers: int = 0, entries: int = 0, columns: int = 0) -> None:
        """For numbers 0 to ``numbers - 1``, perhaps of cells, or vectors of so many entries."""
        self.numbers, self.columns = numbers, columns
        self.mean, self.variance = jnp.zeros(entries), jnp.ones(entries)
        self.count = jnp.zeros(())

    @property
    def rows(self) -> int:
        """Of the grid; 0: of no grid."""
        return -(-self.numbers // self.columns) if self.columns else 0

    @property
    def size(self) -> int:
        """Entries of the result."""
        if self.columns:
            return self.rows + self.columns
        return self.numbers or self.mean.shape[0]

    def __call__(self, observation: Observation) -> Float[Array, " D"]:
        """The vector that stands for an observation."""
        if self.columns:
            # Row and column apart: a goal in a cell where none has ever been is like its neighbours.
            row, column = jnp.divmod(observation, self.columns)
            across = jax.nn.one_hot(column, self.columns)
            return jnp.concatenate([jax.nn.one_hot(row, self.rows), across])
        if self.numbers:
            return jax.nn.one_hot(observation, self.numbers)
        return in_deviations(observation - self.mean, self.variance)

    def after(self, observations: Float[Array, "M D"], weights: Float[Array, " M"]) -> Sight:
        """With these observations counted too (Chan, Golub & LeVeque 1983, pairwise moments)."""
        if self.numbers:
            return self
        new = weights.sum()
        total = self.count + new
        share = weights[:, None] / jnp.maximum(new, 1.0)
        mean = (observations * share).sum(0)
        variance = ((observations - mean) ** 2 * share).sum(0)
        apart = (mean - self.mean) ** 2 * self.count * new / total
        later = (
            self.mean + (mean - self.mean) * new / total,
            (self.variance * self.count + variance * new + apart) / total,
            total,
        )
        return eqx.tree_at(lambda sight: (sight.mean, sight.variance, sight.count), self, later)


def sight_of(task: Task, columns: int = 0) -> Sight:
    """How observations of a family's tasks are seen, from one of its tasks.

    Args:
        task: of the family.
        columns: of the grid, where states are cells numbered row by row.

    Raises:
        UnsupportedSpaceError: they are neither numbers of states nor vectors of numbers.
    """
    example = jax.eval_shape(lambda: task.observe(task.reset(jax.random.key(0))))
    shape, states = getattr(example, "shape", None), task.spec(1).state_mask.shape[0]
    whole = shape is not None and jnp.issubdtype(example.dtype, jnp.integer)
    if shape == () and whole and states:
        return Sight(numbers=states, columns=columns)
    if shape is not None and len(shape) == 1 and shape[0] and not states:
        return Sight(entries=shape[0])
    raise UnsupportedSpaceError(
        "`observe` must return a vector [D], or the number of a state where `spec` has a `state_mask`.",
        f"It returns {example}, and the `state_mask` has {states} entries.",
        "A single value is a vector of one: `value[None]`.",
    )


def clock_facts(clock: Clock, spec: TaskSpec) -> Float[Array, " F"]:
    """What time it is: in the episode, in the lifetime, and how many episodes are left."""
    episodes = spec.episodes.astype(jnp.float32)
    left = jnp.maximum(episodes - clock.episode, 1.0)
    facts = (
        clock.step / jnp.maximum(spec.horizon, 1),
        clock.episode / jnp.maximum(episodes, 1.0),
        1.0 / left,
        jnp.log(left) / 3.0,
    )
    return jnp.stack([jnp.asarray(fact, jnp.float32) for fact in facts])


def in_deviations(apart: Float[Array, " D"], variance: Float[Array, " D"]) -> Float[Array, " D"]:
    """Differences in standard deviations, cut where they are large."""
    return jnp.clip(apart / (jnp.sqrt(variance) + _LEAST), -_LARGEST, _LARGEST)


def in_units(reward: Float[Array, ""], unit: Float[Array, ""]) -> Float[Array, ""]:
    """A reward in units of the largest; 0 where none has been met."""
    return reward / jnp.where(unit > 0, unit, 1.0)


class Note(NamedTuple):
    """What is read of one step."""

    transition: Transition
    clock: Clock
    """When it began."""


class Reader(eqx.Module):
    """Gated recurrent unit (Cho et al. 2014, arXiv 1406.1078, eq. 5-8) over encoded transitions.

    What depends on the transition alone (`encode`) is apart from what depends on the state too
    (`advance`): a whole segment is encoded by one large product, and only the rest is a loop.
    """

    entry: eqx.nn.Linear
    norm: eqx.nn.LayerNorm
    into: eqx.nn.Linear
    within: eqx.nn.Linear

    def __init__(self, key: PRNGKey, *, sight: int, actions: int, hidden: int) -> None:
        """Fresh weights.

        Args:
            key: of the weights.
            sight: entries of an observation's vector.
            actions: A, of all parts of an action together.
            hidden: H.
        """
        key_entry, key_into, key_within = jax.random.split(key, 3)
        size = 2 * sight + actions + 3 + CLOCK_FACTS
        self.entry = eqx.nn.Linear(size, hidden, key=key_entry)
        self.norm = eqx.nn.LayerNorm(hidden)
        self.into = eqx.nn.Linear(hidden, 3 * hidden, key=key_into)
        self.within = eqx.nn.Linear(hidden, 3 * hidden, use_bias=False, key=key_within)

    def blank(self) -> Float[Array, " H"]:
        """The state before anything was read."""
        return jnp.zeros(self.norm.shape)

    def encode(self, sight: Sight, note: Note, spec: TaskSpec, unit: Float[Array, ""]) -> Array:
        """The part of the gates that one transition decides, ``[3 H]``."""
        seen = note.transition
        facts = jnp.stack([in_units(seen.reward, unit), seen.terminated, seen.truncated])
        parts = (
            sight(seen.state),
            sight(seen.next_state),
            jax.nn.one_hot(seen.action, spec.action_mask.shape[-1]).reshape(-1),
            facts.astype(jnp.float32),
            clock_facts(note.clock, spec),
        )
        return self.into(jax.nn.relu(self.norm(self.entry(jnp.concatenate(parts)))))

    def advance(self, hidden: Float[Array, " H"], encoded: Float[Array, " G"]) -> Array:
        """The state after reading one transition."""
        reset_in, keep_in, new_in = jnp.split(encoded, 3)
        reset_own, keep_own, new_own = jnp.split(self.within(hidden), 3)
        keep = jax.nn.sigmoid(keep_in + keep_own)
        new = jnp.tanh(new_in + jax.nn.sigmoid(reset_in + reset_own) * new_own)
        return keep * hidden + (1.0 - keep) * new
