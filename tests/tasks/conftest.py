"""An environment of the tests' own, with and without a published table."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces


class Corridor(gymnasium.Env):
    """Cells 10 .. 14; action 5 goes left, 6 goes right. The right end pays 1 and terminates.

    After ``patience`` steps the environment truncates by its own flag. ``fault`` is what it does
    wrong on its second step.
    """

    def __init__(self, fault=None, patience=7):
        self.observation_space = spaces.Discrete(5, start=10)
        self.action_space = spaces.Discrete(2, start=5)
        self.fault, self.patience = fault, patience

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cell, self.clock = 10, 0
        if self.fault == "reset":
            raise RuntimeError("no power")
        return np.int64(99 if self.fault == "first" else self.cell), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.clock += 1
        self.cell = int(np.clip(self.cell + (1 if action == 6 else -1), 10, 14))
        done = self.cell == 14
        answer = [
            np.int32(self.cell),
            np.float32(done),
            np.bool_(done),
            self.clock >= self.patience,
        ]
        if self.clock == 2 and self.fault == "raises":
            raise RuntimeError("motor stalled")
        if self.clock == 2 and isinstance(self.fault, tuple):
            answer[self.fault[0]] = self.fault[1]
        if self.clock == 2 and self.fault == "old interface":
            return tuple(answer)
        return (*answer, {})


class Tabulated(Corridor):
    """The same corridor, its table published and keyed by ``first_state`` and ``first_action``."""

    def __init__(self, first_state=10, first_action=5, **kwargs):
        super().__init__(**kwargs)
        self.initial_state_distrib = np.eye(5)[0]
        self.P = {}
        for s in range(5):
            left, right = max(s - 1, 0), min(s + 1, 4)
            self.P[first_state + s] = {
                first_action: [(1.0, first_state + left, 0.0, False)],
                first_action + 1: [(1.0, first_state + right, float(right == 4), right == 4)],
            }


@pytest.fixture
def corridor():
    return Corridor


@pytest.fixture
def tabulated():
    return Tabulated
