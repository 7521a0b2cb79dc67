"""An agent beside the baselines, on one task, every one of them in the same lifetime loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from metaql.errors import UnsupportedSpaceError
from metaql.meta.agent import AnyAgent
from metaql.meta.lifetime import Lives, live
from metaql.meta.recurrent_agent import RecurrentAgent
from metaql.qlearning import PSRL, UCBVI, Constant, QLearning, tuned_optimistic
from metaql.tasks.exact import model_of, non_adaptive_policy, optimal_return, policy_return
from metaql.tasks.families.base import Family, TaskFamily
from metaql.tasks.finite import FiniteTask
from metaql.types import Learner, Task

AGENT = "meta-learned agent"
_NON_ADAPTIVE_TASKS = 2_000
_LONGEST_PLAN = 200


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Lifetimes by learner, and exact returns that no experience changes."""

    rows: dict[str, Lives]
    levels: dict[str, float]


def compare(
    agent: AnyAgent,
    family: TaskFamily,
    task: Task,
    *,
    runs: int = 200,
    episodes: int = 20,
    seed: int = 0,
    on_progress: Callable[[str, float, Mapping[str, Any]], None] = lambda *_: None,
) -> Comparison:
    """Live ``runs`` lifetimes of ``episodes`` episodes in ``task`` with the agent and each baseline.

    Args:
        agent: meta-trained.
        family: its training tasks give the best non-adaptive policy, where they share states.
        task: what to adapt to. Where it is not finite there is one baseline: acting at random.
        seed: of all lifetimes; every learner has keys of its own.
    """
    learners = learners_for(agent, task)
    rows = {}
    on_progress("Comparison", 0.0, {})
    for index, (name, learner) in enumerate(learners.items()):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), index), runs)

        def report(share: float, index: int = index, name: str = name) -> None:
            on_progress("Comparison", (index + share) / len(learners), {"learner": name})

        rows[name] = live(learner, task, keys, episodes=episodes, on_progress=report)
    if isinstance(family, Family) and isinstance(task, FiniteTask):
        return Comparison(rows=rows, levels=levels(family, task))
    return Comparison(rows=rows, levels={})


def learners_for(agent: AnyAgent, task: Task) -> dict[str, Learner]:
    """The agent's learner, then the baselines of such a task.

    Raises:
        UnsupportedSpaceError: the agent was trained on tasks of another shape.
    """
    if isinstance(task, FiniteTask):
        num_states, num_actions = task.transition.shape[:2]
        return {AGENT: agent.learner_for(num_states, num_actions), **baselines(task)}
    if not isinstance(agent, RecurrentAgent):
        raise UnsupportedSpaceError(
            "Tasks that are no finite MDPs need a RecurrentQ.", f"Got {agent}."
        )
    learner = agent.learner_on(task)
    blind = eqx.tree_at(lambda q: q.epsilon, learner, jnp.ones(()))
    return {AGENT: learner, "acting at random": blind}


def baselines(task: FiniteTask) -> dict[str, Learner]:
    """Learners that start from nothing; told the horizon and the range of rewards, as theory wants.

    Their constants were tuned on validation lakes (``benchmarks/tune_qlearning.py``); UCBVI with the
    bonus of its paper, and posterior sampling with a uniform prior, do worse.
    """
    horizon = int(min(int(task.horizon), _LONGEST_PLAN))
    rewards = model_of(task).reward
    largest = float(jnp.abs(rewards).max())
    binary = bool((rewards >= 0).all()) and largest <= 1.0
    rare = 1.0 / task.initial.shape[0]
    psrl = PSRL(
        horizon=horizon,
        transition_prior=rare,
        ending_prior=rare,
        reward_mean=0.1 if binary else 0.0,
        reward_count=0.2 if binary else 1.0,
        reward_model="beta" if binary else "normal",
    )
    return {
        "Q-learning, optimistic, tuned": tuned_optimistic(),
        "Q-learning, zero start": QLearning(step_size=Constant(0.1), epsilon=Constant(0.1)),
        "UCBVI": UCBVI(horizon=horizon, bonus_scale=1e-4, max_reward=largest),
        "PSRL": psrl,
    }


def levels(family: Family, task: FiniteTask) -> dict[str, float]:
    """Exact mean returns per episode: the best non-adaptive policy (if defined) and the optimum."""
    found = {}
    if family.shares_states:
        seen = family.tasks(jax.random.key(0), _NON_ADAPTIVE_TASKS, "train")
        policy = jax.jit(non_adaptive_policy)(seen)
        found["best non-adaptive policy"] = float(policy_return(task, policy))
    found["optimum"] = float(optimal_return(task))
    return found
