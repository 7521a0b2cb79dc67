"""Environment steps per second of meta-training, everything included.

Protocol: 256 lifetimes in parallel on ``navigation`` (25 states, 5 actions, padded); one call of
`metaql.meta.step.train_step` renews part of the lifetimes, lives ``segments * segment_steps`` steps,
plans at every step, and makes ``segments * epochs`` gradient updates. Time is measured after
compilation, best of several; compilation on its own.

    python benchmarks/meta_training_throughput.py
"""

from __future__ import annotations

import argparse
import time

import equinox as eqx
import jax
import jax.numpy as jnp
from _common import emit, say

from metaql.meta.config import MetaTrainConfig
from metaql.meta.step import (
    TrainState,
    optimizer_for,
    populate,
    solve,
    split_weights,
    train_step,
)
from metaql.policy.beliefq import BeliefQ
from metaql.tasks.families import Navigation


def measure(lifetimes: int, repeats: int, seed: int) -> dict[str, object]:
    """Best of ``repeats`` whole iterations."""
    config = MetaTrainConfig(lifetimes=lifetimes)
    key_weights, key_bank, key_start, key_train = jax.random.split(jax.random.key(seed), 4)
    weights, frozen = split_weights(BeliefQ(key_weights))
    bank = Navigation().tasks(key_bank, config.bank, "train")
    answers = solve(bank)
    learner = eqx.combine(weights, frozen)
    population = populate(learner, bank, answers, key_start, config.lifetimes, config.episodes)
    state = TrainState(
        weights=weights,
        optimizer=optimizer_for(config).init(eqx.filter(weights, eqx.is_array)),
        populations=(population,),
        key=key_train,
        iteration=jnp.zeros((), jnp.int32),
    )
    seconds = []
    for repeat in range(repeats + 1):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(train_step(state, 0, frozen, None, bank, answers, config))
        seconds.append(time.perf_counter() - start)
        say(f"{'first call' if repeat == 0 else f'repeat {repeat}'}: {seconds[-1]:.2f} s")
    best = min(seconds[1:])
    return {
        "lifetimes": lifetimes,
        "states": int(bank.transition.shape[-1]),
        "actions": int(bank.transition.shape[-2]),
        "env_steps_per_call": config.steps_per_iteration,
        "updates_per_call": config.segments * config.epochs,
        "env_steps_per_second": round(config.steps_per_iteration / best),
        "compile_seconds": round(seconds[0] - best, 2),
        "seconds": [round(each, 3) for each in seconds[1:]],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lifetimes", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = measure(options.lifetimes, options.repeats, options.seed)
    emit("meta_training_throughput", seed=options.seed, **found)
