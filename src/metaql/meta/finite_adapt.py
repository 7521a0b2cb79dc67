"""FiniteQ beside an environment on the host, and what it has learned when the episodes are over."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from metaql.embedding.successors import is_full
from metaql.errors import UsageError
from metaql.meta.adapt import FiniteAdaptation, Lived, integer
from metaql.meta.compiling import compile_options
from metaql.meta.finite_memory import (
    FIRST_SLOTS,
    Rows,
    blank,
    is_small,
    more_slots,
    widen,
)
from metaql.meta.packed import Form, form_of, packed
from metaql.meta.unlike import Diary
from metaql.policy.finiteq import FiniteQ, Knowledge
from metaql.policy.uncertainty import COVERAGE, Calibration, Judgement, Z, judge
from metaql.tasks.host import HostEnvironment
from metaql.types import Transition


def live(
    learner: FiniteQ,
    memory: Knowledge,
    last: Transition,
    state: Int[Array, ""],
    moment: tuple[Int[Array, ""], Int[Array, ""]],
) -> tuple[Knowledge, Int[Array, " 2"]]:
    """One step: learn from the last transition (none before the first), plan, choose.

    Args:
        learner: of this task.
        memory: its buffers are given up for those of the result.
        last: the last transition.
        state: where to act.
        moment: the seed of the lifetime, and the steps taken in it.

    Returns:
        The memory, the action, and whether some pair has no room for another successor.
    """
    seed, clock = moment
    # As in `metaql.meta.lifetime.turn`, but one program serves the first step too, and nothing else
    # than the action is asked for: believed values would take hundreds of sweeps more.
    key_act = jax.random.split(jax.random.fold_in(jax.random.key(seed), clock))[1]

    def learned(_: Array, before: Knowledge) -> Knowledge:
        return learner.learn(before, last)

    # A loop of one turn, or none: it changes arrays in place, where a condition copies them.
    memory = learner.replan(jax.lax.fori_loop(0, jnp.minimum(clock, 1), learned, memory))
    action = learner.act(key_act, memory, state).action
    full = is_full(memory.evidence.successors)
    return memory, jnp.stack([action, full.astype(jnp.int32)])


@functools.cache
def _compiled(of_learner: Form, small: bool) -> Callable[..., tuple[Knowledge, Int[Array, " 2"]]]:
    """`live` for packed learners of a form."""

    def packed_live(
        row: Float[Array, " W"], memory: Knowledge, *now: Any
    ) -> tuple[Knowledge, Int[Array, " 2"]]:
        return live(of_learner.unpacked(row), memory, *now)

    return jax.jit(packed_live, donate_argnames="memory", compiler_options=compile_options(small))


_Judging: TypeAlias = Callable[..., Judgement]
_SETTINGS: Any = jax.config


@functools.cache
def _judging(small: bool) -> _Judging:
    return jax.jit(judge, compiler_options=compile_options(small))


@functools.cache
def _aside() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="metaql-compile")


_AHEAD: dict[tuple[Form, Form], Future[_Judging]] = {}
"""`judge` for learners and memories of these forms, done or under way."""


def _forget() -> None:
    """In a forked process, which has no such thread."""
    _AHEAD.clear()
    _aside.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _prepare_to_judge(of_learner: Form, of_memory: Form) -> None:
    """Compile `judge` for these forms while the caller goes on."""
    # What is set for one thread alone does not hold in another.
    if _SETTINGS.jax_disable_jit or _SETTINGS.jax_default_device is not None:
        return
    learner, memory = (form.structure.unflatten(form.leaves) for form in (of_learner, of_memory))
    calibration = jax.eval_shape(Calibration)

    def compiled() -> _Judging:
        return _judging(is_small(memory)).lower(learner, memory, calibration).compile()  # pyright: ignore[reportFunctionMemberAccess]

    if (of_learner, of_memory) not in _AHEAD:
        with contextlib.suppress(RuntimeError):  # the interpreter is about to end
            _AHEAD[of_learner, of_memory] = _aside().submit(compiled)


def _ready(learner: FiniteQ, memory: Knowledge) -> _Judging:
    """`judge`, as it was prepared; or else to be compiled now."""
    place = (form_of(learner), form_of(memory))
    if place in _AHEAD and not _SETTINGS.jax_disable_jit:
        try:
            return _AHEAD[place].result()
        except Exception:  # for want of memory, say: whoever asks again may have more luck
            del _AHEAD[place]
    return _judging(is_small(memory))


def judgement(learner: FiniteQ, memory: Knowledge, calibration: Calibration) -> Judgement:
    """`judge`, compiled, as NumPy arrays."""
    return jax.device_get(_ready(learner, memory)(learner, memory, calibration))


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
        self._row = packed(learner)
        form = form_of(learner)
        self._live_in = {small: _compiled(form, small) for small in (False, True)}
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
        if self.rows.capacity == host.num_states:
            # No more rows, and seldom more slots: it will most likely be judged as it is.
            _prepare_to_judge(form, form_of(self.memory))
        self.diary = Diary()
        self._full = False

    def first(self, state: int) -> int:
        """The action in the first state of the lifetime."""
        zero: Any = np.bool_(False)
        nowhere, nothing = integer(0), np.float32(0.0)
        last = Transition(nowhere, nowhere, nothing, nowhere, zero, zero)  # pyright: ignore[reportArgumentType]
        return self._live(0, last, self.rows(state))

    def next(self, clock: int, last: Transition, state: int) -> int:
        """Learn from one step, then choose in ``state``."""
        onto = int(last.next_state)
        self._make_room({onto, state})
        here: Any = integer(self.rows(int(last.state)))
        there: Any = integer(self.rows(onto))
        last = last._replace(state=here, next_state=there)
        self.diary.write(last)
        return self._live(clock, last, self.rows(state))

    def adapted(self, lived: Lived) -> Any:
        """What is known now."""
        return self.conclude(self, lived)

    def _live(self, clock: int, last: Transition, row: int) -> int:
        moment = (self.seed, integer(clock))
        spec: Any = self.memory.spec._replace(numbers=self.rows.numbers.copy())
        self.memory = self.memory._replace(spec=spec)
        program = self._live_in[is_small(self.memory)]
        self.memory, answer = program(self._row, self.memory, last, integer(row), moment)
        action, self._full = np.asarray(answer).tolist()
        return action

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


class Beliefs(NamedTuple):
    """What is believed of Q* in every state acted in (``M`` of them); where episodes only ended is none."""

    states: Int[np.ndarray, " M"]
    """As the environment numbers them, in the order in which they were met."""
    mean: Float[np.ndarray, "M A"]
    low: Float[np.ndarray, "M A"]
    """Lower bound of the 90% interval."""
    high: Float[np.ndarray, "M A"]
    best: Float[np.ndarray, " M"]
    """Probability that the greedy action (the largest mean) is the best one."""


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
            return self.q_table()[states].argmax(-1)
        plan = jax.device_get(self.memory.plan)
        values = self._by_state(plan.q, plan.fresh)[states]
        top = values.max(-1, keepdims=True)
        close = values >= top - float(self.learner.alike(self.memory)) * (1.0 + np.abs(top))
        noise = np.random.default_rng(0).random(values.shape)
        return np.where(close, noise, -1.0).argmax(-1)

    def q_table(self) -> Float[np.ndarray, "S A"]:
        """Q(s, a) as believed: the posterior mean of Q*; states never met are worth what is usual."""
        return self._by_state(self.judged.mean, self.judged.fresh[0])

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
        low, high, hold = (float(bound) for bound in model.bounds)
        least, most = (low, high) if hold >= COVERAGE else (-np.inf, np.inf)
        mean, variance = (np.asarray(part)[0] for part in model.reward[:2])
        reach = Z * np.sqrt(variance)
        return ArmRewards(
            *(np.clip(part, least, most) for part in (mean, mean - reach, mean + reach))
        )

    def _by_state(self, values: Any, fresh: Any) -> Float[np.ndarray, "S A"]:
        table = np.full(self.shape, np.asarray(fresh), np.float32)
        states, rows = np.asarray(list(self.rows)), np.asarray(list(self.rows.values()))
        table[states] = np.asarray(values)[rows]
        return table
