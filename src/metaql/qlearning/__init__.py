"""Within one task: tabular Q-learning and the classic baselines, all of one protocol."""

from __future__ import annotations

from metaql.qlearning.optimistic import UCBVI, MeanStdPlanner
from metaql.qlearning.posterior import PSRL
from metaql.qlearning.schedules import Constant, Decay, Harmonic
from metaql.qlearning.tabular import DoubleQLearning, QLambda, QLearning, tuned_optimistic

__all__ = [
    "PSRL",
    "UCBVI",
    "Constant",
    "Decay",
    "DoubleQLearning",
    "Harmonic",
    "MeanStdPlanner",
    "QLambda",
    "QLearning",
    "tuned_optimistic",
]
