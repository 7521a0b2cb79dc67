"""Words and shapes shared by every layer.

Axis legend, used everywhere: ``N`` tasks (lifetimes in parallel), ``E`` episodes, ``T`` steps,
``S`` states, ``A`` actions, ``C`` planning channels, ``Z`` embedding. Leading order ``[N, E, T, ...]``
(logs of the lifetime loop are ``[T, N, ...]``, as ``lax.scan`` writes them). Functions are written for
one stream, without ``N``; ``jax.vmap`` adds it.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from jaxtyping import Array, Bool, Float, Int, Key

PRNGKey: TypeAlias = Key[Array, ""]
Memory: TypeAlias = Any
"""What a learner has learned so far: any pytree of arrays."""
State: TypeAlias = Any
"""Where an environment stands: any pytree of arrays; the number of a state where there are finitely many."""
Observation: TypeAlias = Any
"""What a learner sees of a state: its number, or a vector ``[D]``."""


class Transition(NamedTuple):
    """One step of one environment, as it was observed.

    States are numbers, or vectors ``[D]`` where they are not finitely many. ``next_state`` is the true last
    one when the episode ended there.
    """

    state: Observation
    action: Int[Array, "*K"]
    """A number, or one for each of an action's K parts."""
    reward: Float[Array, ""]
    next_state: Observation
    terminated: Bool[Array, ""]
    """The task ended here: nothing follows, the bootstrap is zero."""
    truncated: Bool[Array, ""]
    """The clock ended the episode: the value of ``next_state`` still counts."""


class TaskSpec(NamedTuple):
    """What a learner is told about a task before its first step (never its dynamics or rewards)."""

    state_mask: Bool[Array, " S"]
    """True for states that exist; the rest is padding. Empty where observations are vectors."""
    action_mask: Bool[Array, "*K A"]
    """True for actions that exist; the rest is padding and must never be chosen.

    A row for each part where an action has several (one per joint, say).
    """
    horizon: Int[Array, ""]
    """Steps after which an episode is truncated."""
    episodes: Int[Array, ""]
    """Episodes in the lifetime."""
    num_states: Int[Array, ""] | None = None
    """States that exist, where a memory has rows only for those it has met; None: as the mask says."""
    numbers: Int[Array, " S"] | None = None
    """The task's own number of the state in each row, -1 where a row is free; None: 0, 1, 2, ..."""
    steps: Int[Array, ""] | None = None
    """Steps in the lifetime, where it is not its episodes that are limited; None: as many as those take."""

    @property
    def total_states(self) -> Int[Array, ""]:
        """States that exist, whether or not a memory has met them."""
        return self.state_mask.sum() if self.num_states is None else self.num_states


class Outcome(NamedTuple):
    """What the environment answers to an action (truncation is the clock's, not the task's)."""

    next_state: State
    reward: Float[Array, ""]
    terminated: Bool[Array, ""]


class Task(Protocol):
    """What the lifetime loop needs of a task: a pytree of arrays with four pure functions.

    One that changes during a lifetime has a fifth, ``at(episode, step) -> Task``: the one that holds then.
    """

    @property
    def horizon(self) -> Int[Array, ""]:
        """Steps after which an episode is truncated."""
        ...

    def spec(self, episodes: Int[Array, ""] | int) -> TaskSpec:
        """What a learner may know before its first step."""
        ...

    def reset(self, key: PRNGKey) -> State:
        """Draw the first state of an episode."""
        ...

    def step(self, key: PRNGKey, state: State, action: Int[Array, "*K"]) -> Outcome:
        """Draw the outcome of an action."""
        ...

    def observe(self, state: State) -> Observation:
        """What a learner sees of a state."""
        ...


class Decision(NamedTuple):
    """What ``act`` returns: the action and the values it came from."""

    action: Int[Array, "*K"]
    values: Float[Array, "*K A"]
    """Q(s, .) that the action was chosen from, exploration included; -inf at padded actions."""
    estimate: Float[Array, "*K A"]
    """Q(s, .) believed, without any bonus for exploring; ``predict`` is greedy on it."""


@runtime_checkable
class Learner(Protocol):
    """Three pure functions. Plain Q-learning, UCBVI, PSRL and every meta-learned agent have this shape.

    Learners are pytrees (``equinox.Module``), so hyper-parameters and weights are their leaves.
    """

    def init(self, key: PRNGKey, spec: TaskSpec) -> Memory:
        """Memory before the first step of a lifetime."""
        ...

    def act(self, key: PRNGKey, memory: Memory, state: Observation) -> Decision:
        """Choose an action in ``state``; memory is not changed."""
        ...

    def update(self, key: PRNGKey, memory: Memory, transition: Transition) -> Memory:
        """Memory after one more transition."""
        ...
