"""The same weights on tasks of many sizes and kinds: lakes 3x3 to 8x8, grids, chains, MDPs, bandits.

Protocol: every task is lived by the same lifetime loop, 20 episodes per lifetime. Gymnasium's
environments are their published tables; families give test tasks, one per lifetime; no lake of a size
other than 4x4 was ever trained on. ``CliffWalking-v1`` has no time limit of its own and gets 200
steps. Beside it, exact: the uniformly random policy and the optimum; the untrained rule is the same
planner with fresh weights, so the difference is what training brought. Q-learning is tuned by the
tasks themselves: the best of a grid of 10 settings in mean return over the 20 episodes, chosen with
other seeds on the very same tasks (an advantage no other row has).

    python benchmarks/one_set_of_weights.py --agent universal
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import gymnasium
import jax
import numpy as np
from _common import blocks, emit, say

import metaql
from metaql.meta.agent import Agent
from metaql.meta.lifetime import live
from metaql.policy.beliefq import BeliefQ
from metaql.qlearning import Constant, Harmonic, QLearning
from metaql.tasks.exact import optimal_return, policy_return, uniform_policy
from metaql.tasks.families import Bandit, Chain, Family, FrozenLake, Navigation, RandomMDP
from metaql.tasks.finite import FiniteTask
from metaql.tasks.gymnasium import finite_task_of

EPISODES = 20
CLIFF_STEPS = 200
INITIAL_VALUES = (0.0, 0.5, 2.0, 10.0, 50.0)
EPSILONS = (0.0, 0.1)


class Case(NamedTuple):
    """One row of the table."""

    name: str
    tasks: FiniteTask
    """``[N, ...]``, or one task for all lifetimes."""
    lifetimes: int


def published(env_id: str, lifetimes: int, name: str | None = None, **options: Any) -> Case:
    """A Gymnasium environment as its table."""
    task = finite_task_of(gymnasium.make(env_id, **options))
    if task is None:
        raise SystemExit(f"{env_id} publishes no table.")
    return Case(name or env_id, task, lifetimes)


def drawn(name: str, family: Family, lifetimes: int, seed: int) -> Case:
    """Test tasks of a family, one per lifetime."""
    return Case(name, family.tasks(jax.random.key(seed), lifetimes, "test"), lifetimes)


def cases(lifetimes: int, seed: int, taxi: bool) -> Iterator[Case]:
    """Every row, built when it is its turn."""
    yield drawn("lakes 3x3", FrozenLake(3), lifetimes, seed)
    yield published("FrozenLake-v1", lifetimes, "FrozenLake-v1 (4x4)")
    yield published("FrozenLake-v1", lifetimes, "FrozenLake-v1, no slip", is_slippery=False)
    for size in (5, 6, 7):
        yield drawn(f"lakes {size}x{size}", FrozenLake(size), lifetimes // 2, seed)
    yield published("FrozenLake8x8-v1", lifetimes // 2, "FrozenLake8x8-v1")
    cliff = f"CliffWalking-v1 ({CLIFF_STEPS} steps)"
    yield published("CliffWalking-v1", lifetimes // 2, cliff, max_episode_steps=CLIFF_STEPS)
    yield drawn("navigation grids", Navigation(), lifetimes, seed)
    yield drawn("random MDPs, S=10 A=5", RandomMDP(), lifetimes, seed)
    yield drawn("random MDPs, S=25 A=5", RandomMDP(25), lifetimes, seed)
    yield drawn("sparse MDPs, S=10 A=5", RandomMDP(kind="sparse"), lifetimes, seed)
    yield drawn("chains, S=4 to 10", Chain(), lifetimes, seed)
    yield drawn("bandits, 5 arms", Bandit(), lifetimes, seed)
    if taxi:
        yield published("Taxi-v4", 4)


def tuned_q_learning(case: Case, seed: int) -> tuple[dict[str, float], np.ndarray]:
    """The best setting and its returns with fresh seeds."""
    key_tune, key_report = jax.random.split(jax.random.key(seed))

    def lives(setting: tuple[float, float], key: Any) -> np.ndarray:
        value, epsilon = setting
        learner = QLearning(
            step_size=Harmonic(10.0), epsilon=Constant(epsilon), initial_value=value
        )
        keys = jax.random.split(key, case.lifetimes)
        return live(learner, case.tasks, keys, episodes=EPISODES).returns

    grid = list(itertools.product(INITIAL_VALUES, EPSILONS))
    best = max(grid, key=lambda setting: lives(setting, key_tune).mean())
    return dict(zip(("initial_value", "epsilon"), best, strict=True)), lives(best, key_report)


def levels(case: Case) -> dict[str, float]:
    """Exact mean returns per episode at random and of the optimum."""

    def both(task: FiniteTask) -> tuple[jax.Array, jax.Array]:
        return policy_return(task, uniform_policy(task)), optimal_return(task)

    many = case.tasks.initial.ndim == 2
    found = jax.jit(jax.vmap(both) if many else both)(case.tasks)
    random, best = (round(float(np.mean(each)), 4) for each in found)
    return {"random": random, "optimum": best}


def measure(agent: Agent, case: Case, seed: int) -> dict[str, Any]:
    """One row."""
    num_states, num_actions = case.tasks.transition.shape[-3:-1]
    learner = agent.learner_for(num_states, num_actions)
    keys = jax.random.split(jax.random.key(seed), case.lifetimes)
    start = time.perf_counter()
    ours = live(learner, case.tasks, keys, episodes=EPISODES).returns
    seconds = time.perf_counter() - start
    fresh = BeliefQ(jax.random.key(seed), config=learner.config, prior=learner.prior)
    rule = live(fresh, case.tasks, keys, episodes=EPISODES).returns
    setting, theirs = tuned_q_learning(case, seed + 1)
    exact = levels(case)
    say(
        f"{case.name}: random {exact['random']}, agent {ours[:, :5].mean():.3f} in 1-5, "
        f"{ours[:, 10:].mean():.3f} in 11-20, untrained {rule[:, 10:].mean():.3f}, "
        f"Q-learning {theirs[:, 10:].mean():.3f}, "
        f"optimum {exact['optimum']} ({seconds:.1f} s)"
    )
    return {
        "states": num_states,
        "actions": num_actions,
        "lifetimes": case.lifetimes,
        "family_prior": learner.prior is not None,
        "levels": exact,
        "mean_return": blocks(
            {"agent": ours, "untrained rule": rule, "Q-learning, tuned here": theirs}
        ),
        "q_learning": setting,
        "agent_seconds_with_compilation": round(seconds, 1),
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agent", default="universal", help="folder or name of a shipped agent")
    parser.add_argument("--lifetimes", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--taxi", action="store_true", help="Taxi-v4 too (500 states: minutes)")
    parser.add_argument("--only", default="", help="rows with this in their name")
    options = parser.parse_args()
    agent = metaql.load(options.agent)
    if not isinstance(agent, Agent):
        parser.error("--agent must be one of BeliefQ: its planner is measured without its weights")
    found = {}
    for case in cases(options.lifetimes, options.seed, options.taxi):
        if options.only in case.name:
            found[case.name] = measure(agent, case, options.seed)
    about = {"name": options.agent, "env_steps": agent.card.get("env_steps")}
    emit("one_set_of_weights", seed=options.seed, agent=about, episodes=EPISODES, tasks=found)


if __name__ == "__main__":
    main()
