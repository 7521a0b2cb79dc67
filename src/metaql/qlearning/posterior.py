"""Posterior sampling: believe one sampled task for an episode and act optimally in it."""

from __future__ import annotations

from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metaql.qlearning.planning import Clock, Counts, EpisodePlanner, Plan, plan_every_step
from metaql.qlearning.schedules import as_float
from metaql.tasks.exact import Model
from metaql.types import PRNGKey


class PSRL(EpisodePlanner):
    """Posterior sampling for reinforcement learning (Strens 2000; Osband, Russo & Van Roy 2013).

    Before every episode a task is drawn from the posterior and planned for by backward induction.

    - Next states: Dirichlet with ``transition_prior``.
    - Terminations, without ``termination_prior``: one more outcome of the same Dirichlet, with
      pseudo-count ``ending_prior``; where the end was met does not matter, so it fits any task.
      With it: a Beta for each *arrival* state, whichever pair led there; for tasks in which certain
      states end the episode (holes), and much faster there.
    - Mean rewards: normal with known deviation, or Beta for rewards in [0, 1].

    The priors are arrays, so an informed agent is this class with other fields.

    With several ``samples`` it is optimistic posterior sampling (OPSRL of Duan et al. 2016, arXiv
    1611.02779, and of Osband's TabulaRL): each drawn task is planned for, and every Q is the
    largest of their plans.
    """

    transition_prior: Float[Array, "*S"] = eqx.field(converter=as_float, default=1.0)
    """Dirichlet pseudo-count of each next state: a number or ``[S, A, S]``; 0: impossible."""
    ending_prior: Float[Array, ""] = eqx.field(converter=as_float, default=1.0)
    """Dirichlet pseudo-count of a termination; unused with ``termination_prior``."""
    termination_prior: Float[Array, "S 2"] | None = None
    """Pseudo-counts (ended, went on) of arriving in each state."""
    reward_mean: Float[Array, "*S"] = eqx.field(converter=as_float, default=0.0)
    """Prior mean reward: a number or ``[S, A]``."""
    reward_count: Float[Array, "*S"] = eqx.field(converter=as_float, default=1.0)
    """How many observed rewards the prior mean is worth."""
    reward_std: Float[Array, ""] = eqx.field(converter=as_float, default=1.0)
    """Deviation of one observed reward (normal model only)."""
    reward_model: Literal["normal", "beta"] = eqx.field(static=True, default="normal")
    """``beta``: Beta(mean * count, (1 - mean) * count) for rewards in [0, 1]."""

    samples: int = eqx.field(static=True, default=1)
    """Tasks drawn before every episode."""

    def plan(self, key: PRNGKey, counts: Counts, clock: Clock) -> Plan:
        """The largest Q of the drawn tasks, and Q in the mean task."""
        keys = key[None] if self.samples == 1 else jax.random.split(key, self.samples)
        drawn = jax.vmap(lambda k: self._draw(k, counts, clock))(keys)
        mean = self._mean(counts, clock)
        models = jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), drawn, mean)
        plans = jax.vmap(lambda model: plan_every_step(model, self.horizon))(models)
        return Plan(plans[:-1].max(0), plans[-1])

    def _draw(self, key: PRNGKey, counts: Counts, clock: Clock) -> Model:
        """A model from the posterior."""
        key_gamma, key_normal = jax.random.split(key)
        log_gammas = _draw_log_gammas(key_gamma, self._gamma_shapes(counts, clock))
        noise = jax.random.normal(key_normal, counts.reward_sum.shape)
        return self._assemble(log_gammas, counts, clock, noise)

    def _mean(self, counts: Counts, clock: Clock) -> Model:
        """The posterior's mean."""
        log_means = jax.tree.map(jnp.log, self._gamma_shapes(counts, clock))
        return self._assemble(log_means, counts, clock, jnp.zeros_like(counts.reward_sum))

    def _gamma_shapes(self, counts: Counts, clock: Clock) -> _Gammas:
        """Prior plus counts: the parameters of every Dirichlet and Beta."""
        prior = self.transition_prior * clock.state_mask
        if self.termination_prior is None:
            ended = (self.ending_prior + counts.endings.sum(-1))[..., None]
            arrived = prior + counts.arrivals - counts.endings
            outcomes, terminations = jnp.concatenate([arrived, ended], -1), None
        else:
            outcomes = prior + counts.arrivals
            ended = counts.endings.sum((0, 1))
            went_on = counts.arrivals.sum((0, 1)) - ended
            terminations = self.termination_prior + jnp.stack([ended, went_on], -1)
        if self.reward_model == "normal":
            return _Gammas(outcomes, terminations, None)
        gained = self.reward_mean * self.reward_count + counts.reward_sum
        missed = (1.0 - self.reward_mean) * self.reward_count + counts.visits - counts.reward_sum
        return _Gammas(outcomes, terminations, jnp.stack([gained, missed], -1))

    def _assemble(
        self, gammas: _Gammas, counts: Counts, clock: Clock, noise: Float[Array, "S A"]
    ) -> Model:
        """The model in which every probability is a share of (the exponentials of) ``gammas``."""
        num_states = clock.state_mask.shape[0]
        onward = _shares(gammas.outcomes)[..., :num_states]
        if gammas.terminations is not None:
            onward = onward * _shares(gammas.terminations)[:, 1]
        if gammas.rewards is not None:
            return Model(_shares(gammas.rewards)[..., 0], onward, clock.action_mask)
        seen = self.reward_count + counts.visits
        mean = (self.reward_count * self.reward_mean + counts.reward_sum) / seen
        return Model(mean + noise * self.reward_std / jnp.sqrt(seen), onward, clock.action_mask)


class _Gammas(NamedTuple):
    """Shapes of gamma variables or their logarithms; shares of them are Dirichlet and Beta."""

    outcomes: Float[Array, "S A outcomes"]
    terminations: Float[Array, "S 2"] | None
    rewards: Float[Array, "S A 2"] | None


def _draw_log_gammas(key: PRNGKey, shapes: _Gammas) -> _Gammas:
    """Logarithms of independent gamma variables, drawn in one loop; -inf where the shape is 0."""
    leaves, treedef = jax.tree.flatten(shapes)
    flat = log_gamma(key, jnp.concatenate([leaf.ravel() for leaf in leaves]))
    parts = jnp.split(flat, np.cumsum([leaf.size for leaf in leaves])[:-1])
    drawn = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(treedef, drawn)


def log_gamma(key: PRNGKey, shape: Float[Array, " K"]) -> Float[Array, " K"]:
    """Logarithms of independent Gamma(shape, 1) variables; -inf where the shape is not above 0.

    Marsaglia & Tsang 2000 for shape + 1, then ``Gamma(a) = Gamma(a + 1) * U^(1/a)``, in logarithms:
    a Beta(0.01, 0.01) would otherwise come out 0/0. Rejected entries are drawn again, all in one
    vector loop: ``jax.random.gamma`` goes through the entries one by one on CPU (0.7 ms for 1,200,
    2.4 s to compile).
    """
    d = jnp.maximum(shape, 0.0) + 2.0 / 3.0  # of a negative one nothing would ever be accepted
    c = 1.0 / jnp.sqrt(9.0 * d)

    def pending(carry: tuple[Array, Array, Array]) -> Array:
        return ~carry[2].all()

    def propose(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        key, accepted, done = carry
        key, key_x, key_u = jax.random.split(key, 3)
        x = jax.random.normal(key_x, shape.shape)
        log_v = 3.0 * jnp.log1p(jnp.maximum(c * x, -1.0))
        bound = 0.5 * x**2 + d * (1.0 - jnp.exp(log_v) + log_v)
        fits = -jax.random.exponential(key_u, shape.shape) < bound
        return key, jnp.where(done, accepted, jnp.log(d) + log_v), done | fits

    key_loop, key_boost = jax.random.split(key)
    start = (key_loop, jnp.zeros_like(shape), jnp.zeros(shape.shape, bool))
    accepted = jax.lax.while_loop(pending, propose, start)[1]
    positive = shape > 0
    boost = -jax.random.exponential(key_boost, shape.shape) / jnp.where(positive, shape, 1.0)
    return jnp.where(positive, accepted + boost, -jnp.inf)


def _shares(log_weights: Float[Array, "*lead K"]) -> Float[Array, "*lead K"]:
    """Each weight's share of its row; a row without any weight (padding) shares nothing."""
    largest = log_weights.max(-1, keepdims=True)
    weights = jnp.exp(log_weights - jnp.where(jnp.isfinite(largest), largest, 0.0))
    return weights / jnp.maximum(weights.sum(-1, keepdims=True), 1.0)
