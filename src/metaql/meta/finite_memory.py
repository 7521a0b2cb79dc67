"""Memory of FiniteQ that grows with what was met: rows for states, slots for successors.

On the host, states get rows in the order in which they are met. Arrays have room for more than that
(their capacity) and are moved to larger ones before room runs out. A compiled step holds for one size
of the arrays, so they grow seldom and by much.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np

from metaql.meta.compiling import compile_options
from metaql.policy.finiteq import Knowledge, no_knowledge
from metaql.tasks.finite import NO_HORIZON
from metaql.types import TaskSpec, Transition

FIRST_ROWS = 64
"""States that a memory has room for at first."""
FIRST_SLOTS = 4
"""Successors per pair that a memory has room for at first: as many as profiles know."""
ROW_GROWTH = 4
"""Factor by which the room for states grows."""

_SMALL = 4_096
"""Pairs up to which a program is compiled in a hurry: optimising it takes longer than it saves."""


class LimitSeen:
    """The time limit of an environment that declares none, as far as its episodes tell.

    They tell if none lasted longer than one that was truncated (`metaql.tasks.logs.time_limit`).
    """

    def __init__(self) -> None:
        self._length = self._cut = self._longest = 0

    def after(self, last: Transition) -> int:
        """Steps after which episodes seem to be truncated, one step later; `NO_HORIZON`: nothing tells."""
        self._length += 1
        self._longest = max(self._longest, self._length)
        if last.truncated:
            self._cut = max(self._cut, self._length)
        if last.truncated or last.terminated:
            self._length = 0
        return self._cut if 0 < self._cut == self._longest else NO_HORIZON


def is_small(memory: Knowledge) -> bool:
    """Whether a program for this memory is compiled in a hurry."""
    return memory.spec.state_mask.size * memory.spec.action_mask.size <= _SMALL


def blank(
    capacity: int,
    num_actions: int,
    slots: int | None,
    *,
    num_states: int,
    horizon: int = NO_HORIZON,
    episodes: int = 1,
) -> Knowledge:
    """Nothing known, as NumPy arrays, with rows for ``capacity`` of ``num_states`` states."""
    masks: Any = np.ones(capacity, bool), np.ones(num_actions, bool)
    sizes: Any = (np.int32(size) for size in (horizon, episodes, num_states))
    spec = TaskSpec(*masks, *sizes, numbers=np.full(capacity, -1, np.int32))  # pyright: ignore[reportArgumentType]
    return jax.device_get(_blank(capacity * num_actions <= _SMALL)(spec, slots))


@functools.cache
def _blank(small: bool) -> Any:
    return jax.jit(no_knowledge, static_argnames="slots", compiler_options=compile_options(small))


def widen(memory: Knowledge, capacity: int, slots: int | None, spare: int) -> Knowledge:
    """The same knowledge in larger arrays; what is new is as in a fresh memory.

    Args:
        memory: what is known.
        capacity: rows for states, at least as many as now.
        slots: successors per pair, at least as many as now; None: the dense layout.
        spare: a row of a state never met: new rows are planned to be worth the same.
    """
    spec = memory.spec
    num_actions = spec.action_mask.shape[0]
    fresh = blank(
        capacity, num_actions, slots, num_states=int(spec.num_states or spec.state_mask.sum())
    )

    def moved(new: np.ndarray, old: Any) -> np.ndarray:
        old = np.asarray(old)
        new = np.array(new)
        new[tuple(slice(size) for size in old.shape)] = old
        return new

    wide = jax.tree.map(moved, fresh, memory)
    wide.spec.state_mask[:] = True
    wide.plan.q[spec.state_mask.shape[0] :] = wide.plan.q[spare]
    return wide


class Rows:
    """Which row of the arrays each state has, in the order in which they were met."""

    def __init__(self, num_states: int) -> None:
        self.num_states = num_states
        self.index: dict[int, int] = {}
        self.capacity = min(num_states, FIRST_ROWS)
        self.numbers = np.full(self.capacity, -1, np.int32)

    def __len__(self) -> int:
        return len(self.index)

    def __call__(self, state: int) -> int:
        """The row of a state; a new one if it was never met."""
        row = self.index.setdefault(state, len(self.index))
        self.numbers[row] = state
        return row

    def grow(self, capacity: int) -> None:
        """Have room for ``capacity`` states."""
        self.numbers = np.pad(
            self.numbers, (0, capacity - self.capacity), constant_values=np.int32(-1)
        )
        self.capacity = capacity

    def room_for(self, states: set[int]) -> int:
        """Capacity with which these states fit and, unless all were met, one row is still spare."""
        wanted = len(self.index) + len(states - self.index.keys()) + 1
        capacity = self.capacity
        while capacity < min(wanted, self.num_states):
            capacity = min(capacity * ROW_GROWTH, self.num_states)
        return capacity


def more_slots(slots: int, num_states: int) -> int:
    """Twice the successors per pair, as long as there can be more."""
    return max(slots, min(2 * slots, num_states))
