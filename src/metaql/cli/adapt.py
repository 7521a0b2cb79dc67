"""``metaql adapt``: let a trained agent solve one Gymnasium environment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from metaql.cli.options import Common, key_values
from metaql.cli.output import number
from metaql.errors import UsageError

if TYPE_CHECKING:
    from metaql.cli.output import Output


def adapt(
    env_id: Annotated[str, Parameter(help="A Gymnasium id with Discrete spaces.")],
    /,
    *,
    agent: Annotated[
        str | None,
        Parameter(help="Run folder, saved agent or name of a shipped one; default: newest run."),
    ] = None,
    episodes: Annotated[int, Parameter(help="Episodes the agent has for this task.")] = 50,
    env_option: Annotated[
        tuple[str, ...],
        Parameter(
            negative=(), show_default=False, help="key=value for gymnasium.make; repeatable."
        ),
    ] = (),
    common: Common | None = None,
) -> None:
    """Adapt a trained agent to a Gymnasium environment, printing each episode as it ends.

    Any environment with finite (Discrete) observation and action spaces will do. Nothing is trained
    here: the agent only remembers what it sees.

    Example: metaql adapt FrozenLake-v1 --episodes 20 --env-option map_name=8x8
    """
    common = common or Common()
    output = common.output()
    if episodes < 1:
        raise UsageError("`--episodes` must be at least 1.", f"Got {episodes}.")
    options = key_values(env_option, "--env-option")
    source = agent if agent is not None else _newest(common.runs_dir)
    output.say(f"metaql adapt: {env_id}, agent {source}, {episodes} episodes")
    from metaql.meta.agent import load
    from metaql.tasks.host import open_environment

    host = open_environment(env_id, **options)
    if not host.has_time_limit:
        output.say(
            "This environment has no time limit: an episode lasts until the agent finds an end. "
            "To set one: --env-option max_episode_steps=200"
        )
    loaded = load(source)
    say = printer(output)
    adapted = loaded.adapt(host, episodes=episodes, seed=common.seed, on_episode=say)
    returns, lengths = adapted.returns, adapted.lengths
    output.say(f"Mean return {float(returns.mean()):.4g} over {int(lengths.sum())} steps")
    document = {
        "env": env_id,
        "env_options": options,
        "agent": source,
        "seed": common.seed,
        "returns": returns,
        "lengths": lengths,
        "q": adapted.q_table(),
    }
    output.document(document)


def _newest(runs_dir: Path) -> str:
    """The newest run (raises UsageError where there is none)."""
    from metaql.runs import latest_run

    return str(latest_run(runs_dir))


def printer(output: Output) -> Any:
    """A callback that prints one line per episode, the first counted as 1."""

    def say(index: int, episode_return: float, length: int) -> None:
        output.line(f"episode {index + 1}: return {number(episode_return)} in {length} steps")

    return say
