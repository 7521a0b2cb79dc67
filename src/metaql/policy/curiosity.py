"""How much a posterior deviation is worth: optimism matched to what is left of the lifetime.

For one normal arm among known ones the optimal optimism is known in closed form to good accuracy
(Brezzi & Lai 2002, "Optimal learning and experimentation in bandit problems", eq. 16): it depends only
on how many pulls are left per pull already made. That curve is the start; fifteen weights, trained by
what whole lifetimes return, bend it by what else matters: sizes, how surely things happen, the share
of the lifetime left. Once an episode has ended by itself nothing is bent (`Curiosity.settled`), and the
curve is that of the index itself (`index_deviations`), as it is of a bandit whose scale of rewards is known.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

FEATURES = 11
"""Facts about the lifetime that count besides pulls left per pull made."""


def gittins_deviations(ratio: Float[Array, "*K"]) -> Float[Array, "*K"]:
    """Deviations of optimism for ``ratio`` pulls left per pull made (Brezzi & Lai 2002).

    Their piecewise curve, with its small jumps: ``sqrt(ratio / 2)`` for few, ``sqrt(2 log ratio -
    log log ratio - log 16 pi)`` for many.
    """
    ratio = jnp.maximum(ratio, 1e-6)
    root = jnp.sqrt(ratio)
    level, slope = (
        jnp.where(ratio <= 1.0, few, jnp.where(ratio <= 5.0, more, many))
        for few, more, many in ((0.49, 0.63, 0.77), (0.11, 0.26, 0.58))
    )
    log = jnp.maximum(jnp.log(ratio), 2.7)
    most = jnp.sqrt(2.0 * log - jnp.log(log) - jnp.log(16.0 * jnp.pi))
    curve = jnp.where(ratio <= 15.0, level - slope / root, most)
    return jnp.where(ratio <= 0.2, root * 0.5**0.5, curve)


def index_deviations(
    left: Float[Array, "*K"], made: Float[Array, "*K"], binary: Float[Array, ""] | float = 0.0
) -> Float[Array, "*K"]:
    """Deviations between the mean of an arm and its index of the pulls left.

    Fitted to `metaql.qlearning.gittins`: to `normal_bonus` within 0.06 for up to 100 pulls left (noise of
    0.7 to 2 deviations of the means; of a half, within 0.11), and, a tenth more of it, to the log-odds of
    `horizon_table` within 0.2 (0.06 on average), for coins that win more than three times in ten.

    Args:
        left: pulls left.
        made: pulls made, and those that what was known beforehand counts as; above 0.
        binary: how sure it is, in [0, 1], that the arm pays one of two values.
    """
    longer, few = jnp.log1p(0.12 * left / made) ** 0.42, 1.0 / jnp.sqrt(made + 0.24)
    return (1.0 + 0.1 * binary) * jnp.maximum(1.46 * longer - 0.65 * few, 0.0)


class Arms(NamedTuple):
    """How far the index of an arm decides. Of a bandit it hopes too little where the scale is in doubt."""

    indexed: Float[Array, ""]
    """Share of the index, in [0, 1]."""
    binary: Float[Array, ""]
    """Probability that rewards are of two values."""


class Curiosity(eqx.Module):
    """From pulls left, pulls made and facts about the lifetime to deviations of optimism."""

    level: Float[Array, ""]
    """Logarithm of an overall factor."""
    crowd: Float[Array, ""]
    """Power of the number of states met by which visits per state are fewer than steps left."""
    by_ratio: Float[Array, ""]
    """How the factor's logarithm moves with that of pulls left per pull made."""
    by_fact: Float[Array, " F"]
    """How it moves with each of the facts."""

    ambition: Float[Array, ""]
    """Logarithm of how far rewards of what was never met or tried may exceed others; see `beyond`."""

    def __init__(self, facts: int = FEATURES) -> None:
        """At first the closed form."""
        self.ambition = jnp.zeros(())
        self.level, self.crowd, self.by_ratio = jnp.zeros(()), jnp.ones(()), jnp.zeros(())
        self.by_fact = jnp.zeros(facts)

    def widened(self) -> Curiosity:
        """The same, to which facts that it was trained without make no difference: the last ones."""
        more = FEATURES - len(self.by_fact)
        return eqx.tree_at(lambda it: it.by_fact, self, np.pad(self.by_fact, (0, more)))

    def settled(self, ended: Bool[Array, ""]) -> Curiosity:
        """What counts in a task where an episode ended by itself, or where none did.

        Where nothing ever ends, as on a river, one must go on against all that was met so far; how far
        is learned. Goals and holes are ends, and where there are some the closed form stands: bent
        by what was learned elsewhere it lost in mazes what it won on rivers.
        """
        return jax.tree.map(lambda bent, closed: jnp.where(ended, closed, bent), self, Curiosity())

    def __call__(
        self,
        visits: Float[Array, "*K"],
        strength: Float[Array, "*K"],
        steps_left: Float[Array, ""],
        states_met: Float[Array, ""],
        facts: Float[Array, " F"],
        arms: Arms | None = None,
    ) -> Float[Array, "*K"]:
        """Deviations for indices with this many visits.

        Args:
            visits: of any shape.
            strength: visits that what was known beforehand counts as.
            steps_left: expected number of steps until the lifetime ends, or fewer if visits are limited
                otherwise.
            states_met: among how many states these steps divide.
            facts: what else is known of the lifetime, `FEATURES` numbers of order 1.
            arms: how far the index decides; None: the closed form alone.
        """
        made = visits + jnp.clip(strength, 0.1, 10.0)
        left = steps_left / jnp.maximum(states_met, 1.0) ** self.crowd
        ratio = left / made
        bend = self.level + self.by_ratio * jnp.log(ratio + 1e-6) / 5.0 + self.by_fact @ facts
        curve = gittins_deviations(ratio)
        if arms is not None:
            index = index_deviations(left, made, arms.binary)
            curve = curve + arms.indexed * (index - curve)
        return curve * jnp.exp(jnp.clip(bend, -4.0, 3.0))

    def beyond(self, number: Float[Array, ""], unit: Float[Array, ""]) -> Float[Array, ""]:
        """Variance of the reward of a state never met (an arm never tried) that no reward so far can tell of.

        The largest of n + 1 alike is the last one with probability 1 / (n + 1): so often does a new
        state set a new record, and a record may be of another order, as at the far end of a river whose
        near end pays a little.

        Args:
            number: n, of states met, or of arms tried.
            unit: of reward.
        """
        return jnp.exp(2.0 * jnp.clip(self.ambition, -4.0, 4.0)) * unit**2 / (number + 1.0)
