"""An environment and an untrained agent that the tests of FiniteQ's adaptation share."""

from __future__ import annotations

import threading

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from metaql.embedding.hyperprior import broad
from metaql.meta import ahead
from metaql.meta.finite_agent import FiniteAgent
from metaql.policy.curiosity import Curiosity
from metaql.policy.uncertainty import Calibration


class Maze(gymnasium.Env):
    """A random MDP: each pair has a few successors; the last state ends the episode and pays 1.

    With ``period``, the actions swap their meaning every so many steps (not stationary).
    """

    def __init__(self, states=12, actions=2, successors=5, patience=20, start=0, period=None):
        rng = np.random.default_rng(3)
        self.observation_space = spaces.Discrete(states, start=start)
        self.action_space = spaces.Discrete(actions)
        self.next = rng.integers(states, size=(states, actions, successors))
        self.pay = rng.normal(0.0, 0.1, (states, actions))
        self.start, self.patience, self.period, self.age = start, patience, period, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state, self.clock = 0, 0
        return self.start, {}

    def step(self, action):
        states, actions, successors = self.next.shape
        shift = self.age // self.period if self.period else 0
        action = (action + shift) % actions
        reward = self.pay[self.state, action]
        self.age, self.clock = self.age + 1, self.clock + 1
        self.state = int(self.next[self.state, action, self.np_random.integers(successors)])
        done = self.state == states - 1
        cut = self.clock >= self.patience and not done
        return self.state + self.start, float(reward + done), done, cut, {}


def untrained_agent(card=None, **prior):
    """An agent of hand-set weights, some fields of its prior replaced."""
    believed = broad()
    for name, value in prior.items():
        believed = eqx.tree_at(lambda p, n=name: getattr(p, n), believed, jnp.asarray(value))
    kinds = ("one_state", "many_states")
    return FiniteAgent(
        priors=dict.fromkeys(kinds, believed),
        curiosities={kind: Curiosity() for kind in kinds},
        calibrations=dict.fromkeys(kinds, Calibration()),
        family_name="finite",
        card=card or {},
    )


@pytest.fixture(scope="session")
def _compiled():
    """Names of jitted functions, whenever XLA has compiled one; a listener cannot be taken back."""
    names = []

    def note(event, duration, **told):
        if event.endswith("backend_compile_duration"):
            names.append(told["fun_name"].removeprefix("jit(").removesuffix(")"))
            if threading.current_thread().name.startswith("metaql-compile"):
                names.append(f"{names[-1]}, aside")

    jax.monitoring.register_event_duration_secs_listener(note)
    return names


@pytest.fixture
def compilations(_compiled):
    """Those of this test; once more with "aside" where they were compiled on another thread."""
    for program in list(ahead._UNDER_WAY):
        ahead.wait(program)
    _compiled.clear()
    return _compiled


@pytest.fixture(scope="session")
def maze():
    return Maze


@pytest.fixture(scope="session")
def make_agent():
    return untrained_agent
