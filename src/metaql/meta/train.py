"""Step 5, meta-training: Q-learning agents, the family prior, then lifetimes over many tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, overload

import equinox as eqx
import jax
import jax.numpy as jnp

from metaql import checkpoint
from metaql.config import build, to_dict
from metaql.embedding.statistics import Statistics, empty
from metaql.errors import ConfigError
from metaql.meta.agent import AGENT_FOLDER, Agent
from metaql.meta.config import MetaTrainConfig, config_class
from metaql.meta.groups import Group, fit_priors, groups_of
from metaql.meta.loop import CHECKPOINT_FOLDER, OnProgress, Plan, iterate
from metaql.meta.recurrent_agent import RecurrentAgent
from metaql.meta.recurrent_config import RecurrentConfig
from metaql.meta.recurrent_train import train_recurrent
from metaql.meta.step import (
    Progress,
    TrainState,
    optimizer_for,
    populate,
    solve,
    split_weights,
    train_step,
)
from metaql.policy.beliefq import BeliefConfig, BeliefQ
from metaql.tasks.exact import Answers
from metaql.tasks.families.base import Family, TaskFamily
from metaql.tasks.finite import FiniteTask
from metaql.types import PRNGKey

__all__ = ["MetaTrainConfig", "RecurrentConfig", "meta_train"]


class _Keys(NamedTuple):
    agents: PRNGKey
    weights: PRNGKey
    bank: PRNGKey
    start: PRNGKey
    train: PRNGKey


class _Snapshot(NamedTuple):
    """What a checkpoint holds."""

    state: TrainState
    priors: dict[str, Statistics]


@overload
def meta_train(
    family: Family, *, agent: Literal["auto", "belief"] = "auto", **settings: Any
) -> Agent: ...
@overload
def meta_train(
    family: TaskFamily, *, agent: Literal["recurrent"], **settings: Any
) -> RecurrentAgent: ...
@overload
def meta_train(
    family: TaskFamily, *, agent: str = "auto", **settings: Any
) -> Agent | RecurrentAgent: ...
def meta_train(
    family: TaskFamily,
    *,
    agent: str = "auto",
    config: MetaTrainConfig | RecurrentConfig | None = None,
    seed: int = 0,
    run: Path | str | None = None,
    resume: bool = False,
    on_progress: OnProgress = lambda stage, done, metrics: None,
    **settings: Any,
) -> Agent | RecurrentAgent:
    """Learn how to Q-learn across the training tasks of ``family``.

    Stages: plain Q-learning agents live in training tasks; where tasks share their states, what they
    experienced becomes a family prior; then BeliefQ lives whole lifetimes in fresh tasks and is
    trained on them (`metaql.meta.objective`). RecurrentQ is trained on whole lifetimes from the start
    (`metaql.meta.recurrent_step`). Validation and test tasks are never touched.

    Args:
        family: where tasks come from; a `Mixture` trains one set of weights on all its parts.
        agent: ``"belief"``: BeliefQ, for finite families; ``"recurrent"``: RecurrentQ, for any whose tasks
            share observations and actions; ``"auto"``: BeliefQ where the family is finite.
        config: how long and how; ``settings`` override single fields, as in ``env_steps=200_000``.
        seed: of everything; the same seed gives the same weights.
        run: folder for checkpoints, ``metrics.jsonl`` and the agent; None: nothing is written.
        resume: go on from the newest intact checkpoint in ``run``, to bit-identical weights.
        on_progress: called with the stage, the share of it done and current figures.

    Raises:
        UnknownNameError: no such agent.
        ConfigError: a setting that does not exist or does not fit, or an agent for other families.
        CheckpointError: ``resume`` and no usable checkpoint.
        KeyboardInterrupt: Ctrl-C; with a ``run``, a checkpoint was written first.

    Example:
        >>> import metaql
        >>> family = metaql.families.frozen_lake(size=3)
        >>> agent = metaql.meta_train(family, env_steps=8_192, agents=32, agent_steps=256)
    """
    wanted = config_class(family, agent)
    if config is not None and not isinstance(config, wanted):
        raise ConfigError(
            f"`config` must be a {wanted.__name__} here.", f"Got a {type(config).__name__}."
        )
    values = {**to_dict(config or wanted()), **settings}
    config, folder = build(wanted, values, "meta_train"), Path(run) if run else None
    if isinstance(config, RecurrentConfig):
        return train_recurrent(
            family, config, seed=seed, run=folder, resume=resume, on_progress=on_progress
        )
    session = _Session(cast(Family, family), config, seed, folder, on_progress)
    snapshot = session.restore() if resume else session.start()
    return session.train(snapshot)


class _Session:
    """One call of `meta_train`: what does not change while it runs."""

    def __init__(
        self,
        family: Family,
        config: MetaTrainConfig,
        seed: int,
        run: Path | None,
        on_progress: OnProgress,
    ) -> None:
        self.family, self.config, self.run, self.on_progress = family, config, run, on_progress
        self.seed = seed
        self.keys = _Keys(*jax.random.split(jax.random.key(seed), len(_Keys._fields)))
        self.groups: tuple[Group, ...] = groups_of(family)
        belief = BeliefConfig(
            embedding=config.embedding, hidden=config.hidden, sweeps=config.sweeps
        )
        self.weights, self.frozen = split_weights(BeliefQ(self.keys.weights, config=belief))
        self.banks: dict[int, tuple[int, FiniteTask, Answers]] = {}
        self.store = checkpoint.CheckpointStore(run / CHECKPOINT_FOLDER) if run else None

    def start(self) -> _Snapshot:
        """Stages before meta-training, then the first lifetimes."""
        priors = fit_priors(
            self.groups,
            self.config,
            self.keys.agents,
            lambda stage, done: self.on_progress(stage, done, {}),
        )
        snapshot = _Snapshot(self._first_state(priors), priors)
        self._save(snapshot, rows=0)
        return snapshot

    def restore(self) -> _Snapshot:
        """The newest intact checkpoint of the run."""
        if self.store is None:
            raise checkpoint.CheckpointError("`resume` needs a `run` folder.", "Got none.")
        like = eqx.filter_eval_shape(self._blank)
        self.banks.clear()  # what was filled while tracing holds no numbers
        return self.store.load_latest(like).tree

    def _blank(self) -> _Snapshot:
        priors = {}
        for group in self.groups:
            if group.prior_name is not None:
                shape = group.family.sample(self.keys.bank, "train").transition.shape
                priors[group.prior_name] = empty(shape[0], shape[1])
        return _Snapshot(self._first_state(priors), priors)

    def _first_state(self, priors: dict[str, Statistics]) -> TrainState:
        config = self.config
        populations = []
        for index, key in enumerate(jax.random.split(self.keys.start, len(self.groups))):
            bank, answers = self.bank(index, 0)
            learner = eqx.combine(self.weights, self.frozen)
            learner = learner.with_prior(self._prior(index, priors))
            populations.append(
                populate(learner, bank, answers, key, config.lifetimes, config.episodes)
            )
        return TrainState(
            weights=self.weights,
            optimizer=optimizer_for(config).init(cast(Any, self.weights)),
            populations=tuple(populations),
            key=self.keys.train,
            iteration=jnp.zeros((), jnp.int32),
        )

    def _prior(self, group: int, priors: dict[str, Statistics]) -> Statistics | None:
        name = self.groups[group].prior_name
        return None if name is None else priors[name]

    def bank(self, group: int, epoch: int) -> tuple[FiniteTask, Answers]:
        """Tasks of one epoch and their exact answers: a function of seed, group and epoch alone."""
        held = self.banks.get(group)
        if held is None or held[0] != epoch:
            key = jax.random.fold_in(jax.random.fold_in(self.keys.bank, group), epoch)
            tasks = self.groups[group].family.tasks(key, self.config.bank, "train")
            held = self.banks[group] = (epoch, tasks, solve(tasks))
        return held[1], held[2]

    def train(self, snapshot: _Snapshot) -> Agent:
        """Iterate to the end, with checkpoints; Ctrl-C writes one and goes through."""
        config, done = self.config, int(snapshot.state.iteration)
        plan = Plan(done, config.iterations, config.checkpoint_every)
        after = iterate(
            snapshot, plan, self._step, self._save, run=self.run, on_progress=self.on_progress
        )
        return self._agent(after)

    def _step(self, snapshot: _Snapshot, iteration: int) -> tuple[_Snapshot, dict[str, float]]:
        config, group = self.config, iteration % len(self.groups)
        bank, answers = self.bank(group, iteration // config.refresh)
        prior = self._prior(group, snapshot.priors)
        state, progress = train_step(
            snapshot.state, group, self.frozen, prior, bank, answers, config
        )
        row = _figures(progress, (iteration + 1) * config.steps_per_iteration)
        return snapshot._replace(state=state), row

    def _save(self, snapshot: _Snapshot, rows: int) -> None:
        """Checkpoint, and the agent as it stands."""
        if self.store is not None and self.run is not None:
            self.store.save(rows, snapshot, {"seed": self.seed, "config": to_dict(self.config)})
            self._agent(snapshot).save(self.run / AGENT_FOLDER)

    def _agent(self, snapshot: _Snapshot) -> Agent:
        steps = int(snapshot.state.iteration) * self.config.steps_per_iteration
        return Agent(
            learner=eqx.combine(snapshot.state.weights, self.frozen),
            priors=snapshot.priors,
            family_name=self.family.name,
            card={"seed": self.seed, "env_steps": steps, "train": to_dict(self.config)},
        )


def _figures(progress: Progress, steps: int) -> dict[str, float]:
    losses = {name: float(value) for name, value in progress.losses._asdict().items()}
    return {"env_steps": steps, "reward": float(progress.reward), **losses}
