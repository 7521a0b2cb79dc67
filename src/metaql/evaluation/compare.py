"""An agent beside the baselines, on one task or on many, every one of them in the same lifetime loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from metaql.errors import UnsupportedSpaceError, UsageError
from metaql.evaluation.summary import AT_RANDOM
from metaql.meta.agent import AnyAgent
from metaql.meta.lifetime import Lives, live
from metaql.meta.recurrent_agent import RecurrentAgent
from metaql.policy.recurrentq import RecurrentQ
from metaql.qlearning import PSRL, UCBVI, Constant, QLearning, tuned_optimistic
from metaql.tasks.exact import (
    model_of,
    non_adaptive_policy,
    optimal_return,
    policy_return,
    uniform_policy,
)
from metaql.tasks.families.base import Family, TaskFamily
from metaql.tasks.finite import NO_HORIZON, FiniteTask
from metaql.types import Learner, Task

AGENT = "meta-learned agent"
OnProgress: TypeAlias = Callable[[str, float, Mapping[str, Any]], None]
"""Called with the stage, the share of it done, and who is living."""
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
    beside: Mapping[str, AnyAgent] | None = None,
    on_progress: OnProgress = lambda *_: None,
) -> Comparison:
    """Live ``runs`` lifetimes of ``episodes`` episodes with the agent and each baseline.

    Args:
        agent: meta-trained.
        family: its training tasks give a non-adaptive policy, where they share states.
        task: what to adapt to, or one for each lifetime, ``[runs, ...]``. Where tasks are not finite there is
            one baseline: acting at random.
        seed: of all lifetimes; every learner has keys of its own.
        beside: other agents, by the names of their rows, which come last.
        on_progress: told of all learners together.

    Raises:
        UnsupportedSpaceError: an agent was trained on tasks of another shape.
        UsageError: another agent has the name of a row that there is, or a task has no time limit.
    """
    _check_limited(task)

    def lived(index: int, learner: Learner, tell: Callable[[float], None]) -> Lives:
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), index), runs)
        return live(learner, task, keys, episodes=episodes, on_progress=tell)

    learners = learners_for(agent, task, beside)
    # Before anybody lives: what takes too much memory should not take what was lived along.
    exact = {}
    if isinstance(family, Family) and isinstance(task, FiniteTask):
        exact = levels(family, task)
    return Comparison(rows=one_by_one(learners, lived, on_progress), levels=exact)


def _check_limited(task: Task) -> None:
    """Lifetimes side by side go on until the last of them is over, and chance may never find an end."""
    endless = np.asarray(task.horizon) >= NO_HORIZON
    if endless.any():
        raise UsageError(
            "Tasks to compare in need a time limit.",
            f"{endless.sum()} of {endless.size} have none.",
            "Give them a `horizon`, or wrap environments in gymnasium.wrappers.TimeLimit.",
        )


def one_by_one(
    learners: Mapping[str, Learner],
    lived: Callable[[int, Learner, Callable[[float], None]], Lives],
    on_progress: OnProgress,
) -> dict[str, Lives]:
    """What came of every learner's lifetimes.

    Args:
        learners: by name.
        lived: from a learner's place, the learner, and whom to tell the share done, to its lifetimes.
        on_progress: told of all of them together.
    """
    rows = {}
    on_progress("Comparison", 0.0, {})
    for index, (name, learner) in enumerate(learners.items()):

        def report(share: float, index: int = index, name: str = name) -> None:
            on_progress("Comparison", (index + share) / len(learners), {"learner": name})

        rows[name] = lived(index, learner, report)
    return rows


def learners_for(
    agent: AnyAgent, task: Task, beside: Mapping[str, AnyAgent] | None = None
) -> dict[str, Learner]:
    """The agent's learner, the baselines of such a task or tasks (``[N, ...]``), then the agents beside it.

    In this order, for a learner's place tells its keys: those of the baselines are the same beside whomever.

    Raises:
        UnsupportedSpaceError: an agent was trained on tasks of another shape.
        UsageError: another agent has the name of a row that there is.
    """
    learner = _learner_of(agent, task)
    plain = baselines(task) if isinstance(task, FiniteTask) else chance(learner)
    rows: dict[str, Learner] = {AGENT: learner, **plain}
    for name, other in (beside or {}).items():
        if name in rows:
            raise UsageError(
                "An agent beside another needs a name of its own.",
                f"{name!r} is the name of a row that there is.",
                "Give it another one.",
            )
        rows[name] = _learner_of(other, task)
    return rows


def _learner_of(agent: AnyAgent, task: Task) -> Any:
    if isinstance(task, FiniteTask):
        num_states, num_actions = task.transition.shape[-3:-1]
        return agent.learner_for(num_states, num_actions)
    if not isinstance(agent, RecurrentAgent):
        raise UnsupportedSpaceError(
            "Tasks that are no finite MDPs need a RecurrentQ.", f"Got {agent}."
        )
    return agent.learner_on(
        jax.tree.map(lambda leaf: leaf[0], task) if jnp.ndim(task.horizon) else task
    )


def chance(learner: RecurrentQ) -> dict[str, Learner]:
    """The agent's learner without any sense in its actions."""
    return {AT_RANDOM: eqx.tree_at(lambda q: q.epsilon, learner, jnp.ones(()))}


def baselines(task: FiniteTask) -> dict[str, Learner]:
    """Learners that start from nothing; told the (longest) horizon and range of rewards, as theory wants.

    Their constants were tuned on validation lakes (``benchmarks/tune_qlearning.py``) and are in units of the
    largest reward; UCBVI with the bonus of its paper, and posterior sampling with a uniform prior, do worse.
    """
    horizon = min(int(np.max(task.horizon)), _LONGEST_PLAN)
    largest = float(jnp.abs(model_of(task).reward).max())
    possible = jnp.where(task.transition > 0, task.reward, 0.0)
    peak = float(jnp.abs(possible).max())
    # A Beta posterior is for rewards in [0, 1], every single one.
    many = task.horizon.shape
    quiet = (jnp.asarray(task.reward_noise) == 0).reshape(*many, -1).all(-1)
    sure = bool((jnp.asarray(task.reward_binary) | quiet).all())
    binary = sure and peak <= 1.0 and bool((possible >= 0).all())
    rare = 1.0 / task.initial.shape[-1]
    psrl = PSRL(
        horizon=horizon,
        transition_prior=rare,
        ending_prior=rare,
        reward_mean=0.1 if binary else 0.0,
        reward_count=0.2 if binary else 1.0,
        reward_std=max(peak, 1e-6),
        reward_model="beta" if binary else "normal",
    )
    return {
        "Q-learning, optimistic, tuned": tuned_optimistic(peak),
        "Q-learning, zero start": QLearning(step_size=Constant(0.1), epsilon=Constant(0.1)),
        "UCBVI": UCBVI(horizon=horizon, bonus_scale=1e-4, max_reward=largest),
        "PSRL": psrl,
    }


def levels(family: Family, task: FiniteTask) -> dict[str, float]:
    """Exact mean returns per episode: the best non-adaptive policy (if defined) and the optimum.

    The former is the better one of two: what is optimal for the average of training tasks, and acting at
    random, which is worth more where what pays lies elsewhere than in all of them (which it is, is said in
    hindsight: the bar is never too low). Over tasks, where there is more than one (``[N, ...]``).
    """
    found = {}
    tasks = task if task.horizon.ndim else jax.tree.map(lambda leaf: leaf[None], task)
    if family.shares_states:
        seen = family.tasks(jax.random.key(0), _NON_ADAPTIVE_TASKS, "train")
        policy = jax.jit(non_adaptive_policy)(seen)
        alike = jax.vmap(policy_return, in_axes=(0, None))(tasks, policy)
        blind = jax.vmap(lambda task: policy_return(task, uniform_policy(task)))(tasks)
        found["best non-adaptive policy"] = float(jnp.maximum(alike.mean(), blind.mean()))
    found["optimum"] = float(jax.vmap(optimal_return)(tasks).mean())
    return found
