"""Environment steps per second of meta-training, everything included.

BeliefQ: 256 lifetimes in parallel on ``navigation`` (25 states, 5 actions, padded); one call of
`metaql.meta.step.train_step` renews part of the lifetimes, lives ``segments * segment_steps`` steps,
plans at every step, and makes ``segments * epochs`` gradient updates. Time is measured after
compilation, best of several; compilation on its own.

RecurrentQ (GRU-64) on ``grid_navi``: calls of `metaql.meta_train` as a user makes them, with its default
settings and with one epoch instead of two; the second half of the iterations counts.
``first_update_seconds`` is from the call to the end of the first iteration, compilation and all.

    python benchmarks/meta_training_throughput.py
    python benchmarks/meta_training_throughput.py --agent recurrent
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from _common import emit, say

import metaql
from metaql.meta.config import MetaTrainConfig
from metaql.meta.recurrent_config import RecurrentConfig
from metaql.meta.step import (
    TrainState,
    optimizer_for,
    populate,
    solve,
    split_weights,
    train_step,
)
from metaql.policy.beliefq import BeliefQ
from metaql.tasks.families import GridNavi, Navigation


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


def measure_recurrent(settings: dict[str, Any], seed: int) -> dict[str, object]:
    """One short meta-training, timed from outside."""
    config = RecurrentConfig(segment_steps=60, **settings)
    steps = config.steps_per_iteration
    config = dataclasses.replace(config, env_steps=ITERATIONS * steps)
    start, stamps = time.perf_counter(), []

    def note(stage: str, done: float, figures: object) -> None:
        del stage, done
        if figures:
            stamps.append(time.perf_counter() - start)

    metaql.meta_train(
        GridNavi(shared=True), agent="recurrent", config=config, seed=seed, on_progress=note
    )
    half = len(stamps) // 2
    rate = (len(stamps) - 1 - half) * steps / (stamps[-1] - stamps[half])
    say(f"{settings}: {rate:.0f} steps/s, first update after {stamps[0]:.1f} s")
    return {
        "settings": settings,
        "env_steps_per_second": round(rate),
        "updates_per_iteration": config.epochs * config.minibatches,
        "first_update_seconds": round(stamps[0], 1),
    }


ITERATIONS = 200
"""Of RecurrentQ, in one measurement."""
FAST: dict[str, Any] = {"epochs": 1}
"""Settings for many steps a second; each of them teaches less."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agent", choices=("belief", "recurrent"), default="belief")
    parser.add_argument("--lifetimes", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.agent == "recurrent":
        rows = [measure_recurrent(settings, options.seed) for settings in ({}, FAST)]
        emit("meta_training_throughput", seed=options.seed, agent="recurrent", rows=rows)
    else:
        found = measure(options.lifetimes, options.repeats, options.seed)
        emit("meta_training_throughput", seed=options.seed, **found)
