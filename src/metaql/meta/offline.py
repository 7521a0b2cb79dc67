"""Learning from logged transitions: a dataset, checked, then observed in order without acting."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from gymnasium import spaces
from jaxtyping import Array, Bool, Float, Int

from metaql.config import check_whole
from metaql.errors import DatasetError, UsageError
from metaql.meta.adapt import Lived
from metaql.meta.compiling import compile_options
from metaql.meta.finite_memory import FIRST_SLOTS, blank, is_small
from metaql.meta.unlike import Diary
from metaql.policy.finiteq import FiniteQ, Knowledge
from metaql.tasks.finite import NO_HORIZON
from metaql.tasks.logs import columns_of, longest_episode, time_limit
from metaql.types import Transition

_TOO_LARGE = 2**31
_MANY = 100
"""Numbers of actions per one that was seen from which on the log is taken for wrong."""
_PLANS = 40
"""Times that the plan is refined when all is observed; one has only a few sweeps."""


class Log(NamedTuple):
    """Transitions in order, states and actions numbered from 0."""

    states: Int[np.ndarray, " T"]
    actions: Int[np.ndarray, " T"]
    rewards: Float[np.ndarray, " T"]
    next_states: Int[np.ndarray, " T"]
    terminated: Bool[np.ndarray, " T"]
    truncated: Bool[np.ndarray, " T"]
    num_states: int
    num_actions: int
    horizon: int
    first_state: int
    first_action: int
    warnings: tuple[str, ...]
    """Where the log contradicts itself, in plain sentences."""


def read_dataset(
    dataset: Any,
    *,
    num_states: int | None = None,
    num_actions: int | None = None,
    horizon: int | None = None,
) -> Log:
    """Check a dataset.

    Args:
        dataset: as `metaql.tasks.logs.columns_of` takes it, rows in the order in which they happened; a
            Minari dataset numbers its states and actions as its spaces say.
        num_states: S; default: what the dataset's space says, else one more than the largest seen.
        num_actions: likewise.
        horizon: steps after which episodes are truncated; default: as long as the longest one
            if that was, or no limit.

    Raises:
        UsageError: a size is not an integer from 1 to 2,147,483,647.
        DatasetError: an array is missing, empty or of another length; a state or action is no integer
            in its space; a reward is not finite.
    """
    first_state, first_action = 0, 0
    sizes = {"num_states": num_states, "num_actions": num_actions, "horizon": horizon}
    for name, given in sizes.items():
        if given is not None:
            check_whole(name, given, 1)
            if given >= _TOO_LARGE:
                raise UsageError(f"`{name}` must be below {_TOO_LARGE:,}.", f"Got {given:,}.")
    if hasattr(dataset, "iterate_episodes"):
        num_states, first_state = _space(dataset, "observation_space", num_states)
        num_actions, first_action = _space(dataset, "action_space", num_actions)
    columns = columns_of(dataset)
    states = _numbers("observations", columns, first_state, num_states)
    onto = _numbers("next_observations", columns, first_state, num_states)
    actions = _numbers("actions", columns, first_action, num_actions)
    ended = columns["terminations"] | columns["truncations"]
    gaps = int((~ended[:-1] & (onto[:-1] != states[1:])).sum())
    return Log(
        states=states,
        actions=actions,
        rewards=columns["rewards"],
        next_states=onto,
        terminated=columns["terminations"],
        truncated=columns["truncations"],
        num_states=num_states or int(max(states.max(), onto.max())) + 1,
        num_actions=num_actions or _actions_in(actions),
        horizon=min(horizon or 0, NO_HORIZON - 1)
        or (0 if gaps else time_limit([columns]))
        or NO_HORIZON,
        first_state=first_state,
        first_action=first_action,
        warnings=tuple(_contradictions(gaps, len(states), horizon, longest_episode(columns))),
    )


def _actions_in(actions: Int[np.ndarray, " T"]) -> int:
    """How many there are, where nobody says so: as many as the largest number tells, if that can be."""
    largest, known = int(actions.max()), len(np.unique(actions))
    if largest >= _MANY * known:
        raise DatasetError(
            "Actions must be numbered from 0, without many gaps.",
            f"Step {int(actions.argmax())} has action {largest:,}, and there are {known:,} different ones.",
            "Correct the log, or say how many there are: num_actions=...",
        )
    return largest + 1


def _contradictions(gaps: int, steps: int, horizon: int | None, longest: int) -> list[str]:
    """What is wrong with the order of the rows, or with the time limit."""
    if gaps:
        return [
            f"{gaps:,} of {steps:,} rows do not begin where the row before ended, and no episode is said to "
            "end there. Rows must be in the order in which they happened, `next_observations` beside the "
            "observations they follow, and episodes that were cut off marked in `truncations`. This log does "
            "not tell returns and lengths of episodes, nor how long they may last."
        ]
    if horizon is not None and longest > horizon:
        return [
            f"An episode of the log lasts {longest:,} steps, longer than the `horizon` given, {horizon:,}."
        ]
    return []


def _space(dataset: Any, name: str, size: int | None) -> tuple[int | None, int]:
    """Of numbers: how many, and the first; of any other space nothing is known here."""
    space = getattr(dataset, name, None)
    if not isinstance(space, spaces.Discrete):
        return size, 0
    return size or int(space.n), int(space.start)


def _numbers(
    name: str, columns: dict[str, np.ndarray], first: int, size: int | None
) -> Int[np.ndarray, " T"]:
    """A column of whole numbers, ``[T]`` or ``[T, 1]``, as numbers from 0, all inside its space."""
    column = columns[name]
    column = column.reshape(-1) if column.size == len(column) else column
    whole = _whole(column)
    shifted = np.full(len(column), -1)
    shifted[whole] = column[whole].reshape(-1).astype(np.int64) - first
    outside = (shifted < 0) | (shifted >= (size or np.iinfo(np.int32).max))
    if outside.any():
        step = int(np.flatnonzero(outside)[0])
        last = "" if size is None else f" to {first + size - 1}"
        raise DatasetError(
            f"`{name}` must be integers from {first}{last}.",
            f"Step {step} has {column[step]}.",
            "Number them from 0, or give num_states and num_actions as they are.",
        )
    return shifted


def _whole(column: np.ndarray) -> Bool[np.ndarray, " T"]:
    """Where a column holds a whole number: nowhere if it does not hold one number a step."""
    if column.ndim != 1 or column.dtype.kind not in "iuf":
        return np.zeros(len(column), bool)
    return np.isfinite(column) & (column == np.round(column))


class Learned(NamedTuple):
    """What a log has taught."""

    memory: Knowledge
    rows: dict[int, int]
    """State -> its row."""
    diary: Diary
    lived: Lived


def learn(learner: FiniteQ, log: Log) -> Learned:
    """Observe every transition in order, then plan."""
    both = np.stack([log.states, log.next_states], -1).reshape(-1)
    rows = {int(state): row for row, state in enumerate(dict.fromkeys(both.tolist()))}
    here, there = (
        np.asarray([rows[int(state)] for state in column], np.int32)
        for column in (log.states, log.next_states)
    )
    capacity = min(len(rows) + 1, log.num_states)
    ended = log.terminated | log.truncated
    memory = blank(
        capacity,
        log.num_actions,
        None if learner.slots is None else _slots(here, log.actions, there),
        num_states=log.num_states,
        horizon=log.horizon,
        episodes=int(ended.sum()) + 1,
    )
    numbers: Any = np.full(capacity, -1, np.int32)
    numbers[: len(rows)] = list(rows)
    memory = memory._replace(spec=memory.spec._replace(numbers=numbers))
    actions = log.actions.astype(np.int32)
    columns: Any = (here, actions, log.rewards, there, log.terminated, log.truncated)
    steps = Transition(*columns)
    diary = Diary()
    for t in range(len(here)):
        diary.write(jax.tree.map(lambda column, t=t: column[t], steps))
    # Whole powers of two, so that logs of like length share one program.
    room = 1 << (len(here) - 1).bit_length()
    padded = jax.tree.map(lambda column: np.resize(column, room), steps)
    memory = _compiled(is_small(memory))(learner, memory, padded, np.int32(len(here)))
    ends = np.flatnonzero(ended)
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    whole = log.rewards[: ends[-1] + 1] if len(ends) else log.rewards[:0]
    returns = np.add.reduceat(whole.astype(np.float64), starts) if len(ends) else np.zeros(0)
    lengths = (ends - starts + 1).astype(np.int64)
    return Learned(memory, rows, diary, Lived(returns, lengths, log.first_state, log.first_action))


def _slots(states: np.ndarray, actions: np.ndarray, onto: np.ndarray) -> int:
    """Most distinct successors of any pair (a power of two), and one more that may come."""
    triples = np.unique(np.stack([states, actions, onto]), axis=1)
    most = int(np.unique(triples[:2], axis=1, return_counts=True)[1].max())
    return max(FIRST_SLOTS, 1 << most.bit_length())


def _observe(
    learner: FiniteQ, memory: Knowledge, steps: Transition, number: Int[Array, ""]
) -> Knowledge:
    def one(t: Array, memory: Knowledge) -> Knowledge:
        return learner.learn(memory, jax.tree.map(lambda column: column[t], steps))

    memory = jax.lax.fori_loop(0, number, one, memory)
    return jax.lax.fori_loop(0, _PLANS, lambda _, known: learner.replan(known), memory)


@functools.cache
def _compiled(small: bool) -> Callable[..., Knowledge]:
    return jax.jit(_observe, donate_argnames="memory", compiler_options=compile_options(small))
