"""How good an agent is on tasks of a family that it never saw: the figure to report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import numpy as np
from gymnasium import spaces

from metaql.config import check_whole
from metaql.errors import UnsupportedSpaceError, UsageError
from metaql.evaluation.compare import (
    AGENT,
    Comparison,
    OnProgress,
    chance,
    compare,
    one_by_one,
)
from metaql.evaluation.summary import Findings, summarise
from metaql.meta.adapt import check_request
from metaql.meta.agent import AnyAgent
from metaql.meta.config import AnyFamily, check_family
from metaql.meta.host_lives import live_in_simulators
from metaql.meta.lifetime import Lives
from metaql.meta.recurrent_agent import RecurrentAgent
from metaql.policy.recurrentq import RecurrentQ
from metaql.tasks.families.base import TaskFamily
from metaql.tasks.logged import LoggedFamily
from metaql.tasks.simulators import SimulatorFamily
from metaql.types import Learner, PRNGKey, Task

EPISODES = 20
"""Of a lifetime of an agent that takes any number of them."""
_ABREAST = 64
"""Simulators stepped together."""


def evaluate(
    agent: AnyAgent,
    family: AnyFamily,
    *,
    lifetimes: int = 100,
    episodes: int | None = None,
    split: str = "test",
    task: Task | int | None = None,
    seed: int = 0,
    beside: Mapping[str, AnyAgent] | None = None,
    on_progress: OnProgress = lambda stage, done, figures: None,
) -> Findings:
    """Live in many tasks of one split with the agent, and with learners that start from nothing.

    Every lifetime is in a task drawn for it, or all are in the same one, and starts with an empty memory.
    Where a split has few tasks (`environment_family`) some are drawn twice; of a `SimulatorFamily`, whose
    tasks are a list, they are taken in turn. Intervals are over lifetimes: with fewer tasks than that they
    say how sure the mean over those tasks is, not over all that could be.

    Args:
        agent: meta-trained, or one that comes with the package.
        family: where the tasks come from.
        lifetimes: of every learner; intervals are over these.
        episodes: of every lifetime; None: 20, of a RecurrentQ the most that one had in training.
        split: ``"test"`` for what is reported, ``"validation"`` for what is chosen by.
        task: for all lifetimes: a task (``family.default()`` of a `FrozenLake`), or the number of one of
            those that are drawn from the split with ``seed`` (of simulators: its place in the split's list);
            None: one drawn for each.
        seed: of tasks and lifetimes.
        beside: other agents for the same tasks, by the names of their rows: ``{"finite":
            metaql.load("finite")}`` shows what the one that needs no training earns.
        on_progress: called with the stage, the share of it done and who is living.

    Returns:
        Mean returns by block of episodes; ``print`` shows them, ``returns`` holds every single one.

    Raises:
        UsageError: fewer than two lifetimes or one episode, a negative seed, a family without tasks to
            live in, other agents with simulators, something that is no agent, or a task that is neither.
        ConfigError: ``family`` is none.
        UnknownNameError: no such split.
        UnsupportedSpaceError: the agent was trained on tasks of another shape.
        EnvironmentFaultError: an environment broke its contract.

    Example:
        >>> import metaql
        >>> lakes = metaql.families.frozen_lake(size=3)
        >>> found = metaql.evaluate(metaql.load("finite"), lakes, lifetimes=8, episodes=4)
        >>> found.blocks
        ('1-2', '3-4')
    """
    check_family(family)
    _check_agents(agent, beside)
    count = usual_episodes(agent) if episodes is None else episodes
    check_whole("lifetimes", lifetimes, 2)
    check_request(count, seed)
    if task is not None and not hasattr(task, "horizon"):
        check_whole("task", task, 0)
    if isinstance(family, SimulatorFamily):
        if beside:
            raise UsageError(
                "`beside` needs tasks that are arrays.",
                f"{family.name!r} is stepped on the host.",
                "Evaluate one agent after the other, with the same seed.",
            )
        turns = _turns(family, split, lifetimes, task)
        found = _simulated(agent, family, split, turns, count, seed, on_progress)
    elif isinstance(family, LoggedFamily):
        raise UsageError(
            "Evaluating needs tasks to live in.",
            f"Of {family.name!r} there are logs alone.",
            "Give a family of environments with the same spaces.",
        )
    else:
        found = _drawn(
            agent,
            family,
            split,
            task,
            lifetimes=lifetimes,
            episodes=count,
            seed=seed,
            beside=beside,
            on_progress=on_progress,
        )
    return summarise(found.rows, found.levels)


def _check_agents(agent: Any, beside: Any) -> None:
    """Raise `UsageError` for what is easily mixed up with agents: their names."""
    if beside is not None and not isinstance(beside, Mapping):
        raise UsageError(
            "`beside` must name the other agents.",
            f"Got {beside!r}.",
            'For instance: beside={"finite": metaql.load("finite")}.',
        )
    for each in (agent, *(beside or {}).values()):
        if not hasattr(each, "learner_for"):
            raise UsageError(
                "An agent is what training returns, or `metaql.load`.",
                f"Got {each!r}.",
                "Load it first: metaql.load('finite'), or the folder of a run.",
            )


def usual_episodes(agent: AnyAgent) -> int:
    """Episodes of a lifetime, where nobody says how many."""
    return agent.usual_episodes if isinstance(agent, RecurrentAgent) else EPISODES


def _drawn(
    agent: AnyAgent,
    family: TaskFamily,
    split: str,
    task: Task | int | None,
    *,
    lifetimes: int,
    episodes: int,
    seed: int,
    beside: Mapping[str, AnyAgent] | None,
    on_progress: OnProgress,
) -> Comparison:
    key_tasks, key_lives = np.random.default_rng(seed).integers(2**31, size=2).tolist()
    return compare(
        agent,
        family,
        _tasks(family, split, task, lifetimes, jax.random.key(key_tasks)),
        runs=lifetimes,
        episodes=episodes,
        seed=key_lives,
        beside=beside,
        on_progress=on_progress,
    )


def _tasks(
    family: TaskFamily, split: str, task: Task | int | None, lifetimes: int, key: PRNGKey
) -> Task:
    """One for each lifetime, or one for all."""
    if task is None:
        return family.tasks(key, lifetimes, split)
    if not isinstance(task, int | np.integer):
        return task
    return jax.tree.map(lambda leaf: leaf[-1], family.tasks(key, int(task) + 1, split))


def _turns(family: SimulatorFamily, split: str, lifetimes: int, task: Any) -> list[int]:
    """The task of every lifetime."""
    if task is not None:
        family.task(split, task)  # there is such a one
        return [int(task)] * lifetimes
    family.task(split, 0)
    return (np.arange(lifetimes) % len(family.tasks[split])).tolist()


def _simulated(
    agent: AnyAgent,
    family: SimulatorFamily,
    split: str,
    turns: list[int],
    episodes: int,
    seed: int,
    on_progress: OnProgress,
) -> Comparison:
    if not isinstance(agent, RecurrentAgent):
        raise UnsupportedSpaceError("Simulators need a RecurrentQ.", f"Got {agent}.")
    host = family.crowd(split, [0]).hosts[0]
    agent.check_host(host)
    if isinstance(host.env.action_space, spaces.Box) and agent.levels != family.levels:
        raise UsageError(
            "Actions must mean what they meant in training.",
            f"Levels of the agent: {agent.levels}, of {family.name!r}: {family.levels}.",
            "Give the family the agent's levels.",
        )
    lifetimes = len(turns)

    def lived(index: int, learner: Learner, tell: Callable[[float], None]) -> Lives:
        parts = []
        for first in range(0, lifetimes, _ABREAST):
            chosen = turns[first : first + _ABREAST]
            own = int(np.random.default_rng([seed, index, first]).integers(2**31))
            parts.append(_abreast(cast(RecurrentQ, learner), family, split, chosen, episodes, own))
            tell((first + len(chosen)) / lifetimes)
        returns, lengths = (np.concatenate(each) for each in zip(*parts, strict=True))
        return Lives(returns, lengths, np.full(lifetimes, episodes), None)

    learners = {AGENT: agent.learner, **chance(agent.learner)}
    return Comparison(rows=one_by_one(learners, lived, on_progress), levels={})


def _abreast(
    learner: RecurrentQ,
    family: SimulatorFamily,
    split: str,
    chosen: list[int],
    episodes: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns and lengths ``[n, E]`` in the chosen tasks, in two parts of which one is always answering."""
    groups = [part.tolist() for part in np.array_split(chosen, min(2, len(chosen)))]
    crowds = family.crowds(split, groups)
    budgets = tuple(np.full(len(group), episodes, np.int32) for group in groups)
    length = episodes * max(int(crowd.horizon.max()) for crowd in crowds)
    lives = live_in_simulators(learner, crowds, budgets, seed, length=length, every=length)
    return lives.lifetimes.returns(episodes), lives.lifetimes.lengths(episodes)
