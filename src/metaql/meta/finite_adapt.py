"""FiniteQ beside an environment on the host, and what it has learned when the episodes are over."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from metaql.embedding.successors import is_full
from metaql.errors import UsageError
from metaql.meta.adapt import FiniteAdaptation, Lived, integer
from metaql.meta.ahead import compile_aside, wait
from metaql.meta.compiling import compile_options
from metaql.meta.finite_memory import (
    FIRST_SLOTS,
    LimitSeen,
    Rows,
    blank,
    is_small,
    more_slots,
    widen,
)
from metaql.meta.packed import Form, form_of, packed
from metaql.meta.unlike import Diary
from metaql.policy.finiteq import FiniteQ, Knowledge
from metaql.policy.outlook import Plan
from metaql.policy.uncertainty import Calibration, Judgement, Z, judge, possible_rewards
from metaql.tasks.host import HostEnvironment
from metaql.types import Transition


def choose(
    learner: FiniteQ,
    memory: Knowledge,
    state: Int[Array, ""],
    moment: tuple[Int[Array, ""], Int[Array, ""]],
) -> tuple[tuple[Plan, Plan], Int[Array, " 2"]]:
    """Plan, and choose an action.

    As in `metaql.meta.lifetime.turn`, but nothing else than the action is asked for: believed values would
    take hundreds of sweeps more, and to trace them a fifth of a second.

    Args:
        learner: of this task.
        memory: what is known.
        state: where to act.
        moment: the seed of the lifetime, and the steps taken in it.

    Returns:
        Both plans; the action, and whether some pair has no room for another successor.
    """
    seed, clock = moment
    key_act = jax.random.split(jax.random.fold_in(jax.random.key(seed), clock))[1]
    memory = learner.replan(memory)
    action, _ = learner.greedy(key_act, memory, state)
    full = is_full(memory.evidence.successors)
    return (memory.plan, memory.closing), jnp.stack([action, full.astype(jnp.int32)])


class _Programs(NamedTuple):
    """What one step needs, compiled. Apart, they are compiled on two processors at once."""

    learn: Callable[..., Knowledge]
    choose: Callable[..., tuple[tuple[Plan, Plan], Int[Array, " 2"]]]


@functools.cache
def _programs(of_learner: Form, small: bool) -> _Programs:
    """For packed learners of a form; `learn` gives the buffers of its memory to those of the result."""

    def packed_learn(row: Float[Array, " W"], memory: Knowledge, last: Transition) -> Knowledge:
        return of_learner.unpacked(row).learn(memory, last)

    def packed_choose(row: Float[Array, " W"], *now: Any) -> Any:
        return choose(of_learner.unpacked(row), *now)

    options = compile_options(small)
    learn = jax.jit(packed_learn, donate_argnames="memory", compiler_options=options)
    return _Programs(learn, jax.jit(packed_choose, compiler_options=options))


@functools.cache
def _judging(small: bool) -> Callable[..., Judgement]:
    return jax.jit(judge, compiler_options=compile_options(small))


def judgement(learner: FiniteQ, memory: Knowledge, calibration: Calibration) -> Judgement:
    """`judge`, compiled, as NumPy arrays."""
    program = _judging(is_small(memory))
    wait(program)
    return jax.device_get(program(learner, memory, calibration))


class FiniteCompanion:
    """FiniteQ beside an environment; its memory grows with what is met."""

    def __init__(
        self,
        learner: FiniteQ,
        host: HostEnvironment,
        episodes: int,
        seed: int,
        conclude: Callable[[FiniteCompanion, Lived], Any],
    ) -> None:
        """Start with nothing known.

        Args:
            learner: its ``slots`` say which layout; in the sparse one more are made when needed.
            host: the environment.
            episodes: in the lifetime.
            seed: of the agent.
            conclude: makes the result.
        """
        self.seed, self.conclude = np.uint32(seed), conclude
        self._row, self._form, self._learner = packed(learner), form_of(learner), learner
        self.rows = Rows(host.num_states)
        self.slots = None if learner.slots is None else max(learner.slots, FIRST_SLOTS)
        self.memory = blank(
            self.rows.capacity,
            host.num_actions,
            self.slots,
            num_states=host.num_states,
            horizon=host.horizon,
            episodes=episodes,
        )
        self.diary = Diary()
        self._limit = None if host.has_time_limit else LimitSeen()
        self._full = False
        self._compiled = _programs(self._form, is_small(self.memory))

    def first(self, state: int) -> int:
        """The action in the first state of the lifetime."""
        row = self.rows(state)
        self.memory = self._numbered()
        if self.rows.capacity == self.rows.num_states:
            # No more rows, and seldom more slots: these programs will most likely serve all the lifetime.
            self._prepare(row)
        return self._choose(0, row)

    def next(self, clock: int, last: Transition, state: int) -> int:
        """Learn from one step, then choose in ``state``."""
        onto = int(last.next_state)
        self._make_room({onto, state})
        here: Any = integer(self.rows(int(last.state)))
        there: Any = integer(self.rows(onto))
        row = self.rows(state)
        last = last._replace(state=here, next_state=there)
        self.diary.write(last)
        if self._limit is not None:
            horizon: Any = np.asarray(self._limit.after(last), np.int32)
            self.memory = self.memory._replace(spec=self.memory.spec._replace(horizon=horizon))
        program = self._compiled.learn
        wait(program)
        self.memory = program(self._row, self._numbered(), last)
        return self._choose(clock, row)

    def adapted(self, lived: Lived) -> Any:
        """What is known now."""
        return self.conclude(self, lived)

    def _prepare(self, row: int) -> None:
        """Compile all that will be called, side by side."""
        memory = self.memory
        zero: Any = np.bool_(False)
        nowhere, nothing = integer(0), np.float32(0.0)
        last = Transition(nowhere, nowhere, nothing, nowhere, zero, zero)  # pyright: ignore[reportArgumentType]
        now = (integer(row), (self.seed, integer(0)))
        compile_aside(self._compiled.choose, self._row, memory, *now)
        compile_aside(self._compiled.learn, self._row, memory, last)
        usual = jax.eval_shape(Calibration)
        compile_aside(_judging(is_small(memory)), self._learner, memory, usual)

    def _choose(self, clock: int, row: int) -> int:
        now = (integer(row), (self.seed, integer(clock)))
        program = self._compiled.choose
        wait(program)
        plans, answer = program(self._row, self.memory, *now)
        self.memory = self.memory._replace(plan=plans[0], closing=plans[1])
        action, self._full = np.asarray(answer).tolist()
        return action

    def _numbered(self) -> Knowledge:
        """What is known, and of which states."""
        spec: Any = self.memory.spec._replace(numbers=self.rows.numbers.copy())
        return self.memory._replace(spec=spec)

    def _make_room(self, states: set[int]) -> None:
        """Move to larger arrays where these states, or another successor, would find no room."""
        capacity, slots = self.rows.room_for(states), self.slots
        if slots is not None and self._full:
            slots = more_slots(slots, self.rows.num_states)
        if (capacity, slots) == (self.rows.capacity, self.slots):
            return
        self.memory = widen(self.memory, capacity, slots, spare=len(self.rows) % capacity)
        self.rows.grow(capacity)
        self.slots = slots
        self._compiled = _programs(self._form, is_small(self.memory))


class Beliefs(NamedTuple):
    """What is believed of Q* in every state acted in (``M`` of them); where episodes only ended is none."""

    states: Int[np.ndarray, " M"]
    """As the environment numbers them, in the order in which they were met."""
    mean: Float[np.ndarray, "M A"]
    low: Float[np.ndarray, "M A"]
    """Lower bound of the 90% interval."""
    high: Float[np.ndarray, "M A"]
    best: Float[np.ndarray, " M"]
    """Probability that the greedy action (the largest mean) is the best one, or as good: within a thousandth
    of its value, and a tenth of what the state's actions differ by. On average over the kinds of task it was
    fitted on; in other tasks it may promise too much.
    """


class ArmRewards(NamedTuple):
    """What is believed of the mean reward of every arm of a bandit, each within a 90% interval."""

    mean: Float[np.ndarray, " A"]
    low: Float[np.ndarray, " A"]
    high: Float[np.ndarray, " A"]


@dataclass(frozen=True, kw_only=True, repr=False)
class FiniteAdapted(FiniteAdaptation):
    """FiniteQ, adapted to one task.

    Values are of Q* as planned for: undiscounted with the whole horizon left where that is at most 16
    steps, else at the discount ``1 - 1 / horizon`` (0.99 from 100 steps on).
    """

    learner: FiniteQ
    memory: Knowledge
    """What it knows of the task; states have rows in the order in which they were met."""
    rows: dict[int, int]
    """State, numbered from 0 -> its row."""
    num_states: int
    calibration: Calibration
    _judged: list[Judgement] = field(default_factory=list[Judgement])
    _chance: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    @property
    def shape(self) -> tuple[int, int]:
        """States and actions of the task."""
        return self.num_states, self.memory.spec.action_mask.shape[0]

    @property
    def judged(self) -> Judgement:
        """All that is believed, by row; computed when first asked for."""
        if not self._judged:
            self._judged.append(judgement(self.learner, self.memory, self.calibration))
        return self._judged[0]

    def choose(self, states: Int[np.ndarray, " N"], deterministic: bool) -> Int[np.ndarray, " N"]:
        """Actions in these states, both numbered from 0; where never met all look alike."""
        if deterministic:
            return self._in_states(states, self.judged.mean, self.judged.fresh[0]).argmax(-1)
        plan = jax.device_get(self.memory.plan)
        values = self._in_states(states, plan.q, plan.fresh)
        top = values.max(-1, keepdims=True)
        close = values >= top - float(self.learner.alike(self.memory)) * np.abs(top)
        noise = self._chance.random(values.shape)
        return np.where(close, noise, -1.0).argmax(-1)

    def q_table(self) -> Float[np.ndarray, "S A"]:
        """Q(s, a) as believed: the posterior mean of Q*; states never met are worth what is usual."""
        states = np.arange(self.num_states)
        return self._in_states(states, self.judged.mean, self.judged.fresh[0])

    def beliefs(self) -> Beliefs:
        """Mean, 90% interval and the odds of the greedy action, in every state acted in."""
        states, rows = np.asarray(list(self.rows)), np.asarray(list(self.rows.values()))
        acted = np.asarray(self.memory.evidence.pair.visits)[rows].sum(-1) > 0
        states, rows, judged = states[acted], rows[acted], self.judged
        parts = (
            np.asarray(part)[rows] for part in (judged.mean, judged.low, judged.high, judged.best)
        )
        return Beliefs(states + self.first_state, *parts)

    def arm_rewards(self) -> ArmRewards:
        """Of a bandit: what one pull of each arm is worth, where `beliefs` has what the whole rest is worth.

        Posterior means, and normal intervals of the posterior (not calibrated, unlike those of `beliefs`),
        between the two values that rewards are sure to have, if they are.

        Raises:
            UsageError: the task has several states.
        """
        if self.num_states != 1:
            raise UsageError(
                "Only a bandit has arms: a task of one state.",
                f"This one has {self.num_states}.",
                "What actions are worth in every state: beliefs().",
            )
        model = self.learner.model(self.memory)
        least, most = (float(end) for end in possible_rewards(model))
        mean, variance = (np.asarray(part)[0] for part in model.reward[:2])
        reach = Z * np.sqrt(variance)
        return ArmRewards(
            *(np.clip(part, least, most) for part in (mean, mean - reach, mean + reach))
        )

    def _in_states(
        self, states: Int[np.ndarray, " N"], values: Any, fresh: Any
    ) -> Float[np.ndarray, "N A"]:
        """The rows of these states, whether met or not: a table of all may be too large."""
        rows = np.asarray([self.rows.get(int(state), -1) for state in states])[:, None]
        return np.where(rows < 0, np.asarray(fresh), np.asarray(values)[rows[:, 0]])
