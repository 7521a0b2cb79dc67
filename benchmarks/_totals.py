"""What the tables of total reward share: budgets, rows beside a reference, intervals.

A row holds the total reward of every trial, ``[N]``, for every budget (a number of episodes). All rows
live in the same tasks with the same keys, so a trial's luck (its task, its noise) is the same in each
and cancels in paired differences.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from _common import say
from numpy.typing import ArrayLike

from metaql.evaluation.intervals import mean_interval
from metaql.meta.lifetime import live
from metaql.tasks.finite import FiniteTask
from metaql.types import Learner, PRNGKey

Totals: TypeAlias = dict[int, np.ndarray]
"""Total reward of every trial, ``[N]``, by budget."""


def totals(
    learner: Learner, tasks: FiniteTask, keys: PRNGKey, budgets: Sequence[int], *, apart: bool
) -> Totals:
    """Total reward for every budget.

    Args:
        budgets: episodes.
        apart: live every budget on its own, for learners that are told how long they live. For all
            others the first n episodes of a long lifetime are a lifetime of n.
    """
    if apart:
        return {n: live(learner, tasks, keys, episodes=n).returns.sum(1) for n in budgets}
    returns = live(learner, tasks, keys, episodes=max(budgets)).returns
    return {n: returns[:, :n].sum(1) for n in budgets}


def timed(name: str, *arguments: Any, apart: bool) -> Totals:
    """`totals`, reported on stderr."""
    start = time.perf_counter()
    found = totals(*arguments, apart=apart)
    seconds = time.perf_counter() - start
    words = ", ".join(f"{values.mean():.2f} in {n}" for n, values in found.items())
    say(f"{name}: {words} ({seconds:.0f} s)")
    return found


def interval(values: ArrayLike, shift: float = 0.0, digits: int = 3) -> dict[str, float]:
    """Mean and 95% interval over trials, plus ``shift``."""
    return {
        name: round(float(value) + shift, digits)
        for name, value in mean_interval(values)._asdict().items()
    }


def table(
    rows: Mapping[str, Totals], oracle: Totals, mean_oracle: Mapping[int, float], reference: str
) -> dict[str, dict[str, dict[str, Any]]]:
    """Every cell with its intervals: row name -> budget -> what was found.

    - ``total``: mean total reward.
    - ``luck_removed``: the mean oracle of the whole family less the mean distance to the oracle of
      the trials' own tasks. Same expectation as ``total``, without the luck of having drawn rich tasks.
    - ``minus_reference``: paired difference to the row ``reference``.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, row in rows.items():
        found[name] = {}
        for n, values in row.items():
            cell: dict[str, Any] = {"total": interval(values)}
            cell["luck_removed"] = interval(values - oracle[n], mean_oracle[n])
            if name != reference and n in rows[reference]:
                cell["minus_reference"] = interval(values - rows[reference][n])
            found[name][str(n)] = cell
    return found


def best(validation: Mapping[Any, Totals]) -> dict[int, Any]:
    """The setting of the largest mean total for every budget."""
    budgets = next(iter(validation.values()))
    return {n: max(validation, key=lambda setting: validation[setting][n].mean()) for n in budgets}


def means(validation: Mapping[Any, Totals]) -> dict[str, dict[str, float]]:
    """Mean totals by setting and budget, for the record of a choice."""
    return {
        str(setting): {str(n): round(float(values.mean()), 3) for n, values in row.items()}
        for setting, row in validation.items()
    }
