"""Logged transitions of one task: arrays, or a Minari dataset, checked."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metaql.errors import DatasetError, did_you_mean
from metaql.tasks.finite import LARGEST_REWARD

FIELDS = (
    "observations",
    "actions",
    "rewards",
    "next_observations",
    "terminations",
    "truncations",
)
"""Arrays of a dataset, one entry per step."""


def is_dataset(thing: Any) -> bool:
    """Whether it is to be read as one (and not as an environment)."""
    named = isinstance(thing, tuple) and hasattr(thing, "_asdict")
    return isinstance(thing, Mapping) or named or hasattr(thing, "iterate_episodes")


def columns_of(dataset: Any) -> dict[str, np.ndarray]:
    """The arrays of `FIELDS`, ``[T, ...]``, of one length and of the right kind.

    Args:
        dataset: a mapping or named tuple with these arrays (``truncations`` may be missing), or a Minari
            dataset. Where a step both terminates and truncates, it terminates.

    Raises:
        DatasetError: an array is missing, misspelt, empty or of another length; a reward is not finite; a
            flag is neither true nor false.
    """
    if hasattr(dataset, "iterate_episodes"):
        given = _of_episodes(dataset)
    else:
        given = dict(dataset if isinstance(dataset, Mapping) else dataset._asdict())
    if "truncations" not in given:  # may be left out, but not misspelt
        near = difflib.get_close_matches(
            "truncations", [*map(str, given.keys() - set(FIELDS))], 1, 0.8
        )
        if near:
            raise DatasetError(
                f"A dataset has arrays {', '.join(FIELDS)}.",
                f"Got {near[0]!r}.",
                "Did you mean 'truncations'?",
            )
    missing = [name for name in FIELDS[:-1] if name not in given]
    if missing:
        raise DatasetError(
            f"A dataset has arrays {', '.join(FIELDS[:-1])}, and perhaps {FIELDS[-1]}.",
            f"Missing: {', '.join(missing)}.",
            did_you_mean(missing[0], map(str, given)),
        )
    columns = {name: np.asarray(given[name]) for name in FIELDS if name in given}
    columns.setdefault("truncations", np.zeros(columns["rewards"].shape[:1], bool))
    _check_lengths(columns)
    rewards = columns["rewards"]
    numeric = rewards.dtype.kind in "biuf"
    # NaN is not smaller than anything.
    wrong = np.flatnonzero(~(np.abs(rewards) <= LARGEST_REWARD)) if numeric else [0]
    if len(wrong):
        raise DatasetError(
            f"Rewards must be finite numbers, {LARGEST_REWARD:g} at most.",
            f"Step {wrong[0]} has {rewards[wrong[0]]!r}.",
        )
    for name in ("terminations", "truncations"):
        if columns[name].dtype.kind not in "biu":
            raise DatasetError(f"`{name}` must be true or false.", f"Got {columns[name].dtype}.")
        columns[name] = columns[name].astype(bool)
    columns["truncations"] &= ~columns["terminations"]
    return columns | {"rewards": rewards.astype(np.float32)}


def time_limit(logs: Sequence[Mapping[str, np.ndarray]]) -> int:
    """Steps after which the tasks of these logs truncate an episode; 0 where the logs do not tell.

    They tell if no episode lasted longer than one that was truncated: what was cut off before was so for a
    reason of its own, and a limit further off would never be seen.

    Args:
        logs: the columns of each task, of tasks with one limit.
    """
    cut = longest = 0
    for columns in logs:
        ends, lengths = episode_ends(columns)
        longest = max(longest, int(lengths.max()))
        cut = max(cut, int(lengths[:-1][columns["truncations"][ends]].max(initial=0)))
    return cut if cut == longest else 0


def longest_episode(columns: Mapping[str, np.ndarray]) -> int:
    """Steps of the longest episode, also one in which the log breaks off."""
    return int(episode_ends(columns)[1].max())


def episode_ends(columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The last step of every episode; how long they are, and how long what follows the last one is."""
    ends = np.flatnonzero(columns["terminations"] | columns["truncations"])
    return ends, np.diff(ends, prepend=-1, append=len(columns["rewards"]) - 1)


def _check_lengths(columns: Mapping[str, np.ndarray]) -> None:
    shapes = {name: column.shape for name, column in columns.items()}
    lengths = {shape[:1] for shape in shapes.values()}
    flags = {shapes[name] for name in ("rewards", "terminations", "truncations")}
    if len(lengths) > 1 or lengths != flags or flags == {(0,)}:
        raise DatasetError(
            "Every array of a dataset has one entry per step, and there is at least one step.",
            f"Got shapes {', '.join(f'{name} {shape}' for name, shape in shapes.items())}.",
            "Observations are those before each step; next_observations those after it.",
        )


def _of_episodes(dataset: Any) -> dict[str, Any]:
    """The columns of a Minari dataset, whose episodes hold one observation more than steps."""
    rows: dict[str, list[Any]] = {name: [] for name in FIELDS}
    for episode in dataset.iterate_episodes():
        seen = _by_step(episode.observations, len(episode.rewards) + 1)
        rows["observations"].append(seen[:-1])
        rows["next_observations"].append(seen[1:])
        for name in ("actions", "rewards", "terminations", "truncations"):
            rows[name].append(np.asarray(getattr(episode, name)))
        if len(rows["truncations"][-1]):
            # The next episode starts elsewhere, however this one was cut off.
            rows["truncations"][-1] = np.array(rows["truncations"][-1])
            rows["truncations"][-1][-1] |= not rows["terminations"][-1][-1]
    return {name: np.concatenate(parts) if parts else [] for name, parts in rows.items()}


def _by_step(seen: Any, count: int) -> np.ndarray:
    """Observations one after the other, where a Dict or Tuple space has an array for each of its parts."""
    if not isinstance(seen, (Mapping, tuple)):
        return np.asarray(seen)
    rows = np.empty(count, object)
    for index in range(count):
        rows[index] = _at(seen, index)
    return rows


def _at(seen: Any, index: int) -> Any:
    if isinstance(seen, Mapping):
        return {name: _at(part, index) for name, part in seen.items()}
    if isinstance(seen, tuple):
        return tuple(_at(part, index) for part in seen)
    return np.asarray(seen)[index]
