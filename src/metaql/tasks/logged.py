"""Families of tasks of which nothing but logs exists: one dataset per task, none of them stepped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from jaxtyping import Float, Int

from metaql.config import check_whole
from metaql.errors import DatasetError, UnsupportedSpaceError
from metaql.leaves import digest
from metaql.tasks.finite import NO_HORIZON
from metaql.tasks.logs import FIELDS, columns_of, episode_ends, time_limit
from metaql.tasks.simulators import LEVELS
from metaql.tasks.vectors import VectorEnvironment, open_vectors
from metaql.types import Transition


class Logs(NamedTuple):
    """Transitions of all tasks, one after the other, and where episodes begin."""

    transition: Transition
    """Leaves ``[T, ...]``. The last step of every episode terminates or truncates, also where the log breaks
    off."""
    starts: Int[np.ndarray, " E1"]
    """First step of every episode, and the number of steps."""
    first: Int[np.ndarray, " N"]
    """First episode of every task."""
    episodes: Int[np.ndarray, " N"]
    """Episodes of every task."""

    def longest(self, episodes: int) -> int:
        """Most steps that so many successive episodes of a task have."""
        most = 0
        for first, number in zip(self.first, self.episodes, strict=True):
            bounds = self.starts[first : first + number + 1]
            last = np.minimum(np.arange(number) + episodes, number)
            most = max(most, int((bounds[last] - bounds[:-1]).max()))
        return most


class LoggedFamily:
    """Tasks from logs alone. RecurrentQ is meta-trained on them (`metaql.meta_train`), without acting.

    A lifetime is some successive episodes of one task's log, whoever acted in them; what the learner would do
    in their place is learned off-policy. Logs in which somebody learns, or tries things, teach it how to find
    out about a task; logs of one who knows the task teach that less.
    """

    def __init__(
        self,
        datasets: Mapping[Any, Any],
        env: Any,
        *,
        name: str = "own_logs",
        levels: tuple[float, ...] = LEVELS,
        horizon: int | None = None,
    ) -> None:
        """Check the logs.

        Args:
            datasets: task -> its log: arrays ``observations``, ``actions``, ``rewards``,
                ``next_observations``, ``terminations`` and perhaps ``truncations`` with one entry per step in
                the order in which they happened, or a Minari dataset.
            env: a Gymnasium id or environment with the spaces and the time limit of all tasks; never stepped.
            name: of the family, in messages and cards.
            levels: values that each entry of a Box action may take, as shares of its range; logged actions
                count as the nearest.
            horizon: steps after which an episode is truncated; None: as the environment says, or as long as
                the longest episode of all logs, if one as long was truncated.

        Raises:
            UsageError: `horizon` is no whole number, at least 1.
            DatasetError: there is no log; an array is missing, empty or of another length; an observation or
                action is not in its space; a reward is not finite.
            UnknownNameError: no such environment.
            UnsupportedSpaceError: spaces that cannot be used, or episodes without an end.

        Example:
            >>> import numpy as np
            >>> log = {
            ...     "observations": np.zeros((4, 4)), "actions": np.array([0, 1, 1, 0]),
            ...     "rewards": np.ones(4), "next_observations": np.zeros((4, 4)),
            ...     "terminations": np.array([False, True, False, True]),
            ... }
            >>> family = LoggedFamily({"light": log, "heavy": log}, "CartPole-v1")
            >>> family.logs.episodes
            array([2, 2])
        """
        if not isinstance(datasets, Mapping) or not datasets:
            size = f" of {len(datasets)}" if hasattr(datasets, "__len__") else ""
            raise DatasetError(
                "`datasets` must map every task to its log.",
                f"Got {type(datasets).__name__}{size}.",
                "Name the tasks: {name: log, ...}.",
            )
        if horizon is not None:
            check_whole("horizon", horizon, 1)
        host = open_vectors(env, levels)
        self.name, self.levels, self.host = name, tuple(levels), host
        self.tasks = list(datasets)
        given = {task: _read(datasets[task], task) for task in datasets}
        self.horizon = horizon or _horizon(host, list(given.values()))
        whole = {task: _whole(given[task], self.horizon) for task in given}
        self.logs = _joined([_checked(host, whole[task], task) for task in whole])

    @property
    def contents(self) -> str:
        """What tells it from a family that looks the same: everything logged."""
        arrays = [*self.logs.transition, self.logs.starts, self.logs.first, self.logs.episodes]
        return f"{self.tasks} {self.levels} {self.horizon} {digest(arrays)}"

    def __repr__(self) -> str:
        """One line."""
        return f"LoggedFamily({self.name!r}, {len(self.tasks)} tasks)"


def _read(dataset: Any, task: Any) -> dict[str, np.ndarray]:
    """Its arrays; what is wrong with them is said of the task."""
    try:
        return columns_of(dataset)
    except DatasetError as error:
        raise DatasetError(error.rule, f"Task {task!r}: {error.evidence}", error.remedy) from None


def _whole(columns: dict[str, np.ndarray], horizon: int) -> dict[str, np.ndarray]:
    """Without the steps of a last episode that the log breaks off in: what follows them is not known.

    One as long as episodes last is over; a log of nothing else stays as it is.
    """
    ends, lengths = episode_ends(columns)
    if not len(ends) or lengths[-1] >= horizon:
        return columns
    return {name: column[: ends[-1] + 1] for name, column in columns.items()}


def _checked(
    host: VectorEnvironment, columns: dict[str, np.ndarray], task: Any
) -> dict[str, np.ndarray]:
    """The columns of one task as the learner sees them: vectors, and numbered actions."""
    actions = host.action.indices(columns["actions"])
    bad = np.flatnonzero((actions.reshape(len(actions), -1) < 0).any(-1))
    if len(bad):
        raise DatasetError(
            f"Actions must lie in {host.env.action_space}.",
            f"Step {bad[0]} of task {task!r} has {columns['actions'][bad[0]]!r}, "
            f"of type {columns['actions'].dtype}.",
            "Log actions as the environment takes them: numbers of a Discrete space are integers.",
        )
    seen = {
        name: _vectors(host, columns[name], f"`{name}` of task {task!r}")
        for name in ("observations", "next_observations")
    }
    truncated = columns["truncations"].copy()
    truncated[-1] |= not columns["terminations"][-1]  # the log ends there
    return columns | seen | {"actions": actions, "truncations": truncated}


def _vectors(host: VectorEnvironment, column: np.ndarray, what: str) -> Float[np.ndarray, "T D"]:
    numbers = column.dtype.kind in "biuf"
    if isinstance(host.space, spaces.Box) and numbers and column.shape[1:] == host.space.shape:
        vectors = column.astype(np.float32).reshape(len(column), -1)
    else:
        outside = np.full(host.num_states, np.nan, np.float32)
        flat = [host.flat(row) for row in column]
        vectors = np.stack([outside if row is None else row for row in flat])
    bad = np.flatnonzero(~host.within(vectors))
    if len(bad):
        raise DatasetError(
            f"Observations must lie in {host.space}.",
            f"Step {bad[0]} in {what} has {column[bad[0]]!r}.",
            "Leave such steps out, or give an `env` with the space that the log has.",
        )
    return vectors


def _horizon(host: VectorEnvironment, given: Sequence[Mapping[str, np.ndarray]]) -> int:
    found = host.horizon if host.horizon != NO_HORIZON else time_limit(given)
    if not found:
        raise UnsupportedSpaceError(
            "Episodes must end after a number of steps.",
            f"{host.name} declares none, and the longest episode of the logs was not truncated.",
            "Give the family a `horizon`.",
        )
    return found


def _joined(columns: list[dict[str, np.ndarray]]) -> Logs:
    """All tasks in one."""
    whole = {name: np.concatenate([each[name] for each in columns]) for name in columns[0]}
    ended = whole["terminations"] | whole["truncations"]
    counts = [int((each["terminations"] | each["truncations"]).sum()) for each in columns]
    rows: tuple[Any, ...] = tuple(whole[name] for name in FIELDS)
    return Logs(
        transition=Transition(*rows),
        starts=np.append(0, np.flatnonzero(ended) + 1),
        first=np.cumsum([0, *counts[:-1]]),
        episodes=np.asarray(counts),
    )
