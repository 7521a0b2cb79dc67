"""A library that trains in no time, so that the command line can be tested on its own.

Run as a script it is ``metaql`` on top of that library.
"""

from __future__ import annotations

import sys
import time
import types
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from metaql.errors import EnvironmentFaultError
from metaql.evaluation.summary import summarise

AGENT_FOLDER = "agent"
Beliefs = namedtuple("Beliefs", "states mean low high best")


class Adapted:
    def __init__(self, returns, lengths):
        self.returns, self.lengths = np.asarray(returns), np.asarray(lengths)
        self.warnings = []

    def q_table(self):
        return np.arange(64.0).reshape(16, 4)

    def beliefs(self):
        states, values = np.arange(len(self.returns) - 1), np.ones((len(self.returns) - 1, 4))
        return Beliefs(states, values, values, values, np.linspace(0.5, 1.0, len(states)))


class Agent:
    learner, family_name, usual_episodes = None, "frozen_lake", 50

    def __init__(self, asked=700):
        self.card = {"env_steps": 700, "train": {"env_steps": asked}}

    def adapt(self, env, *, episodes=10, seed=0, on_episode=lambda i, r, n: None):
        returns = [float(index % 2) for index in range(min(episodes, 66))]
        for index, value in enumerate(returns):
            on_episode(index, value, 7 + index)
        adapted = Adapted(returns, [7 + index for index in range(len(returns))])
        if episodes > 66:
            error = EnvironmentFaultError(
                "Rewards must be finite.", "Step 400 paid nan.", "Correct it."
            )
            error.adapted = adapted
            raise error
        return adapted


def meta_train(
    family, *, agent="auto", config=None, seed=0, run=None, resume=False, on_progress=None
):
    if config.env_steps == 666:
        raise RuntimeError("the fan fell off")
    (run / "checkpoint" / "step-000000").mkdir(parents=True, exist_ok=True)
    (run / AGENT_FOLDER).mkdir(exist_ok=True)
    (run / AGENT_FOLDER / "kind.txt").write_text(agent)
    (run / AGENT_FOLDER / "asked.txt").write_text(str(config.env_steps))
    steps = 600 if config.env_steps == 600 else 2
    for step in range(steps + 1):
        on_progress("meta-training", step / steps, {"loss": 0.5, "env_steps": step})
        time.sleep(0.05 if steps == 600 else 0.0)
    return Agent()


def load(path):
    from metaql.errors import CheckpointError, NoAgentError

    if path == "damaged":
        raise CheckpointError("A checkpoint must be whole.", f"{path} is not.", "Load another one.")
    if path != "finite" and not Path(path).exists():
        raise NoAgentError("A saved agent must exist.", f"{path} does not.", "Train one first.")
    asked = Path(path) / AGENT_FOLDER / "asked.txt"
    return Agent(int(asked.read_text())) if asked.is_file() else Agent()


@dataclass
class Comparison:
    rows: dict
    levels: dict


def compare(agent, family, task, *, runs=200, episodes=20, seed=0, beside=None, on_progress=None):
    on_progress("Comparison", 1.0, {})
    rng = np.random.default_rng(seed)

    def lives(rate):
        returns = (rng.random((runs, episodes)) < rate).astype(float)
        return SimpleNamespace(returns=returns, lengths=rng.integers(3, 60, (runs, episodes)))

    others = {name: lives(0.6) for name in beside or {}}
    rows = {"meta-learned agent": lives(0.7), "PSRL": lives(0.1), **others}
    return Comparison(rows, {"best non-adaptive policy": 0.083, "optimum": 0.744})


def evaluate(agent, family, *, lifetimes, task, **how):
    found = compare(agent, family, task, runs=lifetimes, **how)
    return summarise(found.rows, found.levels)


MODULES = {
    "metaql.meta.train": {"meta_train": meta_train},
    "metaql.meta.agent": {"load": load, "Agent": Agent, "AGENT_FOLDER": AGENT_FOLDER},
    "metaql.evaluation.compare": {"compare": compare},
    "metaql.evaluation.evaluate": {"evaluate": evaluate, "usual_episodes": lambda agent: 20},
}


def modules():
    """The fake modules by name."""
    made = {}
    for name, content in MODULES.items():
        made[name] = types.ModuleType(name)
        vars(made[name]).update(content)
    return made


if __name__ == "__main__":
    sys.modules.update(modules())
    from metaql.cli.main import run

    run()
