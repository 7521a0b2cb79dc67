"""Meta-train FiniteQ on one family: what its tasks have in common, from what Q-learning agents met in them.

Agents that learn by plain Q-learning live in training tasks, and the moments of their evidence are the
`Hyperprior` (`metaql.meta.hyperfit`). Then FiniteQ lives in others, to see how far its intervals must reach
(`metaql.meta.calibrate`). All else is that of the shipped agent ``finite``: optimism, and what is believed of
tasks of the other kind.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from metaql.config import to_dict
from metaql.embedding.hyperprior import Hyperprior, broad
from metaql.meta.agent import AGENT_FOLDER, load_shipped
from metaql.meta.calibrate import AGES, fit_bounds, verdicts
from metaql.meta.experience import ENDLESS, Judge, Witness, explorer
from metaql.meta.finite_agent import MANY_STATES, ONE_STATE, FiniteAgent
from metaql.meta.finite_config import FiniteConfig
from metaql.meta.finite_memory import FIRST_SLOTS
from metaql.meta.hyperfit import fit_hyperprior
from metaql.meta.lifetime import Life, advance_unrecorded, begin_all
from metaql.meta.loop import OnProgress, Session
from metaql.policy.uncertainty import Calibration
from metaql.tasks.families.base import Family
from metaql.tasks.finite import NO_HORIZON, FiniteTask

UNFINISHED = "unfinished"
"""Entry of the card that names the stage which is still to come."""
_INTERVALS = "intervals"
"""The stage after all iterations."""
_FEWEST_STEPS, _MOST_STEPS, _EPISODES = 32, 640, 20
"""Of a lifetime that intervals are fitted in (the fewest where one episode is not enough to judge)."""


class Gathering(NamedTuple):
    """Where the Q-learning agents stand: what a checkpoint holds."""

    lives: Life
    """``[N, ...]``, with notes of everything met."""
    iteration: Int[Array, ""]


class FiniteSession(Session[FiniteConfig, Gathering, FiniteAgent]):
    """One meta-training of FiniteQ."""

    def __init__(
        self,
        family: Family,
        config: FiniteConfig,
        seed: int,
        run: Path | None,
        on_progress: OnProgress,
    ) -> None:
        super().__init__(family, config, seed, run, on_progress)
        self.family = family
        key_tasks, self.key_lives, self.key_intervals = jax.random.split(jax.random.key(seed), 3)
        self.tasks: FiniteTask = family.tasks(key_tasks, config.agents, "train")
        alone = self.tasks.transition.shape[-1] == 1
        self.kind = ONE_STATE if alone else MANY_STATES
        self.slots = None if alone else most_successors(self.tasks)
        self.usual = cast(FiniteAgent, load_shipped("finite"))
        self.distinct = distinct_tasks(self.tasks) if alone else None
        self.witness = Witness(explorer(), Judge(broad(), self.slots))

    def start(self) -> Gathering:
        """Agents that know nothing."""
        keys = jax.random.split(self.key_lives, self.config.agents)
        lives = begin_all(self.witness, self.tasks, keys, ENDLESS)
        return Gathering(lives, jnp.zeros((), jnp.int32))

    def blank(self) -> Gathering:
        """The same."""
        return self.start()

    def done(self, training: Gathering) -> int:
        """Iterations behind a state."""
        return int(training.iteration)

    def step(self, training: Gathering, iteration: int) -> tuple[Gathering, dict[str, float]]:
        """Every agent lives a segment."""
        lives = advance_unrecorded(
            self.witness, self.tasks, training.lives, self.config.segment_steps
        )
        before, after = (each.memory.notes.pair.reward.sum() for each in (training.lives, lives))
        steps = self.config.steps_per_iteration
        row = {"env_steps": (iteration + 1) * steps, "reward": float(after - before) / steps}
        return Gathering(lives, training.iteration + 1), row

    def train(self, *, resume: bool) -> FiniteAgent:
        """To the end; then intervals of its own."""
        agent = super().train(resume=resume)
        if not self.config.interval_tasks:
            return agent
        agent = self._with_intervals(agent)
        if self.run is not None:
            agent.save(self.run / AGENT_FOLDER)
        return agent

    def _with_intervals(self, agent: FiniteAgent) -> FiniteAgent:
        """The same, its intervals fitted in training tasks."""
        self.on_progress(_INTERVALS, 0.0, {})
        key_tasks, key_lives = jax.random.split(self.key_intervals)
        tasks = self.family.tasks(key_tasks, self.config.interval_tasks, "train")
        states, actions = tasks.transition.shape[1:3]
        learner = agent.learner_for(states, actions, slots=self.slots)
        steps, episodes = lifetime_in(tasks)
        seen = verdicts(
            learner,
            Calibration(),
            tasks,
            key_lives,
            num_steps=steps,
            episodes=episodes,
            on_progress=lambda done: self.on_progress(_INTERVALS, done, {}),
        )
        own = fit_bounds([seen])
        lived = f"fitted in {self.config.interval_tasks} lifetimes of {steps} steps"
        card = {name: entry for name, entry in agent.card.items() if name != UNFINISHED}
        return dataclasses.replace(
            agent,
            calibrations={**agent.calibrations, self.kind: own},
            card={**card, "intervals": lived},
        )

    def agent(self, training: Gathering) -> FiniteAgent:
        """With the prior that what was met so far suggests."""
        notes, done = training.lives.memory.notes, self.done(training)
        before, known = self.usual.priors[self.kind], self.usual.card["range"]
        prior = before
        if done:
            prior = fit_hyperprior([notes], one_family=True, tasks=self.distinct)
        if not bool((notes.peak > 0).any()):
            prior = with_rewards_of(before, prior)
        span = {**sizes(self.tasks), "episodes": known[self.kind]["episodes"]}
        card = {
            "seed": self.seed,
            "env_steps": done * self.config.steps_per_iteration,
            "train": to_dict(self.config),
            "optimism": "that of `finite`",
            "intervals": "those of `finite`",
            "range": {**known, self.kind: span},
        }
        if self.config.interval_tasks:
            card[UNFINISHED] = _INTERVALS
        if self.slots is not None:
            card["slots"] = self.slots
        return FiniteAgent(
            priors={**self.usual.priors, self.kind: prior},
            curiosities=self.usual.curiosities,
            calibrations=self.usual.calibrations,
            family_name=self.family.name,
            card=card,
        )


def lifetime_in(tasks: FiniteTask) -> tuple[int, int]:
    """Steps and episodes of a lifetime to judge beliefs in: of bandits one, else twenty; more short ones."""
    horizon, alone = int(tasks.horizon.max()), tasks.transition.shape[-1] == 1
    usual = min(horizon if alone else _EPISODES * horizon, _MOST_STEPS)
    # An episode more would be told of than is lived: what is pulled at its end is what seems best.
    steps = AGES[-1] * round(usual / AGES[-1]) if usual >= AGES[-1] else _FEWEST_STEPS
    ends = bool((tasks.transition * tasks.termination > 0).any())
    shortest = 1 if alone and ends else horizon
    return steps, max(steps // shortest, 1 if alone else _EPISODES)


def distinct_tasks(tasks: FiniteTask) -> Int[np.ndarray, " N"]:
    """A number for every task, the same for those that are: a family may be a pool of a few."""
    rows = [np.asarray(leaf).reshape(len(tasks.initial), -1) for leaf in tasks]
    return np.unique(np.concatenate(rows, 1), axis=0, return_inverse=True)[1].reshape(-1)


def most_successors(tasks: FiniteTask) -> int:
    """The largest number of states that one pair leads to in these tasks, or more."""
    return max(int((tasks.transition > 0).sum(-1).max()), FIRST_SLOTS)


def with_rewards_of(before: Hyperprior, prior: Hyperprior) -> Hyperprior:
    """What is believed of rewards as before: where none was met, nothing was learned of them."""

    def of_rewards(each: Hyperprior) -> list[Any]:
        by_values = [each.pair, each.arrival, each.pair_two, each.arrival_two]
        return [*by_values, each.noise_odds, each.stays_two, each.reward_odds, each.unit]

    return eqx.tree_at(of_rewards, prior, of_rewards(before))


def sizes(tasks: FiniteTask) -> dict[str, list[int]]:
    """Smallest and largest numbers of states and actions, and horizons where there are some."""
    found = {
        "states": tasks.state_mask.sum(-1),
        "actions": tasks.action_mask.sum(-1),
        "horizon": tasks.horizon,
    }
    ends = {name: [int(each.min()), int(each.max())] for name, each in found.items()}
    return {name: span for name, span in ends.items() if span[1] < NO_HORIZON}
