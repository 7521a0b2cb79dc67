"""Learn how to Q-learn across a family of tasks, then solve a new one in a few episodes.

Names are imported when first used, so ``import metaql`` is instant. The usual way through:

    family = metaql.families.frozen_lake(size=4)
    agent = metaql.meta_train(family, seed=0)
    adapted = agent.adapt("FrozenLake-v1", episodes=10, seed=0)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaql.cli.progress import Progress
    from metaql.evaluation.evaluate import evaluate
    from metaql.meta.agent import Agent, load
    from metaql.meta.config import MetaTrainConfig
    from metaql.meta.finite_agent import FiniteAgent
    from metaql.meta.finite_config import FiniteConfig
    from metaql.meta.recurrent_agent import RecurrentAgent
    from metaql.meta.recurrent_config import RecurrentConfig
    from metaql.meta.train import meta_train
    from metaql.policy.beliefq import BeliefQ
    from metaql.policy.recurrentq import RecurrentQ
    from metaql.tasks import families
    from metaql.tasks.families.base import TaskFamily
    from metaql.tasks.families.custom import ArrayFamily, environment_family
    from metaql.tasks.finite import FiniteTask, finite_task
    from metaql.tasks.logged import LoggedFamily
    from metaql.tasks.simulators import SimulatorFamily

    __version__: str

_HOME = {
    "Agent": "metaql.meta.agent",
    "ArrayFamily": "metaql.tasks.families.custom",
    "BeliefQ": "metaql.policy.beliefq",
    "FiniteAgent": "metaql.meta.finite_agent",
    "FiniteConfig": "metaql.meta.finite_config",
    "FiniteTask": "metaql.tasks.finite",
    "LoggedFamily": "metaql.tasks.logged",
    "MetaTrainConfig": "metaql.meta.config",
    "Progress": "metaql.cli.progress",
    "RecurrentAgent": "metaql.meta.recurrent_agent",
    "RecurrentConfig": "metaql.meta.recurrent_config",
    "RecurrentQ": "metaql.policy.recurrentq",
    "SimulatorFamily": "metaql.tasks.simulators",
    "TaskFamily": "metaql.tasks.families.base",
    "environment_family": "metaql.tasks.families.custom",
    "evaluate": "metaql.evaluation.evaluate",
    "finite_task": "metaql.tasks.finite",
    "load": "metaql.meta.agent",
    "meta_train": "metaql.meta.train",
}

__all__ = [
    "Agent",
    "ArrayFamily",
    "BeliefQ",
    "FiniteAgent",
    "FiniteConfig",
    "FiniteTask",
    "LoggedFamily",
    "MetaTrainConfig",
    "Progress",
    "RecurrentAgent",
    "RecurrentConfig",
    "RecurrentQ",
    "SimulatorFamily",
    "TaskFamily",
    "__version__",
    "environment_family",
    "evaluate",
    "families",
    "finite_task",
    "load",
    "meta_train",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        value = version("metaql")
    elif name == "families":
        value = importlib.import_module("metaql.tasks.families")
    elif name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module 'metaql' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Names to complete, before any of them is imported."""
    return sorted(__all__)
