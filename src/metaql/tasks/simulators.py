"""Families of tasks that exist as Gymnasium environments only, and are stepped on the host."""

from __future__ import annotations

import contextlib
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import gymnasium
import numpy as np
from gymnasium import wrappers

from metaql.config import check_whole
from metaql.errors import (
    EnvironmentFaultError,
    UnknownNameError,
    UnsupportedSpaceError,
    UsageError,
)
from metaql.tasks.crowd import Crowd, check_alike
from metaql.tasks.families.base import SPLITS, check_split
from metaql.tasks.host import plain_environment
from metaql.tasks.vectors import VectorEnvironment

LEVELS = (-1.0, -0.5, 0.0, 0.5, 1.0)
"""What the actions of a Box mean unless said otherwise, in shares of its range."""
_KEPT = 256
"""Environments kept open for their next lifetime, or as many as live side by side."""


class _Kept(NamedTuple):
    """An environment, and what closes it once."""

    host: VectorEnvironment
    close: Callable[[], Any]


class SimulatorFamily:
    """Tasks from a function that makes a Gymnasium environment from what tells them apart.

    RecurrentQ is trained on them (`metaql.meta_train`); where the dynamics can be written with
    ``jax.numpy``, a `TaskFamily` trains many times faster.
    """

    def __init__(
        self,
        make_env: Callable[[Any], gymnasium.Env | str],
        tasks: Mapping[str, Sequence[Any]],
        *,
        name: str = "own_simulators",
        levels: tuple[float, ...] = LEVELS,
        horizon: int | None = None,
        seconds: float = 60.0,
    ) -> None:
        """Check the tasks and make one environment.

        Args:
            make_env: from one of ``tasks`` to a new environment, or to the id of one. Observations may be
                any that Gymnasium flattens, actions Discrete, MultiDiscrete or a Box with bounds.
            tasks: what ``make_env`` gets, for the splits ``train`` and ``test`` (``validation`` if you want
                to choose settings by it). No task may be in two of them.
            name: of the family, in file names and messages.
            levels: values that each entry of a Box action may take, as shares of its range: -1 is its lower
                bound, 1 the upper one.
            horizon: steps after which an episode is truncated; None: as the environments say.
            seconds: that all environments together may take for one step; infinite: no limit.

        Raises:
            UnknownNameError: a split that does not exist.
            UsageError: no training tasks, a task in two splits, tasks without splits, a ``make_env`` that
                cannot be called or returns what it returned before, a ``horizon`` below 1, or ``seconds``
                not above 0.
            UnsupportedSpaceError: spaces that cannot be used, or episodes without an end.
            EnvironmentFaultError: ``make_env`` raised.

        Example:
            >>> import gymnasium
            >>> def cart(force):
            ...     env = gymnasium.make("CartPole-v1")
            ...     env.unwrapped.force_mag = force
            ...     return env
            >>> family = SimulatorFamily(cart, {"train": [-10.0, 10.0], "test": [-8.0, 8.0]})
            >>> family.crowd("train", [0, 1]).horizon
            array([500, 500])
        """
        _check_types(make_env, tasks, horizon, seconds)
        self.make_env, self.name, self.horizon, self.seconds = make_env, name, horizon, seconds
        _check_splits(tasks)
        self.tasks = {split: list(tasks[split]) for split in tasks}
        self.levels = tuple(levels)
        self._kept: OrderedDict[tuple[str, int, int], _Kept] = OrderedDict()
        self._made: WeakValueDictionary[int, gymnasium.Env] = WeakValueDictionary()
        self._like: VectorEnvironment | None = None
        self.crowd("train", [0])

    def __repr__(self) -> str:
        """One line."""
        counts = ", ".join(f"{len(tasks)} {split}" for split, tasks in self.tasks.items())
        return f"SimulatorFamily({self.name!r}, tasks: {counts})"

    @property
    def contents(self) -> str:
        """What tells it from a family that looks the same: the tasks themselves, and their time limit."""
        return repr((_identity(self.tasks), self.horizon, self.levels))

    def close(self) -> None:
        """Close all environments that are kept; those needed later are made anew."""
        while self._kept:
            self._kept.popitem()[1].close()
        self._like = None

    def task(self, split: str, index: int) -> Any:
        """What ``make_env`` gets; errors as in `open`."""
        check_split(split)
        known = self.tasks.get(split, [])
        if not known:
            have = [name for name in SPLITS if self.tasks.get(name)]
            raise UnknownNameError(
                f"The family {self.name!r} has no tasks of the split {split!r}.",
                f"It has some of: {', '.join(have)}.",
                f"Give some where the family is made: tasks={{..., {split!r}: [...]}}.",
            )
        if not isinstance(index, Integral) or not 0 <= index < len(known):
            raise UsageError(
                f"Tasks of {split!r} are numbered 0 to {len(known) - 1}.", f"Got {index!r}."
            )
        return known[index]

    def crowd(self, split: str, chosen: Sequence[int]) -> Crowd:
        """Environments of the chosen tasks of a split, side by side; one chosen twice has two.

        Raises:
            UnsupportedSpaceError: their spaces differ.
        """
        return self.crowds(split, [chosen])[0]

    def crowds(self, split: str, parts: Sequence[Sequence[int]]) -> tuple[Crowd, ...]:
        """Several of them that share no environment; errors as in `crowd`."""
        taken: Counter[int] = Counter()

        def host(index: int) -> VectorEnvironment:
            taken[index] += 1
            return self._host(split, index, taken[index])

        crowds = tuple(
            Crowd([host(i) for i in part], [self._called(split, i) for i in part], self.seconds)
            for part in parts
        )
        self._drop(max(_KEPT, taken.total()))
        return crowds

    def open(self, split: str, index: int) -> gymnasium.Env:
        """A new environment of one task, with the family's time limit.

        Raises:
            UnknownNameError: no such split, or one without tasks.
            UsageError: no such task in it.
            UnsupportedSpaceError: ``make_env`` made no environment.
            EnvironmentFaultError: it raised.
        """
        task, called = self.task(split, index), self._called(split, index)
        try:
            made = self.make_env(task)
        except Exception as error:
            raise EnvironmentFaultError(
                "`make_env` must make an environment of every task.",
                f"Of {called} it raised {type(error).__name__}: {error}",
                "Correct it, or leave the task out.",
            ) from error
        if not isinstance(made, gymnasium.Env | str):
            raise UnsupportedSpaceError(
                "`make_env` must return a `gymnasium.Env`, or the id of one.",
                f"Of {called} it returned {type(made).__name__}.",
            )
        env = plain_environment(made, {})
        return env if self.horizon is None else wrappers.TimeLimit(env, self.horizon)

    def _host(self, split: str, index: int, copy: int) -> VectorEnvironment:
        """An environment of one task, kept for the next time; copies can be asked for side by side."""
        place = (split, index, copy)
        if place not in self._kept:
            env = self.open(split, index)
            self._check_new(env, self._called(split, index))
            made = VectorEnvironment(env, self.levels)
            # Once no crowd has it any more; at the end of the process what hangs would keep it from ending.
            close = weakref.finalize(made, _close, env)
            close.atexit = False
            self._like = self._like or made
            check_alike(self._like, made, self._called(split, index))
            self._kept[place] = _Kept(made, close)
        self._kept.move_to_end(place)
        return self._kept[place].host

    def _check_new(self, env: gymnasium.Env, called: str) -> None:
        """Raise where two tasks, or two lifetimes side by side, would share an environment."""
        inner = env.unwrapped
        if self._made.get(id(inner)) is inner:
            raise UsageError(
                "`make_env` must return a new environment each time.",
                f"Of {called} it returned one that it had returned before.",
                "Make it inside the function; environments are kept and closed for you.",
            )
        self._made[id(inner)] = inner

    def _called(self, split: str, index: int) -> str:
        return f"{self.task(split, index)!r} of {split!r}"

    def _drop(self, count: int) -> None:
        """Keep no more environments than so many, those used last."""
        while len(self._kept) > count:
            self._kept.popitem(last=False)


def _close(env: gymnasium.Env) -> None:
    with contextlib.suppress(Exception):
        env.close()


def _check_types(make_env: Any, tasks: Any, horizon: Any, seconds: Any) -> None:
    """Raise `UsageError` for what is easily mixed up."""
    if not callable(make_env):
        raise UsageError(
            "`make_env` must be a function from a task to an environment.",
            f"Got {make_env!r}.",
            "For instance: lambda task: gymnasium.make('CartPole-v1', ...).",
        )
    if not isinstance(tasks, Mapping):
        raise UsageError(
            "`tasks` must name the split of every task.",
            f"Got a {type(tasks).__name__}.",
            'For instance: {"train": [0.5, 1.0, 2.0], "test": [1.5]}.',
        )
    if horizon is not None:
        check_whole("horizon", horizon, 1)
    if not isinstance(seconds, Real) or isinstance(seconds, bool) or not float(seconds) > 0:
        raise UsageError(
            "`seconds` must be a number above 0.", f"Got {seconds!r}.", "No limit: float('inf')."
        )


def _check_splits(tasks: Mapping[str, Sequence[Any]]) -> None:
    """Raise unless there is something to train on and no task is in two splits."""
    for split, some in tasks.items():
        check_split(split)
        if isinstance(some, str | Mapping) or not hasattr(some, "__len__"):
            raise UsageError(
                "`tasks` must have a list of tasks for every split.",
                f"{split!r} has {some!r}.",
                'For instance: {"train": [0.5, 1.0, 2.0], "test": [1.5]}.',
            )
    if not len(tasks.get("train", ())):
        raise UsageError("`tasks` needs tasks to train on.", f"Got splits {sorted(tasks)}.")
    owner: dict[Any, str] = {}
    for split in SPLITS:
        for task in tasks.get(split, []):
            other = owner.setdefault(_identity(task), split)
            if other != split:
                raise UsageError(
                    "Splits must not share a task.",
                    f"{task!r} is in {other!r} and in {split!r}.",
                )


def _identity(task: Any) -> Any:
    """What two tasks share if they are the same one, whatever types their numbers have.

    Of arrays it is all they hold, which `repr` cuts short.
    """
    if hasattr(task, "__array__"):
        return _identity(np.asarray(task).tolist())
    if isinstance(task, Mapping):
        parts = [(_identity(name), _identity(part)) for name, part in task.items()]
        return ("mapping", *sorted(parts, key=repr))
    if isinstance(task, (tuple, list)):
        return tuple(_identity(part) for part in task)
    if not isinstance(task, Real):
        return repr(task)
    with contextlib.suppress(OverflowError):
        return float(task) if float(task) == task else repr(task)
    return repr(task)
