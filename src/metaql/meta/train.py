"""Step 5, meta-training: Q-learning agents, the family prior, then lifetimes over many tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, overload

import equinox as eqx
import jax
import jax.numpy as jnp

from metaql.config import check_seed, to_dict
from metaql.embedding.statistics import Statistics, empty
from metaql.errors import ConfigError
from metaql.meta.agent import Agent, AnyAgent
from metaql.meta.config import (
    CONFIGS,
    AnyConfig,
    AnyFamily,
    MetaTrainConfig,
    config_class,
    name_of,
    settings_for,
)
from metaql.meta.finite_agent import FiniteAgent
from metaql.meta.finite_config import FiniteConfig
from metaql.meta.finite_session import FiniteSession
from metaql.meta.groups import Group, fit_priors, groups_of
from metaql.meta.loop import OnProgress, Session
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
from metaql.tasks.families.base import Family
from metaql.tasks.finite import FiniteTask
from metaql.tasks.logged import LoggedFamily
from metaql.tasks.simulators import SimulatorFamily
from metaql.types import PRNGKey

__all__ = ["FiniteConfig", "MetaTrainConfig", "RecurrentConfig", "meta_train"]


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
    family: Family, *, agent: Literal["auto"] = "auto", **settings: Any
) -> Agent | FiniteAgent: ...
@overload
def meta_train(family: Family, *, agent: Literal["belief"], **settings: Any) -> Agent: ...
@overload
def meta_train(
    family: SimulatorFamily | LoggedFamily,
    *,
    agent: Literal["auto", "recurrent"] = "auto",
    **settings: Any,
) -> RecurrentAgent: ...
@overload
def meta_train(
    family: AnyFamily,
    *,
    agent: Literal["recurrent"],
    **settings: Any,
) -> RecurrentAgent: ...
@overload
def meta_train(family: Family, *, agent: Literal["finite"], **settings: Any) -> FiniteAgent: ...
@overload
def meta_train(family: AnyFamily, *, agent: str = "auto", **settings: Any) -> AnyAgent: ...
def meta_train(
    family: AnyFamily,
    *,
    agent: str = "auto",
    config: AnyConfig | None = None,
    seed: int = 0,
    run: Path | str | None = None,
    resume: bool = False,
    on_progress: OnProgress = lambda stage, done, metrics: None,
    **settings: Any,
) -> AnyAgent:
    """Learn how to Q-learn across the training tasks of ``family``.

    For finite families plain Q-learning agents live in training tasks. What they experienced becomes
    FiniteQ's prior over how tasks are made (`metaql.meta.finite_session`), or BeliefQ's family prior by
    state, where tasks share their states; then BeliefQ lives whole lifetimes in fresh tasks and is trained
    on them (`metaql.meta.objective`). RecurrentQ is trained on whole lifetimes from the start
    (`metaql.meta.recurrent_step`). Validation and test tasks are never touched.

    Args:
        family: where tasks come from; a `Mixture` trains one set of weights on all its parts, a
            `SimulatorFamily` is stepped on the host, of a `LoggedFamily` there are logs alone.
        agent: ``"belief"``: BeliefQ, for finite families; ``"finite"``: FiniteQ with a prior of that family,
            in a minute; ``"recurrent"``: RecurrentQ, for any whose tasks share observations and actions;
            ``"auto"``: BeliefQ where tasks share their states and for mixtures; FiniteQ for other finite
            families and bandits, which it learns better; RecurrentQ for what is not finite.
        config: how long and how; ``settings`` override single fields, as in ``env_steps=200_000``. None:
            what suits the family (`metaql.tasks.families.base.TaskFamily.suits`), else the usual settings.
        seed: of everything; the same seed gives the same weights.
        run: folder for checkpoints, ``metrics.jsonl`` and the agent; None: nothing is written. A new training
            wants one without checkpoints.
        resume: go on from the newest intact checkpoint in ``run``, to bit-identical weights.
        on_progress: called with the stage, the share of it done and current figures.

    Raises:
        UnknownNameError: no such agent.
        UsageError: a seed out of range.
        ConfigError: a setting that does not exist or does not fit, or an agent for other families.
        CheckpointError: ``resume`` and no usable checkpoint or one of another seed; or no ``resume`` and a
            ``run`` that holds a training already.
        KeyboardInterrupt: Ctrl-C; with a ``run``, a checkpoint was written first.

    Example:
        >>> import metaql
        >>> family = metaql.families.frozen_lake(size=3)
        >>> agent = metaql.meta_train(family, env_steps=8_192, agents=32, agent_steps=256)
    """
    check_seed(seed)
    wanted = config_class(family, agent)
    if config is not None and not isinstance(config, wanted):
        known = type(config) in CONFIGS.values()
        raise ConfigError(
            f"`config` must be a {wanted.__name__} here.",
            f"Got a {type(config).__name__}.",
            f"Ask for agent={name_of(type(config))!r}." if known else "",
        )
    values = {**(to_dict(config) if config else {}), **settings}
    config = settings_for(family, agent, values, "meta_train")
    folder = Path(run).expanduser() if run else None
    if isinstance(config, RecurrentConfig):
        return train_recurrent(
            family, config, seed=seed, run=folder, resume=resume, on_progress=on_progress
        )
    finite = cast(Family, family)
    if isinstance(config, FiniteConfig):
        return FiniteSession(finite, config, seed, folder, on_progress).train(resume=resume)
    return _Session(finite, config, seed, folder, on_progress).train(resume=resume)


class _Session(Session[MetaTrainConfig, _Snapshot, Agent]):
    """One meta-training of BeliefQ."""

    def __init__(
        self,
        family: Family,
        config: MetaTrainConfig,
        seed: int,
        run: Path | None,
        on_progress: OnProgress,
    ) -> None:
        super().__init__(family, config, seed, run, on_progress)
        self.family = family
        self.keys = _Keys(*jax.random.split(jax.random.key(seed), len(_Keys._fields)))
        self.groups: tuple[Group, ...] = groups_of(family)
        belief = BeliefConfig(
            embedding=config.embedding, hidden=config.hidden, sweeps=config.sweeps
        )
        self.weights, self.frozen = split_weights(BeliefQ(self.keys.weights, config=belief))

    def start(self) -> _Snapshot:
        """Stages before meta-training, then the first lifetimes."""
        priors = fit_priors(
            self.groups,
            self.config,
            self.keys.agents,
            lambda stage, done: self.on_progress(stage, done, {}),
        )
        return _Snapshot(self._first_state(priors), priors)

    def blank(self) -> _Snapshot:
        """A snapshot with empty priors."""
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

        def draw() -> tuple[FiniteTask, Answers]:
            key = jax.random.fold_in(jax.random.fold_in(self.keys.bank, group), epoch)
            tasks = self.groups[group].family.tasks(key, self.config.bank, "train")
            return tasks, solve(tasks)

        return self.held(group, epoch, draw)

    def done(self, training: _Snapshot) -> int:
        """Iterations behind a snapshot."""
        return int(training.state.iteration)

    def step(self, training: _Snapshot, iteration: int) -> tuple[_Snapshot, dict[str, float]]:
        """One iteration on the group whose turn it is."""
        config, group = self.config, iteration % len(self.groups)
        bank, answers = self.bank(group, iteration // config.refresh)
        prior = self._prior(group, training.priors)
        state, progress = train_step(
            training.state, group, self.frozen, prior, bank, answers, config
        )
        row = _figures(progress, (iteration + 1) * config.steps_per_iteration)
        return training._replace(state=state), row

    def agent(self, training: _Snapshot) -> Agent:
        """The agent as it stands."""
        steps = int(training.state.iteration) * self.config.steps_per_iteration
        return Agent(
            learner=eqx.combine(training.state.weights, self.frozen),
            priors=training.priors,
            family_name=self.family.name,
            card={"seed": self.seed, "env_steps": steps, "train": to_dict(self.config)},
        )


def _figures(progress: Progress, steps: int) -> dict[str, float]:
    losses = {name: float(value) for name, value in progress.losses._asdict().items()}
    return {"env_steps": steps, "reward": float(progress.reward), **losses}
