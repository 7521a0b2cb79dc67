"""``metaql adapt``: let a trained agent solve one Gymnasium environment."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from metaql.cli import interrupts
from metaql.cli.options import Common, key_values, whole
from metaql.cli.output import number
from metaql.cli.training import newest_or, tell_if_unfinished
from metaql.errors import EndlessWarning, EnvironmentFaultError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from metaql.cli.output import Output
    from metaql.meta.finite_adapt import Beliefs
    from metaql.tasks.host import HostEnvironment

DEFAULT_AGENT = "finite"
SURE = 0.9
"""Probability from which on an action is called the best."""


def adapt(
    env_id: Annotated[
        str, Parameter(help="A Gymnasium id; Discrete spaces, or those the agent knows.")
    ],
    /,
    *,
    agent: Annotated[
        str,
        Parameter(
            help="Name of a shipped agent (finite: for any finite task), run folder or saved agent; "
            "newest: the newest run."
        ),
    ] = DEFAULT_AGENT,
    episodes: Annotated[
        int | None,
        whole(help="Episodes for this task; default: 50, or as many as trained on."),
    ] = None,
    env_option: Annotated[
        tuple[str, ...],
        Parameter(
            negative=(), show_default=False, help="key=value for gymnasium.make; repeatable."
        ),
    ] = (),
    common: Common | None = None,
) -> None:
    """Adapt a trained agent to a Gymnasium environment, printing each episode as it ends.

    Any environment with finite (Discrete) observation and action spaces will do; a run of a recurrent
    agent needs the spaces of its family. Nothing is trained here: the agent only remembers what it sees.
    The agent "finite" also says how sure it is: with --json, a 90% interval of Q* for every state acted in
    and the odds of its greedy action being the best.

    Example: metaql adapt FrozenLake-v1 --episodes 20 --env-option map_name=8x8
    """
    common = common or Common()
    output = common.output()
    if episodes is not None and episodes < 1:
        raise UsageError("`--episodes` must be at least 1.", f"Got {episodes}.")
    options = key_values(env_option, "--env-option")
    source = newest_or(agent, common.runs_dir)
    output.say(f"metaql adapt: {env_id}, agent {source}")
    from metaql.meta.agent import load
    from metaql.tasks.host import lent, open_environment

    if ":" in env_id:
        sys.path.append("")  # the module may lie in the folder where the command is given

    loaded = load(source)
    tell_if_unfinished(loaded, source, output.say)
    count = episodes or loaded.usual_episodes
    opened = getattr(loaded, "open", open_environment)
    host: HostEnvironment = opened(env_id, **options)
    if not host.has_time_limit:
        output.say(
            f"This environment has no time limit: episodes are truncated after {host.longest} steps. "
            "To set one: --env-option max_episode_steps=200"
        )
    request = {"env": env_id, "env_options": options, "agent": source, "seed": common.seed}
    with warnings.catch_warnings(), lent(env_id, host):
        # Said above, with the command line's remedy.
        warnings.simplefilter("ignore", EndlessWarning)
        _adapt(output, loaded, host, count, request)


def _adapt(
    output: Output, agent: Any, host: HostEnvironment, episodes: int, request: Mapping[str, Any]
) -> None:
    """Live, and tell what came of it: also where the environment fails, or Ctrl-C ends it."""
    lived: dict[str, list[float]] = {"returns": [], "lengths": []}
    say = printer(output, lived)
    try:
        adapted = agent.adapt(host, episodes=episodes, seed=request["seed"], on_episode=say)
    except EnvironmentFaultError as error:
        adapted = getattr(error, "adapted", None)
        if adapted is not None and len(adapted.returns):
            _tell(output, host, adapted, {**request, "error": str(error)})
        raise
    except KeyboardInterrupt:
        output.document({**request, **lived, "error": "interrupted"})
        raise
    _tell(output, host, adapted, request)


def _tell(output: Output, host: HostEnvironment, adapted: Any, request: Mapping[str, Any]) -> None:
    """What was lived and learned, beside what was asked for."""
    returns, lengths = adapted.returns, adapted.lengths
    output.say(f"Mean return {float(returns.mean()):.4g} over {int(lengths.sum())} steps")
    for warning in (each for each in adapted.warnings if each not in host.warnings):
        output.say(f"Warning: {warning}")
    lived = {"returns": returns, "lengths": lengths}
    output.document({**request, **lived, **_known(adapted, output), "warnings": adapted.warnings})


def _known(adapted: Any, output: Output) -> dict[str, Any]:
    """What the agent knows of the task, as far as its kind can tell."""
    document: dict[str, Any] = {}
    table: Callable[[], Any] | None = getattr(adapted, "q_table", None)
    if table is not None:
        document["q"] = table()
    ask: Callable[[], Beliefs] | None = getattr(adapted, "beliefs", None)
    if ask is not None:
        beliefs = ask()
        if len(beliefs.best):
            sure, acted = int((beliefs.best >= SURE).sum()), len(beliefs.best)
            output.say(
                f"Its greedy action is the best with probability {beliefs.best.mean():.2f}, on average over "
                f"{acted} states acted in (at least {SURE} in {sure} of them)"
            )
        document["beliefs"] = beliefs._asdict()
    return document


def printer(output: Output, lived: Mapping[str, list[float]]) -> Any:
    """A callback that prints one line per episode, the first counted as 1, and notes it in ``lived``."""

    def say(index: int, episode_return: float, length: int) -> None:
        lived["returns"].append(episode_return)
        lived["lengths"].append(length)
        output.line(f"episode {index + 1}: return {number(episode_return)} in {length} steps")
        interrupts.check()

    return say
