"""A meta-trained agent: adapt it to a new task, save it, load it."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import equinox as eqx
import jax

from metaql import checkpoint
from metaql.embedding.statistics import Statistics, empty
from metaql.errors import ConfigError, NoAgentError, UsageError, did_you_mean, unknown_name
from metaql.files import readable
from metaql.meta import finite_agent
from metaql.meta.adapt import (
    USUAL_EPISODES,
    Adapted,
    Lived,
    TurnCompanion,
    check_request,
    live_on_host,
)
from metaql.meta.finite_agent import FiniteAgent
from metaql.meta.unlike import unusual_lifetime
from metaql.policy.beliefq import Belief, BeliefConfig, BeliefQ
from metaql.tasks.host import HostEnvironment, lent, open_environment

if TYPE_CHECKING:
    from metaql.meta.recurrent_agent import RecurrentAgent

AGENT_FOLDER = "agent"
"""Where a run folder keeps its agent."""
_KIND = "agent"
_SHIPPED = Path(__file__).parent.parent / "weights"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agent:
    """Weights of BeliefQ and the family priors it was trained with."""

    learner: BeliefQ
    """Without a prior: `learner_for` puts in the one that fits."""
    priors: dict[str, Statistics]
    """``family/SxA`` -> pseudo-observations."""
    family_name: str
    card: dict[str, Any]
    """How it came about: seed, steps, settings."""

    def __repr__(self) -> str:
        """One line: the weights would fill pages."""
        steps, priors = self.card.get("env_steps"), ", ".join(self.priors) or "none"
        return f"Agent({self.family_name!r}, env_steps={steps}, family priors: {priors})"

    @property
    def usual_episodes(self) -> int:
        """Of a lifetime where nobody says how many: no more than one had in training."""
        low_high = self.card.get("train", {}).get("episodes", (1, USUAL_EPISODES))
        return min(int(low_high[1]), USUAL_EPISODES)

    def learner_for(self, num_states: int, num_actions: int, prior: str | None = "auto") -> BeliefQ:
        """The learner for tasks of this shape.

        Args:
            num_states: S.
            num_actions: A.
            prior: name of a family prior; ``"auto"``: the first of this shape, if any (it is trusted
                only as long as it predicts what happens); None: start from nothing.

        Raises:
            UnknownNameError: no such prior.
            UsageError: that prior has another shape.
        """
        shape = (num_states, num_actions)
        if prior == "auto":
            fitting = (p for p in self.priors.values() if p.pair.visits.shape == shape)
            return self.learner.with_prior(next(fitting, None))
        if prior is None:
            return self.learner
        if prior not in self.priors:
            raise unknown_name("`prior`", prior, self.priors)
        chosen = self.priors[prior]
        if chosen.pair.visits.shape != shape:
            raise UsageError(
                "A family prior fits tasks with the same states and actions only.",
                f"{prior!r} has shape {chosen.pair.visits.shape}, the task {shape}.",
                'Use prior="auto" or prior=None.',
            )
        return self.learner.with_prior(chosen)

    def adapt(
        self,
        env: Any,
        *,
        episodes: int = 10,
        seed: int = 0,
        prior: str | None = "auto",
        on_episode: Callable[[int, float, int], None] = lambda index, total, length: None,
    ) -> Adapted:
        """Live ``episodes`` episodes of a new task, learning from every step; no gradients.

        Args:
            env: a Gymnasium id or environment with Discrete observation and action spaces, or what
                `open_environment` made of one.
            episodes: how many; the agent is told, and explores accordingly. Where it was trained on other
                numbers `Adaptation.warnings` says so.
            seed: of the environment's first reset and of the agent.
            prior: as in `learner_for`.
            on_episode: called after each episode with its index, return and length.

        Raises:
            UsageError: fewer than one episode, or a negative seed.
            UnknownNameError: no such environment, or no such prior.
            UnsupportedSpaceError: a space is not Discrete.
            EnvironmentFaultError: the environment broke its contract; the error's ``adapted``
                attribute holds what was learned until then.
        """
        check_request(episodes, seed)
        host: HostEnvironment = open_environment(env)
        learner = self.learner_for(host.num_states, host.num_actions, prior)

        def conclude(memory: Belief, lived: Lived) -> Adapted:
            unlike = [*unusual_lifetime(self.card, episodes), *host.warnings]
            return Adapted(**lived._asdict(), learner=learner, memory=memory, warnings=unlike)

        companion = TurnCompanion(learner, host.spec(episodes), seed, conclude)
        with lent(env, host):
            return live_on_host(companion, host, episodes, seed, on_episode)

    def save(self, path: str | Path) -> None:
        """Write the agent to the folder ``path``, atomically.

        Raises:
            CheckpointError: the folder cannot be written or holds something else.
        """
        extra = {
            "config": self.learner.config._asdict(),
            "priors": {name: prior.pair.visits.shape for name, prior in self.priors.items()},
            "family": self.family_name,
            "card": self.card,
        }
        checkpoint.save(path, (self.learner, self.priors), kind=_KIND, extra=extra)


AnyAgent: TypeAlias = "Agent | FiniteAgent | RecurrentAgent"
"""What `load` returns: all adapt in the same way."""


def load(path: str | Path) -> AnyAgent:
    """Load an agent: a folder it was saved to, a run folder, or the name of a shipped one.

    Returns:
        An agent of the class that was saved; all adapt in the same way.

    Raises:
        NoAgentError: nothing there.
        CheckpointError: it is damaged or of another version.
        ConfigError: JAX was told to compute in double precision.
    """
    if jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        raise ConfigError(
            "Agents compute in single precision.",
            "JAX_ENABLE_X64 is set.",
            "Unset it: jax.config.update('jax_enable_x64', False).",
        )
    folder = _find(path)
    with warnings.catch_warnings():
        # Another version of JAX may change the last bits; that matters to a resumed run, not here.
        warnings.simplefilter("ignore", checkpoint.FingerprintWarning)
        return _loader(checkpoint.kind_of(folder))(folder)


def _loader(kind: str) -> Callable[[Path], AnyAgent]:
    if kind == finite_agent.KIND:
        return finite_agent.load_finite
    if kind == _KIND:
        return _load
    # Its optimiser takes a sixth of a second to import.
    from metaql.meta import recurrent_agent  # noqa: PLC0415

    return recurrent_agent.load_recurrent if kind == recurrent_agent.KIND else _load


def _load(folder: Path) -> Agent:
    extra = checkpoint.read_extra(folder, kind=_KIND)

    def blank() -> tuple[BeliefQ, dict[str, Statistics]]:
        learner = BeliefQ(jax.random.key(0), config=BeliefConfig(**extra["config"]))
        return learner, {name: empty(*shape) for name, shape in extra["priors"].items()}

    (learner, priors), _ = checkpoint.load(folder, eqx.filter_eval_shape(blank), kind=_KIND)
    return Agent(learner=learner, priors=priors, family_name=extra["family"], card=extra["card"])


def load_shipped(name: str) -> AnyAgent:
    """The agent of that name inside the package, whatever lies in the current folder."""
    return load(_SHIPPED / name)


def shipped() -> list[str]:
    """Names of the agents inside the package."""
    if not _SHIPPED.is_dir():
        return []
    return sorted(path.name for path in _SHIPPED.iterdir() if (path / "manifest.json").is_file())


def _find(path: str | Path) -> Path:
    given = Path(path).expanduser()
    for folder in (given / AGENT_FOLDER, given, _SHIPPED / str(path)):
        if (readable(folder) / checkpoint.MANIFEST).is_file():
            return folder
    if (given / checkpoint.TENSORS).exists():
        return given  # damaged: the checkpoint says how
    names = ", ".join(shipped()) or "none"
    found = "holds no agent" if given.exists() else "does not exist"
    raise NoAgentError(
        "An agent is a folder it was saved to, a run folder, or the name of a shipped agent.",
        f"{str(path)!r} {found} (shipped: {names}).",
        did_you_mean(str(path), shipped(), "Train one first: metaql train frozen_lake."),
    )
