"""Planning inside the belief: C parallel Q-iteration channels on the posterior-mean model.

Channel c has its own optimism, discount, pseudo-count and value of the unknown (`Settings`). One sweep is

    Q_c(s, a) = r(s, a) + bonus_c(s, a)
                + [sum_s2 N(s, a, s2) discount_c l_c(s, a, s2) V_c(s2) + k_c (v + u_c w)] / [N(s, a) + k_c]
    V_c(s)    = max_a Q_c(s, a)

with N the posterior counts, r rewards and l the probability of going on, each estimated by pair or by
arrival, whichever explains the task; v the `usual_value`, w the `surprise_unit` and k_c in units of
`novelty`. Uncertain terminations are lowered, and uncertain rewards and transitions raised, by their
posterior standard deviation times the channel's optimism. Planning is warm started: the channels of
the last step are part of the memory, and a few sweeps refresh them.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from metaql.embedding.embed import arrival_gates
from metaql.embedding.statistics import Statistics, overall_means, reward_scale, reward_variance


class Settings(NamedTuple):
    """What the network chooses for every channel."""

    optimism: Float[Array, " C"]
    """Posterior standard deviations added to rewards and taken from terminations."""
    discount: Float[Array, " C"]
    pseudo: Float[Array, " C"]
    """Pseudo-visits of the unknown successor (where no family prior speaks), in units of `novelty`."""
    unknown: Float[Array, " C"]
    """Value of the unknown successor beyond `usual_value`, in `surprise_unit`s."""


class Operator(NamedTuple):
    """The Bellman operator of every channel, ready to be swept."""

    counts: Float[Array, "S A S"]
    total: Float[Array, "C S A"]
    base: Float[Array, "C S A"]
    """Everything that does not depend on the values."""
    onward: Float[Array, "C S"]
    """Discount times the probability of going on after arrival."""
    stay: Float[Array, "S A"]
    """Probability of going on by pair (1 where arrival explains terminations). Where it is open which
    of the two explains them, each counts with the power of its probability (a logarithmic pool): what
    both call an end is one.
    """
    mask: Bool[Array, "S A"]


def operator(
    known: Statistics,
    settings: Settings,
    trust: Float[Array, ""],
    mask: Bool[Array, "S A"],
    values: Float[Array, "C S"],
) -> Operator:
    """Prepare the Bellman operator from posterior statistics.

    Args:
        known: evidence plus prior.
        settings: of every channel.
        trust: weight of the family prior; with it the pseudo-visits of the unknown vanish.
        mask: pairs that exist.
        values: last V of every channel, for the bonus on uncertain transitions.
    """
    gate_reward, gate_ends = arrival_gates(known)
    mean_reward, mean_ends = overall_means(known)
    shrink = 0.05 * (1.0 - trust) + 1e-6
    lift = settings.optimism[:, None]
    noise = jnp.sqrt(reward_variance(known, trust))

    seen = known.arrival.visits + shrink
    arrival = (known.arrival.reward + shrink * mean_reward) / seen
    ends = (known.arrival.ends + shrink * mean_ends) / seen
    doubt = jnp.sqrt(ends * (1.0 - ends) / (seen + 1.0))
    arrival_goes_on = 1.0 - jnp.clip(ends - lift * doubt, 0.0, 1.0)

    tried = known.pair.visits + 0.5
    pair = (known.pair.reward + 0.5 * mean_reward) / tried
    pair_goes_on = 1.0 - (known.pair.ends + 0.5 * mean_ends) / tried
    bonus = lift[..., None] * (1.0 - gate_reward) * noise / jnp.sqrt(tried)

    # Squared: what is left of the unknown under a trusted prior must stay below what planning resolves.
    pseudo = settings.pseudo * novelty(known) * jnp.square(1.0 - trust) + 1e-9
    fade = 1.0 - settings.discount
    unknown = usual_value(known, fade) + settings.unknown * surprise_unit(known, fade)
    counted = known.transitions.sum(-1)
    total = counted + pseudo[:, None, None]
    onward = settings.discount[:, None] * arrival_goes_on**gate_ends
    bonus = bonus + lift[..., None] * _doubt(
        known.transitions, counted, gate_reward * arrival + onward * values
    )
    landing = gate_reward * jnp.einsum("saz,z->sa", known.transitions, arrival) / total
    base = (1.0 - gate_reward) * pair + landing + bonus
    base = base + (pseudo * unknown)[:, None, None] / total
    return Operator(
        counts=known.transitions,
        total=total,
        base=jnp.where(mask, base, 0.0),
        onward=onward,
        stay=pair_goes_on ** (1.0 - gate_ends),
        mask=mask,
    )


def usual_value(known: Statistics, fade: Float[Array, "*C"]) -> Float[Array, "*C"]:
    """Value of earning the mean reward until the usual end: ``r / (1 - discount + d)``.

    With r and d the mean reward and termination rate of all steps and ``fade = 1 - discount``.
    """
    mean_reward, mean_ends = overall_means(known)
    return mean_reward / (fade + mean_ends)


def surprise_unit(known: Statistics, fade: Float[Array, "*C"]) -> Float[Array, "*C"]:
    """How far a new state's value may be from the usual one; ``fade`` as for `usual_value`.

    The reward scale times the root of the usual episode, as for independent rewards, or the size of
    the usual value itself where that is more: small rewards may hide a large one.
    """
    _, mean_ends = overall_means(known)
    wander = reward_scale(known) / jnp.sqrt(fade + mean_ends)
    return jnp.maximum(wander, jnp.abs(usual_value(known, fade)))


def novelty(known: Statistics) -> Float[Array, ""]:
    """Pseudo-visits of a successor not seen yet, as this task's own transitions suggest.

    Under a Dirichlet process of concentration k, n visits lead to ``1 + k log n`` different successors
    and a bit (Antoniak 1974); k is what was counted over what that predicts, 1 before anything. Near
    zero where moves are deterministic, several where every visit leads elsewhere.
    """
    visits = known.transitions.sum(-1)
    again = visits > 1
    new = jnp.where(again, (known.transitions > 0.5).sum(-1) - 1.0, 0.0).sum()
    expected = jnp.where(again, jnp.log(jnp.maximum(visits, 1.0)) + 0.2, 0.0).sum()
    return (new + 1.0) / (expected + 1.0)


def _doubt(
    counts: Float[Array, "S A S"], counted: Float[Array, "S A"], worth: Float[Array, "C S"]
) -> Float[Array, "C S A"]:
    """Posterior standard deviation of ``E[worth(s2)]`` under a Dirichlet with these counts."""
    share = jnp.maximum(counted, 1e-6)
    moments = jnp.einsum("saz,cz->csa", counts, jnp.concatenate([worth, jnp.square(worth)])) / share
    mean, square = jnp.split(moments, 2)
    # What rounding alone leaves of a difference of squares is no doubt.
    variance = jnp.maximum(square * (1.0 - 1e-6) - jnp.square(mean), 0.0)
    return jax.lax.stop_gradient(jnp.sqrt(variance / (counted + 1.0)))


def sweep(op: Operator, q: Float[Array, "C S A"]) -> Float[Array, "C S A"]:
    """One Bellman sweep of all channels."""
    values = op.onward * state_values(q, op.mask)
    landed = jnp.einsum("saz,cz->csa", op.counts, values) / op.total
    return jnp.where(op.mask, op.base + op.stay * landed, 0.0)


def state_values(q: Float[Array, "C S A"], mask: Bool[Array, "S A"]) -> Float[Array, "C S"]:
    """``max_a Q`` over actions that exist; 0 at padded states.

    By index and one-hot product: under jit on CPU the gradient of ``jnp.max`` can be 0/0, because the
    operand is recomputed with other rounding and no entry equals the maximum any more.
    """
    masked = jnp.where(mask, q, -jnp.inf)
    best = jax.nn.one_hot(jnp.argmax(jax.lax.stop_gradient(masked), -1), q.shape[-1])
    return (best * jnp.where(mask, q, 0.0)).sum(-1)
