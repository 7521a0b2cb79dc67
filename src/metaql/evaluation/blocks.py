"""From episodes to what a table or a figure shows: blocks, curves, regret."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from metaql.errors import UsageError
from metaql.evaluation.intervals import RESAMPLES, mean_interval

Block = tuple[int, int]
"""First and last episode, counted from 1, both included."""
BLOCKS: tuple[Block, ...] = ((1, 2), (3, 5), (6, 10), (11, 20))
"""How fast is fast: the blocks every table reports."""
_ALL: tuple[Block, ...] = (
    *BLOCKS,
    *(
        (before * tens + 1, last * tens)
        for tens in (10, 100, 1_000, 10_000, 100_000)
        for before, last in ((2, 5), (5, 10), (10, 20))
    ),
)
"""The same with those of longer lifetimes: 21-50, 51-100, 101-200, ..."""
_HUNDREDTH, _MOST_DECIMALS = 0.01, 6


class Curve(NamedTuple):
    """A mean with its pointwise interval along ``x``."""

    x: Float[np.ndarray, " K"]
    mean: Float[np.ndarray, " K"]
    low: Float[np.ndarray, " K"]
    high: Float[np.ndarray, " K"]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Mean return per episode in one block, with its interval; an exact value has none."""

    mean: float
    low: float | None = None
    high: float | None = None

    def written(self) -> list[str]:
        """Mean and limits as text, an exact mean alone and with one more digit."""
        if self.low is None or self.high is None:
            return written(self.mean, least=3)
        return written(self.mean, self.low, self.high)

    def __str__(self) -> str:
        mean, *limits = self.written()
        return f"{mean} [{', '.join(limits)}]" if limits else mean


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table of blocks."""

    name: str
    runs: int
    """Lifetimes behind it; 0 for an exact value."""
    cells: tuple[Cell, ...]

    def as_dict(self) -> dict[str, Any]:
        """The row in JSON types."""
        return asdict(self) | {"cells": [asdict(cell) for cell in self.cells]}

    def as_text(self) -> tuple[str, ...]:
        """Name and cells, ready to print."""
        return (self.name, *map(str, self.cells))


def written(*values: float, least: int = 2) -> list[str]:
    """Numbers that stand side by side as text, all with as many decimals.

    Args:
        *values: finite.
        least: decimals, of which numbers below a hundredth have more: the largest shows two digits.

    Example:
        >>> written(12.0, -0.001), written(0.00123, 0.00051, 0.002)
        (['12.00', '0.00'], ['0.0012', '0.0005', '0.0020'])
    """
    largest = max(map(abs, values))
    small = 0 < largest < _HUNDREDTH
    decimals = max(least, 1 - math.floor(math.log10(largest))) if small else least
    if decimals > _MOST_DECIMALS:
        return [f"{value:.1e}" for value in values]
    return [f"{value:z.{decimals}f}" for value in values]


def block_name(block: Block) -> str:
    """``6-10``, or ``3`` for a block of one episode."""
    first, last = block
    return f"{first}-{last}" if last > first else str(first)


def blocks_within(episodes: int, blocks: Sequence[Block] = _ALL) -> tuple[Block, ...]:
    """The blocks of a lifetime of ``episodes`` episodes, the last one cut short if need be."""
    return tuple((first, min(last, episodes)) for first, last in blocks if first <= episodes)


def block_means(
    returns: Float[np.ndarray, "N E"], blocks: Sequence[Block] = BLOCKS
) -> Float[np.ndarray, "N B"]:
    """Mean return of each lifetime in each block.

    Raises:
        UsageError: a block is empty or reaches beyond the last episode.
    """
    rows = _two_axes(returns)
    for first, last in blocks:
        if not 1 <= first <= last <= rows.shape[1]:
            raise UsageError(
                f"A block of episodes lies within 1 to {rows.shape[1]}.", f"Got {first}-{last}."
            )
    return np.stack([rows[:, first - 1 : last].mean(axis=1) for first, last in blocks], axis=1)


def block_table(
    returns: Mapping[str, Float[np.ndarray, "N E"]],
    levels: Mapping[str, float] | None = None,
    *,
    blocks: Sequence[Block] = _ALL,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[Row]:
    """A row per learner, with intervals over lifetimes, then a row per exact level.

    Args:
        returns: by learner; all lifetimes must have the same number of episodes.
        levels: exact mean returns per episode that no experience changes.
        blocks: cut to the episodes there are (`blocks_within`).
        confidence: of the two-sided intervals.
        seed: of the resampling.
    """
    episodes = min((_two_axes(rows).shape[1] for rows in returns.values()), default=blocks[-1][1])
    fitting = blocks_within(episodes, blocks)
    table = []
    for name, rows in returns.items():
        found = mean_interval(block_means(rows, fitting), confidence, seed)
        cells = tuple(_cell(*each) for each in zip(*found, strict=True))
        table.append(Row(name=name, runs=len(rows), cells=cells))
    for name, level in (levels or {}).items():
        table.append(Row(name=name, runs=0, cells=(Cell(mean=float(level)),) * len(fitting)))
    return table


def mean_cell(values: Float[np.ndarray, " N"]) -> Cell:
    """Mean over lifetimes with its 95% interval."""
    return _cell(*mean_interval(values))


def _cell(mean: float, low: float, high: float) -> Cell:
    """Plain floats; limits that are not known (one lifetime) become None."""
    low, high = float(low), float(high)
    known = math.isfinite(low) and math.isfinite(high)
    return Cell(mean=float(mean), low=low if known else None, high=high if known else None)


def regret(returns: Float[np.ndarray, "N E"], optimum: ArrayLike) -> Float[np.ndarray, "N E"]:
    """Cumulative regret: the sum of ``optimum - return`` over the episodes so far.

    Args:
        returns: undiscounted return of every episode.
        optimum: exact expected return per episode of the best policy that knows the task; one for
            all lifetimes or ``[N]``. A lucky episode has negative regret; the expectation has not.
    """
    rows = _two_axes(returns)
    best = np.broadcast_to(np.asarray(optimum, np.float64), rows.shape[:1])
    return np.cumsum(best[:, None] - rows, axis=1)


def curve_by_episode(
    returns: Float[np.ndarray, "N E"],
    confidence: float = 0.95,
    seed: int = 0,
    *,
    resamples: int = RESAMPLES,
) -> Curve:
    """Mean return of the first, second, ... episode over lifetimes."""
    rows = _two_axes(returns)
    found = mean_interval(rows, confidence, seed, resamples=resamples)
    return Curve(np.arange(1.0, rows.shape[1] + 1.0), *found)


def curve_by_steps(
    returns: Float[np.ndarray, "N E"],
    lengths: Int[np.ndarray, "N E"],
    grid: Float[np.ndarray, " K"] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    *,
    window: int = 3,
    resamples: int = RESAMPLES,
) -> Curve:
    """Recent mean return as a function of environment steps.

    At ``x`` steps a lifetime counts with the mean return of the last ``window`` episodes it had
    finished by then (fewer if there are fewer); once it has lived all its episodes it keeps its
    last value. Grid points at which some lifetime has not finished its first episode are left out,
    so every point is a mean over the same N lifetimes.

    Args:
        returns: undiscounted return of every episode.
        lengths: steps of every episode.
        grid: environment steps, ascending; by default `step_grid`.
        confidence: of the two-sided pointwise intervals.
        seed: of the resampling.
        window: episodes averaged.
        resamples: bootstrap resamples.

    Raises:
        UsageError: shapes differ, a window below 1, or no grid point is left.
    """
    rows, ends = _two_axes(returns), np.cumsum(_two_axes(lengths), axis=1)
    if rows.shape != ends.shape or window < 1:
        raise UsageError(
            "A curve needs a length for every return and a window of at least 1 episode.",
            f"Got returns {rows.shape}, lengths {ends.shape}, window {window}.",
        )
    points = np.asarray(step_grid(lengths) if grid is None else grid, np.float64)
    points = points[points >= ends[:, 0].max()]
    if not len(points):
        raise UsageError(
            "Some grid point must lie where every lifetime has finished an episode.",
            f"The last first episode ends at step {ends[:, 0].max():g}.",
        )
    done = np.stack([np.searchsorted(end, points, side="right") for end in ends])
    total = np.pad(np.cumsum(rows, axis=1), ((0, 0), (1, 0)))
    oldest = np.maximum(done - window, 0)
    recent = np.take_along_axis(total, done, 1) - np.take_along_axis(total, oldest, 1)
    found = mean_interval(recent / (done - oldest), confidence, seed, resamples=resamples)
    return Curve(points, *found)


def step_grid(lengths: Int[np.ndarray, "N E"], points: int = 40) -> Float[np.ndarray, " K"]:
    """Evenly spaced steps, from where all have finished an episode to the median lifetime's end."""
    steps = _two_axes(lengths)
    start = steps[:, 0].max()
    stop = max(start, float(np.median(steps.sum(axis=1))))
    return np.unique(np.linspace(start, stop, points).round())


def _two_axes(values: ArrayLike) -> np.ndarray:
    rows = np.asarray(values, np.float64)
    if rows.ndim != 2 or 0 in rows.shape:
        raise UsageError("Episodes come as [lifetimes, episodes].", f"Got shape {rows.shape}.")
    return rows
