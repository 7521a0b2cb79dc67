"""What is believed of a task before its first step: the prior over its model's own hyper-parameters.

A finite task is described by a few numbers that say how it is made: how spread out the successors of a
pair are, where an untried action may lead, how rewards vary between pairs and around their means, how
often and how surely things end, and whether rewards and ends belong to what was done or to where it
led. None of them is known of a new task; each has a prior here, sharp where a family agrees and broad
where it does not, and `metaql.embedding.evidence` updates it with every step.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from metaql.embedding.arms import ArmsPrior, no_arms
from metaql.embedding.profiles import PROFILES

SPREADS = (0.01, 0.1, 0.5, 1.5, 4.0, 10.0, 30.0, 200.0)
"""Candidate concentrations of the Dirichlet over successors: near 0 one visit tells all."""
END_SPREADS = (0.02, 0.3, 2.0)
"""Candidate concentrations of the Beta over terminations."""

BASES = ("plain", "stride")
"""What a pair's successors are like before they are known: drawn from `Hyperprior.origins`, or where the
action's strides lead (`metaql.embedding.strides`)."""


class RewardPrior(NamedTuple):
    """Normal rewards: means vary between indices around a common mean, and rewards around each.

    Every value counts as that many pairs (or states, or repeated visits) already seen. Values are in
    reward units, squared for variances, and means from the zero of `metaql.embedding.rewards.Scale`.
    """

    mean: Float[Array, ""]
    mean_weight: Float[Array, ""]
    between: Float[Array, ""]
    """Variance of means between indices."""
    between_weight: Float[Array, ""]
    noise: Float[Array, ""]
    """Variance of rewards around the mean of their index."""
    noise_weight: Float[Array, ""]


class EndPrior(NamedTuple):
    """Terminations: Beta-distributed between indices around a common rate."""

    rate: Float[Array, ""]
    rate_weight: Float[Array, ""]
    log_spread: Float[Array, " D"]
    """Log-weights of `END_SPREADS`."""


class Hyperprior(eqx.Module):
    """Prior over everything that describes how a task is made."""

    log_spread: Float[Array, "B G"]
    """Log-weights of `SPREADS` for each of `BASES`."""
    origins: Float[Array, " 4"]
    """Pseudo-counts of where a fresh successor comes from: any state alike, one that another action
    has led to from here, the state itself, a state never met.
    """
    profiles: Float[Array, " M"]
    """Pseudo-counts of pairs that have each of `PROFILES`."""
    profile_odds: Float[Array, ""]
    """Log-odds that pairs share profiles, against independent Dirichlet rows."""
    pair: RewardPrior
    """Of rewards by pair, where more than two different ones were met."""
    arrival: RewardPrior
    pair_two: RewardPrior
    """Of rewards by pair, as long as all were one of two values: wins and losses, say."""
    arrival_two: RewardPrior
    noise_odds: Float[Array, ""]
    """Log-odds that every index has a noise of its own, against one for all."""
    stays_two: Float[Array, ""]
    """Probability that rewards that were all of two values, each met twice, stay so."""
    pair_ends: EndPrior
    arrival_ends: EndPrior
    reward_odds: Float[Array, ""]
    """Log-odds that rewards belong to the state arrived in (pairs may add to them) and not to the pair."""
    ends_odds: Float[Array, ""]
    """The same for terminations."""
    unit: Float[Array, ""]
    """Unit of reward; 0: what `metaql.embedding.rewards.reward_scale` finds, so that no result depends on the
    scale."""
    arms: ArmsPrior | None = None
    """Of bandits that have the same arms in every task; None: arms are alike."""

    @property
    def num_arms(self) -> int | None:
        """How many arms are told apart; None: none are."""
        return None if self.arms is None else len(self.arms.mean)


def reward_prior(
    mean: float = 0.0,
    mean_weight: float = 0.5,
    between: float = 0.3,
    between_weight: float = 1.0,
    noise: float = 0.3,
    noise_weight: float = 0.5,
) -> RewardPrior:
    """A `RewardPrior` of plain numbers."""
    given = (mean, mean_weight, between, between_weight, noise, noise_weight)
    return RewardPrior(*(jnp.asarray(value, jnp.float32) for value in given))


def broad(arms: int | None = None) -> Hyperprior:
    """The hand-set prior of a task of which nothing is known; training starts here.

    Args:
        arms: how many arms are told apart, all of their numbers zero; None: none are.
    """
    ends = EndPrior(jnp.asarray(0.05), jnp.asarray(1.0), jnp.zeros(len(END_SPREADS)))
    return Hyperprior(
        log_spread=jnp.zeros((len(BASES), len(SPREADS))),
        origins=jnp.asarray([1.0, 0.5, 0.5, 1.0]),
        profiles=jnp.full(len(PROFILES), 0.1),
        profile_odds=jnp.zeros(()),
        pair=reward_prior(),
        arrival=reward_prior(),
        pair_two=reward_prior(),
        arrival_two=reward_prior(),
        noise_odds=jnp.zeros(()),
        stays_two=jnp.asarray(0.5),
        pair_ends=ends,
        arrival_ends=ends,
        reward_odds=jnp.zeros(()),
        ends_odds=jnp.zeros(()),
        unit=jnp.zeros(()),
        arms=None if arms is None else no_arms(arms),
    )
