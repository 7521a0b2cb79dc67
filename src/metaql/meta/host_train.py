"""Meta-train RecurrentQ on simulators that are stepped on the host.

An iteration lives whole lifetimes and then cuts them into segments: nothing of a simulator has to be kept
between two iterations, so a resumed run goes on to the same result.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from metaql.embedding.recurrent import Sight
from metaql.meta.host_lives import HostLives, live_in_simulators
from metaql.meta.loop import OnProgress
from metaql.meta.recurrent_config import RecurrentConfig
from metaql.meta.recurrent_loss import Segment
from metaql.meta.recurrent_session import RecurrentSession
from metaql.meta.recurrent_step import Figures, RecurrentState, exploring, improved
from metaql.meta.replay import returns_of
from metaql.policy.recurrentq import Context
from metaql.tasks.crowd import Crowd
from metaql.tasks.simulators import SimulatorFamily

_PARTS = 2
"""Parts of the lifetimes: the simulators of one answer while the learner decides for the other."""

_OPENED = 64
"""Training tasks, at most, that are asked for their time limit before training."""


class HostSession(RecurrentSession):
    """One meta-training of RecurrentQ on simulators."""

    def __init__(
        self,
        family: SimulatorFamily,
        config: RecurrentConfig,
        seed: int,
        run: Path | None,
        on_progress: OnProgress,
    ) -> None:
        self.simulators = family
        crowd = family.crowd("train", range(min(len(family.tasks["train"]), _OPENED)))
        self.host, self.horizon = crowd.hosts[0], int(crowd.horizon.max())
        self.segments = -(-self.horizon * config.episodes[1] // config.segment_steps)
        # In segments, as learning sees them: an iteration is so many of them.
        inner = dataclasses.replace(
            config,
            lifetimes=config.lifetimes * self.segments,
            minibatches=config.minibatches * self.segments,
        )
        super().__init__(family, inner, seed, run, on_progress, asked=config)

    def start(self) -> RecurrentState:
        """Fresh weights."""
        sight = Sight(entries=self.host.num_states)
        return self.fresh(self.learner(sight, self.host.action.shape), tasks=None, lives=None)

    def longest(self, training: RecurrentState) -> int:
        """As the environments declare."""
        return self.horizon

    def step(
        self, training: RecurrentState, iteration: int
    ) -> tuple[RecurrentState, dict[str, float]]:
        """Live whole lifetimes, then learn from their segments."""
        learner = exploring(training.learner, training.iteration, self.config)
        crowds, episodes, seed = self._chosen(iteration)
        lives = live_in_simulators(
            learner,
            crowds,
            episodes,
            seed,
            length=self.segments * self.config.segment_steps,
            every=self.config.segment_steps,
        )
        after, figures = _learned(training._replace(learner=learner), lives, self.config)
        return after, self.row(iteration, figures)

    def _chosen(self, iteration: int) -> tuple[tuple[Crowd, ...], tuple[np.ndarray, ...], int]:
        """Tasks and lengths of the lifetimes of one iteration: a function of it and the seed alone."""
        rng = np.random.default_rng([self.seed, iteration])
        count, number = self.asked.lifetimes, len(self.simulators.tasks["train"])
        rounds = [rng.permutation(number) for _ in range(-(-count // number))]
        chosen = np.concatenate(rounds)[:count]
        low, high = self.asked.episodes
        budgets = rng.integers(low, high + 1, count).astype(np.int32)
        parts = np.array_split(np.arange(count), min(_PARTS, count))
        crowds = self.simulators.crowds("train", [chosen[part].tolist() for part in parts])
        return crowds, tuple(budgets[part] for part in parts), int(rng.integers(2**31))


@eqx.filter_jit
def _learned(
    state: RecurrentState, lives: HostLives, config: RecurrentConfig
) -> tuple[RecurrentState, Figures]:
    """What `recurrent_step` does, after the living."""
    key, key_learn = jax.random.split(state.key)
    lived = segments_of(lives, config)
    learner, optimizer, figures = improved(state.learner, state.optimizer, lived, key_learn, config)
    return RecurrentState(learner, optimizer, None, None, key, state.iteration + 1), figures


def segments_of(lives: HostLives, config: RecurrentConfig) -> tuple[Context, Segment]:
    """Lifetimes ``[N, T]`` cut into segments ``[N B, T / B]``, with the memory at the start of each."""
    life, parts = lives.lifetimes, lives.hidden.shape[1]
    targets = jax.vmap(returns_of, in_axes=(0, 0, 0, None))
    target = targets(life, lives.best, lives.short, config)
    segments = Segment(life.note, life.alive, target)

    def cut(leaf: Any) -> Any:
        return leaf.reshape(leaf.shape[0] * parts, leaf.shape[1] // parts, *leaf.shape[2:])

    cuts = jax.tree.map(cut, segments)
    clock = jax.tree.map(lambda leaf: leaf[:, 0], cuts.note.clock)
    spec = jax.tree.map(lambda leaf: jnp.repeat(leaf, parts, axis=0), life.spec)
    hidden, counts = jax.tree.map(
        lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), (lives.hidden, lives.counts)
    )
    return Context(hidden, clock, spec, counts), cuts
