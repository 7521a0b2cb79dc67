"""FrozenLake: the meta-learned agent beside what starts from nothing, and beside what knows more.

Protocol, fixed beforehand:

- ``default``: Gymnasium's own 4x4 map (in no split), lifetimes of 20 episodes, every learner in the
  lifetime loop; success per block of episodes with 95% bootstrap intervals over lifetimes, and mean
  regret per episode against the exact optimum.
- ``held-out``: maps of the test split, drawn with Gymnasium's probabilities, several lifetimes each;
  in episodes 11-20 the score (agent - non-adaptive) / (optimum - non-adaptive) of sums over maps,
  bootstrap over maps. The policy that is best without adapting (optimal for the average of 2,000
  training maps) and the optimum are evaluated exactly on the same maps.
- ``placebo``: the same, each lifetime acting on the memory of a lifetime in another map.

"Untrained rule" is the agent's planner and family prior with fresh weights. The scale of
"mean + c * std" was chosen on validation maps (``--tune``).

    python benchmarks/frozen_lake.py --agent frozen_lake
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import jax
import numpy as np
from _common import blocks, emit, informed, say, uninformed

import metaql
from metaql.evaluation.compare import baselines
from metaql.evaluation.intervals import Interval, mean_interval, normalised_score
from metaql.meta.agent import Agent
from metaql.meta.lifetime import live
from metaql.policy.beliefq import BeliefQ
from metaql.qlearning import MeanStdPlanner
from metaql.tasks.exact import non_adaptive_policy, optimal_return, policy_return
from metaql.tasks.families.frozen_lake import FrozenLake
from metaql.tasks.finite import FiniteTask
from metaql.types import Learner

EPISODES = 20
AGENT, UNTRAINED = "meta-learned agent", "untrained rule, same family prior"
SCALES = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3)
SCALE = 0.01
"""c of mean + c * std: the best of `SCALES` in episodes 6-20 of 128 validation maps."""


def mean_std(scale: float) -> MeanStdPlanner:
    """Posterior mean plus ``scale`` deviations, with the prior of uninformed posterior sampling."""
    return MeanStdPlanner(
        scale=scale,
        gamma=0.99,
        transition_prior=1 / 16,
        ending_prior=1 / 16,
        reward_mean=0.1,
        reward_count=0.2,
        reward_std=0.3,
    )


def tune(family: FrozenLake, seed: int) -> dict[str, float]:
    """Success in episodes 6-20 of 128 validation maps for every scale."""
    lakes = family.tasks(jax.random.key(seed), 128, "validation")
    keys = jax.random.split(jax.random.key(seed + 1), 128)
    found = {}
    for scale in SCALES:
        returns = live(mean_std(scale), lakes, keys, episodes=EPISODES).returns
        found[str(scale)] = round(float(returns[:, 5:].mean()), 4)
        say(f"mean + {scale} * std: {found[str(scale)]}")
    return found


def untrained(agent: Agent, num_states: int, num_actions: int) -> BeliefQ:
    """The agent's planner and prior with fresh weights."""
    prior = agent.learner_for(num_states, num_actions).prior
    return BeliefQ(jax.random.key(0), config=agent.learner.config, prior=prior)


def learners(agent: Agent, family: FrozenLake, task: FiniteTask) -> dict[str, Learner]:
    """Every row of the table."""
    num_states, num_actions = task.transition.shape[:2]
    scratch = baselines(task)
    return {
        AGENT: agent.learner_for(num_states, num_actions),
        UNTRAINED: untrained(agent, num_states, num_actions),
        "PSRL, informed (true prior)": informed(family),
        "Q-learning, optimistic, tuned": scratch["Q-learning, optimistic, tuned"],
        "Q-learning, zero start": scratch["Q-learning, zero start"],
        "UCBVI": scratch["UCBVI"],
        "PSRL, uninformed": uninformed(1 / 16, 0.1, 0.2),
        "mean + c * std, uninformed": mean_std(SCALE),
    }


def on_default(agent: Agent, family: FrozenLake, policy: Any, runs: int, seed: int) -> Any:
    """Gymnasium's own map."""
    task = family.default()
    best = float(optimal_return(task))
    returns, seconds = {}, {}
    for index, (name, learner) in enumerate(learners(agent, family, task).items()):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), index), runs)
        start = time.perf_counter()
        returns[name] = live(learner, task, keys, episodes=EPISODES).returns
        seconds[name] = round(time.perf_counter() - start, 1)
        say(f"{name}: {returns[name][:, 10:].mean():.3f} in 11-20 ({seconds[name]} s)")
    return {
        "runs": runs,
        "success": blocks(returns),
        "regret_per_episode": {
            name: np.round(best - rows.mean(0), 4).tolist() for name, rows in returns.items()
        },
        "levels": {
            "best non-adaptive policy": round(float(policy_return(task, policy)), 4),
            "optimum": round(best, 4),
        },
        "seconds_with_compilation": seconds,
    }


def on_held_out(
    agent: Agent, family: FrozenLake, policy: Any, maps: int, lifetimes: int, seed: int
) -> Any:
    """Maps of the test split, and the placebo on them."""
    key_maps, key_lives = jax.random.split(jax.random.key(seed))
    lakes = family.tasks(key_maps, maps, "test")
    floor = np.asarray(jax.vmap(policy_return, in_axes=(0, None))(lakes, policy))
    ceiling = np.asarray(jax.vmap(optimal_return)(lakes))
    # Tiled, so that the neighbour whose memory the placebo acts on lives in another map.
    many = jax.tree.map(lambda x: np.tile(x, (lifetimes, *[1] * (x.ndim - 1))), lakes)
    num_states, num_actions = lakes.transition.shape[1:3]
    ours = agent.learner_for(num_states, num_actions)
    cases: dict[str, tuple[Learner, bool]] = {
        AGENT: (ours, False),
        "placebo": (ours, True),
        UNTRAINED: (untrained(agent, num_states, num_actions), False),
        "PSRL, informed (true prior)": (informed(family), False),
        "Q-learning, optimistic, tuned": (
            baselines(family.default())["Q-learning, optimistic, tuned"],
            False,
        ),
    }
    found = {}
    for index, (name, (learner, shuffle)) in enumerate(cases.items()):
        # Learners that plan for seconds per lifetime get two lifetimes per map; the maps are all.
        own = min(lifetimes, 2) if getattr(learner, "plans_between_episodes", False) else lifetimes
        keys = jax.random.split(jax.random.fold_in(key_lives, index), maps * own)
        tasks = jax.tree.map(lambda x, own=own: x[: maps * own], many)
        lived = live(learner, tasks, keys, episodes=EPISODES, shuffle=shuffle)
        rows = lived.returns.reshape(own, maps, EPISODES).mean(0)
        late = rows[:, 10:].mean(1)
        found[name] = {
            "lifetimes_per_map": own,
            "success_11-20": _rounded(mean_interval(late)),
            "score_11-20": _rounded(normalised_score(late, floor, ceiling)),
            "regret_per_episode": np.round((ceiling[:, None] - rows).mean(0), 4).tolist(),
        }
        say(f"{name}: {found[name]['score_11-20']}")
    return {
        "maps": maps,
        "distinct_maps": len(np.unique(np.asarray(lakes.termination)[:, 0, 0, :], axis=0)),
        "levels": {
            "best non-adaptive policy": round(float(floor.mean()), 4),
            "optimum": round(float(ceiling.mean()), 4),
        },
        "learners": found,
    }


def _rounded(interval: Interval) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in interval._asdict().items()}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agent", default="frozen_lake", help="folder or name of a shipped agent")
    parser.add_argument("--runs", type=int, default=400, help="lifetimes on Gymnasium's own map")
    parser.add_argument("--maps", type=int, default=100)
    parser.add_argument("--lifetimes", type=int, default=8, help="per held-out map")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tune", action="store_true", help="only choose c, on validation maps")
    options = parser.parse_args()
    family = FrozenLake()
    if options.tune:
        emit("frozen_lake_tune", seed=options.seed, mean_std=tune(family, options.seed))
        return
    agent = metaql.load(options.agent)
    if not isinstance(agent, Agent):
        parser.error("--agent must be one of BeliefQ: its planner is measured without its weights")
    seen = family.tasks(jax.random.key(options.seed), 2_000, "train")
    policy = jax.jit(non_adaptive_policy)(seen)
    held_out = on_held_out(agent, family, policy, options.maps, options.lifetimes, options.seed + 1)
    default = on_default(agent, family, policy, options.runs, options.seed)
    about = {"name": options.agent, "env_steps": agent.card.get("env_steps")}
    emit("frozen_lake", seed=options.seed, agent=about, default=default, held_out=held_out)


if __name__ == "__main__":
    main()
