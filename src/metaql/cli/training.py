"""What `train` and `quickstart` share: one run folder, from its configuration to its agent."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaql.cli.progress import Progress
from metaql.errors import UsageError

if TYPE_CHECKING:
    from metaql.meta.agent import AnyAgent
    from metaql.tasks.families.base import TaskFamily

CONFIG = "config.json"
STARTING = "Starting up"
"""Stage in which JAX is loaded and the run is set up."""


NEWEST = "newest"
"""Stands for the newest run."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with the command that goes on from there."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that decides a training run; what ``config.json`` holds."""

    family: str
    """Name in the registry."""
    options: dict[str, Any]
    """Arguments of the family."""
    train: dict[str, Any]
    """Fields of the agent's configuration that differ from their defaults."""
    seed: int
    agent: str = "auto"
    """One of `metaql.meta.config.AGENTS`."""

    def make_family(self) -> TaskFamily:
        """Build the family (raises ConfigError for an option it does not have)."""
        from metaql.tasks.families import make

        return make(self.family, **self.options)


def newest_or(name: str, runs_dir: Path) -> str:
    """``name``, or the folder of the newest run that has an agent if that is what it says.

    Raises:
        UsageError: there is none.
    """
    if name != NEWEST:
        return name
    from metaql.meta.agent import AGENT_FOLDER
    from metaql.runs import latest_run

    return str(latest_run(runs_dir, holding=AGENT_FOLDER))


def create(plan: Plan, runs_dir: Path) -> Path:
    """A new run folder with its ``config.json``.

    Family and settings are checked first, so that a mistake leaves no folder behind.
    """
    from metaql.config import to_dict
    from metaql.meta.config import name_of
    from metaql.runs import create_run, write_config

    config = train_config(plan, plan.make_family())
    run = create_run(runs_dir, plan.family, plan.seed)
    content = {
        "command": command_line(),
        "family": {"name": plan.family, "options": plan.options},
        "agent": name_of(type(config)),
        "train": plan.train,
        "train_in_full": to_dict(config),
        "seed": plan.seed,
        "versions": versions(),
    }
    write_config(run, content)
    return run


def read(run: Path) -> Plan:
    """The plan of an existing run.

    Raises:
        UsageError: no run is there, or its ``config.json`` is not one.
    """
    from metaql.meta.config import agent_with
    from metaql.runs import open_run

    content = open_run(run).config
    try:
        family, agent = content["family"], str(content.get("agent", "auto"))
        if agent == "auto":  # of an older version: what it stood for then
            agent = agent_with(dict(content.get("train_in_full") or {}))
        return Plan(
            family=family["name"],
            options=dict(family["options"]),
            train=dict(content["train"]),
            seed=int(content["seed"]),
            agent=agent,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{CONFIG} must be as metaql wrote it.", f"{run / CONFIG}: {error!r}."
        ) from error


def fit(plan: Plan, run: Path, progress: Progress, *, resume: bool = False) -> AnyAgent:
    """Train (or go on training) into a run folder.

    Raises:
        Interrupted: Ctrl-C; what was reached is in the folder, as far as the message says so.
    """
    try:
        from metaql.meta.train import meta_train

        family = plan.make_family()
        config = train_config(plan, family)
        progress(STARTING, 1.0)
        progress.say(f"Run folder: {run}")
        return meta_train(
            family,
            agent=plan.agent,
            config=config,
            seed=plan.seed,
            run=run,
            resume=resume,
            on_progress=progress,
        )
    except KeyboardInterrupt:
        raise Interrupted(_how_to_go_on(run, made=not resume)) from None


def _how_to_go_on(run: Path, *, made: bool) -> str:
    """What to say after Ctrl-C; a folder that was ``made`` for nothing goes."""
    if not any((run / "checkpoint").glob("*")):
        if made:
            shutil.rmtree(run, ignore_errors=True)
        return "Nothing was to be saved yet: start again."
    return f"Go on with: {shlex.join(['metaql', 'train', '--resume', str(run)])}"


def train_config(plan: Plan, family: TaskFamily) -> Any:
    """All settings of a plan for its family."""
    from metaql.meta.config import settings_for

    return settings_for(family, plan.agent, plan.train, "The training configuration")


def tell_if_unfinished(agent: AnyAgent, source: str | Path, say: Callable[[str], None]) -> None:
    """Say so where a training stopped on the way to the steps that were asked for.

    Args:
        agent: as loaded.
        source: from where: a name, or a folder.
        say: to the user.
    """
    lived, asked = agent.card.get("env_steps"), agent.card.get("train")
    wanted = asked.get("env_steps") if isinstance(asked, Mapping) else None
    if isinstance(lived, int) and isinstance(wanted, int) and lived < wanted:
        say(f"{source} is trained for {lived:,} of {wanted:,} steps so far.")
    elif "unfinished" in agent.card:
        say(f"{source} is without {agent.card['unfinished']} of its own so far.")
    else:
        return
    if (Path(source) / CONFIG).is_file():
        say(f"Go on with: {shlex.join(['metaql', 'train', '--resume', str(source)])}")


def command_line() -> str:
    """The command that is running, as it can be typed again."""
    return shlex.join(["metaql", *sys.argv[1:]])


def versions() -> dict[str, str]:
    """Versions of what results depend on."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("metaql", "jax", "jaxlib", "numpy", "equinox", "optax", "gymnasium", "scipy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
