"""Tasks of hidden physics for a learner that is told it: what can be had where nothing need be found out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from metaql.tasks.families.base import TaskFamily
from metaql.tasks.families.physics import PhysicsFamily
from metaql.types import Outcome, PRNGKey, TaskSpec


class ToldTask(eqx.Module):
    """A task whose observations end with its constants."""

    of: Any

    @property
    def horizon(self) -> Int[Array, ""]:
        """Of the task."""
        return self.of.horizon

    def spec(self, episodes: Int[Array, ""] | int) -> TaskSpec:
        """Of the task."""
        return self.of.spec(episodes)

    def reset(self, key: PRNGKey) -> Any:
        """Of the task."""
        return self.of.reset(key)

    def step(self, key: PRNGKey, state: Any, action: Int[Array, ""]) -> Outcome:
        """Of the task."""
        return self.of.step(key, state, action)

    def observe(self, state: Any) -> Float[Array, " D"]:
        """What is seen, and the constants."""
        leaves = jax.tree.leaves(self.of)
        constants = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
        return jnp.concatenate([self.of.observe(state), jnp.stack(constants)])


class Told(TaskFamily):
    """A family of hidden physics, told."""

    name: ClassVar[str] = "told"
    summary: ClassVar[str] = "hidden physics, told"

    of: PhysicsFamily

    @property
    def suits(self) -> Mapping[str, Any]:
        """As when nothing is told."""
        return self.of.suits

    def sample(self, key: PRNGKey, split: str) -> ToldTask:
        """Draw one task."""
        return ToldTask(self.of.sample(key, split))

    @classmethod
    def toy(cls) -> Told:
        """Not for the command line."""
        raise NotImplementedError
