"""Meta-train RecurrentQ from logs of several tasks, without acting in any of them.

Lifetimes are drawn from the logs and learned from off-policy: the trace of the returns is cut where who acted
did not do what the learner now would (Watkins's Q(lambda), Watkins 1989), and values of actions that the logs
do not show are held down (Kumar et al. 2020, arXiv 2006.04779).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metaql.embedding.embed import Clock
from metaql.embedding.recurrent import Note, Sight
from metaql.errors import DatasetError
from metaql.meta.loop import OnProgress
from metaql.meta.recurrent_config import RecurrentConfig
from metaql.meta.recurrent_loss import Segment
from metaql.meta.recurrent_session import RecurrentSession
from metaql.meta.recurrent_step import (
    Figures,
    RecurrentState,
    adjusted,
    optimizer_for,
    split_learner,
    stepped,
)
from metaql.meta.replay import Lifetimes, lifetimes_of, replay_loss
from metaql.policy.recurrentq import RecurrentQ
from metaql.tasks.logged import LoggedFamily, Logs
from metaql.types import PRNGKey, TaskSpec


class LoggedSession(RecurrentSession):
    """One meta-training of RecurrentQ on logs."""

    def __init__(
        self,
        family: LoggedFamily,
        config: RecurrentConfig,
        seed: int,
        run: Path | None,
        on_progress: OnProgress,
    ) -> None:
        fewest, most = int(family.logs.episodes.min()), config.episodes[1]
        if fewest < most:
            task = family.tasks[int(family.logs.episodes.argmin())]
            raise DatasetError(
                f"The log of every task needs as many episodes as a lifetime, {most}.",
                f"Task {task!r} has {fewest}.",
                "Log more, or ask for shorter lifetimes: episodes=(low, high). Without `truncations` only "
                "terminations end an episode.",
            )
        # Whole lifetimes are learned from: an iteration is so many of them.
        inner = dataclasses.replace(config, segment_steps=family.logs.longest(most))
        super().__init__(family, inner, seed, run, on_progress, asked=config)
        self.family = family
        self.logs: Logs = jax.tree.map(jnp.asarray, family.logs)
        spec = family.host.spec(1)
        self.spec = spec._replace(horizon=jnp.asarray(family.horizon, jnp.int32))

    def start(self) -> RecurrentState:
        """Fresh weights, that know the units of observations and rewards."""
        host, logs = self.family.host, self.logs
        learner = self.learner(Sight(entries=host.num_states), host.action.shape)
        zeros = jnp.zeros(len(logs.transition.reward))
        note = Note(logs.transition, Clock(zeros, zeros))
        whole = Segment(note, jnp.ones(len(zeros), bool), zeros)
        one = jax.tree.map(lambda leaf: leaf[None], whole)
        learner = adjusted(learner, one, self.config)
        return self.fresh(learner, tasks=None, lives=None)

    def longest(self, training: RecurrentState) -> int:
        """As the logs' environment declares, or was said with them."""
        return self.family.horizon

    def step(
        self, training: RecurrentState, iteration: int
    ) -> tuple[RecurrentState, dict[str, float]]:
        """Learn from lifetimes drawn from the logs."""
        after, figures = _learned(training, self.logs, self.spec, self.config)
        return after, self.row(iteration, figures)


def drawn(
    logs: Logs, spec: TaskSpec, key: PRNGKey, config: RecurrentConfig, number: int
) -> Lifetimes:
    """Lifetimes of successive episodes, of tasks that all count the same, from anywhere in their logs.

    Args:
        logs: of all tasks.
        spec: of the tasks.
        key: of tasks, numbers of episodes and where they begin.
        config: bounds of the numbers of episodes; a lifetime has up to ``segment_steps`` steps.
        number: of lifetimes.
    """
    key_task, key_budget, key_first = jax.random.split(key, 3)
    low, high = config.episodes
    task = jax.random.randint(key_task, (number,), 0, len(logs.first))
    budget = jax.random.randint(key_budget, (number,), low, high + 1)
    first = logs.first[task] + jax.random.randint(
        key_first, (number,), 0, logs.episodes[task] - budget + 1
    )
    at = jnp.asarray(logs.starts)[first][:, None] + jnp.arange(config.segment_steps)
    alive = at < jnp.asarray(logs.starts)[first + budget][:, None]
    rows = jnp.minimum(at, len(logs.transition.reward) - 1)
    seen = jax.tree.map(lambda leaf: leaf[rows], logs.transition)
    ended = (seen.terminated | seen.truncated) & alive
    episode = jnp.cumsum(ended, 1) - ended
    specs = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (number, *leaf.shape)), spec)
    return lifetimes_of(seen, alive, episode, specs._replace(episodes=budget))


@eqx.filter_jit
def _learned(
    state: RecurrentState, logs: Logs, spec: TaskSpec, config: RecurrentConfig
) -> tuple[RecurrentState, Figures]:
    """All updates of an iteration, each from lifetimes drawn anew."""
    key, key_draw = jax.random.split(state.key)
    weights, rest = split_learner(state.learner)
    tool = optimizer_for(config)
    size = config.lifetimes // config.minibatches

    def update(carry: tuple[RecurrentQ, Any], key: PRNGKey) -> tuple[Any, Array]:
        weights, optimizer = carry
        lives = drawn(logs, spec, key, config, size)

        def loss_of(weights: RecurrentQ) -> Float[Array, ""]:
            learner = eqx.combine(weights, rest)
            return replay_loss(learner, lives, config, config.conservative, cut=True, foretell=True)

        return stepped(tool, loss_of, weights, optimizer)

    keys = jax.random.split(key_draw, config.epochs * config.minibatches)
    (weights, optimizer), losses = jax.lax.scan(update, (weights, state.optimizer), keys)
    learner = eqx.combine(weights, rest)
    figures = Figures(logs.transition.reward.mean(), losses.mean(), jnp.zeros(()), learner.epsilon)
    return RecurrentState(learner, optimizer, None, None, key, state.iteration + 1), figures
