"""``metaql evaluate``: a trained agent beside the baselines, with intervals."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from cyclopts import Parameter

from metaql.cli.options import Common, whole
from metaql.cli.progress import Progress
from metaql.cli.quickstart import as_document, print_findings, write_report
from metaql.cli.training import (
    STARTING,
    Plan,
    command_line,
    newest_or,
    read,
    tell_if_unfinished,
    versions,
)
from metaql.errors import UsageError

if TYPE_CHECKING:
    from metaql.evaluation.report import Report
    from metaql.evaluation.summary import Findings
    from metaql.meta.agent import AnyAgent
    from metaql.tasks.families.base import TaskFamily
    from metaql.types import Task


_Across: TypeAlias = Annotated[
    bool | None,
    Parameter(
        show_default=False,
        help="One lifetime in each of RUNS test tasks, or all of them in one task; default: one "
        "task where --task says which or the family has one of its own, else many.",
    ),
]
_Beside: TypeAlias = Annotated[
    tuple[str, ...],
    Parameter(
        negative=(),
        show_default=False,
        help="Another agent for the same tasks; repeatable. finite: the one that needs no training.",
    ),
]


def evaluate(
    run: Annotated[str, Parameter(help="A run folder, RUNS_DIR/FAMILY/TIME-sSEED, or newest.")],
    /,
    *,
    runs: Annotated[int, whole(help="Lifetimes per learner.")] = 200,
    episodes: Annotated[
        int | None,
        whole(help="Episodes per lifetime; default: 20, a recurrent agent as many as trained on."),
    ] = None,
    task: Annotated[
        int | None,
        whole(help="Number of a test task, for all lifetimes."),
    ] = None,
    across: _Across = None,
    beside: _Beside = (),
    out: Annotated[
        Path | None, Parameter(help="Where to write the report; default: RUN/evaluation.html.")
    ] = None,
    common: Common | None = None,
) -> None:
    """Compare a trained agent with learners that start from nothing, on tasks it never saw.

    Prints return per episode by block of episodes with 95% intervals, and writes a report. In Python:
    metaql.evaluate, also for families of your own.

    Example: metaql evaluate newest --beside finite --runs 500
    """
    common = common or Common()
    output = common.output()
    _check(runs, episodes, task, across=across)
    folder = Path(newest_or(run, common.runs_dir))
    target = out if out is not None else folder / "evaluation.html"
    output.say(f"metaql evaluate: {folder}")
    plan = read(folder)
    _check_target(target)
    with Progress(output.words) as progress:
        progress(STARTING, 0.0)
        from metaql.evaluation.evaluate import usual_episodes
        from metaql.meta.agent import load

        agent, family = load(folder), plan.make_family()
        sources = {name: newest_or(name, common.runs_dir) for name in beside}
        others = {name: load(source) for name, source in sources.items()}
        if across is None:
            across = task is None and own_task(family) is None
        count = episodes or usual_episodes(agent)
        progress(STARTING, 1.0)
        tell_if_unfinished(agent, folder, progress.say)
        for name, source in sources.items():
            tell_if_unfinished(others[name], source, progress.say)
        how = {"runs": runs, "episodes": count, "seed": common.seed, "progress": progress}
        found, words = _found(agent, family, task, across=across, beside=others, **how)
    print_findings(output, found)
    summary = f"Task: {words}. Each lifetime is {count} episodes."
    path, failure = write_report(_report(folder, plan, found, summary), target)
    if path is not None:
        output.say(f"\nReport: {path}")
    output.document({"run": folder, "task": words, "report": path, **as_document(found, None)})
    if failure is not None:
        raise failure


def _report(folder: Path, plan: Plan, found: Findings, words: str) -> Report:
    from metaql.evaluation.report import Report

    return Report(
        title=f"{plan.family}: a trained agent beside learners that start from nothing",
        summary=" ".join([words, *found.warnings]),
        findings=found,
        adaptation=None,
        command=command_line(),
        config={"run": str(folder), "family": plan.family, "options": plan.options},
        versions=versions(),
    )


def _found(
    agent: AnyAgent,
    family: TaskFamily,
    number: int | None,
    *,
    across: bool,
    runs: int,
    progress: Progress,
    **how: Any,
) -> tuple[Findings, str]:
    """What came of the lifetimes, and what to call the tasks."""
    from metaql.evaluation.evaluate import evaluate as found_in

    task, words = None, f"{runs} test tasks of seed {how['seed']}"
    if not across:
        own = own_task(family) if number is None else None
        index = number or 0
        task, words = own or (index, f"test task {index} of seed {how['seed']}")
    found = found_in(agent, family, lifetimes=runs, task=task, on_progress=progress, **how)
    score = "success" if family.name == "frozen_lake" else "mean return"
    return dataclasses.replace(found, score=score), words


def _check(runs: int, episodes: int | None, task: int | None, *, across: bool | None) -> None:
    """Raise `UsageError` for numbers out of range."""
    if across and task is not None:
        raise UsageError("`--task` is one task, `--across` many.", "Got both.", "Leave one out.")
    if runs < 2 or (episodes is not None and episodes < 1) or (task or 0) < 0:
        raise UsageError(
            "`--runs` must be at least 2, `--episodes` at least 1, `--task` at least 0.",
            f"Got {runs}, {episodes} and {task}.",
        )


def _check_target(target: Path) -> None:
    """Raise `UsageError` where no report can be written: before hours of lifetimes, not after them."""
    parent = target.parent
    if target.is_dir() or not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UsageError(
            "The report must be a file in a folder that can be written to.",
            f"Got {target}.",
            "Make the folder, or name another file with --out.",
        )


def own_task(family: TaskFamily) -> tuple[Task, str] | None:
    """The task that a family is reported on, if it has one, and what to call it."""
    from metaql.tasks.families import FrozenLake
    from metaql.tasks.families.frozen_lake import DEFAULT_MAPS

    if isinstance(family, FrozenLake) and family.size in DEFAULT_MAPS:
        return family.default(), f"Gymnasium's own {family.size}x{family.size} map"
    return None
