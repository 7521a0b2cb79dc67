"""Every sample-based Bellman target, once, for one stream.

Names as in rlax: ``_tm1`` is before the step, ``_t`` after it. A discount replaces any ``done``
flag: ``discount_t = gamma * (1 - terminated)``. Truncation is not termination: it leaves the
discount alone, so the true last state is bootstrapped from.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from metaql.tasks.exact import NEVER


def discount_after(
    gamma: Float[Array, "*T"] | float, terminated: Bool[Array, "*T"]
) -> Float[Array, "*T"]:
    """``discount_t = gamma * (1 - terminated)``: zero where nothing follows."""
    return gamma * (1.0 - terminated)


def q_target(
    r_t: Float[Array, ""],
    discount_t: Float[Array, ""],
    q_t: Float[Array, " A"],
    action_mask: Bool[Array, " A"],
) -> Float[Array, ""]:
    """``r_t + discount_t * max_a q_t[a]`` over the actions that exist.

    Watkins & Dayan 1992, Q-learning, eq. 1.
    """
    return r_t + discount_t * jnp.where(action_mask, q_t, NEVER).max()


def double_q_target(
    r_t: Float[Array, ""],
    discount_t: Float[Array, ""],
    q_t_value: Float[Array, " A"],
    q_t_select: Float[Array, " A"],
    action_mask: Bool[Array, " A"],
) -> Float[Array, ""]:
    """``r_t + discount_t * q_t_value[argmax_a q_t_select[a]]``.

    One table picks the action, the other says what it is worth (van Hasselt 2010, Double
    Q-learning, algorithm 1).
    """
    best = jnp.where(action_mask, q_t_select, NEVER).argmax()
    return r_t + discount_t * q_t_value[best]


def greedy_value(q_t: Float[Array, "*K A"]) -> Float[Array, ""]:
    """``max_a q_t[a]``; of an action of K parts the mean over its parts.

    Seyde et al. 2023, "Solving continuous control via Q-learning" (arXiv 2210.12566), eq. 3: the value of
    an action is the mean of one value for each part, so each part is maximised by itself.
    """
    return q_t.max(-1).mean()


def value_of(q_tm1: Float[Array, "*K A"], a_tm1: Int[Array, "*K"]) -> Float[Array, ""]:
    """``q_tm1[a_tm1]``; of an action of K parts the mean over its parts, as in `greedy_value`."""
    return (q_tm1 * jax.nn.one_hot(a_tm1, q_tm1.shape[-1])).sum(-1).mean()


def shortfall(q_tm1: Float[Array, "*K A"], a_tm1: Int[Array, "*K"]) -> Float[Array, ""]:
    """``max_a q_tm1[a] - q_tm1[a_tm1]``: what the action is worth less than the greedy one, never negative.

    Targets lowered by a share of it, below 1, have the same values of states and greedy policies in the end,
    and differences between actions that are ``1 / (1 - share)`` times as large: advantage learning (Baird
    1999; Bellemare et al. 2016, "Increasing the action gap: new operators for reinforcement learning",
    arXiv 1512.04860). Of an action of K parts the mean over its parts.
    """
    taken = jnp.take_along_axis(q_tm1, a_tm1[..., None], -1)[..., 0]
    return (q_tm1.max(-1) - taken).mean()


def watkins_traces(
    traces: Float[Array, "S A"],
    state: Int[Array, ""],
    action: Int[Array, ""],
    was_greedy: Bool[Array, ""],
    decay: Float[Array, ""],
) -> Float[Array, "S A"]:
    """Replacing eligibility traces of Watkins's Q(lambda) when ``action`` is taken in ``state``.

    Earlier pairs fade by ``decay = gamma * lambda`` if the action was greedy and are forgotten if
    it explored: a return that goes on with a worse action says nothing about the greedy policy
    (Sutton & Barto 1998, figure 7.14; replacing traces: Singh & Sutton 1996).
    """
    return (traces * jnp.where(was_greedy, decay, 0.0)).at[state, action].set(1.0)


def lambda_returns(
    r_t: Float[Array, " T"],
    discount_t: Float[Array, " T"],
    v_t: Float[Array, " T"],
    lambda_t: Float[Array, " T"] | float,
) -> Float[Array, " T"]:
    """``G[t] = r_t[t] + discount_t[t] * ((1 - lambda_t[t]) * v_t[t] + lambda_t[t] * G[t + 1])``.

    Entry ``t`` of every argument belongs to the same step: its reward, the discount after it and
    the value of the state it *arrived* in (for Q-learning ``max_a Q(next_state, a)``). After the
    last row only ``v_t[-1]`` is known, so ``G[T - 1] = r + discount * v``.

    - Terminated: ``discount_t[t] = 0``; neither ``v_t[t]`` nor row ``t + 1`` counts.
    - Truncated within an episode's return: pass ``lambda_t[t] = 0``; ``v_t[t]`` of the true last
      state is bootstrapped from and row ``t + 1``, another episode, does not count.
    - Returns over a whole lifetime: keep both positive across episode ends; row ``t + 1`` goes on.

    ``lambda_t = 0`` gives one-step targets, ``1`` the discounted sum of what came (Sutton & Barto
    2018, eq. 12.18 with V for the bootstrap; Watkins 1989).
    """
    lambda_t = jnp.broadcast_to(jnp.asarray(lambda_t, v_t.dtype), v_t.shape)

    def back(g_next: Array, row: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        r, discount, v, lam = row
        g = r + discount * ((1.0 - lam) * v + lam * g_next)
        return g, g

    return jax.lax.scan(back, v_t[-1], (r_t, discount_t, v_t, lambda_t), reverse=True)[1]
