"""What every meta-training shares: its folder, its checkpoints, its iterations and what Ctrl-C leaves."""

from __future__ import annotations

import abc
import contextlib
import hashlib
import re
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import equinox as eqx
import jax

from metaql import checkpoint
from metaql.config import to_dict
from metaql.leaves import digest
from metaql.meta.agent import AGENT_FOLDER
from metaql.runs import MetricsWriter

OnProgress = Callable[[str, float, Mapping[str, Any]], None]
"""Called with the stage, the share of it done and current figures."""
CHECKPOINT_FOLDER = "checkpoint"
"""Where a run folder keeps its checkpoints."""
STAGE = "meta-training"
_SHOWN = 80
"""Characters of a family's description that an error shows."""


class Settings(Protocol):
    """What a session needs of its configuration."""

    @property
    def checkpoint_every(self) -> int:
        """Iterations between two checkpoints."""
        ...

    @property
    def iterations(self) -> int:
        """Iterations of the whole run."""
        ...


class Saved(Protocol):
    """What a session needs of the agent it makes."""

    def save(self, path: str | Path) -> None:
        """Write it to a folder."""
        ...


Config = TypeVar("Config", bound=Settings)
Training = TypeVar("Training")
Made = TypeVar("Made", bound=Saved)


class Session(abc.ABC, Generic[Config, Training, Made]):
    """One call of a trainer: what does not change while it runs."""

    def __init__(
        self,
        family: Any,
        config: Config,
        seed: int,
        run: Path | None,
        on_progress: OnProgress,
        *,
        asked: Config | None = None,
    ) -> None:
        """Open the run folder; ``asked`` are the settings as they were given, where others are used."""
        self.config, self.seed, self.run, self.on_progress = config, seed, run, on_progress
        self.asked = config if asked is None else asked
        self.described = described(family)
        # What it holds may be much: read only where it is kept.
        self.contents = contents(family) if run else ""
        self.store = checkpoint.CheckpointStore(run / CHECKPOINT_FOLDER) if run else None
        self._held: dict[int, tuple[int, Any]] = {}

    @abc.abstractmethod
    def start(self) -> Training:
        """The state before the first iteration."""

    @abc.abstractmethod
    def blank(self) -> Training:
        """A state of the same shape, cheap to trace."""

    @abc.abstractmethod
    def done(self, training: Training) -> int:
        """Iterations behind a state."""

    @abc.abstractmethod
    def step(self, training: Training, iteration: int) -> tuple[Training, Mapping[str, Any]]:
        """One iteration: state and figures after it."""

    @abc.abstractmethod
    def agent(self, training: Training) -> Made:
        """The agent as it stands."""

    def held(self, group: int, epoch: int, draw: Callable[[], Any]) -> Any:
        """What ``draw`` makes for a group, kept until its next epoch."""
        if group not in self._held or self._held[group][0] != epoch:
            self._held[group] = (epoch, draw())
        return self._held[group][1]

    def train(self, *, resume: bool) -> Made:
        """From the start, or from the newest intact checkpoint, to the end."""
        if resume:
            return self.agent(self._iterate(self._restore()))
        self._check_unused()
        training = self.start()
        self._save(training, 0)
        return self.agent(self._iterate(training))

    def _restore(self) -> Training:
        if self.store is None:
            raise checkpoint.CheckpointError("`resume` needs a `run` folder.", "Got none.")
        like = eqx.filter_eval_shape(self.blank)
        self._held.clear()  # what was filled while tracing holds no numbers
        try:
            found = self.store.load_latest(like)
        except checkpoint.CheckpointError as error:
            held = self._newest_extra()
            raise self._other_settings(held) or self._other_family(held) or error from None
        other = self._other_settings(found.extra) or self._other_family(found.extra)
        if other is not None:
            raise other
        if found.extra.get("seed", self.seed) != self.seed:
            raise checkpoint.CheckpointError(
                "A run is resumed with the seed it was started with.",
                f"{self.run} holds one of seed {found.extra['seed']}, asked for {self.seed}.",
                "Give that seed, or another `run` folder.",
            )
        return found.tree

    def _newest_extra(self) -> Mapping[str, Any]:
        """What the newest checkpoint says of itself; nothing if that cannot be read."""
        if self.store is None or not self.store.steps():
            return {}
        newest = self.store.path(self.store.steps()[-1])
        try:
            return checkpoint.read_extra(newest, kind=self.store.kind)
        except checkpoint.CheckpointError:
            return {}

    def _other_settings(self, extra: Mapping[str, Any]) -> checkpoint.CheckpointError | None:
        """The error that says what is asked for and is not as in a checkpoint; None: nothing is.

        How often checkpoints are written may change, and settings that did not exist then are as they were.
        """
        own = type(self.config).__name__
        if extra.get("settings", own) != own:
            return checkpoint.CheckpointError(
                "A run is resumed with the agent it was started with.",
                f"{self.run} was trained by a {extra['settings']}, asked for a {own}.",
                "Ask for that agent (`agent`), or give another `run` folder.",
            )
        held, now = extra.get("asked"), self.asked
        if held is None:  # of a version that kept what is used alone
            held, now = extra.get("config", {}), self.config
        other = [
            f"{name} was {held[name]!r}, asked for {value!r}"
            for name, value in to_dict(now).items()
            if name in held and name != "checkpoint_every" and held[name] != value
        ]
        if not other:
            return None
        return checkpoint.CheckpointError(
            "A run is resumed with the settings it was started with.",
            f"In {self.run} {'; '.join(other)}.",
            "Give those settings, or another `run` folder.",
        )

    def _other_family(self, extra: Mapping[str, Any]) -> checkpoint.CheckpointError | None:
        """The error that says how the family differs from that of a checkpoint; None: in nothing seen."""
        before, now = extra.get("family", self.described), self.described
        # Of another version a family may have more to say of itself.
        if extra.get("metaql") != version("metaql"):
            return None
        if before != now:
            differ = (a != b for a, b in zip(before, now, strict=False))
            first = max(next((at for at, other in enumerate(differ) if other), 0) - _SHOWN // 2, 0)
            was, is_now = (text[first:][:_SHOWN] for text in (before, now))
            how = f"In {self.run} it was `{was}`, now it is `{is_now}`."
        elif extra.get("contents", self.contents) != self.contents:
            how = f"That of {self.run} had other tasks, or another time limit, than {now[:_SHOWN]}."
        else:
            return None
        return checkpoint.CheckpointError(
            "A run is resumed with the family it was started with.",
            how,
            "Give that family, or another `run` folder.",
        )

    def _check_unused(self) -> None:
        """A new training must not write over another one."""
        if self.store is not None and self.store.steps():
            raise checkpoint.CheckpointError(
                "A new training needs a `run` folder without checkpoints.",
                f"{self.run} holds {len(self.store.steps())}.",
                "Go on with it (resume=True), or give another folder.",
            )

    def _iterate(self, training: Training) -> Training:
        """Go on to the end; Ctrl-C, a broken environment and whatever else save and go through."""
        first, total = self.done(training), self.config.iterations
        reached = (training, first)  # one name: Ctrl-C finds both or neither
        self.on_progress(STAGE, first / total, {})
        writer = (
            contextlib.nullcontext() if self.run is None else MetricsWriter(self.run, keep=first)
        )
        with writer as metrics:
            try:
                while reached[1] < total:
                    after, row = self.step(*reached)
                    if metrics is not None:
                        metrics.write(row)
                    reached = (after, reached[1] + 1)
                    if reached[1] % self.config.checkpoint_every == 0 and reached[1] < total:
                        self._keep(metrics, *reached)
                    self.on_progress(STAGE, reached[1] / total, row)
            except BaseException:  # what was reached is always whole
                self._keep(metrics, *reached)
                raise
            self._keep(metrics, *reached)
        return reached[0]

    def _keep(self, metrics: MetricsWriter | None, training: Training, rows: int) -> None:
        """Checkpoint what was reached, the rows it counts before it."""
        if metrics is not None:
            metrics.sync()
        self._save(training, rows)

    def _save(self, training: Training, rows: int) -> None:
        """Checkpoint, and the agent as it stands."""
        if self.store is not None and self.run is not None:
            settings = {"settings": type(self.config).__name__, "config": to_dict(self.config)}
            settings["asked"] = to_dict(self.asked)
            family = {"family": self.described, "contents": self.contents}
            family["metaql"] = version("metaql")
            about = {"seed": self.seed, **family, **settings}
            self.store.save(rows, training, about)
            self.agent(training).save(self.run / AGENT_FOLDER)


def described(family: Any) -> str:
    """One line that tells a family from others, the same in every process."""
    return _without_addresses(" ".join(repr(family).split()))


def contents(family: Any) -> str:
    """A digest of what a family holds: what it says of its ``contents``, else its arrays."""
    own = getattr(family, "contents", None)
    if own is None:
        return digest(jax.tree.leaves(eqx.filter(family, eqx.is_array)))
    return hashlib.sha256(_without_addresses(own).encode()).hexdigest()


def _without_addresses(text: str) -> str:
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)
