"""Rules for bandits: UCB1, Thompson sampling and its optimistic variants.

They are learners like the others, with a bandit of its own in every state: nothing is planned for, so
in a task of one state they are what the literature means by their names.
"""

from __future__ import annotations

import abc
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy
from jaxtyping import Array, Bool, Float, Int

from metaql.qlearning.posterior import log_gamma
from metaql.qlearning.schedules import as_float, epsilon_greedy
from metaql.tasks.exact import NEVER
from metaql.types import Decision, PRNGKey, TaskSpec, Transition

UNTRIED = 1e9
"""Index of an arm that must be tried before any index means something."""


class BanditMemory(NamedTuple):
    """What the arms of every state have paid."""

    pulls: Float[Array, "S A"]
    reward_sum: Float[Array, "S A"]
    action_mask: Bool[Array, " A"]


class Arms(NamedTuple):
    """What the arms of one state have paid."""

    pulls: Float[Array, " A"]
    reward_sum: Float[Array, " A"]


class BanditLearner(eqx.Module):
    """Pulls an arm of the largest index, equals at random; subclasses say what the index is."""

    prior_mean: Float[Array, "*A"] = eqx.field(converter=as_float, default=0.5)
    """Prior mean reward: a number or ``[A]``."""
    prior_count: Float[Array, "*A"] = eqx.field(converter=as_float, default=2.0)
    """How many pulls the prior mean is worth; with rewards of 0 or 1 the default is Beta(1, 1)."""

    @abc.abstractmethod
    def index(self, key: PRNGKey, arms: Arms) -> Float[Array, " A"]:
        """The index of every arm."""

    def init(self, key: PRNGKey, spec: TaskSpec) -> BanditMemory:
        """No arm pulled."""
        nothing = jnp.zeros((spec.state_mask.shape[0], spec.action_mask.shape[0]))
        return BanditMemory(nothing, nothing, spec.action_mask)

    def act(self, key: PRNGKey, memory: BanditMemory, state: Int[Array, ""]) -> Decision:
        """The arm of the largest index; the estimate is the posterior mean."""
        key_index, key_tie = jax.random.split(key)
        arms = Arms(memory.pulls[state], memory.reward_sum[state])
        values = jnp.where(memory.action_mask, self.index(key_index, arms), NEVER)
        estimate = jnp.where(memory.action_mask, self.mean(arms), NEVER)
        return Decision(epsilon_greedy(key_tie, values, memory.action_mask), values, estimate)

    def update(self, key: PRNGKey, memory: BanditMemory, transition: Transition) -> BanditMemory:
        """Count the pull and its reward."""
        at = (transition.state, transition.action)
        return memory._replace(
            pulls=memory.pulls.at[at].add(1.0),
            reward_sum=memory.reward_sum.at[at].add(transition.reward),
        )

    def weight(self, arms: Arms) -> Float[Array, " A"]:
        """Pulls, with those that the prior is worth."""
        return self.prior_count + arms.pulls

    def mean(self, arms: Arms) -> Float[Array, " A"]:
        """Posterior mean reward of every arm (0 where neither prior nor pull says anything)."""
        total = self.prior_count * self.prior_mean + arms.reward_sum
        return total / jnp.maximum(self.weight(arms), 1e-9)


class UCB1(BanditLearner):
    """``mean + scale * sqrt(2 ln(t) / n)`` after t pulls (Auer, Cesa-Bianchi & Fischer 2002, figure 1).

    Theirs has ``scale`` 1 and ``prior_count`` 0, which tries every arm once before anything else.
    With a prior its pulls count among n, as in the baseline of Duan et al. 2016 (arXiv 1611.02779),
    where ``scale`` was tuned.
    """

    scale: Float[Array, ""] = eqx.field(converter=as_float, default=1.0)

    def index(self, key: PRNGKey, arms: Arms) -> Float[Array, " A"]:
        """Upper confidence bounds."""
        weight = self.weight(arms)
        log_pulls = jnp.log(jnp.maximum(arms.pulls.sum(), 1.0))
        bound = self.mean(arms) + self.scale * jnp.sqrt(2.0 * log_pulls / jnp.maximum(weight, 1e-9))
        return jnp.where(weight > 0, bound, UNTRIED)


class Thompson(BanditLearner):
    """Thompson sampling (Thompson 1933): the index is a draw from the posterior of the arm's mean.

    - ``optimism="mean"``: a draw below the posterior's mean counts as the mean (May, Korda, Lee &
      Leslie 2012, optimistic Bayesian sampling).
    - ``optimism="mode"``: of ``samples`` joint draws the one of the largest posterior density; the
      "optimistic Thompson sampling" behind the figures of Duan et al. 2016 (arXiv 1611.02779) is
      this, the number of draws tuned.
    """

    reward_std: Float[Array, ""] = eqx.field(converter=as_float, default=1.0)
    """Deviation of one observed reward (normal model only)."""
    reward_model: Literal["beta", "normal"] = eqx.field(static=True, default="beta")
    """``beta``: Beta(mean * count, (1 - mean) * count) for rewards in [0, 1]."""
    optimism: Literal["none", "mean", "mode"] = eqx.field(static=True, default="none")
    samples: int = eqx.field(static=True, default=1)
    """Joint draws to choose from with ``optimism="mode"``."""

    def index(self, key: PRNGKey, arms: Arms) -> Float[Array, " A"]:
        """A draw."""
        draws, log_density = jax.vmap(lambda k: self._draw(k, arms))(
            jax.random.split(key, self.samples)
        )
        draw = draws[log_density.sum(-1).argmax()]
        return jnp.maximum(draw, self.mean(arms)) if self.optimism == "mean" else draw

    def _draw(self, key: PRNGKey, arms: Arms) -> tuple[Float[Array, " A"], Float[Array, " A"]]:
        """Means drawn from the posterior, and the logarithms of their densities up to a constant."""
        weight, mean = self.weight(arms), self.mean(arms)
        if self.reward_model == "normal":
            noise = jax.random.normal(key, mean.shape)
            return mean + noise * self.reward_std / jnp.sqrt(weight), -0.5 * noise**2
        shapes = weight * jnp.stack([mean, 1.0 - mean])
        gained, missed = log_gamma(key, shapes.ravel()).reshape(shapes.shape)
        draw = jax.nn.sigmoid(gained - missed)
        density = xlogy(shapes[0] - 1.0, draw) + xlogy(shapes[1] - 1.0, 1.0 - draw)
        return draw, density
