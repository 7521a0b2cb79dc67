"""Mixtures: a family whose tasks come from several families."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from metaql.errors import ConfigError
from metaql.tasks.families.bandit import Bandit
from metaql.tasks.families.base import Family, check_split
from metaql.tasks.families.chain import Chain
from metaql.tasks.families.frozen_lake import FrozenLake
from metaql.tasks.families.navigation import Navigation
from metaql.tasks.families.random_mdp import RandomMDP
from metaql.tasks.finite import FiniteTask, pad_task
from metaql.types import PRNGKey


class Mixture(Family):
    """Tasks of several families, padded to the largest; a batch holds each family's share.

    Example:
        >>> family = Mixture([(Chain(), 3.0), (Bandit(), 1.0)])
        >>> tasks, part = family.tasks_with_component(jax.random.key(0), 8)
        >>> sorted(part.tolist())
        [0, 0, 0, 0, 0, 0, 1, 1]
    """

    name: ClassVar[str] = "mixture"
    summary: ClassVar[str] = "several families at once, padded to the largest"
    baselines: ClassVar[Mapping[str, float]] = {"random": 3.4, "optimum": 10.0}

    parts: tuple[Family, ...]
    weights: tuple[float, ...] = eqx.field(static=True)
    """Share of each part; they sum to 1."""

    def __init__(self, parts: Sequence[Family | tuple[Family, float]] | None = None) -> None:
        """Choose the parts.

        Args:
            parts: families, or pairs of a family and its weight (default weight 1); default:
                navigation, dense and sparse random MDPs, chains and bandits in equal shares.

        Raises:
            ConfigError: no parts, something that is not a family, or a weight that is not positive.
        """
        if parts is None:
            parts = [Navigation(), RandomMDP(), RandomMDP(kind="sparse"), Chain(), Bandit()]
        pairs = [part if isinstance(part, tuple) else (part, 1.0) for part in parts]
        for pair in pairs:
            good = len(pair) == 2 and isinstance(pair[0], Family)
            if not good or not 0 < pair[1] < float("inf"):
                raise ConfigError(
                    "`mixture` is made of families or (family, weight) with weight > 0.",
                    f"Got {pair!r}.",
                )
        if not pairs:
            raise ConfigError("`mixture` needs at least one family.", "Got none.")
        total = sum(weight for _, weight in pairs)
        self.parts = tuple(family for family, _ in pairs)
        self.weights = tuple(weight / total for _, weight in pairs)

    @classmethod
    def toy(cls) -> Mixture:
        """Three small families of different sizes."""
        return cls([(FrozenLake.toy(), 2.0), (Chain.toy(), 1.0), (Bandit.toy(), 1.0)])

    def size(self) -> tuple[int, int]:
        """States and actions that every task is padded to."""
        key = jax.random.key(0)
        shapes = [
            jax.eval_shape(lambda k, part=part: part.sample(k, "train"), key).transition.shape
            for part in self.parts
        ]
        return max(shape[0] for shape in shapes), max(shape[1] for shape in shapes)

    def sample(self, key: PRNGKey, split: str) -> FiniteTask:
        """Draw one task. Costs a draw of every part; for many tasks `tasks` does not."""
        key_part, *keys = jax.random.split(key, 1 + len(self.parts))
        size = self.size()
        drawn = [
            pad_task(part.sample(k, split), *size) for part, k in zip(self.parts, keys, strict=True)
        ]
        index = jax.random.categorical(key_part, jnp.log(jnp.asarray(self.weights)))
        return jax.tree.map(lambda *x: jnp.stack(x)[index], *drawn)

    def tasks(self, key: PRNGKey, num_tasks: int, split: str = "train") -> FiniteTask:
        """Draw ``num_tasks`` tasks of one split, shuffled, stacked ``[N, ...]``.

        Raises:
            UnknownNameError: no such split.
        """
        return self.tasks_with_component(key, num_tasks, split)[0]

    def tasks_with_component(
        self, key: PRNGKey, num_tasks: int, split: str = "train"
    ) -> tuple[FiniteTask, Int[Array, " N"]]:
        """Draw tasks and tell which part each came from (an index into ``parts``).

        Every part gets its share of the batch, rounded up or down at random so that the expected
        share is exact.

        Raises:
            UnknownNameError: no such split.
        """
        check_split(split)
        key_deal, *keys = jax.random.split(key, 1 + len(self.parts))
        # One more than the share: the deal takes what it needs, and shapes never change.
        drawn = [
            part.tasks(k, int(weight * num_tasks) + 1, split)
            for part, weight, k in zip(self.parts, self.weights, keys, strict=True)
        ]
        return _deal(drawn, self.weights, key_deal, num_tasks, self.size())


@eqx.filter_jit
def _deal(
    drawn: list[FiniteTask],
    weights: tuple[float, ...],
    key: PRNGKey,
    num_tasks: int,
    size: tuple[int, int],
) -> tuple[FiniteTask, Int[Array, " N"]]:
    """Choose a part for each of ``num_tasks`` places (systematic sampling), hand out its tasks."""
    key_offset, key_order = jax.random.split(key)
    spots = (jnp.arange(num_tasks) + jax.random.uniform(key_offset)) / num_tasks
    ends = jnp.cumsum(jnp.asarray(weights))[:-1]
    part = jnp.searchsorted(ends, spots, side="right")
    counts = jnp.asarray([batch.initial.shape[0] for batch in drawn])
    rank = jnp.arange(num_tasks) - jnp.searchsorted(part, jnp.arange(len(drawn)))[part]
    first = jnp.cumsum(counts) - counts
    index = first[part] + jnp.minimum(rank, counts[part] - 1)
    order = jax.random.permutation(key_order, num_tasks)
    padded = [pad_task(batch, *size) for batch in drawn]
    pool = jax.tree.map(lambda *x: jnp.concatenate(x), *padded)
    return jax.tree.map(lambda x: x[index[order]], pool), part[order]
