"""Families of Gymnasium environments on the host: checked, side by side, nothing shared between splits."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import time

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from metaql.errors import EnvironmentFaultError, UnknownNameError, UnsupportedSpaceError, UsageError
from metaql.tasks.simulators import SimulatorFamily
from metaql.tasks.watchdog import alarm_taken, answering_within


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


def test_a_task_that_is_not_there_is_named():
    carts = family((9, 7))
    assert carts.task("train", 1) == 7
    with pytest.raises(UsageError, match=r"'train' are numbered 0 to 1\. Got 2"):
        carts.open("train", 2)
    with pytest.raises(
        UnknownNameError, match=r"no tasks of the split 'validation'.*of: train.*Give"
    ):
        carts.open("validation", 0)
    with pytest.raises(UnknownNameError, match="Did you mean 'test'"):
        carts.open("tests", 0)


def answers(**spoiled):
    """Makes an environment answer with something else from its third step on."""

    def fault(env):
        def step(action):
            row = {"seen": env._seen(), "reward": 0.0, "ended": False, "cut": False, "more": {}}
            return tuple({**row, **spoiled}.values())[: spoiled.get("length", 5)]

        env.step = step

    return fault


@pytest.mark.parametrize(
    ("spoiled", "words"),
    [
        ({"reward": None}, "finite"),
        ({"reward": np.ones(1)}, "finite"),
        ({"reward": "1"}, "finite"),
        ({"reward": 1e39}, "finite"),
        ({"ended": None}, "`terminated` must be true or false"),
        ({"cut": 0.5}, "`truncated` must be true or false"),
        ({"length": 4}, "expected 5, got 4"),
    ],
)
def test_an_impossible_answer_names_who_gave_it(spoiled, words):
    tasks = {"train": [7, 8, 9]}
    fault = answers(**spoiled)
    odd = SimulatorFamily(
        lambda task: Counter(task, fault if task == 9 else None), tasks, horizon=6
    )
    crowd = odd.crowd("train", [0, 1, 2])
    who = np.array([False, True, True])
    crowd.reset(who)
    for _ in range(3):
        crowd.step(np.zeros(3, int), who)
    with pytest.raises(EnvironmentFaultError, match=words) as found:
        crowd.step(np.zeros(3, int), who)
    assert "step 4 of an episode of task 9 of 'train'" in found.value.evidence


def test_a_reset_in_the_older_style_is_named():
    old = family((7, 8))
    crowd = old.crowd("train", [0, 1])
    crowd.hosts[1].env.unwrapped.reset = lambda **options: np.zeros(1, np.float32)
    with pytest.raises(EnvironmentFaultError, match="`reset` must return 2 values") as found:
        crowd.reset(np.ones(2, bool))
    assert "task 8 of 'train'" in found.value.evidence


def test_environments_that_live_side_by_side_are_all_kept(monkeypatch):
    monkeypatch.setattr("metaql.tasks.simulators._KEPT", 2)
    many = family((2, 3, 4, 5))
    parts = [[0, 1], [2, 3, 3]]
    first = [crowd.hosts for crowd in many.crowds("train", parts)]
    assert [crowd.hosts for crowd in many.crowds("train", parts)] == first
    many.crowd("train", [0])
    assert many.crowd("train", [0]).hosts == first[0][:1]
    assert many.crowds("train", parts)[0].hosts[1] is not first[0][1]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (np.linspace(0.0, 1.0, 11), [0.5]),
        ([2.0], [2]),
        ([{"a": 1, "b": [2]}], [{"b": (2.0,), "a": 1}]),
        ([np.float32(0.5)], [0.5]),
        ([np.arange(3)], [[0, 1, 2]]),
    ],
)
def test_a_task_is_the_same_whatever_types_its_numbers_have(train, test):
    with pytest.raises(UsageError, match="must not share a task"):
        SimulatorFamily(lambda task: Counter(3), {"train": train, "test": test}, horizon=5)


def test_large_and_odd_numbers_are_tasks():
    tasks = {"train": [10**400, float("nan"), "1"], "test": [10**400 + 1, 1]}
    assert SimulatorFamily(lambda task: Counter(3), tasks, horizon=5).tasks["test"][1] == 1


def test_every_lifetime_needs_an_environment_of_its_own():
    one = Counter(3)
    with pytest.raises(UsageError, match="a new environment each time"):
        SimulatorFamily(lambda task: one, {"train": [1, 2]}, horizon=5).crowd("train", [0, 1])
    named = SimulatorFamily(lambda task: "CartPole-v1", {"train": [1, 2]})
    hosts = named.crowd("train", [0, 0, 1]).hosts
    assert len({id(host.env) for host in hosts}) == 3


def test_what_cannot_be_made_names_its_task():
    def make(task):
        if task == 7:
            raise RuntimeError("no licence")
        return None if task == 8 else Counter(task)

    tasks = SimulatorFamily(make, {"train": [3, 7, 8]}, horizon=5)
    with pytest.raises(EnvironmentFaultError, match="7 of 'train'") as found:
        tasks.crowd("train", [1])
    assert "no licence" in str(found.value)
    with pytest.raises(UnsupportedSpaceError, match="8 of 'train' it returned NoneType"):
        tasks.crowd("train", [2])


def noting(closed):
    """A family of two tasks whose environments note that they are closed."""

    def make(size):
        env = Counter(size)
        env.close = lambda: closed.append(size)
        return env

    return SimulatorFamily(make, {"train": [2, 3]}, horizon=5)


def test_closed_environments_are_made_anew_when_needed():
    closed = []
    some = noting(closed)
    some.crowd("train", [0, 1])
    some.close()
    assert sorted(closed) == [2, 3]
    assert len(some.crowd("train", [0, 1]).hosts) == 2


def test_environments_that_nobody_uses_any_more_are_closed(monkeypatch):
    monkeypatch.setattr("metaql.tasks.simulators._KEPT", 1)
    closed = []
    many = noting(closed)
    held = many.crowd("train", [1])
    many.crowd("train", [0])
    gc.collect()
    assert closed == [], "a crowd that is still held goes on with it"
    del held
    gc.collect()
    assert closed == [3]


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


class Answering(gymnasium.Env):
    """Answers with what ``task`` makes of a vector, and spoils the actions that it is given."""

    def __init__(self, task, space=None, actions=None):
        self.observation_space = space or spaces.Box(-1.0, 2.0, (2,), np.float32)
        self.action_space = actions or spaces.Box(-2.0, 2.0, (2,), np.float32)
        self.task, self.taken = task, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.task(np.array([0.5, 1.5], np.float32)), {}

    def step(self, action):
        self.taken.append(np.array(action))
        action *= 0
        return self.task(np.array([0.25, -0.5], np.float32)), 0.0, False, False, {}


def as_doubles(vector):
    return vector.astype(np.float64)


def as_list(vector):
    return vector.tolist()


def itself(vector):
    return vector


@pytest.mark.parametrize("kinds", [[itself] * 3, [as_doubles] * 3, [itself, as_doubles, as_list]])
def test_observations_of_every_kind_are_the_same_states(kinds):
    tasks = {"train": list(range(3))}
    crowd = SimulatorFamily(lambda i: Answering(kinds[i]), tasks, horizon=4).crowd(
        "train", [0, 1, 2]
    )
    first = crowd.reset(np.ones(3, bool))
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, [[0.5, 1.5]] * 3)
    answer = crowd.step(np.zeros((3, 2), np.int32), np.array([True, False, True]))
    np.testing.assert_array_equal(answer.next_state, [[0.25, -0.5], [0, 0], [0.25, -0.5]])


@pytest.mark.parametrize(
    "wrong",
    [lambda v: v[:1], lambda v: np.append(v, v), str, lambda v: v + 2j, lambda v: v * np.nan],
)
def test_an_observation_unlike_the_others_is_named(wrong):
    tasks = {"train": [0, 1, 2]}
    kinds = [itself, itself, lambda v: v if v[0] == 0.5 else wrong(v)]
    family = SimulatorFamily(lambda i: Answering(kinds[i]), tasks, horizon=4)
    crowd = family.crowd("train", [0, 1, 2])
    crowd.reset(np.ones(3, bool))
    with pytest.raises(EnvironmentFaultError, match="lie in") as found:
        crowd.step(np.zeros((3, 2), np.int32), np.array([False, True, True]))
    assert "step 1 of an episode of task 2 of 'train'" in found.value.evidence


@pytest.mark.parametrize(
    ("space", "numbers", "meant"),
    [
        (spaces.Box(-2.0, 2.0, (2,), np.float32), [0, 4], [-2.0, 2.0]),
        (spaces.Box(-2.0, 2.0, (1,), np.float32), 4, [2.0]),
        (spaces.MultiDiscrete([3, 5], start=[1, 2]), [2, 0], [3, 2]),
    ],
)
def test_an_environment_may_write_into_its_action(space, numbers, meant):
    family = SimulatorFamily(
        lambda task: Answering(itself, actions=space), {"train": [0]}, horizon=4
    )
    crowd = family.crowd("train", [0])
    one = np.ones(1, bool)
    crowd.reset(one)
    for _ in range(2):
        crowd.step(np.array([numbers]), one)
    taken = crowd.hosts[0].env.unwrapped.taken
    np.testing.assert_array_equal(taken, [meant, meant])
    assert taken[0].dtype == space.dtype


def test_numbered_actions_have_the_type_of_their_space():
    space = spaces.Discrete(2, start=3)
    family = SimulatorFamily(
        lambda task: Answering(itself, actions=space), {"train": [0]}, horizon=4
    )
    crowd = family.crowd("train", [0])
    crowd.reset(np.ones(1, bool))
    crowd.step(np.array([1]), np.ones(1, bool))
    (taken,) = crowd.hosts[0].env.unwrapped.taken
    assert (taken, taken.dtype) == (4, space.dtype)


def late():
    return TimeoutError("late")


def test_the_alarm_is_given_back():
    before = signal.getsignal(signal.SIGALRM)
    with alarm_taken():
        for _ in range(2):
            with pytest.raises(TimeoutError, match="late"), answering_within(0.05, late):
                time.sleep(5)
        signal.raise_signal(signal.SIGALRM)  # nobody is waited for
        assert signal.getsignal(signal.SIGALRM) is not before
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


STOPPED = """
import time
from metaql.tasks.watchdog import answering_within
with answering_within(2.0, lambda: TimeoutError("late")):
    print("waiting", flush=True)
    end = time.process_time() + 0.1  # of its own time, not of the clock's
    while time.process_time() < end:
        pass
print("answered")
"""


def test_a_process_that_was_stopped_is_not_late():
    """Ctrl-Z, and later ``fg``: nobody was too slow."""
    command = [sys.executable, "-c", STOPPED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as waiting:
        assert waiting.stdout.readline() == "waiting\n"
        waiting.send_signal(signal.SIGSTOP)
        time.sleep(2.5)
        waiting.send_signal(signal.SIGCONT)
        assert waiting.stdout.read() == "answered\n"


@pytest.mark.parametrize(
    ("make", "tasks", "horizon", "words"),
    [
        ("CartPole-v1", {"train": [3]}, None, "function from a task"),
        (Counter, [3, 4], None, "split of every task.*list.*train"),
        (Counter, {"train": [3]}, 0, "`horizon`.*0"),
        (Counter, {"train": [3]}, 2.5, "`horizon`.*2.5"),
        (Counter, {"train": [3]}, True, "`horizon`.*True"),
    ],
)
def test_what_is_easily_mixed_up_is_told(make, tasks, horizon, words):
    with pytest.raises(UsageError, match=words):
        SimulatorFamily(make, tasks, horizon=horizon)


def test_long_arrays_that_print_alike_are_other_tasks():
    zeros, one = np.zeros(2_000), np.eye(2_000)[1_000]
    assert repr(zeros) == repr(one).replace("1.", "0.")
    tasks = {"train": [{"map": zeros}], "test": [{"map": one}]}
    made = SimulatorFamily(lambda task: family((9,)).open("train", 0), tasks, horizon=5)
    assert made.task("test", 0)["map"][1_000] == 1.0
    with pytest.raises(UsageError, match="must not share"):
        SimulatorFamily(made.make_env, {"train": [zeros], "test": [zeros.copy()]}, horizon=5)


@pytest.mark.parametrize("seconds", [float("inf"), 1e12])
def test_a_limit_that_is_none_sets_no_alarm(seconds):
    crowd = family((9,), seconds=seconds).crowd("train", [0])
    crowd.reset(np.ones(1, bool))


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), "60", True])
def test_a_limit_is_a_number_above_0(seconds):
    with pytest.raises(UsageError, match="`seconds` must be a number above 0"):
        family((9,), seconds=seconds)
