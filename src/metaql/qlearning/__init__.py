"""Within one task: tabular Q-learning and the classic baselines, all of one protocol."""

from __future__ import annotations

from metaql.qlearning.bandits import UCB1, Thompson
from metaql.qlearning.gittins import Gittins, NormalGittins
from metaql.qlearning.optimistic import BEB, UCBVI, UCRL2, MeanStdPlanner
from metaql.qlearning.posterior import PSRL
from metaql.qlearning.schedules import Constant, Decay, Harmonic
from metaql.qlearning.tabular import DoubleQLearning, QLambda, QLearning, tuned_optimistic

__all__ = [
    "BEB",
    "PSRL",
    "UCB1",
    "UCBVI",
    "UCRL2",
    "Constant",
    "Decay",
    "DoubleQLearning",
    "Gittins",
    "Harmonic",
    "MeanStdPlanner",
    "NormalGittins",
    "QLambda",
    "QLearning",
    "Thompson",
    "tuned_optimistic",
]
