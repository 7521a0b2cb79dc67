"""Families of Gymnasium environments on the host: checked, side by side, nothing shared between splits."""

from __future__ import annotations

import time

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from metaql.errors import EnvironmentFaultError, UnknownNameError, UnsupportedSpaceError, UsageError
from metaql.tasks.simulators import SimulatorFamily


class Counter(gymnasium.Env):
    """Counts its steps; ends by itself after ``task`` of them. May do something forbidden at the third."""

    def __init__(self, task, fault=None, size=1):
        self.observation_space = spaces.Box(-1.0, 100.0, (size,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.task, self.fault, self.count = task, fault, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self._seen(), {}

    def step(self, action):
        self.count += 1
        reward = float(action)
        if self.count == 3 and self.fault is not None:
            reward = self.fault(self) or reward
        return self._seen(), reward, self.count >= self.task, False, {}

    def _seen(self):
        return np.full(self.observation_space.shape, self.count, np.float32)


def family(tasks=(2, 5), fault=None, **options):
    return SimulatorFamily(
        lambda task: Counter(task, fault), {"train": tasks}, horizon=4, **options
    )


def test_environments_are_stepped_where_asked():
    crowd = family().crowd("train", [0, 1, 0])
    everyone = np.ones(3, bool)
    assert crowd.reset(everyone, [1, 2, 3]).tolist() == [[0], [0], [0]]
    crowd.step(np.array([1, 0, 1]), everyone)
    answer = crowd.step(np.array([1, 1, 1]), np.array([True, True, False]))
    assert answer.next_state.tolist() == [[2], [2], [0]]
    assert answer.reward.tolist() == [1, 1, 0]
    assert answer.terminated.tolist() == [True, False, False]
    crowd.reset(np.array([True, False, False]))
    for _ in range(2):
        answer = crowd.step(np.zeros(3, int), np.array([False, True, False]))
    assert answer.next_state.tolist() == [[0], [4], [0]]
    assert answer.truncated.tolist() == [False, True, False]  # the family's horizon


def test_what_ends_by_itself_at_the_last_step_is_not_truncated():
    crowd = family((4,)).crowd("train", [0])
    one = np.ones(1, bool)
    crowd.reset(one)
    for _ in range(4):
        answer = crowd.step(np.zeros(1, int), one)
    assert answer.terminated[0]
    assert not answer.truncated[0]


def nan(env):
    return float("nan")


def breaks(env):
    raise ZeroDivisionError("no wheel")


def hangs(env):
    time.sleep(20)


def leaves(env):
    env.count = 1_000


@pytest.mark.parametrize(
    ("fault", "words"),
    [(nan, "finite"), (breaks, "no wheel"), (hangs, "within 0.3 seconds"), (leaves, "lie in")],
)
def test_a_fault_names_task_environment_and_step(fault, words):
    crowd = family((9,), fault, seconds=0.3).crowd("train", [0])
    one = np.ones(1, bool)
    crowd.reset(one)
    crowd.step(np.zeros(1, int), one)
    crowd.step(np.zeros(1, int), one)
    with pytest.raises(EnvironmentFaultError, match=words) as found:
        crowd.step(np.zeros(1, int), one)
    assert "step 3" in found.value.evidence
    assert "task 9 of 'train'" in found.value.evidence
    assert "Counter" in found.value.evidence


def test_spaces_must_be_alike():
    def make(size):
        return Counter(3, size=size)

    odd = SimulatorFamily(make, {"train": [1, 2]}, horizon=5)
    with pytest.raises(UnsupportedSpaceError, match="same observation"):
        odd.crowd("train", [0, 1])


def test_episodes_must_end():
    with pytest.raises(UnsupportedSpaceError, match="TimeLimit"):
        SimulatorFamily(Counter, {"train": [3]})
    limited = SimulatorFamily(lambda task: TimeLimit(Counter(task), 7), {"train": [3]})
    assert limited.crowd("train", [0]).horizon.tolist() == [7]


def test_splits_share_no_task():
    with pytest.raises(UsageError, match="share"):
        SimulatorFamily(Counter, {"train": [1, 2], "test": [2]}, horizon=4)
    with pytest.raises(UsageError, match="train"):
        SimulatorFamily(Counter, {"test": [2]}, horizon=4)
    with pytest.raises(UnknownNameError):
        SimulatorFamily(Counter, {"train": [1], "tests": [2]}, horizon=4)
