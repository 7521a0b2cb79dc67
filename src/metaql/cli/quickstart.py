"""``metaql quickstart``: the whole way once, from random maps to Gymnasium's FrozenLake-v1."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from cyclopts import Parameter

from metaql.cli.options import Common, sections, whole
from metaql.cli.output import Output, number
from metaql.cli.progress import Progress, duration
from metaql.cli.training import (
    STARTING,
    Interrupted,
    Plan,
    command_line,
    create,
    fit,
    versions,
)
from metaql.errors import MetaQLError, UsageError

if TYPE_CHECKING:
    from metaql.evaluation.report import Adaptation, Report
    from metaql.evaluation.summary import Findings
    from metaql.meta.agent import Agent

FAMILY = "frozen_lake"
ENVIRONMENT = "FrozenLake-v1"
EPISODES = 20
"""Episodes of a lifetime in the table."""
ENV_STEPS = 1_500_000
"""Meta-training steps that fit into two minutes on two cores, everything else included."""


def quickstart(
    *,
    env_steps: Annotated[
        int | None,
        whole(help=f"Environment steps of meta-training; usually {ENV_STEPS:,}."),
    ] = None,
    runs: Annotated[int, whole(help="Lifetimes per learner in the table.")] = 200,
    config: Annotated[
        Path | None, Parameter(help="TOML file with a table [train] of further settings.")
    ] = None,
    out: Annotated[
        Path | None, Parameter(help="Where the run folder is made; default: the runs folder.")
    ] = None,
    common: Common | None = None,
) -> None:
    """Learn across random frozen lakes, then solve FrozenLake-v1 in a few episodes (about 2 minutes).

    Trains Q-learning agents on many maps, meta-trains on the same maps, adapts to Gymnasium's own
    map (which no map of the family equals) and compares with learners that start from nothing.
    Ends with a table and a report.html.

    Example: metaql quickstart --seed 0
    """
    common = common or Common()
    output, started = common.output(), time.monotonic()
    _check_counts(runs)
    settings = {"env_steps": ENV_STEPS, **sections(config, ("train",))["train"]}
    settings |= {"env_steps": env_steps} if env_steps is not None else {}
    plan = Plan(family=FAMILY, options={}, train=settings, seed=common.seed)
    output.say(f"metaql quickstart: random frozen lakes, then {ENVIRONMENT}; seed {plan.seed}")
    with Progress(output.words) as progress:
        progress(STARTING, 0.0)
        run = create(plan, out if out is not None else common.runs_dir)
        agent = cast("Agent", fit(plan, run, progress))
        try:
            life = adaptation(agent, plan.seed, progress)
            found = comparison(agent, plan, runs, progress)
        except KeyboardInterrupt:
            go_on = f"The agent is trained. Compare it: metaql evaluate {run}"
            raise Interrupted(go_on) from None
        progress("Report", 0.0)
        report, failure = write_report(_report(plan, found, life), run / "report.html")
        progress("Report", 1.0)
    seconds = time.monotonic() - started
    _print(output, found, life)
    output.say(f"\nDone in {duration(seconds)}. Run: {run}")
    if report is not None:
        output.say(f"Report: {report}")
    output.say(f"Next:  metaql adapt {ENVIRONMENT} --agent {run}")
    output.say(f"       metaql evaluate {run}")
    output.say("       metaql quickstart --env-steps 5000000   (trains longer)")
    document = {"run": run, "report": report, "seed": plan.seed, "seconds": round(seconds, 1)}
    output.document({**document, **as_document(found, life)})
    if failure is not None:
        raise failure


def _check_counts(runs: int) -> None:
    if runs < 2:
        raise UsageError("`--runs` must be at least 2: intervals need them.", f"Got {runs}.")


def adaptation(agent: Agent, seed: int, progress: Progress) -> Adaptation:
    """One lifetime on Gymnasium's own environment, step by step in its own code."""
    import numpy as np

    from metaql.evaluation.report import Adaptation, lake_grid
    from metaql.tasks.host import open_environment

    stage = f"{ENVIRONMENT} itself"
    progress(stage, 0.0)
    host = open_environment(ENVIRONMENT)
    total = 0.0

    def show(index: int, episode_return: float, length: int) -> None:
        nonlocal total
        total += episode_return
        progress(stage, (index + 1) / EPISODES, {"successes": number(total)})

    adapted = agent.adapt(host.env, episodes=EPISODES, seed=seed, on_episode=show)
    letters: Any = getattr(host.env.unwrapped, "desc")  # noqa: B009  (not in Env's type)
    cells = np.asarray(letters).astype(str)
    host.close()
    ends = ((cells == "H") | (cells == "G")).ravel().tolist()
    return Adaptation(
        env=ENVIRONMENT,
        returns=np.asarray(adapted.returns),
        lengths=np.asarray(adapted.lengths),
        q=np.asarray(adapted.q_table()),
        grid=lake_grid(ends, cells.shape[1]),
    )


def comparison(agent: Agent, plan: Plan, runs: int, progress: Progress) -> Findings:
    """The agent and the learners that start from nothing, on the same map."""
    from metaql.evaluation.compare import compare
    from metaql.evaluation.summary import summarise
    from metaql.tasks.families import FrozenLake

    family = plan.make_family()
    if not isinstance(family, FrozenLake):
        raise UsageError("The quickstart is about frozen lakes.", f"Got {plan.family!r}.")
    found = compare(
        agent,
        family,
        family.default(),
        runs=runs,
        episodes=EPISODES,
        seed=plan.seed,
        on_progress=progress,
    )
    return summarise(found.rows, found.levels, score="success")


def write_report(report: Report, path: Path) -> tuple[Path | None, MetaQLError | None]:
    """Where the page is; None and the error where it could not be written: all else is told first."""
    try:
        return report.write(path), None
    except OSError as error:
        reason = f"{path}: {error.strerror or error}."
        return None, MetaQLError("The report must be a file that can be written.", reason)


def _report(plan: Plan, found: Findings, life: Adaptation) -> Report:
    from metaql.evaluation.report import Report

    return Report(
        title=f"{ENVIRONMENT}, learned in a few episodes",
        summary=(
            f"An agent meta-trained for {plan.train['env_steps']:,} steps on random maps meets a "
            "map that was held out, beside learners that start from nothing. Each lifetime is "
            f"{EPISODES} episodes; nothing is forgotten between them."
        ),
        findings=found,
        adaptation=life,
        command=command_line(),
        config={"family": {"name": plan.family, **plan.options}, "train": plan.train}
        | {"seed": plan.seed, "runs": found.runs},
        versions=versions(),
    )


def _print(output: Output, found: Findings, life: Adaptation) -> None:
    """The returns of the one lifetime, then the table."""
    output.line(f"\n{life.env}, one lifetime, return of each of {len(life.returns)} episodes:")
    output.line("  " + " ".join(number(float(value)) for value in life.returns) + "\n")
    print_findings(output, found)


def print_findings(output: Output, found: Findings) -> None:
    """The table of a comparison."""
    head, *rows = found.table()
    output.table(head, rows, title=found.title)
    for warning in found.warnings:
        output.say(f"Warning: {warning}")


def as_document(found: Findings, life: Adaptation | None) -> dict[str, Any]:
    """What a comparison and an adaptation are in JSON."""
    document: dict[str, Any] = found.as_dict()
    if life is not None:
        document["adaptation"] = {
            "env": life.env,
            "returns": life.returns,
            "lengths": life.lengths,
            "q": life.q,
        }
    return document
