"""Adaptation on a Gymnasium environment: the lifetime loop with the environment on the host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from metaql.errors import EnvironmentFaultError, UsageError
from metaql.meta.lifetime import turn
from metaql.policy.beliefq import Belief, BeliefQ
from metaql.tasks.host import HostEnvironment, HostStep
from metaql.types import Decision, PRNGKey, TaskSpec, Transition


@eqx.filter_jit
def _first(
    learner: BeliefQ, key: PRNGKey, spec: TaskSpec, state: Int[Array, ""]
) -> tuple[Belief, Decision]:
    key_init, key_act = jax.random.split(key)
    memory = learner.init(key_init, spec)
    return memory, learner.act(key_act, memory, state)


@eqx.filter_jit
def _next(
    learner: BeliefQ,
    key: PRNGKey,
    clock: Int[Array, ""],
    memory: Belief,
    last: Transition,
    state: Int[Array, ""],
) -> tuple[Belief, Decision]:
    return turn(learner, jax.random.fold_in(key, clock), memory, last, state)


@eqx.filter_jit
def _decide(learner: BeliefQ, key: PRNGKey, memory: Belief, states: Int[Array, " N"]) -> Decision:
    keys = jax.random.split(key, states.shape[0])
    return jax.vmap(learner.act, in_axes=(0, None, 0))(keys, memory, states)


@eqx.filter_jit
def _estimates(learner: BeliefQ, memory: Belief) -> Float[Array, "S A"]:
    return learner.outlooks(memory).mean


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """An agent that has adapted to one task."""

    returns: Float[np.ndarray, " E"]
    """Return of every episode lived."""
    lengths: Int[np.ndarray, " E"]
    """Steps of every episode lived."""
    learner: BeliefQ
    memory: Belief
    """What it knows of the task."""
    first_state: int
    first_action: int

    def __repr__(self) -> str:
        """One line: memory and weights would fill pages."""
        states, actions = (
            self.memory.spec.state_mask.shape[0],
            self.memory.spec.action_mask.shape[0],
        )
        mean = f"{float(self.returns.mean()):.4g}" if len(self.returns) else "none"
        return (
            f"Adapted({len(self.returns)} episodes, mean return {mean}, "
            f"{states} states, {actions} actions)"
        )

    def predict(
        self,
        obs: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[Any, Any]:
        """Choose actions without learning, as Stable-Baselines3's ``predict``.

        Args:
            obs: one observation (an integer) or an array of them, ``[N]``.
            state: returned as it came: all memory is inside.
            episode_start: ignored, for the same reason.
            deterministic: True: greedy on the believed Q; False: as while adapting, exploring.

        Returns:
            The action or actions, as the environment numbers them, and ``state``.

        Raises:
            UsageError: an observation outside the environment's space.
        """
        del episode_start
        given = np.asarray(obs)
        count = self.memory.spec.state_mask.shape[0]
        whole = given.dtype.kind in "iu" and given.ndim <= 1
        # Before the subtraction: there is none for text, and a narrow unsigned type would wrap.
        states = np.atleast_1d(given if whole else -1).astype(np.int64)
        states = states - (self.first_state if whole else 0)
        if (states < 0).any() or (states >= count).any():
            raise UsageError(
                f"Observations are integers from {self.first_state} to "
                f"{self.first_state + count - 1}, one or an array [N].",
                f"Got {obs!r}.",
            )
        decision = _decide(self.learner, jax.random.key(0), self.memory, jnp.asarray(states))
        best = decision.estimate.argmax(-1) if deterministic else decision.action
        actions = np.asarray(best) + self.first_action
        return (actions if given.ndim else int(actions[0])), state

    def q_table(self) -> Float[np.ndarray, "S A"]:
        """Q(s, a) as believed: the posterior mean of the discounted Q*.

        Rows of states never acted in (a goal that ends the task, say) hold what is hoped of the unknown.
        """
        return np.asarray(_estimates(self.learner, self.memory))


def live_on_host(
    learner: BeliefQ,
    host: HostEnvironment,
    episodes: int,
    seed: int,
    on_episode: Callable[[int, float, int], None],
) -> Adapted:
    """Live ``episodes`` episodes of ``host``; the same `turn` as everywhere, one call per step.

    Raises:
        EnvironmentFaultError: with ``adapted``, what was learned before the environment failed.
    """
    key_first, key_turns = jax.random.split(jax.random.key(seed))
    spec = host.spec(episodes)
    returns: list[float] = []
    lengths: list[int] = []

    def adapted(memory: Belief) -> Adapted:
        return Adapted(
            returns=np.asarray(returns),
            lengths=np.asarray(lengths, np.int64),
            learner=learner,
            memory=memory,
            first_state=host.first_state,
            first_action=host.first_action,
        )

    # If even the first reset fails nothing was learned: the error goes through as it is.
    state = host.reset(seed)
    memory, decision = _first(learner, key_first, spec, _int(state))
    try:
        total, length, clock = 0.0, 0, 0
        while len(returns) < episodes:
            action = int(decision.action)
            answer = host.step(action)
            last = _transition(state, action, answer)
            total, length, clock = total + answer.reward, length + 1, clock + 1
            state = answer.next_state
            if answer.terminated or answer.truncated:
                returns.append(total)
                lengths.append(length)
                on_episode(len(returns) - 1, total, length)
                total, length = 0.0, 0
                # After the last episode nothing follows: no reset is owed to the environment.
                state = host.reset() if len(returns) < episodes else state
            memory, decision = _next(learner, key_turns, _int(clock), memory, last, _int(state))
    except EnvironmentFaultError as error:
        error.adapted = adapted(memory)  # pyright: ignore[reportAttributeAccessIssue]
        raise
    return adapted(memory)


def _int(value: int) -> Any:
    """What a compiled function takes for an integer array without a copy to a device first."""
    return np.int32(value)


def _transition(state: int, action: int, answer: HostStep) -> Transition:
    flags: tuple[Any, Any] = (np.bool_(answer.terminated), np.bool_(answer.truncated))
    reward: Any = np.float32(answer.reward)
    return Transition(_int(state), _int(action), reward, _int(answer.next_state), *flags)
