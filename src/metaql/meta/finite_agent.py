"""A trained FiniteQ: one agent for any finite MDP; adapt it, save it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from metaql import checkpoint
from metaql.embedding.hyperprior import Hyperprior, broad
from metaql.errors import UsageError, unknown_name
from metaql.meta.adapt import USUAL_EPISODES, Lived, check_request, live_on_host
from metaql.meta.finite_adapt import FiniteAdapted, FiniteCompanion
from metaql.meta.finite_memory import FIRST_SLOTS
from metaql.meta.offline import Learned, Log, learn, read_dataset
from metaql.meta.unlike import warnings_for
from metaql.policy.curiosity import FEATURES, Curiosity
from metaql.policy.finiteq import FiniteQ
from metaql.policy.uncertainty import NUM_FACTS, Calibration
from metaql.tasks.finite import NO_HORIZON
from metaql.tasks.host import lent, open_environment
from metaql.tasks.logs import is_dataset

KIND = "finite agent"
"""Of its checkpoints."""
ONE_STATE, MANY_STATES = "one_state", "many_states"
_FACTS_BEFORE = 9
"""Of intervals fitted before it counted whether an episode ended by itself."""
_FEATURES_BEFORE = 10
"""Of optimism trained before it counted how dense rewards are."""
_NO_END = (
    "No episode ends in this log: only `terminations` and `truncations` end one, so there are no returns, "
    "and no horizon can be told from it."
)
_FEW = 10
"""States up to which there is room for every successor."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FiniteAgent:
    """What FiniteQ was trained to expect and to try, for each kind of task."""

    priors: dict[str, Hyperprior]
    """Kind of task -> what is believed before the first step."""
    curiosities: dict[str, Curiosity]
    """Kind of task (the same keys) -> optimism."""
    calibrations: dict[str, Calibration]
    """Kind of task (the same keys) -> how far intervals reach."""
    family_name: str
    card: dict[str, Any]
    """How it came about; ``card["range"]`` holds, by kind of task, smallest and largest "states", ..."""

    @property
    def usual_episodes(self) -> int:
        """Of a lifetime where nobody says how many."""
        return USUAL_EPISODES

    def __repr__(self) -> str:
        """One line: the weights would fill pages."""
        kinds = ", ".join(self.priors)
        apart = "".join(f", {n} arms told apart" for n in self._num_arms().values())
        return f"FiniteAgent({self.family_name!r}, kinds of task: {kinds}{apart})"

    def learner_for(
        self,
        num_states: int,
        num_actions: int,
        prior: str | None = "auto",
        *,
        slots: int | None = None,
    ) -> FiniteQ:
        """The learner for tasks of this shape.

        Args:
            num_states: S.
            num_actions: A; any will do, but arms that the agent tells apart are so only where there
                are as many.
            prior: a kind of task; ``"auto"``: the one of bandits for one state, else that of all
                others. None counts as ``"auto"``: without any prior there is no FiniteQ.
            slots: successors remembered per pair. `adapt` makes more
                when they are needed. Lifetimes in one batch cannot: there a pair forgets every
                successor beyond its slots, so give the largest number that a pair can have (default:
                that of the family trained on; of the agent ``finite`` 4, which slippery grids never
                exceed; all of them up to 10 states).

        Raises:
            UnknownNameError: no such kind of task.
        """
        kind = self.kind_of(num_states, prior)
        usual = self.card.get("slots", FIRST_SLOTS)
        least = max(num_states, FIRST_SLOTS) if num_states <= _FEW else usual
        room = None if num_states == 1 else max(slots or least, least)
        before = self.priors[kind]
        if (num_states, num_actions) != (1, before.num_arms):
            before = dataclasses.replace(before, arms=None)
        return FiniteQ(before, self.curiosities[kind], slots=room)

    def kind_of(self, num_states: int, prior: str | None = "auto") -> str:
        """The kind of task that ``prior`` stands for, as in `learner_for`.

        Raises:
            UnknownNameError: no such kind of task.
        """
        kinds = sorted(self.priors)
        if prior is None or prior == "auto":
            wanted = ONE_STATE if num_states == 1 else MANY_STATES
            return wanted if wanted in kinds else kinds[0]
        if prior not in self.priors:
            raise unknown_name("`prior`", prior, [*kinds, "auto"])
        return prior

    def adapt(
        self,
        env: Any,
        *,
        episodes: int = 10,
        seed: int = 0,
        prior: str | None = "auto",
        on_episode: Callable[[int, float, int], None] = lambda index, total, length: None,
        num_states: int | None = None,
        num_actions: int | None = None,
        horizon: int | None = None,
    ) -> FiniteAdapted:
        """Live ``episodes`` episodes of a new task, learning from every step; no gradients.

        Or learn from a dataset of logged transitions, without acting: see `read_dataset`.

        Args:
            env: a Gymnasium id or environment with Discrete observation and action spaces, or what
                `open_environment` made of one; or a dataset.
            episodes: how many; the agent is told, and explores accordingly. Nothing is lived of a dataset:
                there ``episodes``, ``seed`` and ``on_episode`` do not count.
            seed: of the environment's first reset and of the agent.
            prior: as in `learner_for`.
            on_episode: called after each episode with its index, return and length.
            num_states: of a dataset, as in `read_dataset`; an environment says it itself.
            num_actions: likewise.
            horizon: likewise.

        Raises:
            UsageError: fewer than one episode, a negative seed, or sizes with an environment.
            UnknownNameError: no such environment, or no such prior.
            UnsupportedSpaceError: a space is not Discrete.
            DatasetError: a dataset that is incomplete or not of a finite MDP.
            EnvironmentFaultError: the environment broke its contract; the error's ``adapted``
                attribute holds what was learned until then.
        """
        check_request(episodes, seed)
        sizes = {"num_states": num_states, "num_actions": num_actions, "horizon": horizon}
        if is_dataset(env):
            return self._study(read_dataset(env, **sizes), prior)
        given = [name for name, size in sizes.items() if size is not None]
        if given:
            raise UsageError(
                "`num_states`, `num_actions` and `horizon` may be given with a dataset only.",
                f"Got {', '.join(sorted(given))} with {type(env).__name__}.",
                "An environment says these itself.",
            )
        host = open_environment(env)
        kind = self.kind_of(host.num_states, prior)
        learner = self.learner_for(host.num_states, host.num_actions, kind)

        def conclude(companion: FiniteCompanion, lived: Lived) -> FiniteAdapted:
            facts = _sizes(host.num_states, host.num_actions, host.horizon, episodes)
            known = Learned(companion.memory, companion.rows.index, companion.diary, lived)
            found = self._conclude(learner, known, facts, kind)
            found.warnings.extend(host.warnings)
            return found

        companion = FiniteCompanion(learner, host, episodes, int(seed), conclude)
        with lent(env, host):
            return live_on_host(companion, host, int(episodes), int(seed), on_episode)

    def _study(self, log: Log, prior: str | None) -> FiniteAdapted:
        kind = self.kind_of(log.num_states, prior)
        learner = self.learner_for(log.num_states, log.num_actions, kind)
        known = learn(learner, log)
        number = max(len(known.lived.returns), 1)
        facts = _sizes(log.num_states, log.num_actions, log.horizon, number)
        found = self._conclude(learner, known, facts, kind)
        found.warnings.extend(log.warnings)
        if not len(known.lived.returns):
            found.warnings.append(_NO_END)
        return found

    def _conclude(
        self, learner: FiniteQ, known: Learned, sizes: dict[str, int], kind: str
    ) -> FiniteAdapted:
        trained, arms = self.card.get("range", {}).get(kind, {}), self.priors[kind].num_arms
        warnings = warnings_for(trained, sizes, known.diary)
        if arms and learner.prior.arms is None:
            warnings.append(
                f"What was learned of each of {arms} arms is of no use here: "
                "the task is no bandit of as many."
            )
        return FiniteAdapted(
            **known.lived._asdict(),
            learner=learner,
            memory=known.memory,
            rows=known.rows,
            num_states=sizes["states"],
            calibration=self.calibrations[kind],
            warnings=warnings,
        )

    def save(self, path: str | Path) -> None:
        """Write the agent to the folder ``path``, atomically.

        Raises:
            CheckpointError: the folder cannot be written or holds something else.
        """
        tree = (self.priors, self.curiosities, self.calibrations)
        kinds, arms = sorted(self.priors), self._num_arms()
        about = {"kinds": kinds, "arms": arms, "facts": NUM_FACTS, "features": FEATURES}
        extra = {**about, "family": self.family_name, "card": self.card}
        checkpoint.save(path, tree, kind=KIND, extra=extra)

    def _num_arms(self) -> dict[str, int]:
        """How many arms are told apart, by those kinds of task where some are."""
        return {kind: prior.num_arms for kind, prior in self.priors.items() if prior.num_arms}


def load_finite(folder: Path) -> FiniteAgent:
    """Read what `FiniteAgent.save` wrote.

    Raises:
        CheckpointError: it is damaged or of another version or kind.
    """
    extra = checkpoint.read_extra(folder, kind=KIND)
    kinds, arms = extra["kinds"], extra.get("arms")

    def like() -> tuple[dict[str, Hyperprior], dict[str, Curiosity], Any]:
        priors = {kind: broad((arms or {}).get(kind)) for kind in kinds}
        curiosities = {kind: Curiosity(extra.get("features", _FEATURES_BEFORE)) for kind in kinds}
        # Agents of before tell no arms apart and have one calibration, some of fewer facts.
        one = Calibration(extra.get("facts", _FACTS_BEFORE))
        return priors, curiosities, one if arms is None else dict.fromkeys(kinds, one)

    # On the host: a step takes NumPy arrays as they are.
    blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(like))
    (priors, curiosities, found), _ = checkpoint.load(folder, blank, kind=KIND)
    return FiniteAgent(
        priors=priors,
        curiosities={kind: each.widened() for kind, each in curiosities.items()},
        calibrations={kind: (found if arms is None else found[kind]).widened() for kind in kinds},
        family_name=extra["family"],
        card=extra["card"],
    )


def _sizes(states: int, actions: int, horizon: int, episodes: int) -> dict[str, int]:
    sizes = {"states": states, "actions": actions, "episodes": episodes}
    return sizes | ({"horizon": horizon} if horizon != NO_HORIZON else {})
