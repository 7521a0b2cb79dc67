"""Finite Markov decision processes as arrays, checked once and stepped by the thousand."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jaxtyping import Array, Bool, Float, Int

from metaql.errors import InvalidTaskError
from metaql.types import Outcome, PRNGKey, TaskSpec

NO_HORIZON = 1_000_000
"""Steps that stand for "no time limit"."""
LARGEST_REWARD = 1e15
"""Learners work in float32, and with squares of rewards."""
ROW_TOLERANCE = 1e-4
"""Largest deviation from 1 of a row of probabilities that is taken for rounding."""


class FiniteTask(NamedTuple):
    """One finite MDP. Build it with `finite_task`, which checks; families may build it directly.

    Convention: ``transition[s, a, s2] = Pr(s2 | s, a)``. Padded states and actions are False in the
    masks; padded states are never reached.
    """

    transition: Float[Array, "S A S"]
    reward: Float[Array, "S A S"]
    """Mean reward of the transition."""
    termination: Float[Array, "S A S"]
    """Probability that the transition ends the episode."""
    initial: Float[Array, " S"]
    """Distribution of the first state of an episode."""
    horizon: Int[Array, ""]
    """Steps after which an episode is truncated (`NO_HORIZON`: never)."""
    reward_noise: Float[Array, "*S"]
    """Standard deviation of the normal noise on observed rewards: one number, or ``[S, A]``."""
    reward_binary: Bool[Array, ""]
    """True: the observed reward is Bernoulli with the mean as its probability."""
    state_mask: Bool[Array, " S"]
    action_mask: Bool[Array, " A"]

    def spec(self, episodes: Int[Array, ""] | int) -> TaskSpec:
        """What a learner may know of this task before its first step."""
        return TaskSpec(
            self.state_mask, self.action_mask, self.horizon, jnp.asarray(episodes, jnp.int32)
        )

    def reset(self, key: PRNGKey) -> Int[Array, ""]:
        """Draw the first state of an episode."""
        return _draw(self.initial, jax.random.uniform(key))

    def step(self, key: PRNGKey, state: Int[Array, ""], action: Int[Array, ""]) -> Outcome:
        """Draw the outcome of ``action`` in ``state``."""
        u_state, u_reward, u_end = jax.random.uniform(key, (3,))
        next_state = _draw(self.transition[state, action], u_state)
        mean = self.reward[state, action, next_state]
        noise = jnp.broadcast_to(self.reward_noise, self.transition.shape[:2])[state, action]
        noisy = mean + noise * ndtri(u_reward + 2.0**-24)
        reward = jnp.where(self.reward_binary, (u_reward < mean).astype(mean.dtype), noisy)
        return Outcome(next_state, reward, u_end < self.termination[state, action, next_state])

    def observe(self, state: Int[Array, ""]) -> Int[Array, ""]:
        """The number of the state: everything is seen."""
        return state


def _draw(probabilities: Float[Array, " S"], u: Float[Array, ""]) -> Int[Array, ""]:
    """Inverse-CDF draw; an entry of probability zero is never returned."""
    # A parallel sum may round differently before and after a zero entry, hence the mask.
    cumulative = jnp.where(probabilities > 0, jnp.cumsum(probabilities), 0.0)
    return jnp.argmax(cumulative > u * cumulative.max()).astype(jnp.int32)


def finite_task(
    transition: Any,
    reward: Any,
    *,
    termination: Any = 0.0,
    initial: Any = None,
    horizon: int | None = None,
    reward_noise: Any = 0.0,
    reward_binary: bool = False,
) -> FiniteTask:
    """Check arrays and make them a `FiniteTask`.

    Args:
        transition: ``[S, A, S]``, rows ``transition[s, a]`` sum to 1.
        reward: mean rewards, ``[S, A, S]`` or ``[S, A]``.
        termination: probability that a transition ends the episode, ``[S, A, S]``, ``[S, A]`` or a scalar.
        initial: ``[S]`` start distribution; default: always state 0.
        horizon: steps until truncation; ``None``: no limit.
        reward_noise: standard deviation of normal noise on observed rewards, a number or ``[S, A]``.
        reward_binary: observed rewards are Bernoulli with ``reward`` as probability.

    Raises:
        InvalidTaskError: a shape, a row sum, a probability or a reward is impossible.

    Example:
        >>> task = finite_task([[[0.5, 0.5]], [[0.0, 1.0]]], [[1.0], [0.0]], horizon=10)
        >>> task.transition.shape
        (2, 1, 2)
    """
    p = np.asarray(transition, np.float64)
    if p.ndim != 3 or p.shape[0] != p.shape[2] or 0 in p.shape:
        raise InvalidTaskError(
            "`transition` must have shape [S, A, S] with S, A >= 1.",
            f"Got shape {p.shape}.",
            "Convention: transition[s, a, s2] = Pr(s2 | s, a).",
        )
    shape = p.shape
    start = np.eye(shape[0])[0] if initial is None else np.asarray(initial, np.float64)
    if start.shape != (shape[0],):
        raise InvalidTaskError(f"`initial` must have shape ({shape[0]},).", f"Got {start.shape}.")
    _check_rows("transition", p)
    _check_rows("initial", start)
    r = _full("reward", reward, shape)
    if abs(r).max() > LARGEST_REWARD:
        raise InvalidTaskError(
            f"Rewards must be {LARGEST_REWARD:g} at most.", f"Got {abs(r).max():g}.", "Scale them."
        )
    d = _full("termination", termination, shape)
    if d.min() < 0 or d.max() > 1:
        raise InvalidTaskError(
            "`termination` holds probabilities in [0, 1].", f"Got {d.min():g} to {d.max():g}."
        )
    if reward_binary and (r.min() < 0 or r.max() > 1):
        raise InvalidTaskError(
            "`reward_binary` needs mean rewards in [0, 1].", f"Got {r.min():g} to {r.max():g}."
        )
    if horizon is not None and not 1 <= int(horizon) == horizon < 2**31:
        raise InvalidTaskError(
            "`horizon` must be a whole number of steps, at least 1.", f"Got {horizon}."
        )
    noise = np.asarray(reward_noise, np.float64)
    if noise.shape not in ((), shape[:2]):
        raise InvalidTaskError(
            f"`reward_noise` must be a number or have shape {shape[:2]}.", f"Got {noise.shape}."
        )
    if not (np.isfinite(noise) & (noise >= 0)).all():
        raise InvalidTaskError("`reward_noise` must be finite and >= 0.", f"Got {reward_noise}.")
    return FiniteTask(
        transition=jnp.asarray(p / p.sum(-1, keepdims=True), jnp.float32),
        reward=jnp.asarray(r, jnp.float32),
        termination=jnp.asarray(d, jnp.float32),
        initial=jnp.asarray(start / start.sum(), jnp.float32),
        horizon=jnp.asarray(NO_HORIZON if horizon is None else horizon, jnp.int32),
        reward_noise=jnp.asarray(noise, jnp.float32),
        reward_binary=jnp.asarray(reward_binary, bool),
        state_mask=jnp.ones(shape[0], bool),
        action_mask=jnp.ones(shape[1], bool),
    )


def _check_rows(name: str, rows: np.ndarray) -> None:
    """Raise unless every last-axis row is a probability distribution."""
    if not np.isfinite(rows).all() or rows.min() < 0:
        bad = tuple(int(i) for i in np.argwhere(~np.isfinite(rows) | (rows < 0))[0])
        raise InvalidTaskError(
            f"`{name}` holds probabilities: finite and >= 0.",
            f"`{name}{list(bad)}` is {rows[bad]:g}.",
        )
    sums = np.atleast_1d(rows.sum(-1))
    wrong = np.argwhere(np.abs(sums - 1) > ROW_TOLERANCE)
    if len(wrong):
        at = tuple(int(i) for i in wrong[0])
        index = ", ".join(map(str, at)) if rows.ndim > 1 else ""
        raise InvalidTaskError(
            f"Every row of `{name}` must sum to 1.",
            f"`{name}[{index}]` sums to {sums[at]:.4f} ({len(wrong)} of {sums.size} rows are wrong).",
            "Convention: transition[s, a, s2] = Pr(s2 | s, a)." if name == "transition" else "",
        )


def _full(name: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Broadcast ``[S, A, S]``, ``[S, A]`` or scalar values to ``[S, A, S]``, refusing anything else."""
    array = np.asarray(values, np.float64)
    if array.shape == shape[:2] and array.shape != shape:
        array = array[:, :, None]
    elif array.shape not in ((), shape):
        raise InvalidTaskError(
            f"`{name}` must be a scalar or have shape {shape[:2]} or {shape}.",
            f"Got shape {array.shape}.",
        )
    if not np.isfinite(array).all():
        raise InvalidTaskError(f"`{name}` must be finite.", "It holds NaN or infinity.")
    return np.broadcast_to(array, shape)


def pad_task(task: FiniteTask, num_states: int, num_actions: int) -> FiniteTask:
    """Grow a task (or a batch of tasks) to ``num_states`` and ``num_actions`` with masked padding.

    Padded rows are self-loops of reward 0, so that every row stays a distribution.

    Raises:
        InvalidTaskError: the task is already larger than asked for.
    """
    s, a = task.transition.shape[-3], task.transition.shape[-2]
    if s > num_states or a > num_actions:
        raise InvalidTaskError(
            "Padding can only grow a task.", f"Got ({s}, {a}) for ({num_states}, {num_actions})."
        )
    ds, da = num_states - s, num_actions - a
    lead = [(0, 0)] * (task.transition.ndim - 3)

    def cube(x: Array) -> Array:
        return jnp.pad(x, [*lead, (0, ds), (0, da), (0, ds)])

    real = jnp.pad(jnp.ones((s, a), bool), [(0, ds), (0, da)])
    loops = jnp.broadcast_to(jnp.eye(num_states)[:, None, :], (num_states, num_actions, num_states))
    noise = jnp.asarray(task.reward_noise)
    if noise.ndim == len(lead):  # one number per task: all tasks of one shape can be stacked
        noise = jnp.broadcast_to(noise[..., None, None], task.reward.shape[:-1])
    return task._replace(
        transition=jnp.where(real[..., None], cube(task.transition), loops),
        reward=cube(task.reward),
        termination=cube(task.termination),
        initial=jnp.pad(task.initial, [*lead, (0, ds)]),
        reward_noise=jnp.pad(noise, [*lead, (0, ds), (0, da)]),
        state_mask=jnp.pad(task.state_mask, [*lead, (0, ds)]),
        action_mask=jnp.pad(task.action_mask, [*lead, (0, da)]),
    )
