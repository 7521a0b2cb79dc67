"""What the benchmarks on simulators share: returns in held-out tasks."""

from __future__ import annotations

from _totals import interval

import metaql
from metaql.meta.recurrent_agent import RecurrentAgent


def returns(
    agent: RecurrentAgent, family: metaql.SimulatorFamily, episodes: int
) -> dict[str, list[dict[str, float]]]:
    """By learner the mean return of every episode, one lifetime in each held-out task, with intervals."""
    count = len(family.tasks["test"])
    found = metaql.evaluate(agent, family, lifetimes=count, episodes=episodes, seed=1).returns
    return {name: [interval(each, digits=2) for each in row.T] for name, row in found.items()}
