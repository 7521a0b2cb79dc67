"""What a family is: a distribution of related tasks with splits that never overlap."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax

from metaql.errors import unknown_name
from metaql.tasks.finite import FiniteTask
from metaql.types import PRNGKey

SPLITS = ("train", "validation", "test")
"""Train on the first, choose on the second, report on the third."""


class TaskFamily(eqx.Module):
    """A distribution over tasks of any kind that share their observations and actions."""

    name: ClassVar[str]
    summary: ClassVar[str]
    """One line for ``metaql families``."""
    baselines: ClassVar[Mapping[str, float]] = {}
    """Mean return per episode on test tasks of the default instance: random, non-adaptive, optimum."""
    levels: ClassVar[tuple[float, ...] | None] = None
    """What the actions mean where an environment of this kind takes numbers: shares of their range."""

    @property
    def environment(self) -> str:
        """Id of a Gymnasium environment that agents of this family can be adapted to, if there is one."""
        return ""

    @property
    def suits(self) -> Mapping[str, Any]:
        """Settings of RecurrentQ's training that suit these tasks better than the usual ones."""
        return {}

    @property
    def columns(self) -> int:
        """Columns of the grid, where states are cells numbered row by row; 0: they are not."""
        return 0

    @abc.abstractmethod
    def sample(self, key: PRNGKey, split: str) -> Any:
        """Draw one `metaql.types.Task` (pure; vmapped by `tasks`). Splits must never share a task."""

    @classmethod
    @abc.abstractmethod
    def toy(cls) -> TaskFamily:
        """A small instance for tests and first tries."""

    def tasks(self, key: PRNGKey, num_tasks: int, split: str = "train") -> Any:
        """Draw ``num_tasks`` tasks of one split, stacked ``[N, ...]``.

        Raises:
            UnknownNameError: no such split.
        """
        check_split(split)
        return _sample_many(self, jax.random.split(key, num_tasks), split)


class Family(TaskFamily):
    """A distribution over finite tasks. Subclasses implement `sample` and `toy`."""

    shares_states: ClassVar[bool] = False
    """True: state ``s`` means the same in every task, so what one task taught is a prior for the next."""

    @abc.abstractmethod
    def sample(self, key: PRNGKey, split: str) -> FiniteTask:
        """Draw one task (pure; vmapped by `tasks`). Splits must never share a task."""

    @classmethod
    @abc.abstractmethod
    def toy(cls) -> Family:
        """A small instance for tests and first tries."""

    def tasks(self, key: PRNGKey, num_tasks: int, split: str = "train") -> FiniteTask:
        """Draw ``num_tasks`` tasks of one split, stacked ``[N, ...]``.

        Raises:
            UnknownNameError: no such split.
        """
        return super().tasks(key, num_tasks, split)


@eqx.filter_jit
def _sample_many(family: TaskFamily, keys: PRNGKey, split: str) -> Any:
    return jax.vmap(lambda key: family.sample(key, split))(keys)


def check_split(split: str) -> None:
    """Raise `UnknownNameError` unless ``split`` is one of `SPLITS`."""
    if split not in SPLITS:
        raise unknown_name("`split`", split, SPLITS)


def split_key(key: PRNGKey, split: str) -> PRNGKey:
    """A key whose draws belong to one split: for families of infinitely many tasks.

    Raises:
        UnknownNameError: no such split.
    """
    check_split(split)
    return jax.random.fold_in(key, SPLITS.index(split))
