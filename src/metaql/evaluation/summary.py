"""What a comparison found: the table, the curves and the exact levels, in one place."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int

from metaql.evaluation.blocks import (
    Cell,
    Curve,
    Row,
    block_means,
    block_name,
    block_table,
    blocks_within,
    curve_by_episode,
    curve_by_steps,
    mean_cell,
    step_grid,
)

AT_RANDOM = "acting at random"
"""Name of the baseline that knows nothing and learns nothing."""
DIFFERENCE = "all, minus agent"
"""Head of the column of differences."""


class Lived(Protocol):
    """Lifetimes as `meta.lifetime.Lives` holds them."""

    @property
    def returns(self) -> Float[np.ndarray, "N E"]:
        """Undiscounted return of every episode."""
        ...

    @property
    def lengths(self) -> Int[np.ndarray, "N E"]:
        """Steps of every episode."""
        ...


@dataclass(frozen=True, kw_only=True, repr=False)
class Findings:
    """What one comparison found, ready to be printed, written as JSON or drawn."""

    score: str
    """What the numbers are: ``success`` or ``mean return``."""
    runs: int
    """Lifetimes per learner."""
    blocks: tuple[str, ...]
    """Names of the blocks of episodes, such as ``6-10``."""
    learners: tuple[Row, ...]
    levels: tuple[Row, ...]
    """Exact values that no experience changes."""
    differences: Mapping[str, Cell]
    """By learner but the first: its mean return of all episodes, minus the first one's."""
    by_episode: Mapping[str, Curve]
    by_steps: Mapping[str, Curve]
    """On one grid for all; who has lived all episodes keeps the last value."""
    returns: Mapping[str, Float[np.ndarray, "N E"]]
    """By learner: of every episode of every lifetime."""

    @property
    def title(self) -> str:
        """What the table shows."""
        score = self.score.capitalize()
        return f"{score} by block of episodes, {self.runs} lifetimes each [95% interval]"

    def table(self) -> list[tuple[str, ...]]:
        """The head and the rows as text."""
        rows = [
            (*row.as_text(), str(self.differences.get(row.name, "")))
            for row in (*self.learners, *self.levels)
        ]
        return [("episodes", *self.blocks, DIFFERENCE), *rows]

    @functools.cached_property
    def warnings(self) -> tuple[str, ...]:
        """Plain sentences on what the table does not show, though one might think so."""
        return (*self._no_better_than_chance(), *self._beaten())

    def _beaten(self) -> tuple[str, ...]:
        """Who earns more for sure."""
        agent = self.learners[0].name
        return tuple(
            f"{name} earns more than the {agent}: {cell} an episode."
            for name, cell in self.differences.items()
            if cell.low is not None and cell.high is not None and 0 < cell.low < cell.high
        )

    def _no_better_than_chance(self) -> tuple[str, ...]:
        last = {row.name: row.cells[-1] for row in self.learners}
        agent, chance = self.learners[0], last.get(AT_RANDOM)
        if chance is None:
            return ()
        of_agent, by_chance = (self._last_block(name) for name in (agent.name, AT_RANDOM))
        more = mean_cell(of_agent - by_chance)  # lifetime by lifetime: in the same tasks
        if more.low is None or more.low > 0:
            return ()
        return (
            f"In episodes {self.blocks[-1]} the {agent.name} is not shown to be better than {AT_RANDOM} "
            f"({agent.cells[-1]} beside {chance}). Train longer, or with settings that suit the tasks "
            "better; more lifetimes make the intervals narrower.",
        )

    def _last_block(self, name: str) -> Float[np.ndarray, " N"]:
        rows = self.returns[name]
        return block_means(rows, blocks_within(rows.shape[1])[-1:])[:, 0]

    def __str__(self) -> str:
        """The table and the warnings, for a terminal or a notebook."""
        table = self.table()
        first, *rest = (max(map(len, column)) for column in zip(*table, strict=True))
        lines = [
            "  ".join([name.ljust(first), *map(str.rjust, cells, rest)]) for name, *cells in table
        ]
        return "\n".join([self.title, *lines, *(f"Warning: {each}" for each in self.warnings)])

    def __repr__(self) -> str:
        """The same: all returns and curves would fill pages."""
        return str(self)

    def level_values(self) -> dict[str, float]:
        """The exact values by name."""
        return {row.name: row.cells[0].mean for row in self.levels}

    def as_dict(self) -> dict[str, Any]:
        """The table in JSON types (the curves are in the report)."""
        cells = {row.name: [asdict(cell) for cell in row.cells] for row in self.learners}
        return {
            "score": self.score,
            "runs": self.runs,
            "blocks": list(self.blocks),
            "learners": cells,
            "levels": self.level_values(),
            "minus_agent": {name: asdict(cell) for name, cell in self.differences.items()},
            "warnings": list(self.warnings),
        }


def summarise(
    lives: Mapping[str, Lived], levels: Mapping[str, float], *, score: str = "mean return"
) -> Findings:
    """Blocks and curves with 95% bootstrap intervals over lifetimes.

    Args:
        lives: by learner, all with the same number of episodes; the first is what it is about.
            Lifetimes of the same number are compared: in the same task, where each has one of its own.
        levels: exact mean returns per episode that no experience changes.
        score: what the returns are.
    """
    returns = {name: np.asarray(each.returns) for name, each in lives.items()}
    first = next(iter(returns.values()))
    grid = _common_grid([np.asarray(each.lengths) for each in lives.values()])
    table = block_table(returns, levels)
    others = list(returns.items())[1:]
    return Findings(
        score=score,
        runs=len(first),
        blocks=tuple(block_name(block) for block in blocks_within(first.shape[1])),
        learners=tuple(table[: len(returns)]),
        levels=tuple(table[len(returns) :]),
        differences={name: mean_cell((rows - first).mean(1)) for name, rows in others},
        returns=returns,
        by_episode={name: curve_by_episode(rows) for name, rows in returns.items()},
        by_steps={
            name: curve_by_steps(returns[name], each.lengths, grid) for name, each in lives.items()
        },
    )


def _common_grid(lengths: Sequence[Int[np.ndarray, "N E"]]) -> Float[np.ndarray, " K"]:
    """About 60 points from the earliest start of a learner's own grid to the latest end.

    A learner's curve begins where all its lifetimes have ended an episode; the latest such point is
    on the grid, so that no curve is empty.
    """
    ends = [step_grid(each) for each in lengths]
    slowest = max(float(each[-1]) for each in ends)
    evenly = np.linspace(min(float(each[0]) for each in ends), slowest, 60).round()
    return np.unique([*evenly, max(float(each[0]) for each in ends)])
