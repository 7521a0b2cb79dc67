"""Your own family: from a function that draws tasks as arrays, or one that makes environments."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv, generate_random_map
from gymnasium.wrappers import TimeLimit

from metaql.config import check_whole
from metaql.errors import InvalidTaskError, UsageError
from metaql.leaves import digest
from metaql.tasks.families.base import SPLITS, Family, check_split, split_key
from metaql.tasks.finite import FiniteTask, finite_task, pad_task
from metaql.tasks.gymnasium import estimate_task, finite_task_of, open_environment
from metaql.types import PRNGKey

ESTIMATE_STEPS = 20_000
"""Steps spent in each environment that publishes no table."""


class _OwnFamily(Family):
    """A family whose name and kind belong to the instance instead of the class."""

    name: str = eqx.field(static=True)  # pyright: ignore
    summary: str = eqx.field(static=True)  # pyright: ignore
    shares_states: bool = eqx.field(static=True)  # pyright: ignore


class ArrayFamily(_OwnFamily):
    """A family from your function ``key -> FiniteTask``, written with ``jax.numpy``.

    The function is traced and runs under ``vmap``: every task it draws has the same number of
    states and actions (pad smaller ones by masks), and Python ``if`` on drawn values is not
    possible. Build one task by `finite_task` outside the function and replace in it what differs:
    ``template._replace(reward=...)``. Splits get different keys: tasks that are drawn from a
    continuum are then never shared. Of a short list of tasks make an `environment_family`.
    """

    draw: Callable[[PRNGKey], FiniteTask] = eqx.field(static=True)
    """The function the family was made from."""

    def __init__(
        self,
        sample: Callable[[PRNGKey], FiniteTask],
        *,
        name: str = "own_arrays",
        summary: str = "tasks drawn by a function of one's own",
        shares_states: bool = False,
    ) -> None:
        """Check the function on one draw.

        Args:
            sample: draws one task from a typed key; must be pure.
            name: of the family, in file names and reports.
            summary: one line for listings.
            shares_states: state ``s`` means the same in every task.

        Raises:
            InvalidTaskError: ``sample`` cannot be traced, returns something other than a
                `FiniteTask`, or draws arrays that are not a finite MDP.
        """
        self.name, self.summary, self.draw = name, summary, sample
        self.shares_states = shares_states
        _check_traced(sample)
        _check_task(sample(jax.random.key(0)))

    def sample(self, key: PRNGKey, split: str) -> FiniteTask:
        """Draw one task of the split."""
        return self.draw(split_key(key, split))

    @classmethod
    def toy(cls) -> ArrayFamily:
        """Two-state tasks: which of two actions leads to the state that pays."""
        return cls(_toy_sample, name="own_arrays_toy", shares_states=True)


class EnvironmentFamily(_OwnFamily):
    """A family from a function that makes environments. Made by `environment_family`."""

    pools: dict[str, FiniteTask]
    """The tasks of each split, ``[M, ...]``; no task is in two splits."""

    def __repr__(self) -> str:
        """One line: the pools would fill pages."""
        counts = ", ".join(f"{len(pool.initial)} {split}" for split, pool in self.pools.items())
        return f"EnvironmentFamily({self.name!r}, tasks: {counts})"

    def sample(self, key: PRNGKey, split: str) -> FiniteTask:
        """Draw one task of the split, each with equal probability."""
        check_split(split)
        pool = self.pools[split]
        index = jax.random.randint(key, (), 0, pool.initial.shape[0])
        return jax.tree.map(lambda leaf: leaf[index], pool)

    @classmethod
    def toy(cls) -> EnvironmentFamily:
        """3x3 lakes of 20 steps, made by Gymnasium."""
        return environment_family(
            _toy_environment,
            num_tasks={"train": 8, "validation": 8, "test": 8},
            name="own_environments_toy",
            shares_states=True,
        )


def environment_family(
    make_env: Callable[[int], gymnasium.Env | str],
    *,
    num_tasks: Mapping[str, int],
    name: str = "own_environments",
    shares_states: bool = False,
    estimate_steps: int = ESTIMATE_STEPS,
    seed: int = 0,
    on_progress: Callable[[str, float, Mapping[str, Any]], None] = lambda *_: None,
) -> EnvironmentFamily:
    """Make a family of the environments that ``make_env(seed)`` returns.

    Each environment becomes a finite task: by its published table, else estimated. All are padded
    to the largest. Seeds are ``seed, seed + 1, ...``: first those of train, then validation, then
    test. A task that an earlier split holds is left out of later ones (equal arrays are equal
    tasks; two estimates of equal environments may differ and then stay). Within a split
    repetitions stay: they are part of the distribution. The pools take ``12 * S * A * S`` bytes a
    task.

    Args:
        make_env: from an integer seed to an environment with Discrete spaces, or to an id.
        num_tasks: environments to make for each split, ``{"train": 200, "validation": 20, ...}``.
        name: of the family, in file names and reports.
        shares_states: state ``s`` means the same in every environment.
        estimate_steps: steps spent in each environment that publishes no table: the more, the nearer the
            estimate, and the longer it takes (20,000 take half a second).
        seed: the first seed.
        on_progress: called with a stage, the share of it done and figures; `metaql.Progress` shows them.

    Raises:
        UnknownNameError: ``num_tasks`` names a split that does not exist.
        UsageError: a split is missing, or nothing new is left for one.
        InvalidTaskError: ``make_env`` returned something other than an environment or an id.
        UnsupportedSpaceError: an environment without Discrete spaces.
        EnvironmentFaultError: an environment broke its contract while its task was estimated.
    """
    _check_counts(num_tasks)
    sizes = [num_tasks[split] for split in SPLITS]
    made = []
    for index in range(sum(sizes)):
        made.append(_tabulate(make_env, seed + index, estimate_steps))
        on_progress("Reading environments", (index + 1) / sum(sizes), {})
    num_states = max(task.initial.shape[0] for task in made)
    num_actions = max(task.action_mask.shape[0] for task in made)
    padded = [jax.tree.map(np.asarray, pad_task(t, num_states, num_actions)) for t in made]
    cuts = np.cumsum([0, *sizes])
    parts = {split: padded[cuts[i] : cuts[i + 1]] for i, split in enumerate(SPLITS)}
    return EnvironmentFamily(
        name=name,
        summary=f"environments made by {getattr(make_env, '__name__', 'a function')}",
        shares_states=shares_states,
        pools={split: _stack(pool) for split, pool in _without_repeats(parts).items()},
    )


def _check_counts(num_tasks: Mapping[str, int]) -> None:
    if not isinstance(num_tasks, Mapping):
        raise UsageError(
            "`num_tasks` must say how many environments every split has.",
            f"Got {num_tasks!r}.",
            'For instance: {"train": 200, "validation": 20, "test": 20}.',
        )
    for split, count in num_tasks.items():
        check_split(split)
        check_whole(f"num_tasks[{split!r}]", count, 0)
    wrong = [split for split in SPLITS if num_tasks.get(split, 0) < 1]
    if wrong:
        raise UsageError(
            f"`num_tasks` needs at least one environment for each of {', '.join(SPLITS)}.",
            f"Got {dict(num_tasks)}: none for {', '.join(wrong)}.",
        )


def _tabulate(make_env: Callable[[int], Any], seed: int, estimate_steps: int) -> FiniteTask:
    """Make one environment, take its published table, else estimate it, and close it."""
    env = make_env(seed)
    if not isinstance(env, str | gymnasium.Env):
        raise InvalidTaskError(
            "`make_env` must return a `gymnasium.Env` or an id.",
            f"`make_env({seed})` returned {type(env).__name__}.",
            "It takes a seed and returns a new environment.",
        )
    host = open_environment(env)
    with contextlib.closing(host):
        task = finite_task_of(host)
        if task is None:
            # The same exploration everywhere: equal environments then tend to give equal estimates.
            task = estimate_task(host, estimate_steps, seed=0)
    return task


def _without_repeats(
    parts: Mapping[str, Sequence[FiniteTask]],
) -> dict[str, list[FiniteTask]]:
    """Leave out of each split the tasks of the splits before it."""
    seen: set[str] = set()
    pools: dict[str, list[FiniteTask]] = {}
    for split, tasks in parts.items():
        marks = [digest(task) for task in tasks]
        pools[split] = [t for t, mark in zip(tasks, marks, strict=True) if mark not in seen]
        seen.update(marks)
        if not pools[split]:
            raise UsageError(
                "Splits must not share a task.",
                f"All {len(tasks)} environments of `{split}` occur in an earlier split.",
                "Ask for more of them, or let `make_env` vary more with its seed.",
            )
    return pools


def _stack(tasks: Sequence[FiniteTask]) -> FiniteTask:
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *tasks)


def _check_traced(sample: Callable[[PRNGKey], Any]) -> None:
    """Raise unless ``sample`` can be traced and returns a task of consistent shapes."""
    try:
        shapes = eqx.filter_eval_shape(sample, jax.random.key(0))
    except jax.errors.JAXTypeError as error:
        raise InvalidTaskError(
            "`sample` must be written with `jax.numpy`: it is traced and runs under `vmap`.",
            f"{type(error).__name__}: {str(error).splitlines()[0]}",
            "Build a template by `finite_task` outside of it and return `template._replace(...)`.",
        ) from error
    if not isinstance(shapes, FiniteTask):
        raise InvalidTaskError(
            "`sample` must return a `FiniteTask`.", f"It returned {type(shapes).__name__}."
        )
    _check_shapes(shapes)


def _check_shapes(task: FiniteTask) -> None:
    """Raise unless every array has the shape that `FiniteTask` documents."""
    num_states, num_actions = np.shape(task.initial)[-1:], np.shape(task.action_mask)[-1:]
    cube = num_states + num_actions + num_states
    noise = () if np.ndim(task.reward_noise) == 0 else num_states + num_actions
    shapes = (cube, cube, cube, num_states, (), noise, (), num_states, num_actions)
    for field, value, shape in zip(FiniteTask._fields, task, shapes, strict=True):
        if np.shape(value) != shape:
            raise InvalidTaskError(
                f"`{field}` of the drawn task must have shape {shape}.",
                f"Got {np.shape(value)}.",
                "S is the length of `initial`, A that of `action_mask`.",
            )


def _check_task(task: FiniteTask) -> None:
    """Raise unless the arrays of one drawn task are a finite MDP."""
    finite_task(
        task.transition,
        task.reward,
        termination=task.termination,
        initial=task.initial,
        horizon=int(task.horizon),
        reward_noise=task.reward_noise,
        reward_binary=bool(task.reward_binary),
    )


def _toy_sample(key: PRNGKey) -> FiniteTask:
    """Draw how surely the first action leads to the state that pays; the second does the rest."""
    p = jax.random.uniform(key)
    row = jnp.array([[1 - p, p], [p, 1 - p]])
    pays = np.broadcast_to(np.array([0.0, 1.0]), (2, 2, 2))
    template = finite_task(np.full((2, 2, 2), 0.5), pays, horizon=5)
    return template._replace(transition=jnp.stack([row, row]))


def _toy_environment(seed: int) -> gymnasium.Env:
    return TimeLimit(FrozenLakeEnv(desc=generate_random_map(size=3, seed=seed)), 20)
