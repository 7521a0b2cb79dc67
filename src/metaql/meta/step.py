"""One iteration of meta-training: renew some lifetimes, live on, measure the loss, update the weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from metaql.embedding.statistics import Statistics
from metaql.meta.config import MetaTrainConfig
from metaql.meta.lifetime import Life, begin
from metaql.meta.objective import Losses, meta_loss
from metaql.meta.rollout import Segments, live_segments
from metaql.policy.beliefq import BeliefQ, task_discount
from metaql.tasks.exact import Answers, answers_to
from metaql.tasks.finite import FiniteTask
from metaql.types import PRNGKey


class Population(NamedTuple):
    """N lifetimes under way, their tasks and the exact answers to them."""

    lives: Life
    tasks: FiniteTask
    answers: Answers


class TrainState(NamedTuple):
    """Everything a run needs to go on: what a checkpoint holds."""

    weights: BeliefQ
    """Trained arrays (None elsewhere)."""
    optimizer: Any
    populations: tuple[Population, ...]
    """One for each group of families that share a shape and a prior."""
    key: PRNGKey
    iteration: Int[Array, ""]


class Progress(NamedTuple):
    """Diagnostics of one iteration."""

    reward: Float[Array, ""]
    """Mean reward per living step."""
    losses: Losses
    gradient: Float[Array, ""]
    """Norm of the gradient."""


@eqx.filter_jit
def solve(tasks: FiniteTask) -> Answers:
    """Exact answers to N tasks, each at its own discount."""
    return jax.vmap(lambda task: answers_to(task, task_discount(task.spec(1))))(tasks)


def optimizer_for(config: MetaTrainConfig) -> optax.GradientTransformation:
    """Adam with clipped gradients and a rate that warms up and then falls to a tenth."""
    updates = max(config.iterations * config.segments * config.epochs, 2)
    rate = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, min(50, updates // 10 + 1), updates, 0.1 * config.learning_rate
    )
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))


def split_weights(learner: BeliefQ) -> tuple[BeliefQ, BeliefQ]:
    """Separate what gradients train from what they do not (epsilon; the family prior is put in later)."""
    trained = jax.tree.map(eqx.is_inexact_array, learner)
    return eqx.partition(learner, eqx.tree_at(lambda model: model.epsilon, trained, replace=False))


@eqx.filter_jit
def populate(
    learner: BeliefQ, bank: FiniteTask, answers: Answers, key: PRNGKey, count: int, episodes: Any
) -> Population:
    """Begin ``count`` lifetimes in tasks drawn from the bank, with budgets drawn log-uniformly."""
    key_task, key_budget, key_life = jax.random.split(key, 3)
    index = jax.random.randint(key_task, (count,), 0, bank.initial.shape[0])
    tasks, known = jax.tree.map(lambda x: x[index], (bank, answers))
    low, high = jnp.log(episodes[0]), jnp.log(episodes[1] + 1.0)
    budget = jnp.exp(jax.random.uniform(key_budget, (count,), minval=low, maxval=high))
    lives = jax.vmap(begin, in_axes=(None, 0, 0, 0))(
        learner, tasks, jax.random.split(key_life, count), budget.astype(jnp.int32)
    )
    return Population(lives, tasks, known)


@eqx.filter_jit
def train_step(
    state: TrainState,
    group: int,
    frozen: BeliefQ,
    prior: Statistics | None,
    bank: FiniteTask,
    answers: Answers,
    config: MetaTrainConfig,
) -> tuple[TrainState, Progress]:
    """One iteration on one population.

    Args:
        state: before.
        group: which population.
        frozen: untrained part of the learner.
        prior: of the group.
        bank: tasks to draw new lifetimes from, ``[B, ...]``.
        answers: exact answers to the bank.
        config: static.
    """
    key, key_renew, key_order = jax.random.split(state.key, 3)
    population = state.populations[group]

    def learner_of(weights: BeliefQ) -> BeliefQ:
        return eqx.combine(weights, frozen).with_epsilon(config.epsilon).with_prior(prior)

    learner = learner_of(state.weights)
    fresh = populate(learner, bank, answers, key_renew, config.renewed, config.episodes)
    block = (state.iteration // len(state.populations)) % config.generations
    population = _renew(population, fresh, block * config.renewed)
    lives, data, reward = live_segments(
        learner,
        population.tasks,
        population.answers,
        population.lives,
        segments=config.segments,
        steps=config.segment_steps,
        trace=config.trace,
        episode_discount=config.episode_discount,
    )

    def update(
        carry: tuple[BeliefQ, Any], index: Int[Array, ""]
    ) -> tuple[tuple[BeliefQ, Any], tuple[Losses, Array]]:
        weights, optimizer = carry
        segment: Segments = jax.tree.map(lambda x: x[index], data)
        gradients, losses = jax.grad(
            lambda w: meta_loss(learner_of(w), segment, population.answers, config.outer_weight),
            has_aux=True,
        )(weights)
        changes, optimizer = optimizer_for(config).update(gradients, optimizer)
        norm = optax.tree.norm(gradients)
        return (eqx.apply_updates(weights, changes), optimizer), (losses, norm)

    # One update per segment of N beliefs and epoch; the order is random, so that time within the
    # iteration, which is time within lifetimes, does not become an order of learning.
    keys = jax.random.split(key_order, config.epochs)
    order = jax.vmap(lambda key: jax.random.permutation(key, config.segments))(keys).ravel()
    (weights, optimizer), (losses, norm) = jax.lax.scan(
        update, (state.weights, state.optimizer), order
    )
    populations = list(state.populations)
    populations[group] = population._replace(lives=lives)
    after = TrainState(weights, optimizer, tuple(populations), key, state.iteration + 1)
    return after, Progress(reward, jax.tree.map(jnp.mean, losses), norm.mean())


def _renew(population: Population, fresh: Population, at: Int[Array, ""]) -> Population:
    """Replace the lifetimes from index ``at`` on by fresh ones."""

    def put(old: Array, new: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), at, 0)

    def put_any(old: Array, new: Array) -> Array:
        if jnp.issubdtype(old.dtype, jax.dtypes.prng_key):
            data = put(jax.random.key_data(old), jax.random.key_data(new))
            return jax.random.wrap_key_data(data)
        return put(old, new)

    return jax.tree.map(put_any, population, fresh)
