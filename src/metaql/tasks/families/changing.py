"""Tasks that change during a lifetime, at a time that nobody tells: the goal moves, the motor is rewired."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from metaql.errors import ConfigError, unknown_name
from metaql.tasks.families.acrobot import Acrobot
from metaql.tasks.families.base import TaskFamily
from metaql.tasks.families.cart_pole import CartPole
from metaql.tasks.families.hidden_goal import DarkRoom, GridNavi
from metaql.tasks.families.key_to_door import KeyToDoor
from metaql.tasks.families.pendulum import Pendulum
from metaql.types import Observation, Outcome, PRNGKey, State, Task, TaskSpec

_NAMED = {
    family.name: family for family in (GridNavi, DarkRoom, KeyToDoor, CartPole, Pendulum, Acrobot)
}


class ChangingTask(NamedTuple):
    """One task until a certain step of a certain episode, another one from then on."""

    before: Any
    after: Any
    episode: Int[Array, ""]
    """Episode, from 0, in which it changes."""
    moment: Int[Array, ""]
    """Steps of that episode before it does."""

    @property
    def horizon(self) -> Int[Array, ""]:
        """Of both tasks."""
        return self.before.horizon

    def at(self, episode: Int[Array, ""], step: Int[Array, ""]) -> Task:
        """The task that holds at this time of the lifetime."""
        changed: Bool[Array, ""] = (episode > self.episode) | (
            (episode == self.episode) & (step >= self.moment)
        )
        return jax.tree.map(lambda a, b: jnp.where(changed, b, a), self.before, self.after)

    def spec(self, episodes: Int[Array, ""] | int) -> TaskSpec:
        """Nothing is told of the change."""
        return self.before.spec(episodes)

    def reset(self, key: PRNGKey) -> State:
        """As before the change."""
        return self.before.reset(key)

    def step(self, key: PRNGKey, state: State, action: Int[Array, "*K"]) -> Outcome:
        """As before the change."""
        return self.before.step(key, state, action)

    def observe(self, state: State) -> Observation:
        """The same before and after."""
        return self.before.observe(state)


class Changing(TaskFamily):
    """Two tasks of one split of another family, one after the other, in one lifetime.

    Example:
        >>> family = Changing("cart_pole", earliest=1, latest=2)
        >>> task = family.sample(jax.random.key(0), "train")
        >>> int(task.episode) in (1, 2)
        True
    """

    name: ClassVar[str] = "changing"
    summary: ClassVar[str] = "tasks of another family that change at an unknown time"

    of: TaskFamily
    earliest: int = eqx.field(static=True)
    latest: int = eqx.field(static=True)

    def __init__(
        self, of: str | TaskFamily = "grid_navi", *, earliest: int = 2, latest: int = 4
    ) -> None:
        """Choose what changes and when.

        Args:
            of: the family that both tasks come from, or its name.
            earliest: first episode, from 0, in which the task may change; at any step of it.
            latest: last one.

        Raises:
            UnknownNameError: no such family.
            ConfigError: not ``0 <= earliest <= latest``, or something that is no family.
        """
        if isinstance(of, str):
            if of not in _NAMED:
                raise unknown_name("`of`", of, _NAMED)
            of = _NAMED[of]()
        if not isinstance(of, TaskFamily) or not 0 <= earliest <= latest:
            raise ConfigError(
                "`changing` needs a family, and 0 <= earliest <= latest.",
                f"Got {of!r}, earliest={earliest}, latest={latest}.",
            )
        self.of, self.earliest, self.latest = of, earliest, latest

    @property
    def suits(self) -> Mapping[str, Any]:
        """As the family that changes, in lifetimes that go on for three episodes after the change."""
        return {**self.of.suits, "episodes": (self.latest + 4, self.latest + 4)}

    @property
    def columns(self) -> int:
        """As of the family that changes."""
        return self.of.columns

    def sample(self, key: PRNGKey, split: str) -> ChangingTask:
        """Draw two tasks of the split, and when one follows the other."""
        key_before, key_after, key_episode, key_step = jax.random.split(key, 4)
        before = self.of.sample(key_before, split)
        episode = jax.random.randint(key_episode, (), self.earliest, self.latest + 1)
        step = jax.random.randint(key_step, (), 0, before.horizon)
        return ChangingTask(before, self.of.sample(key_after, split), episode, step)

    @classmethod
    def toy(cls) -> Changing:
        """A goal that moves in the second episode."""
        return cls(GridNavi.toy(), earliest=1, latest=1)
