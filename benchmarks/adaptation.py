"""RecurrentQ on tasks outside of what it was trained on: what gradient steps add to the memory.

Protocol, fixed beforehand: pendulums (`metaql.families.pendulum`), 3 episodes of 200 steps; 48 tasks beyond
the training range (heavier, lighter, other gravities) and 48 held-out ones within it. Every learner lives one
lifetime in a task, adapts, lives a second one with an empty memory, adapts on both, and lives a third. The
figures are mean returns per episode of second and third lifetime, and the difference to the memory alone in
the same tasks with the same random numbers, with a 95% interval over tasks.

- *in context*: the memory alone; nothing else adapts.
- *MQL*: gradient steps on the task's lifetimes and on 256 replayed ones of training tasks, weighed by
  propensity, held back by the effective sample size (`metaql.meta.gradient`).
- *own data alone*: the same without a replay.
- *multi-task Q*: trained without an embedding; *fine-tuned*: with gradient steps on the task's lifetimes.
- *generated head*: the embedding generates weights of the last layer; in context.
- *from scratch*: Q-learning with a replay of the task's own lifetimes (a DQN without target network, its
  layers normalised instead), from fresh weights; the first lifetime is random, later ones have epsilon 0.1.
  Its observations and returns are normalised as by who was trained on the family, which favours it.
- *Reptile*: an initialisation trained for these gradient steps (`metaql.meta.reptile`).

    python benchmarks/adaptation.py
"""

from __future__ import annotations

import argparse
import time
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from _common import emit, say
from jaxtyping import Float

import metaql
from metaql.config import build
from metaql.meta.gradient import GradientSteps, adapted_weights
from metaql.meta.recurrent_agent import RecurrentAgent
from metaql.meta.recurrent_config import RecurrentConfig
from metaql.meta.recurrent_step import split_learner
from metaql.meta.replay import Lifetimes, lived_in
from metaql.meta.reptile import train_reptile
from metaql.policy.recurrentq import RecurrentQ
from metaql.tasks.families import Pendulum

EPISODES, STEPS, REPLAYED, ROUNDS = 3, 200, 256, 3
FAMILY = Pendulum()
MQL = GradientSteps()
ALONE = GradientSteps(batch=0)
SCRATCH = GradientSteps(batch=0, steps=1000, learning_rate=1e-3, proximal=0.0)
NO_CONTEXT = {"context": False}


class Variant(NamedTuple):
    """What is trained and how it adapts."""

    train: dict[str, Any]
    how: GradientSteps | None
    scratch: bool = False
    """Fresh weights: of what was trained it takes the units alone."""
    reptile: bool = False


VARIANTS = {
    "in context": Variant({}, None),
    "MQL": Variant({}, MQL),
    "own data alone": Variant({}, ALONE),
    "multi-task Q": Variant(NO_CONTEXT, None),
    "multi-task Q, fine-tuned": Variant(NO_CONTEXT, ALONE),
    "from scratch": Variant(NO_CONTEXT, SCRATCH, scratch=True),
    "generated head": Variant({"generated": True}, None),
    "Reptile": Variant(NO_CONTEXT, ALONE, reptile=True),
}


class Place(NamedTuple):
    """Tasks, and keys of every lifetime in them."""

    tasks: Any
    keys: list[Any]


def place(beyond: bool, number: int) -> Place:
    """Tasks of the test split, within the training range or beyond."""
    tasks = Pendulum(beyond=beyond).tasks(jax.random.key(1_000), number, "test")
    keys = [jax.random.split(jax.random.key(100 + i), number) for i in range(ROUNDS)]
    return Place(tasks, keys)


@eqx.filter_jit
def live_all(learners: RecurrentQ, tasks: Any, keys: Any) -> Lifetimes:
    """A lifetime of every learner in its own task, ``[N, ...]``."""

    def one(learner: RecurrentQ, task: Any, key: Any) -> Lifetimes:
        alone = jax.tree.map(lambda leaf: leaf[None], task)
        return lived_in(learner, alone, key[None], episodes=EPISODES, length=EPISODES * STEPS)

    lived = eqx.filter_vmap(one, in_axes=(eqx.if_array(0), 0, 0))(learners, tasks, keys)
    return jax.tree.map(lambda leaf: leaf[:, 0], lived)


@eqx.filter_jit
def adapt_all(
    learner: RecurrentQ,
    own: Lifetimes,
    replay: Lifetimes,
    keys: Any,
    settings: tuple[RecurrentConfig, GradientSteps],
) -> RecurrentQ:
    """Weights for every task, from its own lifetimes ``[N, m, ...]``."""

    def one(own: Lifetimes, key: Any) -> RecurrentQ:
        return adapted_weights(learner, own, replay, key, *settings)[0]

    return eqx.filter_vmap(one)(own, keys)


def exploring(learner: RecurrentQ, epsilon: float) -> RecurrentQ:
    """With this share of random actions."""
    return eqx.tree_at(lambda q: q.epsilon, learner, jnp.full_like(learner.epsilon, epsilon))


def rounds(
    agent: RecurrentAgent, where: Place, variant: Variant, replay: Lifetimes
) -> Float[np.ndarray, "R N"]:
    """Mean return per episode of each lifetime in each task."""
    config = build(RecurrentConfig, agent.card["train"], "card")
    count, first = len(where.keys[0]), agent.learner
    if variant.scratch:
        fresh = RecurrentQ(
            jax.random.key(9), sight=first.sight, actions=agent.actions, sizes=first.sizes
        )
        first = eqx.combine(split_learner(fresh)[0], split_learner(first)[1])
        first = exploring(first, 1.0)
    learners = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)) if eqx.is_array(leaf) else leaf,
        first,
    )
    lived: list[Lifetimes] = []
    for number, keys in enumerate(where.keys):
        if number and variant.how is not None:
            own = jax.tree.map(lambda *leaves: jnp.stack(leaves, 1), *lived)
            draws = jax.random.split(jax.random.key(50 + number), count)
            learners = adapt_all(first, own, replay, draws, (config, variant.how))
            learners = exploring(learners, 0.1) if variant.scratch else learners
        lived.append(live_all(learners, where.tasks, keys))
    return np.stack([each.returns(EPISODES).mean(1) for each in lived])


def compared(found: Float[np.ndarray, " N"], usual: Float[np.ndarray, " N"]) -> dict[str, float]:
    """Mean, and the paired difference with half its 95% interval."""
    apart = found - usual
    half = 1.96 * apart.std(ddof=1) / len(apart) ** 0.5
    rows = {"mean": found.mean(), "difference": apart.mean(), "half interval": half}
    return {name: round(float(value), 1) for name, value in rows.items()}


def trained(variant: Variant, seed: int, env_steps: int) -> RecurrentAgent:
    """Meta-train what a variant needs."""
    settings = {**variant.train, "env_steps": env_steps, "episodes": (EPISODES, EPISODES)}
    if variant.reptile:
        config = RecurrentConfig(**settings, segment_steps=EPISODES * STEPS)
        return train_reptile(FAMILY, config, ALONE, seed=seed)
    return metaql.meta_train(FAMILY, agent="recurrent", seed=seed, segment_steps=100, **settings)


def main() -> None:
    """Train, adapt, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--env-steps", type=int, default=6_000_000)
    parser.add_argument("--tasks", type=int, default=48, help="of each kind")
    parser.add_argument(
        "--only", default="", help="variants with this in their name, and in context"
    )
    options = parser.parse_args()
    agents: dict[str, RecurrentAgent] = {}
    usual: dict[str, Float[np.ndarray, "R N"]] = {}
    report: dict[str, Any] = {}
    for name, variant in VARIANTS.items():
        if options.only not in name and name != "in context":
            continue
        start = time.perf_counter()
        what = f"{variant.train}, reptile={variant.reptile}"
        if what not in agents:
            agents[what] = trained(variant, options.seed, options.env_steps)
        agent = agents[what]
        tasks = FAMILY.tasks(jax.random.key(7), REPLAYED, "train")
        keys = jax.random.split(jax.random.key(8), REPLAYED)
        replay = lived_in(agent.learner, tasks, keys, episodes=EPISODES, length=EPISODES * STEPS)
        for where, beyond in (("beyond", True), ("held out", False)):
            found = rounds(agent, place(beyond, options.tasks), variant, replay)
            usual.setdefault(where, found)
            rows = [compared(*pair) for pair in zip(found[1:], usual[where][1:], strict=True)]
            report.setdefault(name, {})[where] = rows
            say(f"{name}, {where}: {rows}, {time.perf_counter() - start:.0f} s")
        jax.clear_caches()  # every program holds mappings of memory, and a process may have so many
    emit("adaptation", seed=options.seed, tasks=options.tasks, rows=report)


if __name__ == "__main__":
    main()
