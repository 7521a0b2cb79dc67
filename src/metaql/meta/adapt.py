"""Adaptation on a Gymnasium environment: the lifetime loop with the environment on the host."""

from __future__ import annotations

import abc
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from metaql.config import check_seed, check_whole
from metaql.errors import EndlessWarning, EnvironmentFaultError
from metaql.meta.lifetime import first_turn, turn
from metaql.policy.beliefq import Belief, BeliefQ
from metaql.tasks.host import HostEnvironment, HostStep, numbered
from metaql.types import (
    Decision,
    Learner,
    Memory,
    Observation,
    PRNGKey,
    TaskSpec,
    Transition,
)

USUAL_EPISODES = 50
"""Of a lifetime where nobody says how many, and any number will do."""
HostAction: TypeAlias = "int | np.ndarray"
"""A number, or one for each part of an action, ``[K]``."""


@eqx.filter_jit
def _first(
    learner: Learner, key: PRNGKey, spec: TaskSpec, state: Observation
) -> tuple[Memory, Decision]:
    return first_turn(learner, key, spec, state)


@eqx.filter_jit
def _next(
    learner: Learner,
    key: PRNGKey,
    clock: Int[Array, ""],
    memory: Memory,
    last: Transition,
    state: Observation,
) -> tuple[Memory, Decision]:
    return turn(learner, jax.random.fold_in(key, clock), memory, last, state)


@eqx.filter_jit
def _decide(learner: BeliefQ, key: PRNGKey, memory: Belief, states: Int[Array, " N"]) -> Decision:
    keys = jax.random.split(key, states.shape[0])
    return jax.vmap(learner.act, in_axes=(0, None, 0))(keys, memory, states)


@eqx.filter_jit
def _estimates(learner: BeliefQ, memory: Belief) -> Float[Array, "S A"]:
    return learner.outlooks(memory).mean


class Lived(NamedTuple):
    """What came of the episodes lived, and how the environment numbers states and actions."""

    returns: Float[np.ndarray, " E"]
    lengths: Int[np.ndarray, " E"]
    first_state: int
    first_action: int


class Companion(Protocol):
    """A learner with its memory beside an environment on the host."""

    def first(self, state: Any) -> HostAction:
        """The action in the first state of the lifetime."""
        ...

    def next(self, clock: int, last: Transition, state: Any) -> HostAction:
        """Learn from step ``clock`` (the first is 1), then choose in ``state``."""
        ...

    def adapted(self, lived: Lived) -> Any:
        """What is known now, with what came of it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """An agent that has adapted to one task, whatever the learner and the task."""

    returns: Float[np.ndarray, " E"]
    """Return of every episode lived."""
    lengths: Int[np.ndarray, " E"]
    """Steps of every episode lived."""
    warnings: list[str] = field(default_factory=list[str])
    """What makes the task unlike those trained on, or harder than it need be, in plain sentences."""

    def __repr__(self) -> str:
        """One line: memory and weights would fill pages."""
        mean = f"{float(self.returns.mean()):.4g}" if len(self.returns) else "none"
        words = f"{len(self.returns)} episodes, mean return {mean}{self._size()}"
        return f"{type(self).__name__}({words})"

    def _size(self) -> str:
        return ""


@dataclass(frozen=True, kw_only=True, repr=False)
class FiniteAdaptation(Adaptation, abc.ABC):
    """The same for a finite task."""

    first_state: int
    first_action: int

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, int]:
        """States and actions of the task."""

    @abc.abstractmethod
    def choose(self, states: Int[np.ndarray, " N"], deterministic: bool) -> Int[np.ndarray, " N"]:
        """Actions in these states, both numbered from 0."""

    @abc.abstractmethod
    def q_table(self) -> Float[np.ndarray, "S A"]:
        """Q(s, a) as believed."""

    def _size(self) -> str:
        return f", {self.shape[0]} states, {self.shape[1]} actions"

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
        states, single = numbered(obs, self.first_state, self.shape[0])
        actions = self.choose(states, deterministic) + self.first_action
        return (int(actions[0]) if single else actions), state


@dataclass(frozen=True, kw_only=True, repr=False)
class Adapted(FiniteAdaptation):
    """BeliefQ, adapted to one task."""

    learner: BeliefQ
    memory: Belief
    """What it knows of the task."""

    @property
    def shape(self) -> tuple[int, int]:
        """States and actions of the task."""
        spec = self.memory.spec
        return spec.state_mask.shape[0], spec.action_mask.shape[0]

    def choose(self, states: Int[np.ndarray, " N"], deterministic: bool) -> Int[np.ndarray, " N"]:
        """Actions in these states, both numbered from 0."""
        decision = _decide(self.learner, jax.random.key(0), self.memory, jnp.asarray(states))
        return np.asarray(decision.estimate.argmax(-1) if deterministic else decision.action)

    def q_table(self) -> Float[np.ndarray, "S A"]:
        """Q(s, a) as believed: the posterior mean of the discounted Q*.

        Rows of states never acted in (a goal that ends the task, say) hold what is hoped of the unknown.
        """
        return np.asarray(_estimates(self.learner, self.memory))


class TurnCompanion:
    """A learner beside an environment: the same `turn` as everywhere, one call per step."""

    def __init__(
        self,
        learner: Learner,
        spec: TaskSpec,
        seed: int,
        conclude: Callable[[Memory, Lived], Any],
    ) -> None:
        """Start with nothing known.

        Args:
            learner: any.
            spec: of the task.
            seed: of the agent.
            conclude: makes the result of what is known at the end.
        """
        self.learner, self.spec, self.conclude = learner, spec, conclude
        self._key_first, self._key_turns = jax.random.split(jax.random.key(seed))
        self.memory: Memory

    def first(self, state: Observation) -> HostAction:
        """The action in the first state of the lifetime."""
        self.memory, decision = _first(self.learner, self._key_first, self.spec, observed(state))
        return _chosen(decision)

    def next(self, clock: int, last: Transition, state: Observation) -> HostAction:
        """Learn from one step, then choose in ``state``."""
        key, now = self._key_turns, integer(clock)
        self.memory, decision = _next(self.learner, key, now, self.memory, last, observed(state))
        return _chosen(decision)

    def adapted(self, lived: Lived) -> Any:
        """What is known now."""
        return self.conclude(self.memory, lived)


class NotingCompanion:
    """Another companion, and a note of every transition."""

    def __init__(self, companion: Companion) -> None:
        self.companion = companion
        self.notes: list[Transition] = []
        self.first, self.adapted = companion.first, companion.adapted

    def next(self, clock: int, last: Transition, state: Any) -> HostAction:
        """Note the last transition, then go on."""
        self.notes.append(last)
        return self.companion.next(clock, last, state)


def live_on_host(
    companion: Companion,
    host: HostEnvironment,
    episodes: int,
    seed: int,
    on_episode: Callable[[int, float, int], None],
) -> Any:
    """Live ``episodes`` episodes of ``host``; one call of the companion per step.

    Returns:
        What the companion's ``adapted`` makes of it.

    Warns:
        EndlessWarning: the environment declares no time limit.

    Raises:
        EnvironmentFaultError: with ``adapted``, what was learned before the environment failed.
    """
    for sentence in host.warnings:
        warnings.warn(sentence, EndlessWarning, stacklevel=3)
    returns: list[float] = []
    lengths: list[int] = []

    def adapted() -> Any:
        came = np.asarray(returns, np.float64), np.asarray(lengths, np.int64)
        return companion.adapted(Lived(*came, host.first_state, host.first_action))

    # If even the first reset fails nothing was learned: the error goes through as it is.
    state = host.reset(seed)
    action = companion.first(state)
    try:
        total, length, clock = 0.0, 0, 0
        while len(returns) < episodes:
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
                if len(returns) < episodes:
                    state = _begun_anew(host, companion, clock, last, state)
            action = companion.next(clock, last, state)
    except EnvironmentFaultError as error:
        error.adapted = adapted()  # pyright: ignore[reportAttributeAccessIssue]
        raise
    return adapted()


def _begun_anew(
    host: HostEnvironment, companion: Companion, clock: int, last: Transition, over: Observation
) -> Observation:
    """The first state of the next episode; where there is none, what ended the last one is learned still."""
    try:
        return host.reset()
    except EnvironmentFaultError:
        companion.next(clock, last, over)
        raise


def _chosen(decision: Decision) -> HostAction:
    action = np.asarray(decision.action)
    return action if action.ndim else int(action)


def integer(value: HostAction) -> Any:
    """What a compiled function takes for an integer array without a copy to a device first."""
    return np.int32(value)


def observed(state: Observation) -> Any:
    """An observation as a compiled function takes it: an integer array, or a vector as it is."""
    return state if isinstance(state, np.ndarray) else integer(state)


def check_request(episodes: int, seed: int) -> None:
    """Raise `UsageError` unless ``episodes`` and ``seed`` are integers in range."""
    check_whole("episodes", episodes, 1)
    check_seed(seed)


def _transition(state: Observation, action: HostAction, answer: HostStep) -> Transition:
    flags: tuple[Any, Any] = (np.bool_(answer.terminated), np.bool_(answer.truncated))
    reward: Any = np.float32(answer.reward)
    return Transition(observed(state), integer(action), reward, observed(answer.next_state), *flags)
